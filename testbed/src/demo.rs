//! What the demo and most tests need from a host, whichever kind it is.

use anyhow::Result;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Docker host that answers over SSH.
pub trait DemoHost {
    /// Where its SSH server listens.
    fn address(&self) -> IpAddr;
    /// The port of its SSH server.
    fn port(&self) -> u16;
    /// Whom to log in as: may use Docker, is not root on a sandbox host.
    fn user(&self) -> &str;
    /// The public host key, `ssh-ed25519 AAAA…`, without a comment.
    fn host_key(&self) -> String;
    /// The private key to log in with (OpenSSH's format, mode 0600).
    fn identity_file(&self) -> &Path;
    /// A `known_hosts` file with the host key of the start.
    fn known_hosts_file(&self) -> &Path;
    /// A folder on the host that the user owns, for projects.
    fn project_folder(&self) -> PathBuf;
    /// Where the host reaches this machine, where that is another one to it.
    fn machine(&self) -> Option<IpAddr> {
        None
    }
    /// Runs `docker` with the host's daemon and returns what it printed.
    ///
    /// # Errors
    /// When Docker refuses; the error carries its words.
    fn docker(&self, arguments: &[&str]) -> Result<String>;
    /// `docker` on this machine, speaking with the host's daemon: for what has files of this machine as input.
    fn docker_command(&self) -> Command;

    /// `docker load`, unless the host already has every image of the archive.
    ///
    /// # Errors
    /// When the archive cannot be read or Docker refuses it.
    fn load_image(&self, archive: &Path) -> Result<()> {
        crate::images::load(self.docker_command(), archive)
    }

    /// OpenSSH's client, ready to run a script on the host.
    fn ssh(&self, script: &str) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-F", "/dev/null", "-T", "-p", &self.port().to_string()]);
        command.args(client_options(self.identity_file(), self.known_hosts_file()));
        command.arg(format!("{}@{}", self.user(), self.address())).arg(script);
        command
    }

    /// OpenSSH's SFTP client, ready to run a batch file.
    fn sftp(&self, batch: &Path) -> Command {
        let mut command = Command::new("sftp");
        command.args(["-F", "/dev/null", "-q", "-P", &self.port().to_string(), "-b"]).arg(batch);
        command.args(client_options(self.identity_file(), self.known_hosts_file()));
        command.arg(format!("{}@{}", self.user(), self.address()));
        command
    }
}

fn client_options(identity: &Path, known_hosts: &Path) -> Vec<PathBuf> {
    let known = format!("UserKnownHostsFile={}", known_hosts.display());
    let fixed = [
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "BatchMode=yes",
        "-o",
        &known,
        "-i",
    ];
    fixed.into_iter().map(PathBuf::from).chain([identity.to_owned()]).collect()
}
