//! Events of a host's Docker daemon, received while they happen.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    process::{Child, Command},
};

use tasktracker_testbed::{DemoHost, SandboxHost};
use tempfile::TempDir;

use crate::stage::succeeded;

/// Follows the events of a host's daemon, and of the next one after a restart. A daemon keeps 256 events, and every health
/// check makes three: who asks afterwards may be too late.
pub(crate) struct Events {
    child: Child,
    folder: TempDir,
}

impl Events {
    /// Follows events that match the filters from now on; each is a line in this format.
    pub(crate) fn follow(host: &SandboxHost, filters: &[&str], format: &str) -> Self {
        Self::since(&now(host), host, filters, format)
    }

    fn since(moment: &str, host: &SandboxHost, filters: &[&str], format: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let docker = host.docker_command();
        let mut command = Command::new("sh");
        // The client ends with the shell.
        let script = "while :; do setpriv --pdeathsig KILL -- \"$@\"; sleep 0.1; done 2>/dev/null";
        command.args(["-c", script, "sh"]).arg(docker.get_program()).args(docker.get_args());
        command.args(["events", "--since", moment, "--format", format]);
        for filter in filters {
            command.args(["--filter", filter]);
        }
        for (name, value) in docker.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command.stdout(File::create(folder.path().join("received")).unwrap()).spawn().unwrap();
        Self { child, folder }
    }

    /// Follows the creation, start and end of containers from now on.
    pub(crate) fn of_containers(host: &SandboxHost) -> Self {
        Self::of_containers_since(&now(host), host)
    }

    /// The same from an earlier moment on, as far as the daemon has kept its events.
    pub(crate) fn of_containers_since(moment: &str, host: &SandboxHost) -> Self {
        let format = "{{.TimeNano}} {{.Action}} {{.Actor.Attributes.name}} {{index .Actor.Attributes \"com.docker.compose.service\"}}";
        Self::since(moment, host, &["type=container", "event=create", "event=start", "event=die"], format)
    }

    /// Events until now, whole lines, each once: a client that connects again receives them again.
    pub(crate) fn lines(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(self.folder.path().join("received")).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }

    /// Events [`Self::of_containers`] until now, in their order.
    pub(crate) fn received(&self) -> Vec<Event> {
        self.lines().iter().map(|line| Event::read(line).unwrap_or_else(|| panic!("{line}"))).collect()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<_> = self.child.wait();
    }
}

/// The time of a host's clock, in the format that `docker events --since` takes.
pub(crate) fn now(host: &SandboxHost) -> String {
    succeeded(&mut host.command_as_deploy("date +%s.%N")).trim().to_owned()
}

/// An event of a container.
#[derive(Debug)]
pub(crate) struct Event {
    /// When, in nanoseconds, by the daemon's clock.
    pub(crate) when: u128,
    /// `create`, `start` or `die`.
    pub(crate) action: String,
    pub(crate) container: String,
    /// Its Compose service; empty where it has none.
    pub(crate) service: String,
}

impl Event {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let when = words.next()?.parse().ok()?;
        let mut word = || words.next().map(str::to_owned);
        Some(Self { when, action: word()?, container: word()?, service: word()? })
    }
}
