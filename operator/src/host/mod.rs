//! One Docker host over SSH. The only room that names russh, hyper and Docker's JSON.
//!
//! Does IO, knows no policy. One connection per host, opened when first needed and again after it broke; every
//! channel on it has a task that drains it, and everything has a deadline.

mod archive;
mod cache;
mod defaults;
mod docker;
mod error;
mod facts;
mod files;
mod helper;
mod http;
mod known;
mod link;
mod registry;
mod session;
pub mod shell;
mod ssh;
mod steps;
mod target;
mod tls;
mod traffic;
mod usage;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex as Lock, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex, Semaphore, watch as signal},
    time::{Instant, timeout},
};

pub use self::http::{BasicAuth, HttpAnswer, ServiceAddress, WriteMethod};
use crate::model::{LastProbes, LastPublished};
pub use archive::ArchivedFile;
pub use defaults::DaemonDefaults;
pub use docker::{
    Container, Details, DockerFault, Engine, Health, Image, ImageConfig, NetworkOrVolume, ProjectResource,
    Published, Settings, State,
};
pub use error::Error;
pub use facts::{Disk, Facts, Memory};
pub use files::{FileFact, Listing};
pub use helper::Mounted;
pub use session::{Exit, HostLock, Output};
pub use ssh::{HostKeyFound, Identity, host_keys, is_public_key};
pub use steps::{Extraction, OwnedFile, Placement, Source, Step};
pub use target::{Limits, Target, TargetKey};
pub use tls::PresentedCertificate;
pub use traffic::Traffic;
pub use usage::Usage;

use cache::Name;
use docker::DockerReader;
use helper::Helper;
use known::Known;
use link::{Link, Slow};
use ssh::Connection;

/// Exec channels used at once: sshd allows ten sessions, and a person may need some.
const EXEC_CHANNELS: usize = 4;
/// How long another writer may keep us waiting; the program on the host gives up a little earlier.
const LOCK_LIMIT: Duration = Duration::from_secs(70);

/// One Docker host.
pub struct Host {
    target: Target,
    link: Mutex<Option<Arc<Link>>>,
    exec_permits: Semaphore,
    lock_queue: Mutex<()>,
    hints: signal::Sender<Instant>,
    known: Lock<Known>,
    /// Folder of the project that is written under a lock of this process.
    written: Lock<Option<String>>,
    traffic: Arc<Traffic>,
}

