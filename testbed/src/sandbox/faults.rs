//! Faults, made for real: on the cable, the SSH server and the Docker daemon.

use super::{HostKeyKind, SandboxHost, files};
use crate::process::{run, succeeds};
use anyhow::Result;
use std::process::Command;

/// Sends a signal ($1) to the processes whose names begin with $2 and waits until none is left.
const END: &str = r#"
of_name() { for process in /proc/[0-9]*; do
  read -r found <"$process/comm" && case $found in "$1"*) echo "${process#/proc/}" ;; esac
done 2>/dev/null; }
for process in $(of_name "$2"); do kill -"$1" "$process" 2>/dev/null; done
while [ -n "$(of_name "$2")" ]; do sleep 0.02; done
"#;

/// A chain of our own, whose one rule drops with a probability ($1).
const LOSE: &str = "
if ! iptables -w -N LOSE 2>/dev/null; then iptables -w -F LOSE; else
  for chain in INPUT FORWARD; do iptables -w -I $chain -i eth0 -j LOSE; done
fi
[ \"$1\" = 0 ] || iptables -w -A LOSE -m statistic --mode random --probability \"$1\" -j DROP
";

/// What a machine does not know after it lost its power: mounts of containers, and what is below `/run`.
const FORGET: &str = "
grep -Eo ' (/var/lib/docker|/run/docker)/[^ ]+' /proc/self/mounts | sort -r | xargs -r umount -l 2>/dev/null
rm -rf /run/docker /run/docker.pid /run/docker.sock /run/containerd
";

impl SandboxHost {
    /// Plugs the network cable in or pulls it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_link(&self, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        let (lan, port) = (self.port.lan().namespace(), format!("p{}", self.port.index()));
        run(Command::new("ip").args(["-n", &lan, "link", "set", &port, state])).map(drop)
    }

    /// Delays, loses or reorders what the host sends (not what it receives): `delay 20ms`, `loss 5%`, … as `tc netem`
    /// takes it. `None` ends it.
    ///
    /// # Errors
    /// When `tc` does not understand the description, or the kernel has no `netem`: [`crate::forward_delayed`] and
    /// [`Self::lose`] do without.
    pub fn netem(&self, description: Option<&str>) -> Result<()> {
        self.shape(description.map(|description| format!("netem {description}")).as_deref())
    }

    /// Puts any queueing discipline on what the host sends, as `tc` takes it: `tbf rate 1mbit burst 32kbit latency 1s`.
    /// `None` ends it.
    ///
    /// # Errors
    /// When `tc` or the kernel does not know it.
    pub fn shape(&self, discipline: Option<&str>) -> Result<()> {
        let Some(discipline) = discipline else {
            succeeds(self.command("tc").args(["qdisc", "delete", "dev", "eth0", "root"]));
            return Ok(());
        };
        let mut command = self.command("tc");
        command.args(["qdisc", "replace", "dev", "eth0", "root"]).args(discipline.split_whitespace());
        run(&mut command).map(drop)
    }

    /// Loses some of the packets that the host receives, by chance: between 0 and 1.
    ///
    /// # Errors
    /// When `iptables` refuses.
    pub fn lose(&self, share: f32) -> Result<()> {
        run(self.command("sh").args(["-ec", LOSE, "sh", &share.to_string()])).map(drop)
    }

    /// Drops every packet in both directions, or no more: open connections become half-open.
    ///
    /// # Errors
    /// When `iptables` refuses.
    pub fn drop_traffic(&self, drop: bool) -> Result<()> {
        for (chain, direction) in [("INPUT", "-i"), ("FORWARD", "-i"), ("FORWARD", "-o"), ("OUTPUT", "-o")] {
            let rule = |action| {
                let mut command = self.command("iptables");
                command.args(["-w", action, chain, direction, "eth0", "-j", "DROP"]);
                command
            };
            let is_there = succeeds(&mut rule("-C"));
            if is_there != drop {
                run(&mut rule(if drop { "-I" } else { "-D" }))?;
            }
        }
        Ok(())
    }

    /// Kills the SSH server with all its sessions.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn kill_sshd(&self) -> Result<()> {
        self.end("KILL", "sshd")
    }

    /// Gives the host a new key and restarts its SSH server. [`crate::DemoHost::host_key`] is the new one afterwards,
    /// the `known_hosts` file keeps the old one.
    ///
    /// # Errors
    /// When the key cannot be made or the server does not come back.
    pub fn replace_host_key(&self, kind: HostKeyKind) -> Result<()> {
        files::host_key(&self.path("/").join(files::HOST_KEY), kind)?;
        self.kill_sshd()?;
        self.start_sshd()
    }

    /// Ends every process at once and loses what is only in memory, as when the power is cut. The disk keeps what it
    /// has; [`SandboxHost::start_sshd`] and [`SandboxHost::start_docker`] are what a boot does.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn power_off(&self) -> Result<()> {
        // The shell that asks for it ends, too.
        let _ended = self.command("sh").args(["-c", "kill -KILL -1"]).status();
        run(self.command("sh").args(["-c", FORGET])).map(drop)
    }

    /// Stops the Docker daemon as a shutdown does: its containers end.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn stop_docker(&self) -> Result<()> {
        self.end("TERM", "dockerd")
    }

    /// Kills the Docker daemon: its containers go on without it.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn kill_docker(&self) -> Result<()> {
        self.end("KILL", "dockerd")
    }

    fn end(&self, signal: &str, name: &str) -> Result<()> {
        run(self.command("sh").args(["-c", END, "sh", signal, name])).map(drop)
    }
}
