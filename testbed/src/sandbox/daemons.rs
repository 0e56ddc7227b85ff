//! Starting the host's two daemons and waiting for them.

use super::SandboxHost;
use crate::demo::DemoHost;
use crate::process::run;
use crate::wait::{docker_answers, greets_as_ssh, until};
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);
const DOCKERD_LOG: &str = "/var/log/dockerd.log";

/// Starts containerd where it does not run, as a service of its own: a Docker daemon that is killed leaves it, and knows
/// its containers again. As a child of that daemon it would end with it, and leave containers that nobody knows of.
const CONTAINERD: &str = r#"
state=/run/docker/containerd
for process in /proc/[0-9]*; do
  read -r found <"$process/comm" && [ "$found" = containerd ] && exit
done 2>/dev/null
mkdir -p "$state"
cat >"$state/config.toml" <<END
version = 2
root = "/var/lib/docker/containerd/daemon"
state = "$state/daemon"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$state/containerd.sock"
END
setsid --fork sh -c "exec containerd --config $state/config.toml >>/var/log/containerd.log 2>&1 </dev/null"
"#;

/// Removes what an earlier run left in the engine's folder, but for images.
const REMOVE_LEFTOVERS: &str = "
docker ps -aq | xargs -r docker rm -fv
docker volume ls -q | xargs -r docker volume rm -f
docker network ls -q --filter type=custom | xargs -r docker network rm
";

impl SandboxHost {
    /// Starts the SSH server and waits until it greets.
    ///
    /// # Errors
    /// When it does not greet within a minute.
    pub fn start_sshd(&self) -> Result<()> {
        run(self.command("/usr/sbin/sshd").args(["-E", "/var/log/sshd.log"]))?;
        let address = SocketAddr::new(self.address(), self.port());
        until("the SSH server", LIMIT, || greets_as_ssh(address))
            .with_context(|| format!("waiting for {} at {address}", self.name()))
    }

    /// Starts the Docker daemon, and containerd below it, and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer within a minute; the error has the end of its log.
    pub fn start_docker(&self) -> Result<()> {
        run(self.command("sh").args(["-c", CONTAINERD]))?;
        let script = format!("exec dockerd \"$@\" >>{DOCKERD_LOG} 2>&1 </dev/null");
        let mut command = self.command("setsid");
        command.args(["--fork", "sh", "-c", &script, "dockerd", "--host", "unix:///run/docker.sock"]);
        command.args(["--exec-root", "/run/docker", "--pidfile", "/run/docker.pid"]);
        command.args(["--containerd", "/run/docker/containerd/containerd.sock"]);
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
        command.arg("--cgroup-parent").arg(format!("/tt-{}", self.id)).args(&self.dockerd_arguments);
        run(&mut command)?;
        let socket = self.path("/run/docker.sock");
        until("the Docker daemon", LIMIT, || docker_answers(&socket))
            .with_context(|| self.end_of_docker_log())
    }

    pub(super) fn remove_leftovers(&self) -> Result<()> {
        run(self.command("sh").args(["-c", REMOVE_LEFTOVERS]))
            .context("removing what earlier runs left")
            .map(drop)
    }

    fn end_of_docker_log(&self) -> String {
        let log = self.read_file(DOCKERD_LOG).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        format!("dockerd on {} said last: {}", self.name(), lines[lines.len().saturating_sub(5)..].join("\n"))
    }
}
