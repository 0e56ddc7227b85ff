//! A server that is real but for its hardware: own network, file systems, processes, Docker daemon, SSH server.
//!
//! Two processes of ours stand behind it. The *supervisor* (`host.sh`) makes the namespaces and removes them when the
//! pipe from us to it breaks; the *first process inside* (`inside.sh`) mounts the file systems and takes everything in
//! the host with it when it ends. The daemons are started from here, as faults stop and start them, too.

mod daemons;
mod faults;
mod files;
mod lan;
mod name_server;
mod options;

pub use options::{Compose, Engine, HostKeyKind, HostOptions};

use crate::demo::DemoHost;
use crate::process::{is_root, run};
use crate::supervisor::{PATH, Supervisor};
use crate::{Forward, cache, forward};
use anyhow::{Context, Result, ensure};
use files::{DEPLOY, Folder};
use lan::{Lan, Port};
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Docker host over SSH. Dropping it removes everything of it.
#[derive(Debug)]
pub struct SandboxHost {
    name: String,
    /// A process inside the host, as the machine numbers it.
    pid: String,
    id: String,
    folder: PathBuf,
    identity: PathBuf,
    known_hosts: PathBuf,
    dockerd_arguments: Vec<String>,
    // Dropped in this order: the host ends before its place in the network is free.
    _supervisor: Supervisor,
    port: Port,
}

impl SandboxHost {
    /// This machine's address in the network of the hosts.
    pub fn gateway(&self) -> IpAddr {
        self.port.gateway().into()
    }

    /// Starts a host and waits until its SSH server and its Docker daemon answer: some 3 s.
    ///
    /// The name is its host name: letters, digits and `-`, at most 32.
    ///
    /// # Errors
    /// Without root or without the packages of [`crate::packages::ensure_docker_host`]; the error says which.
    pub fn start(name: &str, options: &HostOptions) -> Result<Self> {
        let host = Self::boot(name, options).with_context(|| format!("starting the sandbox host {name}"))?;
        host.start_sshd()?;
        host.start_docker()?;
        if options.reuse.is_some() {
            host.remove_leftovers()?;
        }
        Ok(host)
    }

    fn boot(name: &str, options: &HostOptions) -> Result<Self> {
        check(name)?;
        sweep()?;
        let lan = Lan::current()?;
        let port = lan.port()?;
        let folder = Folder::new(name)?;
        files::fill(folder.path(), name, &port, &lan.authorized_key()?)?;
        let id = folder.path().file_name().context("a folder has a name")?.to_string_lossy().into_owned();
        let (supervisor, pid) = supervise(name, &id, folder.path(), &port, options)?;
        let folder = folder.hand_over();
        Ok(Self {
            name: name.to_owned(),
            pid,
            id,
            identity: lan.identity_file(),
            known_hosts: folder.join("known_hosts"),
            folder,
            dockerd_arguments: options.dockerd_arguments.clone(),
            _supervisor: supervisor,
            port,
        })
    }

    /// The name it was started with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A program inside the host, as root. It is the child of an `nsenter`: to end it early, kill it inside.
    /// Of the machine's files it sees `/usr` and what is not a server's to write to; not `/home`, `/root`, `/opt`, `/tmp`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid, "--mount", "--uts", "--ipc", "--net", "--pid", "--"]).arg(program);
        command.env_clear().envs([("PATH", PATH), ("HOME", "/root"), ("LANG", "C.UTF-8")]);
        command
    }

    /// A shell script inside the host, as `deploy` after a login.
    pub fn command_as_deploy(&self, script: &str) -> Command {
        let id = DEPLOY.to_string();
        let mut command = self.command("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--init-groups", "--reset-env", "bash", "-lc"]);
        command.arg(format!("cd; {script}"));
        command
    }

    /// A path of the host, as this machine reaches it. Links inside it that are absolute lead astray.
    pub fn path(&self, on_host: impl AsRef<Path>) -> PathBuf {
        let on_host = on_host.as_ref();
        Path::new("/proc").join(&self.pid).join("root").join(on_host.strip_prefix("/").unwrap_or(on_host))
    }

    /// Reads a file of the host.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_file(&self, on_host: impl AsRef<Path>) -> Result<Vec<u8>> {
        let on_host = on_host.as_ref();
        std::fs::read(self.path(on_host))
            .with_context(|| format!("reading {} of {}", on_host.display(), self.name))
    }

    /// Writes a file of the host. Missing folders are made; a new file belongs to whom its folder belongs to.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_file(&self, on_host: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> Result<()> {
        let on_host = on_host.as_ref();
        self.try_write(&self.path(on_host), contents.as_ref())
            .with_context(|| format!("writing {} of {}", on_host.display(), self.name))
    }

    fn try_write(&self, path: &Path, contents: &[u8]) -> Result<()> {
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder)?;
        let is_new = !path.exists();
        std::fs::write(path, contents)?;
        if is_new {
            let owner = folder.metadata()?;
            chown(path, Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(())
    }

    /// Makes a port of the host reachable at an address of this machine, as long as the result lives.
    ///
    /// # Errors
    /// When nothing can listen at `local`.
    pub fn forward(&self, local: SocketAddr, remote_port: u16) -> Result<Forward> {
        forward(local, SocketAddr::new(self.address(), remote_port))
    }
}

