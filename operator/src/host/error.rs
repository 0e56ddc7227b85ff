//! What can be wrong with a host: one line each, with what was found and the remedy.

use std::time::Duration;

use tasktracker_crds::{DriftKind, conditions::reasons};

use super::docker::DockerFault;

/// What is wrong with a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No TCP connection.
    #[error(
        "address {address}: expected an SSH server, found: {found}; check the address, the port and the firewall"
    )]
    Unreachable {
        /// Address and port.
        address: String,
        /// What happened instead.
        found: String,
    },
    /// Something answers that is no SSH server.
    #[error("address {address}: expected an SSH server, found something else ({found}); check the port")]
    NotSsh {
        /// Address and port.
        address: String,
        /// What happened instead.
        found: String,
    },
    /// A TCP connection on which nothing comes.
    #[error("address {address}: expected an SSH server, found a connection that stayed silent for {} s; check the port and what listens there", .limit.as_secs())]
    Silent {
        /// Address and port.
        address: String,
        /// How long it was waited.
        limit: Duration,
    },
    /// Another host key than the pinned ones.
    #[error(
        "hostKeys: expected {expected}, found {found}; nothing was sent. If the host was really replaced, pin what `tasktracker-operator hostkey {address}` prints after comparing it on the host"
    )]
    HostKeyChanged {
        /// Address and port.
        address: String,
        /// Fingerprints of the pinned keys.
        expected: String,
        /// Fingerprint of the shown key.
        found: String,
    },
    /// The host refuses the user or the keys.
    #[error(
        "ssh: expected {address} to accept user '{user}' with {keys}, found: refused; add the public key to that user's authorized_keys, or correct ssh.user"
    )]
    AuthenticationFailed {
        /// Address and port.
        address: String,
        /// User that was tried.
        user: String,
        /// Fingerprints of the keys that were tried.
        keys: String,
    },
    /// A program that every host needs is missing.
    #[error(
        "tools: expected {expected} on the host, found: missing {found}; install coreutils, findutils and util-linux, or busybox"
    )]
    ToolMissing {
        /// All programs that are needed.
        expected: String,
        /// Those that are missing.
        found: String,
    },
    /// The login shell does not run programs.
    #[error(
        "login shell: expected the shell of user '{user}' to run programs, found: {found}; give the user one such as /bin/sh, and take out what ends it at once: an `exit` in a start-up file, ForceCommand in sshd_config, command= in authorized_keys"
    )]
    ShellUnusable {
        /// User on the host.
        user: String,
        /// What was said instead, and how it ended.
        found: String,
    },
    /// Docker is not installed or does not run.
    #[error(
        "docker: expected a Docker engine, found: {found}; install Docker Engine 20.10 or later and start it"
    )]
    DockerUnavailable {
        /// What was found instead.
        found: String,
    },
    /// The engine is too old.
    #[error("docker: expected API 1.41 (Engine 20.10) or later, found API {found}; upgrade the engine")]
    EngineTooOld {
        /// API version of the engine.
        found: String,
    },
    /// Compose is missing or too old.
    #[error(
        "compose: expected `docker compose` 2.20 or later, found: {found}; install Docker's Compose plugin"
    )]
    ComposeMissing {
        /// What was found instead.
        found: String,
    },
    /// Docker listens at another place.
    #[error(
        "docker socket: expected the engine at {socket}, found it at {found}; let it listen there, too (`hosts` in daemon.json), or link it there: ln -s {path} {socket}", path = .found.trim_start_matches("unix://")
    )]
    SocketElsewhere {
        /// Path of the socket.
        socket: String,
        /// Where the user's own client finds the engine.
        found: String,
    },
    /// sshd opens no channel to Docker's socket.
    #[error(
        "docker socket: expected sshd to open {socket}, found: refused ({found}); start the daemon where it does not run, and let sshd forward to sockets: AllowStreamLocalForwarding yes, AllowTcpForwarding not `no`, no `restrict` or `no-port-forwarding` in authorized_keys"
    )]
    SocketRefused {
        /// Path of the socket.
        socket: String,
        /// The reason that sshd gives.
        found: String,
    },
    /// The user may not open Docker's socket.
    #[error(
        "docker socket: expected that user '{user}' may open {socket}, found: {found}; add the user to the group docker (that is root's power on the host)"
    )]
    SocketDenied {
        /// User on the host.
        user: String,
        /// Path of the socket.
        socket: String,
        /// What was found instead.
        found: String,
    },
    /// The user may not write into the folder.
    #[error(
        "directory: expected that user '{user}' may write into {directory}, found: {found}; make it: install -d -o {user} {directory}"
    )]
    FolderNotWritable {
        /// User on the host.
        user: String,
        /// The folder.
        directory: String,
        /// What was found instead.
        found: String,
    },
    /// Another writer holds the host's lock.
    #[error(
        "lock: expected to get the host's lock within 60 s, found: another writer holds it; wait for it, or end it on the host"
    )]
    Locked,
    /// Another writer had the host's lock since.
    #[error(
        "lock: expected to be the only writer, found that another one took over ({found}); everything is checked anew"
    )]
    Overtaken {
        /// Its tenure, as the host tells.
        found: String,
    },
    /// The project belongs to another stack.
    #[error(
        "project {project}: expected it to be of this stack, found the ledger of {found}; give one of the two stacks another name, or, where this one was made anew, run `adopt`"
    )]
    NameConflict {
        /// Name of the Compose project.
        project: String,
        /// Namespace and name of the other stack.
        found: String,
    },
    /// A file of the stored release is not what its manifest says.
    #[error(
        "release: expected the stored copy of {path} to be as its manifest says, found: {found}; `apply` the stack again"
    )]
    ReleaseDamaged {
        /// The file.
        path: String,
        /// What was found instead.
        found: String,
    },
    /// A file of ours is there, and cannot be read.
    #[error(
        "{path}: expected that user '{user}' may read it, found: permission denied; run: chown {user} {path}"
    )]
    FileUnreadable {
        /// The file.
        path: String,
        /// User on the host.
        user: String,
    },
    /// A program on the host failed.
    #[error("{doing}: {found}")]
    Failed {
        /// What was being done.
        doing: String,
        /// Exit status and last words.
        found: String,
    },
    /// A `docker` command on the host failed.
    #[error("docker: {found}{}", .fault.remedy())]
    Docker {
        /// Why, as far as it is not what was asked.
        fault: DockerFault,
        /// Which command, exit status and last words.
        found: String,
    },
    /// sshd opens no more channels on the connection, which stays.
    #[error(
        "ssh: expected sshd to open {channel}, found: refused ({found}); raise MaxSessions in the host's sshd_config, or allow sessions there"
    )]
    ChannelRefused {
        /// What was to be opened.
        channel: &'static str,
        /// The reason that sshd gives.
        found: String,
    },
    /// A program or an answer took too long.
    #[error("{doing}: expected an end within {} s, found none", .limit.as_secs())]
    TimedOut {
        /// What was being done.
        doing: String,
        /// How long it was waited.
        limit: Duration,
    },
    /// Docker's API said something else than expected.
    #[error("docker API {path}: {found}")]
    DockerApi {
        /// Path of the request.
        path: String,
        /// What was found instead.
        found: String,
    },
    /// The connection ended in the middle.
    #[error("connection: expected it to stay, found it closed; the next check connects again")]
    ConnectionLost,
}

