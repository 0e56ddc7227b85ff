//! The files that make a namespace a server: accounts, the SSH server's configuration and keys, folders.

use super::HostKeyKind;
use super::lan::Port;
use crate::cache;
use crate::process::run;
use anyhow::{Context, Result};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// User and group id of `deploy`.
pub(super) const DEPLOY: u32 = 1500;
pub(super) const HOST_KEY: &str = "etc/ssh/ssh_host_key";

const SSHD_CONFIG: &str = "\
# Debian's defaults, without PAM and passwords
HostKey /etc/ssh/ssh_host_key
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PrintMotd no
AcceptEnv LANG LC_*
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
MaxSessions 10
Subsystem sftp internal-sftp
PidFile /run/sshd.pid
";

/// Folders of the host's own, with their modes; `deploy` owns those that the last column says.
const FOLDERS: [(&str, u32, bool); 17] = [
    ("own/home", 0o755, false),
    ("own/home/deploy", 0o755, true),
    ("own/home/deploy/.ssh", 0o700, true),
    ("own/opt", 0o755, false),
    ("own/opt/tasktracker", 0o755, true),
    ("own/root", 0o700, false),
    ("own/srv", 0o755, false),
    ("own/tmp", 0o1777, false),
    ("own/usr/local", 0o755, false),
    ("own/usr/local/bin", 0o755, false),
    ("own/usr/local/sbin", 0o755, false),
    ("own/var/log", 0o755, false),
    ("upper/etc", 0o755, false),
    ("upper/etc/docker", 0o755, false),
    ("upper/etc/ssh", 0o755, false),
    ("upper/var/lib", 0o755, false),
    ("upper/var/lib/docker", 0o711, false),
];

/// A folder under `sandbox/` of the cache folder. Until a supervisor has taken it over, it is ours to remove.
#[derive(Debug)]
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new(name: &str) -> Result<Self> {
        let parent = root()?;
        let folder = tempfile::Builder::new().prefix(&format!("{name}-")).rand_bytes(6).tempdir_in(&parent);
        folder.map(Self).with_context(|| format!("making a folder in {}", parent.display()))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// From now on the supervisor removes it.
    pub(super) fn hand_over(self) -> PathBuf {
        self.0.keep()
    }
}

/// Where the folders of all hosts and networks are.
pub(super) fn root() -> Result<PathBuf> {
    cache::make(&crate::cache_folder()?.join("sandbox"))
}

/// Fills a host's folder.
pub(super) fn fill(folder: &Path, name: &str, port: &Port, authorized_key: &str) -> Result<()> {
    let address = port.address();
    for (path, mode, deploys) in FOLDERS {
        make_folder(&folder.join(path), mode, deploys)?;
    }
    accounts(&folder.join("upper/etc"))?;
    let etc = |file: &str, text: &str| write(&folder.join("upper/etc").join(file), 0o644, text);
    etc("hostname", &format!("{name}\n"))?;
    etc("hosts", &format!("127.0.0.1 localhost\n{address} {name}\n"))?;
    etc("resolv.conf", &format!("nameserver {}\n", port.gateway()))?;
    etc("docker/daemon.json", "{}\n")?;
    etc("ssh/sshd_config", SSHD_CONFIG)?;
    host_key(&folder.join("upper").join(HOST_KEY), HostKeyKind::Ed25519)?;
    let authorized_keys = folder.join("own/home/deploy/.ssh/authorized_keys");
    write(&authorized_keys, 0o600, authorized_key)?;
    chown(&authorized_keys, Some(DEPLOY), Some(DEPLOY))?;
    write(&folder.join("known_hosts"), 0o644, &format!("{address} {}\n", public_key(&folder.join("upper"))?))
}

/// Makes a new host key in place of the one that is there.
pub(super) fn host_key(file: &Path, kind: HostKeyKind) -> Result<()> {
    for old in [file.to_owned(), file.with_extension("pub")] {
        let _ = fs::remove_file(old);
    }
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", kind.name(), "-N", "", "-C", "", "-f"]).arg(file);
    run(&mut command).map(drop)
}

/// The public host key under a root folder: type and key, no comment.
pub(super) fn public_key(root: &Path) -> Result<String> {
    let line = read(&root.join(HOST_KEY).with_extension("pub"))?;
    Ok(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

pub(super) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn make_folder(path: &Path, mode: u32, deploys: bool) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    if deploys {
        chown(path, Some(DEPLOY), Some(DEPLOY))
            .with_context(|| format!("giving {} to deploy", path.display()))?;
    }
    Ok(())
}

fn write(path: &Path, mode: u32, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(fs::set_permissions(path, Permissions::from_mode(mode))?)
}

/// The machine's accounts and `deploy`, who may use Docker.
fn accounts(etc: &Path) -> Result<()> {
    let machine = |file: &str| read(&Path::new("/etc").join(file));
    let passwd = without_deploy(&machine("passwd")?)
        + &format!("deploy:x:{DEPLOY}:{DEPLOY}::/home/deploy:/bin/bash\n");
    write(&etc.join("passwd"), 0o644, &passwd)?;
    // A star is no password; an exclamation mark would lock the account for keys, too.
    write(
        &etc.join("shadow"),
        0o640,
        &(without_deploy(&machine("shadow")?) + "deploy:*:19000:0:99999:7:::\n"),
    )?;
    write(&etc.join("group"), 0o644, &groups(&machine("group")?))
}

/// Drops accounts of the same name or number.
fn without_deploy(accounts: &str) -> String {
    let number = DEPLOY.to_string();
    let ours = |line: &str| line.starts_with("deploy:") || line.split(':').nth(2) == Some(&number);
    accounts.lines().filter(|line| !ours(line)).fold(String::new(), |text, line| text + line + "\n")
}

fn groups(machine: &str) -> String {
    let kept = without_deploy(machine);
    let docker =
        kept.lines().find(|line| line.starts_with("docker:")).and_then(|line| line.split(':').nth(2));
    let docker = docker.unwrap_or("1501");
    let others = kept.lines().filter(|line| !line.starts_with("docker:"));
    others.fold(String::new(), |text, line| text + line + "\n")
        + &format!("docker:x:{docker}:deploy\ndeploy:x:{DEPLOY}:\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deploy_is_the_only_member_of_docker_and_keeps_its_number() {
        let machine = "root:x:0:\ndocker:x:105:someone\nother:x:1500:\n";
        assert_eq!(groups(machine), "root:x:0:\ndocker:x:105:deploy\ndeploy:x:1500:\n");
        assert_eq!(groups("root:x:0:\n"), "root:x:0:\ndocker:x:1501:deploy\ndeploy:x:1500:\n");
    }
}
