//! The Docker daemon that a person's machine already has, behind a private SSH server on loopback. No root, no packages.

use crate::demo::DemoHost;
use crate::hostile;
use crate::process::run;
use crate::supervisor::Supervisor;
use crate::wait::{greets_as_ssh, until};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOCKET: &str = "/var/run/docker.sock";
const LIMIT: Duration = Duration::from_secs(10);

/// This machine as a host: `sshd` runs as the current user, with keys of its own, until this is dropped or we end.
#[derive(Debug)]
pub struct LocalHost {
    user: String,
    address: SocketAddr,
    keys: PathBuf,
    identity: PathBuf,
    known_hosts: PathBuf,
    projects: PathBuf,
    _supervisor: Supervisor,
}

impl LocalHost {
    /// Whether this machine has a Docker daemon that the current user may use.
    pub fn is_possible() -> bool {
        Path::new(SOCKET).exists() && run(docker().arg("info")).is_ok()
    }

    /// Starts an SSH server on a free port of loopback.
    ///
    /// # Errors
    /// Without a Docker daemon or without `sshd`; the error says which.
    pub fn start() -> Result<Self> {
        run(docker().arg("info")).context("asking this machine's Docker daemon")?;
        ensure!(Path::new("/usr/sbin/sshd").exists(), "there is no sshd: install the package openssh-server");
        let home = PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?);
        let keys = tempfile::Builder::new().prefix("tasktracker-keys-").tempdir()?;
        let projects = tempfile::Builder::new().prefix("tasktracker-demo-").tempdir_in(home)?;
        fs::create_dir(projects.path().join("projects"))?;
        let address = hostile::closed_port()?;
        configure(keys.path(), address)?;
        let variables = [("KEYS", keys.path().as_os_str()), ("PROJECTS", projects.path().as_os_str())];
        let (supervisor, _) =
            Supervisor::start(include_str!("local.sh"), &variables).context("starting sshd")?;
        let host = Self {
            user: run(Command::new("id").arg("-un"))?.trim().to_owned(),
            address,
            identity: keys.path().join("id_ed25519"),
            known_hosts: keys.path().join("known_hosts"),
            projects: projects.keep().join("projects"),
            keys: keys.keep(),
            _supervisor: supervisor,
        };
        until("the SSH server", LIMIT, || greets_as_ssh(address)).with_context(|| host.log())?;
        Ok(host)
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.keys.join("log")).unwrap_or_default();
        format!("sshd said: {}", log.trim())
    }
}

impl DemoHost for LocalHost {
    fn address(&self) -> IpAddr {
        self.address.ip()
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn user(&self) -> &str {
        &self.user
    }

    fn host_key(&self) -> String {
        public_key(&self.keys).unwrap_or_default()
    }

    fn identity_file(&self) -> &Path {
        &self.identity
    }

    fn known_hosts_file(&self) -> &Path {
        &self.known_hosts
    }

    fn project_folder(&self) -> PathBuf {
        self.projects.clone()
    }

    fn docker(&self, arguments: &[&str]) -> Result<String> {
        run(docker().args(arguments))
    }

    fn docker_command(&self) -> Command {
        docker()
    }
}

fn docker() -> Command {
    let mut command = Command::new("docker");
    command.args(["-H", &format!("unix://{SOCKET}")]).env_remove("DOCKER_CONTEXT");
    command
}

/// Keys and configuration of a server for the current user alone.
fn configure(keys: &Path, address: SocketAddr) -> Result<()> {
    for name in ["host_key", "id_ed25519"] {
        run(Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
            .arg(keys.join(name)))?;
    }
    fs::copy(keys.join("id_ed25519.pub"), keys.join("authorized_keys"))?;
    let known = format!("[{}]:{} {}\n", address.ip(), address.port(), public_key(keys)?);
    fs::write(keys.join("known_hosts"), known)?;
    let folder = keys.display();
    let config = format!(
        "ListenAddress {address}\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\n\
         PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PrintMotd no\nAllowTcpForwarding yes\nAllowStreamLocalForwarding yes\nSubsystem sftp internal-sftp\n"
    );
    fs::write(keys.join("sshd_config"), config).context("configuring sshd")
}

/// The public host key: type and key, no comment.
fn public_key(keys: &Path) -> Result<String> {
    let line = fs::read_to_string(keys.join("host_key.pub")).context("reading the host key")?;
    Ok(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}
