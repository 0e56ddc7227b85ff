//! Why a `docker` command failed, as far as it is not what it was asked to do.

/// Why a `docker` command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DockerFault {
    /// The daemon does not answer.
    DaemonUnavailable,
    /// A disk of the host is full.
    NoSpace,
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
