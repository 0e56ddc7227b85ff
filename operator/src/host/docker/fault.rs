//! Why a `docker` command failed, as far as it is not what it was asked to do.

/// Why a `docker` command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DockerFault {
    /// The daemon does not answer.
    DaemonUnavailable,
    /// A disk of the host is full.
    NoSpace,
    /// There is no address pool left for another network.
    NoSubnet,
    /// The packet filter is not as the daemon made it.
    Firewall,
    /// Memory, processes or open files of the host are used up.
    Exhausted,
    /// The OCI runtime starts no container at all.
    Runtime,
    /// A server answered a program inside a container with an error of HTTP.
    HttpError,
    /// Anything else: Docker or Compose refused what was asked.
    Other,
}

/// Docker's command line tells causes only as texts: here they are, in lower case.
const TEXTS: &[(&str, DockerFault)] = &[
    ("cannot connect to the docker daemon", DockerFault::DaemonUnavailable),
    ("error during connect", DockerFault::DaemonUnavailable),
    ("no space left on device", DockerFault::NoSpace),
    ("disk quota exceeded", DockerFault::NoSpace),
    ("non-overlapping ipv4 address pool", DockerFault::NoSubnet),
    ("predefined address pools have been fully subnetted", DockerFault::NoSubnet),
    ("no chain/target/match by that name", DockerFault::Firewall),
    ("iptables failed", DockerFault::Firewall),
    ("iptables: failed", DockerFault::Firewall),
    ("unable to enable skip dnat rule", DockerFault::Firewall),
    ("failed to program filter chain", DockerFault::Firewall),
    ("failed to setup ip tables", DockerFault::Firewall),
    ("cannot allocate memory", DockerFault::Exhausted),
    ("too many open files", DockerFault::Exhausted),
    ("resource temporarily unavailable", DockerFault::Exhausted),
    // Killed for its memory, or ended by itself as it got neither memory nor threads.
    ("runc did not terminate successfully: exit status 137", DockerFault::Exhausted),
    ("runc did not terminate successfully: signal: killed", DockerFault::Exhausted),
    ("runc did not terminate successfully: exit status 2:", DockerFault::Exhausted),
    // What runc itself says of a container names `runc create failed` or its source; these are without it.
    ("unable to retrieve oci runtime error", DockerFault::Runtime),
    ("runc did not terminate successfully", DockerFault::Runtime),
    ("failed to start shim", DockerFault::Runtime),
    ("did not receive an exit event", DockerFault::Runtime),
    // What a runtime left that did not end what it had begun.
    ("error response from daemon: id already in use", DockerFault::Runtime),
    ("\"runc\": executable file not found", DockerFault::Runtime),
    ("unknown or invalid runtime name", DockerFault::Runtime),
    // `wget` of BusyBox.
    ("server returned error: http/", DockerFault::HttpError),
];

impl DockerFault {
    /// Reads the last words of a command.
    pub(in crate::host) fn of(output: &str) -> Self {
        let output = output.to_lowercase();
        let known = TEXTS.iter().find(|(text, _)| output.contains(text));
        known.map_or(Self::Other, |(_, fault)| *fault)
    }

    /// Reads the last words of a command that ran a program in a container. Whatever the program itself said, such as that it
    /// has no memory, is of the program: a host's fault is what the daemon says.
    pub(crate) fn of_program(found: &str) -> Self {
        let found = found.to_lowercase();
        let begins =
            ["error response from daemon", "cannot connect to the docker daemon", "error during connect"];
        let said = found.split(" / ").filter_map(|part| {
            let place = begins.iter().filter_map(|begin| part.find(begin)).min()?;
            Some(Self::of(&part[place..]))
        });
        said.filter(|fault| *fault != Self::Other).last().unwrap_or(Self::Other)
    }

    /// Whether it says nothing of what was asked: any release would fail so on that host at present.
    pub fn is_of_host(self) -> bool {
        match self {
            Self::DaemonUnavailable
            | Self::NoSpace
            | Self::NoSubnet
            | Self::Firewall
            | Self::Exhausted
            | Self::Runtime => true,
            Self::HttpError | Self::Other => false,
        }
    }

