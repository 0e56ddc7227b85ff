//! A real registry that asks for a password, for as long as it is wanted.

use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{DemoHost, http, process, wait};

/// How long it may take to start.
const START: Duration = Duration::from_secs(30);
/// Who may use it.
const USER: &str = "canary-user";
/// Passwords, and as bcrypt has them: one is accepted at a time, as with tokens that expire.
const PASSWORDS: [(&str, &str); 2] = [
    ("canary-of-the-registry-1", "$2b$04$OXCn66FClWpsctbJPlD/8u7tnI82IkBML.1p37JoIsZ9wreVzS9lC"),
    ("canary-of-the-registry-2", "$2b$04$Ib8N8Uw9m2QA.hf9yUtJg.dJSgobWV6A5S4ddLQfq1qS0zMS0FWXu"),
];

/// A server of its own, with nothing in it; it ends, and what is in it goes, with this.
#[derive(Debug)]
pub struct RegistryServer {
    folder: TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

impl RegistryServer {
    /// Starts a registry at an address of this machine, such as [`crate::SandboxHost::gateway`]. It accepts the first
    /// password, and speaks no TLS: Docker daemons must be started with `--insecure-registry`.
    ///
    /// # Errors
    /// When Debian's `docker-registry` is not installed, or it does not start.
    pub fn start_at(address: IpAddr) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = TcpListener::bind((address, 0))?.local_addr()?;
        let mut server = Self { folder, address, child: None };
        server.accept(1)?;
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {data}}}}}\n\
             http: {{addr: \"{address}\"}}\nauth: {{htpasswd: {{realm: test, path: {accepted}}}}}\n",
            data = server.path("data").display(),
            accepted = server.path("accepted").display(),
        );
        fs::write(server.path("config.yaml"), config)?;
        server.go_on()?;
        Ok(server)
    }

    /// Where it is, as image references begin.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who may use it.
    pub fn user() -> &'static str {
        USER
    }

    /// One of the passwords, by its number from 1.
    pub fn password(number: usize) -> &'static str {
        PASSWORDS[(number - 1) % PASSWORDS.len()].0
    }

    /// From now on one password is accepted, and no other.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn accept(&self, number: usize) -> Result<()> {
        let hash = PASSWORDS[(number - 1) % PASSWORDS.len()].1;
        let path = self.path("accepted");
        fs::write(&path, format!("{USER}:{hash}\n"))?;
        // It is read anew where its time stamp is a later one.
        let ahead = path.metadata()?.modified()? + Duration::from_secs(2 * number as u64);
        Ok(File::options().append(true).open(path)?.set_modified(ahead)?)
    }

    /// Starts it again after [`Self::stop`], with what was in it, on the same port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn go_on(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.path("log"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "docker-registry", "serve"]).arg(self.path("config.yaml"));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.child = Some(child.context("starting docker-registry")?);
        let answers = || http(self.address, "GET /v2/").is_some_and(|(status, _)| status == 401);
        wait::until("docker-registry", START, answers)
            .with_context(|| fs::read_to_string(self.path("log")).unwrap_or_default())
    }

    /// Ends it, and keeps what is in it.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Sends it a signal: SIGSTOP makes it so slow that it does not answer, SIGCONT ends that.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, name: &str) -> Result<()> {
        process::signal(self.child.as_ref().context("the registry does not run")?, name)
    }

    /// How often it refused a password so far.
    #[must_use]
    pub fn refusals(&self) -> usize {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("error authenticating user")).count()
    }

    /// Pushes an image of a host under another name, `PATH:TAG`, which is not left there; its digest.
    ///
    /// # Errors
    /// When Docker refuses.
    pub fn push(&self, host: &dyn DemoHost, image: &str, name: &str) -> Result<String> {
        let reference = format!("{}/{name}", self.address);
        let config = tempfile::tempdir()?;
        let docker = |arguments: &[&str]| {
            process::run(host.docker_command().env("DOCKER_CONFIG", config.path()).args(arguments))
        };
        let password = PASSWORDS[0].0;
        docker(&["login", "-u", USER, "-p", password, &self.address.to_string()])?;
        docker(&["tag", image, &reference])?;
        let pushed = docker(&["push", &reference])?;
        docker(&["rmi", &reference])?;
        let digest = pushed.split_whitespace().find(|word| word.starts_with("sha256:") && word.len() == 71);
        digest.map(str::to_owned).context("docker push tells a digest")
    }

    /// Changes what is stored under a digest, so that it is not what it says any more.
    ///
    /// # Errors
    /// When it is not there.
    pub fn damage(&self, digest: &str) -> Result<()> {
        let digits = digest.trim_start_matches("sha256:");
        let blob = format!("data/docker/registry/v2/blobs/sha256/{}/{digits}/data", &digits[..2]);
        let path = self.path(&blob);
        let text = fs::read_to_string(&path)?;
        Ok(fs::write(&path, text.replacen("\"schemaVersion\": 2", "\"schemaVersion\":  2", 1))?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        let _: Result<()> = self.stop();
    }
}