impl Error {
    /// A `docker` command failed with these last words.
    pub(super) fn docker(found: String) -> Self {
        Self::Docker { fault: DockerFault::of(&found), found }
    }

    /// Whether a new connection is needed after this alone. A late answer is no such error: see `Link::is_broken_by`.
    pub(super) fn is_of_connection(&self) -> bool {
        matches!(
            self,
            Self::ConnectionLost
                | Self::SocketDenied { .. }
                | Self::SocketElsewhere { .. }
                | Self::SocketRefused { .. }
                | Self::DockerUnavailable { .. }
        )
    }

    /// The reason for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. }
            | Self::NotSsh { .. }
            | Self::Silent { .. }
            | Self::ConnectionLost
            | Self::ChannelRefused { .. }
            | Self::TimedOut { .. } => reasons::UNREACHABLE,
            Self::HostKeyChanged { .. } => reasons::HOST_KEY_CHANGED,
            Self::AuthenticationFailed { .. } => reasons::AUTHENTICATION_FAILED,
            Self::ToolMissing { .. } => reasons::TOOL_MISSING,
            Self::ShellUnusable { .. } => reasons::SHELL_UNUSABLE,
            Self::DockerUnavailable { .. }
            | Self::DockerApi { .. }
            | Self::SocketElsewhere { .. }
            | Self::SocketRefused { .. } => reasons::DOCKER_UNAVAILABLE,
            Self::EngineTooOld { .. } => reasons::ENGINE_TOO_OLD,
            Self::ComposeMissing { .. } => reasons::COMPOSE_MISSING,
            Self::SocketDenied { .. } => reasons::SOCKET_DENIED,
            Self::FolderNotWritable { .. } | Self::FileUnreadable { .. } => reasons::FOLDER_NOT_WRITABLE,
            Self::Locked | Self::Overtaken { .. } => reasons::LOCKED,
            Self::NameConflict { .. } => reasons::NAME_CONFLICT,
            Self::ReleaseDamaged { .. } => reasons::RELEASE_DAMAGED,
            Self::Failed { .. } | Self::Docker { .. } => reasons::APPLY_FAILED,
        }
    }

    /// Whether a person must act before trying again can help.
    pub fn is_stalled(&self) -> bool {
        matches!(
            self,
            Self::HostKeyChanged { .. }
                | Self::ReleaseDamaged { .. }
                | Self::EngineTooOld { .. }
                | Self::NameConflict { .. }
        )
    }

    /// Whether nothing could be learned from the host.
    pub fn is_unreachable(&self) -> bool {
        [reasons::UNREACHABLE, reasons::HOST_KEY_CHANGED, reasons::AUTHENTICATION_FAILED]
            .contains(&self.reason())
    }

    /// The kind of drift on the host's own layer, where there is one.
    pub fn drift_kind(&self) -> Option<DriftKind> {
        match self {
            Self::HostKeyChanged { .. } => Some(DriftKind::HostKeyChanged),
            Self::SocketDenied { .. } => Some(DriftKind::SocketDenied),
            Self::FolderNotWritable { .. } | Self::FileUnreadable { .. } => {
                Some(DriftKind::FolderNotWritable)
            }
            Self::EngineTooOld { .. } => Some(DriftKind::EngineTooOld),
            Self::ComposeMissing { .. } => Some(DriftKind::ComposeMissing),
            _ if self.reason() == reasons::UNREACHABLE
                || matches!(self, Self::AuthenticationFailed { .. }) =>
            {
                Some(DriftKind::Unreachable)
            }
            _ => None,
        }
    }
}