    /// The way out, behind what Docker said.
    pub(in crate::host) fn remedy(self) -> &'static str {
        match self {
            Self::DaemonUnavailable => "; it is tried again when the daemon answers",
            Self::NoSpace => "; make room on that disk: it is tried again by itself",
            Self::NoSubnet => {
                "; remove networks that nobody uses (`docker network prune`), or give the daemon more `default-address-pools`: it is tried again by itself"
            }
            Self::Firewall => {
                "; something removed chains of Docker's packet filter: `systemctl restart docker` makes them again, and it is tried again by itself"
            }
            Self::Exhausted => {
                "; the host has no memory, processes or open files left: end what uses them, or raise the limits of the daemon's service; it is tried again by itself"
            }
            Self::Runtime => {
                "; the OCI runtime of the host starts no container: try `docker run --rm IMAGE` there, and install runc and containerd again; it is tried again by itself"
            }
            Self::HttpError | Self::Other => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_no_fault_of_the_host() {
        for (found, expected) in [
            ("docker compose: exit status 1: migrate: cannot allocate memory", DockerFault::Other),
            (
                "docker compose: exit status 1: x / write /tmp/a: no space left on device / y",
                DockerFault::Other,
            ),
            (
                "docker compose: exit status 1: Container tt-hook Created / Error response from daemon: failed to create shim task: OCI runtime create failed: unable to retrieve OCI runtime error: exec: \"runc\"",
                DockerFault::Runtime,
            ),
            (
                "docker run: exit status 125 / docker: Error response from daemon: write /var/lib/docker/x: no space left on device.",
                DockerFault::NoSpace,
            ),
            (
                "docker compose: exit status 1 / Cannot connect to the Docker daemon at unix:///var/run/docker.sock",
                DockerFault::DaemonUnavailable,
            ),
        ] {
            assert_eq!(DockerFault::of_program(found), expected, "{found}");
        }
    }

    #[test]
    fn faults_are_read_from_the_words_of_docker() {
        for (output, expected) in [
            (
                "docker compose: exit status 1 / Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
                DockerFault::DaemonUnavailable,
            ),
            (
                "docker rm: exit status 1 / error during connect: Post \"http://%2Fvar%2Frun%2Fdocker.sock/v1.41\": EOF",
                DockerFault::DaemonUnavailable,
            ),
            (
                "docker compose: exit status 1 / write /var/lib/docker/x: No space left on device",
                DockerFault::NoSpace,
            ),
            (
                "docker network: exit status 1 / Error response from daemon: could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
                DockerFault::NoSubnet,
            ),
            (
                "docker network: exit status 1 / Error response from daemon: all predefined address pools have been fully subnetted",
                DockerFault::NoSubnet,
            ),
            (
                "docker compose: exit status 1 / driver failed programming external connectivity on endpoint tt-staging-app-edge-1: (iptables failed: iptables --wait -t nat -A DOCKER -p tcp: iptables: No chain/target/match by that name. (exit status 1))",
                DockerFault::Firewall,
            ),
            (
                "docker start: exit status 1 / fork/exec /proc/self/exe: cannot allocate memory",
                DockerFault::Exhausted,
            ),
            (
                "docker start: exit status 1 / failed to create shim task: OCI runtime create failed: runc did not terminate successfully: exit status 137: unknown",
                DockerFault::Exhausted,
            ),
            (
                "docker start: exit status 1 / failed to start shim: open /run/docker/containerd/config.json: too many open files: unknown",
                DockerFault::Exhausted,
            ),
            (
                "docker start: exit status 1 / OCI runtime create failed: unable to retrieve OCI runtime error (open log.json: no such file or directory): runc did not terminate successfully: exit status 127: unknown",
                DockerFault::Runtime,
            ),
            (
                "docker start: exit status 1 / OCI runtime create failed: container_linux.go:367: starting container process caused: exec: \"backend\": executable file not found in $PATH: unknown",
                DockerFault::Other,
            ),
            (
                "docker compose: exit status 1 / Bind for 0.0.0.0:3500 failed: port is already allocated",
                DockerFault::Other,
            ),
            (
                "docker exec: exit status 1 / wget: server returned error: HTTP/1.1 503 Service Unavailable",
                DockerFault::HttpError,
            ),
            ("docker exec: exit status 1 / wget: bad address 'HTTP/x'", DockerFault::Other),
            ("", DockerFault::Other),
        ] {
            assert_eq!(DockerFault::of(output), expected, "{output}");
        }
    }
}