impl DemoHost for SandboxHost {
    fn machine(&self) -> Option<IpAddr> {
        Some(self.gateway())
    }

    fn address(&self) -> IpAddr {
        self.port.address().into()
    }

    fn port(&self) -> u16 {
        22
    }

    fn user(&self) -> &'static str {
        "deploy"
    }

    fn host_key(&self) -> String {
        files::public_key(&self.path("/")).unwrap_or_default()
    }

    fn identity_file(&self) -> &Path {
        &self.identity
    }

    fn known_hosts_file(&self) -> &Path {
        &self.known_hosts
    }

    fn project_folder(&self) -> PathBuf {
        PathBuf::from("/opt/tasktracker")
    }

    fn docker(&self, arguments: &[&str]) -> Result<String> {
        run(self.command("docker").args(arguments))
    }

    fn docker_command(&self) -> Command {
        let distribution = Path::new("/usr/bin/docker");
        let mut command =
            Command::new(if distribution.exists() { distribution } else { Path::new("docker") });
        command.arg("-H").arg(format!("unix://{}", self.path("/run/docker.sock").display()));
        command.env("DOCKER_CONFIG", self.folder.join("own/root/.docker")).env_remove("DOCKER_CONTEXT");
        command
    }
}

fn check(name: &str) -> Result<()> {
    let fits = !name.is_empty() && name.len() <= 32 && !name.starts_with('-');
    let clean = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    ensure!(fits && clean, "a sandbox host's name has letters, digits and '-', at most 32, found {name:?}");
    ensure!(is_root(), "sandbox hosts need root (namespaces and mounts): run this as root or with sudo");
    let missing = crate::packages::missing_for_docker_host();
    ensure!(missing.is_empty(), "these packages are missing on this machine: {}", missing.join(", "));
    Ok(())
}

/// Removes what hosts of earlier runs left whose supervisor was killed as well.
fn sweep() -> Result<()> {
    let mut command = Command::new("bash");
    command.args(["-c", include_str!("sweep.sh")]).env("SANDBOXES", files::root()?).env("PATH", PATH);
    run(&mut command).map(drop)
}

fn supervise(
    name: &str,
    id: &str,
    folder: &Path,
    port: &Port,
    options: &HostOptions,
) -> Result<(Supervisor, String)> {
    let disk = options.project_disk_mib.map_or_else(String::new, |mib| mib.to_string());
    Supervisor::start(
        include_str!("host.sh"),
        &[
            ("ID", id.as_ref()),
            ("NAME", name.as_ref()),
            ("STATE", folder.as_ref()),
            ("DATA", engine_folder(folder, options)?.as_ref()),
            ("LAN", port.lan().namespace().as_ref()),
            ("INDEX", port.index().to_string().as_ref()),
            ("ADDRESS", port.address().to_string().as_ref()),
            ("MAC", port.hardware_address().as_ref()),
            ("INSIDE", include_str!("inside.sh").as_ref()),
            ("ENGINE", options.engine.prefix()?.as_ref()),
            ("COMPOSE", options.compose.plugin()?.as_ref()),
            ("DISK", disk.as_ref()),
            ("DEPLOY", DEPLOY.to_string().as_ref()),
        ],
    )
}

/// Where the Docker daemon keeps its data: with the host, or in the cache folder for the next run.
fn engine_folder(folder: &Path, options: &HostOptions) -> Result<PathBuf> {
    let Some(key) = &options.reuse else {
        return cache::make(&folder.join("engine"));
    };
    let clean = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    ensure!(clean && !key.is_empty(), "a name for reuse has letters, digits, '-' and '_', found {key:?}");
    // One engine cannot read what another one wrote.
    let version = match options.engine {
        Engine::Distribution => "",
        Engine::Newer | Engine::Prefix(_) => "-newer",
        Engine::Current => "-current",
    };
    cache::make(&crate::cache_folder()?.join("engines").join(format!("{key}{version}")))
}
