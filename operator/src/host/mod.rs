//! One Docker host over SSH. The only room that names russh, hyper and Docker's JSON.
//!
//! Does IO, knows no policy. One connection per host, opened when first needed and again after it broke; every
//! channel on it has a task that drains it, and everything has a deadline.

mod docker;
mod error;
mod facts;
mod files;
pub mod shell;
mod ssh;
mod target;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, Semaphore};

pub use docker::{Container, Health, Image, State};
pub use error::Error;
pub use facts::Facts;
pub use files::{FileFact, Listing, Placement, Source};
pub use ssh::{Exit, HostKeyFound, HostLock, Identity, Output, host_keys, is_public_key};
pub use target::Target;

use docker::DockerReader;
use ssh::Connection;

/// Exec channels used at once: sshd allows ten sessions, and a person may need some.
const EXEC_CHANNELS: usize = 4;
/// Limit for programs that only look.
const READ_LIMIT: Duration = Duration::from_secs(20);
/// How long another writer may keep us waiting; the program on the host gives up a little earlier.
const LOCK_LIMIT: Duration = Duration::from_secs(70);

/// One Docker host.
pub struct Host {
    target: Target,
    link: Mutex<Option<Arc<Link>>>,
    exec_permits: Semaphore,
}

/// What lives as long as one SSH connection.
struct Link {
    connection: Connection,
    docker: DockerReader,
    facts: Facts,
}

impl Host {
    /// A host that is not connected yet.
    pub fn new(target: Target) -> Self {
        Self { target, link: Mutex::new(None), exec_permits: Semaphore::new(EXEC_CHANNELS) }
    }

    /// Where and how this host is reached.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Connects where needed, and tells whether a connection had to be opened.
    ///
    /// # Errors
    /// Whatever keeps the host from being managed, each with its remedy.
    pub async fn connect(&self) -> Result<bool, Error> {
        let mut link = self.link.lock().await;
        if link.as_ref().is_some_and(|link| !link.connection.is_closed()) {
            return Ok(false);
        }
        *link = None;
        let connection = Connection::open(&self.target).await?;
        let probe = connection.run(&facts::command(&self.target.directory), Vec::new(), READ_LIMIT).await?;
        let facts = facts::read(&probe, &self.target)?;
        let docker = DockerReader::new(&facts);
        *link = Some(Arc::new(Link { connection, docker, facts }));
        Ok(true)
    }

    async fn link(&self) -> Result<Arc<Link>, Error> {
        self.connect().await?;
        self.link.lock().await.clone().ok_or(Error::ConnectionLost)
    }

    /// What was found at first contact: versions, tools, the folder.
    ///
    /// # Errors
    /// When the host cannot be reached or managed.
    pub async fn facts(&self) -> Result<Facts, Error> {
        Ok(self.link().await?.facts.clone())
    }

    /// Looks at versions, tools and the folder again.
    ///
    /// # Errors
    /// When the host cannot be reached or managed.
    pub async fn probe(&self) -> Result<Facts, Error> {
        let output = self.run(&facts::command(&self.target.directory), Vec::new(), READ_LIMIT).await?;
        facts::read(&output, &self.target)
    }

    /// The containers of one Compose project, running or not.
    ///
    /// # Errors
    /// When Docker cannot be asked.
    pub async fn containers(&self, project: &str) -> Result<Vec<Container>, Error> {
        let link = self.link().await?;
        let result = link.docker.containers(&link.connection, project).await;
        self.forget_broken(result).await
    }

    /// An image by reference or ID; nothing when the host does not have it.
    ///
    /// # Errors
    /// When Docker cannot be asked.
    pub async fn image(&self, reference: &str) -> Result<Option<Image>, Error> {
        let link = self.link().await?;
        let result = link.docker.image(&link.connection, reference).await;
        self.forget_broken(result).await
    }

    /// Whether a network of that name exists.
    ///
    /// # Errors
    /// When Docker cannot be asked.
    pub async fn has_network(&self, name: &str) -> Result<bool, Error> {
        let link = self.link().await?;
        let result = link.docker.exists(&link.connection, &format!("/networks/{name}")).await;
        self.forget_broken(result).await
    }

    /// Whether a volume of that name exists.
    ///
    /// # Errors
    /// When Docker cannot be asked.
    pub async fn has_volume(&self, name: &str) -> Result<bool, Error> {
        let link = self.link().await?;
        let result = link.docker.exists(&link.connection, &format!("/volumes/{name}")).await;
        self.forget_broken(result).await
    }

    /// Ledger, manifests and files of one project folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn list(&self, project_directory: &str) -> Result<Listing, Error> {
        let output = self
            .run(&files::read_command(project_directory, &self.target.directory), Vec::new(), READ_LIMIT)
            .await?;
        files::listing(&output.success("listing the project's folder")?.stdout)
    }

    /// Waits for the host's lock and holds it until the result is released or the connection ends.
    ///
    /// # Errors
    /// When another writer holds it for too long, or the folder cannot be made.
    pub async fn lock(&self) -> Result<HostLock, Error> {
        let link = self.link().await?;
        let result = link.connection.hold(&shell::lock_command(&self.target.directory), LOCK_LIMIT).await;
        self.forget_broken(result).await
    }

    /// Puts files into the folder of a project: all are staged and verified before the first is renamed, and
    /// they are renamed in the order given.
    ///
    /// # Errors
    /// When the lock is lost, or nothing or not everything could be written.
    pub async fn place(&self, lock: &HostLock, project: &str, placements: &[Placement]) -> Result<(), Error> {
        lock.check()?;
        let command = files::write_command(&self.target.directory, project);
        let output = self.run(&command, files::write_input(placements), Duration::from_mins(1)).await?;
        output.success("writing files").map(drop)
    }

    /// Runs `docker` with the given arguments on the host, with nothing of the user's environment but `PATH`,
    /// `HOME` and the Docker configuration.
    ///
    /// # Errors
    /// When the lock is lost, the time is up, or Docker says no.
    pub async fn docker(
        &self,
        lock: &HostLock,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<Output, Error> {
        lock.check()?;
        let command = shell::docker_command(&self.target.directory, arguments, limit);
        let output = self.run(&command, Vec::new(), limit + Duration::from_secs(20)).await?;
        output.success(&format!("docker {}", arguments.join(" ")))
    }

    /// Runs a command line, made by [`shell`], in an exec channel of its own.
    ///
    /// # Errors
    /// When the connection or the deadline ends first; the exit status is the caller's to judge.
    pub async fn run(&self, command: &str, input: Vec<u8>, limit: Duration) -> Result<Output, Error> {
        let link = self.link().await?;
        let _permit = self.exec_permits.acquire().await.map_err(|_| Error::ConnectionLost)?;
        let result = link.connection.run(command, input, limit).await;
        self.forget_broken(result).await
    }

    /// After a failure that the connection caused, the next call connects anew.
    async fn forget_broken<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if result.as_ref().is_err_and(Error::is_of_connection) {
            *self.link.lock().await = None;
        }
        result
    }
}