impl Host {
    /// A host that is not connected yet.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            link: Mutex::new(None),
            exec_permits: Semaphore::new(EXEC_CHANNELS),
            lock_queue: Mutex::new(()),
            hints: signal::Sender::new(Instant::now()),
            known: Lock::default(),
            written: Lock::default(),
            traffic: Arc::default(),
        }
    }

    /// Where and how this host is reached.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Bytes to and from this host.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Changes whenever something may have happened on a host that is watched; its value is when.
    pub fn hints(&self) -> signal::Receiver<Instant> {
        self.hints.subscribe()
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
        self.end_link(&mut link);
        let connection = Connection::open(&self.target, self.traffic.clone()).await?;
        let command = facts::command(&self.target.directory, facts::USUAL_ROOT);
        let probe = connection.run(&command, Vec::new(), self.target.limits.program).await?;
        let facts = facts::read(&probe, &self.target, Instant::now())?;
        let docker = DockerReader::new(facts.api, self.target.limits.answer);
        *link = Some(Arc::new(Link::new(connection, docker, facts)));
        Ok(true)
    }

    async fn link(&self) -> Result<Arc<Link>, Error> {
        self.connect().await?;
        self.link.lock().await.clone().ok_or(Error::ConnectionLost)
    }

    /// What was found when the host was last probed: versions, tools, the folder, disks, the clock.
    ///
    /// # Errors
    /// When the host cannot be reached or managed.
    pub async fn facts(&self) -> Result<Facts, Error> {
        Ok(self.link().await?.slow().facts)
    }

    /// What the engine says of itself; asked once for each connection, and again by [`Host::probe`].
    ///
    /// # Errors
    /// When Docker cannot be asked.
    pub async fn engine(&self) -> Result<Engine, Error> {
        let link = self.link().await?;
        if let Some(engine) = link.slow().engine {
            return Ok(engine);
        }
        let engine = self.forget_broken(&link, link.docker.engine(&link.connection).await).await?;
        link.keep_engine(engine.clone());
        Ok(engine)
    }

    /// The slow schedule: asks the engine, and looks at versions, tools, the folder, disks and the clock again.
    ///
    /// # Errors
    /// When the host cannot be reached or managed.
    pub async fn probe(&self) -> Result<Facts, Error> {
        let link = self.link().await?;
        let engine = self.forget_broken(&link, link.docker.engine(&link.connection).await).await?;
        let command = facts::command(&self.target.directory, &engine.root);
        let output = self.run(&command, Vec::new(), self.target.limits.program).await?;
        let facts = facts::read(&output, &self.target, Instant::now())?;
        link.keep_slow(Slow { facts: facts.clone(), engine: Some(engine) });
        Ok(facts)
    }

    /// Every container of the host, running or not.
    ///
    /// # Errors
    /// When Docker cannot be asked.
    pub async fn containers(&self) -> Result<Vec<Container>, Error> {
        let link = self.link().await?;
        self.forget_broken(&link, link.docker.containers(&link.connection).await).await
    }

    /// IDs that are likely to be asked for: with them, containers are inspected while they are listed.
    pub fn inspected(&self, project: &str) -> Vec<String> {
        let now = Instant::now();
        let mut known = self.known();
        if let Some(ids) = known.projects.get(project, now) {
            return ids.clone();
        }
        // Its events are the operator's own from now on.
        known.projects.insert(project.to_owned(), Vec::new(), now);
        Vec::new()
    }

    /// Keeps the IDs of a project's containers for the next time.
    pub fn keep_inspected(&self, project: &str, ids: Vec<String>) {
        self.known().projects.insert(project.to_owned(), ids, Instant::now());
    }

    /// What `inspect` says of some containers, by ID; those that are gone by now are left out.
    ///
    /// # Errors
    /// When Docker cannot be asked.
    pub async fn details(&self, ids: &[String]) -> Result<BTreeMap<String, Details>, Error> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let link = self.link().await?;
        self.forget_broken(&link, link.docker.details(&link.connection, ids).await).await
    }

    /// The last lines that a container wrote, by its ID, as they are: anything may be in them.
    ///
    /// # Errors
    /// When Docker cannot be asked, or cannot read its log.
    pub async fn log(&self, id: &str) -> Result<Vec<String>, Error> {
        let link = self.link().await?;
        self.forget_broken(&link, link.docker.log(&link.connection, id).await).await
    }

    /// An image by reference or ID; nothing when the host does not have it.
    ///
    /// # Errors
    /// When Docker cannot be asked.
    pub async fn image(&self, reference: &str) -> Result<Option<Image>, Error> {
        let link = self.link().await?;
        self.forget_broken(&link, link.docker.image(&link.connection, reference).await).await
    }

    /// Whether an image was pulled, or pushed, by the host's daemon; nothing where it cannot tell.
    ///
    /// # Errors
    /// When Docker cannot be asked.
    pub async fn was_pulled(&self, reference: &str) -> Result<Option<bool>, Error> {
        let link = self.link().await?;
        self.forget_broken(&link, link.docker.was_pulled(&link.connection, reference).await).await
    }

    /// What an image brings along for its containers, by its ID.
    ///
    /// # Errors
    /// When Docker cannot be asked.
    pub async fn image_config(&self, id: &str) -> Result<Option<Arc<ImageConfig>>, Error> {
        let link = self.link().await?;
        self.forget_broken(&link, link.docker.image_config(&link.connection, id).await).await
    }

    /// A network by name: as cached while the host is watched, unless it is to be read `anew`.
    ///
    /// # Errors
    /// When Docker cannot be asked.
    pub async fn network(&self, name: &str, anew: bool) -> Result<Option<NetworkOrVolume>, Error> {
        self.known().networks.insert(name.to_owned(), (), Instant::now());
        self.network_or_volume(Name::Network(name.to_owned()), anew).await
    }

    /// A volume by name: as cached while the host is watched, unless it is to be read `anew`.
    ///
    /// # Errors
    /// When Docker cannot be asked.
    pub async fn volume(&self, name: &str, anew: bool) -> Result<Option<NetworkOrVolume>, Error> {
        self.known().volumes.insert(name.to_owned(), (), Instant::now());
        self.network_or_volume(Name::Volume(name.to_owned()), anew).await
    }

    /// The networks and volumes labelled with a Compose project: as cached while the host is watched, unless they are to
    /// be read `anew`.
    ///
    /// # Errors
    /// When Docker cannot be asked.
    pub async fn project_resources(&self, project: &str, anew: bool) -> Result<Vec<ProjectResource>, Error> {
        let link = self.link().await?;
        let cached = if anew { None } else { link.cache().project_resources(project).cloned() };
        if let Some(cached) = cached {
            return Ok(cached);
        }
        let version = link.cache().version();
        let answer = link.docker.project_resources(&link.connection, project).await;
        let answer = self.forget_broken(&link, answer).await?;
        link.cache().insert_project_resources(project.to_owned(), answer.clone(), version);
        Ok(answer)
    }

    async fn network_or_volume(&self, name: Name, anew: bool) -> Result<Option<NetworkOrVolume>, Error> {
        let link = self.link().await?;
        let cached = if anew { None } else { link.cache().get(&name).cloned() };
        if let Some(cached) = cached {
            return Ok(cached);
        }
        let version = link.cache().version();
        let answer = match &name {
            Name::Network(name) => link.docker.network(&link.connection, name).await,
            Name::Volume(name) => link.docker.volume(&link.connection, name).await,
        };
        let answer = self.forget_broken(&link, answer).await?;
        link.cache().insert(name, answer.clone(), version);
        Ok(answer)
    }

    /// The certificate that a TCP port of the host shows for a name.
    ///
    /// # Errors
    /// When the host cannot be reached.
    pub async fn presented_certificate(&self, port: u16, name: &str) -> Result<PresentedCertificate, Error> {
        let link = self.link().await?;
        let asked = tls::presented_certificate(&link.connection, port, name).await;
        let shown = self.forget_broken(&link, asked).await?;
        self.known().certificates.insert((port, name.to_owned()), shown.clone(), Instant::now());
        Ok(shown)
    }

    /// What it showed when it was last asked.
    pub fn presented_certificate_before(&self, port: u16, name: &str) -> Option<PresentedCertificate> {
        self.known().certificates.get(&(port, name.to_owned()), Instant::now()).cloned()
    }

    /// The last probe results of a Compose project.
    pub fn last_probes(&self, project: &str) -> LastProbes {
        self.known().probes.get(project, Instant::now()).cloned().unwrap_or_default()
    }

    /// Keeps the probe results of a Compose project.
    pub fn keep_probes(&self, project: &str, probes: LastProbes) {
        self.known().probes.insert(project.to_owned(), probes, Instant::now());
    }

    /// What users of a Compose project did not get when it was last asked.
    pub fn last_published(&self, project: &str) -> Option<LastPublished> {
        self.known().published.get(project, Instant::now()).cloned()
    }

    /// Keeps what users of a Compose project do not get.
    pub fn keep_published(&self, project: &str, published: LastPublished) {
        self.known().published.insert(project.to_owned(), published, Instant::now());
    }

    /// Forgets what users of a Compose project did not get: something was done about it.
    pub fn forget_published(&self, project: &str) {
        self.known().published.remove(project);
    }

    /// The files in the folder of a stack, beside those of other stacks that were asked for. Where no file changed by
    /// what `stat` tells, the contents read before are trusted, unless everything is to be read `anew`.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn files(&self, stack: &str, anew: bool) -> Result<Arc<Listing>, Error> {
        self.help(
            stack,
            async |helper: &mut Helper| if anew { helper.list().await } else { helper.files().await },
        )
        .await
    }

    /// Whether a writer is at work on the host.
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub async fn locked(&self, stack: &str) -> Result<bool, Error> {
        self.help(stack, async |helper: &mut Helper| helper.locked().await).await
    }

    /// Addresses and TCP ports of the host on which something listens.
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub async fn ports(&self, stack: &str) -> Result<BTreeSet<SocketAddr>, Error> {
        self.help(stack, async |helper: &mut Helper| helper.ports().await).await
    }

    /// What the user's own session and each of some processes see mounted; nothing of those that are gone or may not be
    /// looked at. Asked again for other processes, or in another state of files.
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub async fn mounts(
        &self,
        stack: &str,
        processes: &[u32],
        state: u64,
    ) -> Result<(Vec<Mounted>, Vec<Vec<Mounted>>), Error> {
        if processes.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        self.help(stack, async |helper: &mut Helper| helper.mounts(processes, state).await).await
    }

    /// What the container with a first process uses; nothing where it is gone, or nobody may look at it.
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub async fn usage(&self, stack: &str, process: u32) -> Result<Option<Usage>, Error> {
        self.help(stack, async |helper: &mut Helper| helper.usage(process).await).await
    }

    /// How often the kernel ended a process of a service's replica in a Compose project for its memory, as far as Docker
    /// told since this host is watched.
    pub fn oom_kills(&self, project: &str, service: &str, replica: &str) -> u64 {
        let replica = (project.to_owned(), service.to_owned(), replica.to_owned());
        self.known().oom_kills.get(&replica).copied().unwrap_or_default()
    }

    /// As [`Self::oom_kills`], since it served, or something was done about it.
    pub fn oom_kills_since_serving(&self, project: &str, service: &str, replica: &str) -> u64 {
        let replica = (project.to_owned(), service.to_owned(), replica.to_owned());
        let known = self.known();
        let of = |counts: &BTreeMap<_, u64>| counts.get(&replica).copied().unwrap_or_default();
        of(&known.oom_kills).saturating_sub(of(&known.oom_kills_before))
    }

    /// A service's replica serves, or something was done about its memory: what comes is counted anew.
    pub fn reset_oom_kills(&self, project: &str, service: &str, replica: &str) {
        let replica = (project.to_owned(), service.to_owned(), replica.to_owned());
        let mut known = self.known();
        if let Some(kills) = known.oom_kills.get(&replica).copied() {
            known.oom_kills_before.insert(replica, kills);
        }
    }

    /// Asks the helper, which is started where it does not run yet, or not for this stack.
    async fn help<T>(
        &self,
        stack: &str,
        question: impl AsyncFnOnce(&mut Helper) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let link = self.link().await?;
        self.known().stacks.insert(stack.to_owned(), (), Instant::now());
        let mut kept = link.helper.lock().await;
        let mut helper = if let Some(helper) = kept.take().filter(|helper| helper.knows(stack)) {
            helper
        } else {
            let limit = self.target.limits.program;
            let stacks = self.known().stacks.keys().cloned().collect();
            let started = Helper::start(&link.connection, &self.target.directory, stacks, limit).await;
            self.forget_broken(&link, started).await?
        };
        let answer = question(&mut helper).await;
        if answer.is_ok() {
            *kept = Some(helper);
        }
        drop(kept);
        self.forget_broken(&link, answer).await
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The beginning of some files, at most 256 KiB each, by their paths from the operator's folder.
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub async fn content(&self, paths: &[String]) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let command = files::content_command(&self.target.directory, paths);
        let output = self.run(&command, Vec::new(), self.target.limits.program).await?;
        Ok(files::contents(&output.success("reading files")?.stdout, paths))
    }

    /// Waits for the host's lock and holds it until the result is released or the connection ends. `writer` is who asks:
    /// letters, digits and `-`, another for each operator.
    ///
    /// # Errors
    /// When another writer holds it for too long, or the folder cannot be made.
    pub async fn lock(&self, writer: &str) -> Result<HostLock, Error> {
        // Each wait is a session of the connection, and sshd opens ten: one of this process waits on the host.
        let _turn = timeout(LOCK_LIMIT, self.lock_queue.lock()).await.map_err(|_| Error::Locked)?;
        let link = self.link().await?;
        let command = shell::lock_command(&self.target.directory, writer);
        let result = link.connection.hold(&command, writer, LOCK_LIMIT).await;
        self.forget_broken(&link, result).await
    }

    /// Marks a project as the one that is written under the lock that this process holds, until the result is dropped.
    pub fn write_project(&self, folder: &str) -> WrittenProject<'_> {
        *self.written() = Some(folder.to_owned());
        WrittenProject(self)
    }

    /// Folder of the project that this process writes.
    pub fn written_project(&self) -> Option<String> {
        self.written().clone()
    }

    fn written(&self) -> MutexGuard<'_, Option<String>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out steps in the folder of a project, or of the host where `project` is empty. They go on when the
    /// connection ends, and are refused where another writer had the lock since.
    ///
    /// # Errors
    /// When the lock is lost, or a step fails: then those after it are left undone.
    pub async fn carry_out(&self, lock: &HostLock, project: &str, steps: &[Step]) -> Result<(), Error> {
        lock.check()?;
        let command = steps::command(&self.target.directory, project, &lock.line);
        let output = self.run(&command, steps::input(steps), steps::limit(steps)).await?;
        match output.exit {
            Exit::Exited(0) => Ok(()),
            Exit::Lost => Err(Error::ConnectionLost),
            _ => Err(steps::failure(&output)),
        }
    }

    /// Runs a command line, made by [`shell`], in an exec channel of its own.
    ///
    /// # Errors
    /// When the connection or the deadline ends first; the exit status is the caller's to judge.
    pub async fn run(&self, command: &str, input: Vec<u8>, limit: Duration) -> Result<Output, Error> {
        let link = self.link().await?;
        let _permit = self.exec_permits.acquire().await.map_err(|_| Error::ConnectionLost)?;
        let result = link.connection.run(command, input, limit).await;
        self.forget_broken(&link, result).await
    }

    /// After a failure that its connection caused, the next call connects anew. Another connection that was opened
    /// since stays.
    async fn forget_broken<T>(&self, link: &Arc<Link>, result: Result<T, Error>) -> Result<T, Error> {
        if link.is_broken_by(&result, self.traffic.silence()) {
            let mut current = self.link.lock().await;
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
                self.end_link(&mut current);
            }
        }
        result
    }

    /// Nobody watches over a connection that is given up: whoever waits at [`Host::hints`] is woken, and watches anew.
    fn end_link(&self, link: &mut Option<Arc<Link>>) {
        if link.take().is_some() {
            self.wake();
        }
    }
}

/// A project that is written: see [`Host::write_project`].
#[must_use]
pub struct WrittenProject<'a>(&'a Host);

impl Drop for WrittenProject<'_> {
    fn drop(&mut self) {
        *self.0.written() = None;
    }
}

/// Entry points of the fuzz targets in `operator/fuzz`.
#[doc(hidden)]
pub mod fuzz {
    pub use super::archive::fuzz as archive;
    pub use super::docker::fuzz_events as events;
    pub use super::docker::fuzz_replies as replies;
    pub use super::helper::fuzz as helper;
}
