//! What can be done about drift, smallest first.

use serde::Serialize;

use crate::{
    host::{Placement, Source},
    project::{ReadAtStart, compose, service_of},
    secret::Secret,
};

/// Limits of a container that Docker changes while it runs, and its restart policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdatedLimits {
    /// Bytes of memory.
    pub mem_limit: u64,
    /// Bytes of memory and swap.
    pub memswap_limit: u64,
    /// Cores.
    pub cpus: f64,
    /// Processes.
    pub pids_limit: u32,
    /// Restart policy.
    pub restart: String,
}

impl UpdatedLimits {
    /// Those of a service.
    pub fn of(service: &compose::Service) -> Self {
        let compose::Limits { mem_limit, memswap_limit, cpus, pids_limit, .. } = service.limits;
        Self { mem_limit, memswap_limit, cpus, pids_limit, restart: service.restart.clone() }
    }
}

// Limits come from a spec, which has no number that is none.
impl Eq for UpdatedLimits {}

/// One repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "camelCase")]
pub enum Action {
    /// Rename what stands in the place of a file or folder.
    #[serde(rename_all = "camelCase")]
    SetAside {
        /// Path from the project's folder.
        path: String,
    },
    /// Write a file of the release.
    #[serde(rename_all = "camelCase")]
    WriteFile {
        /// Path from the project's folder.
        path: String,
        /// Permission bits.
        mode: u32,
        /// SHA-256 of the content.
        sha256: String,
        /// Where the content comes from: the spec's own rendering, or the stored release.
        #[serde(skip)]
        source: Source,
    },
    /// Write a secret file with the value that the release was applied with.
    #[serde(rename_all = "camelCase")]
    WriteSecret {
        /// Path from the project's folder.
        path: String,
        /// The value.
        #[serde(skip)]
        secret: Secret,
    },
    /// Give a file or folder its permission bits back.
    #[serde(rename_all = "camelCase")]
    SetMode {
        /// Path from the project's folder.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Give a folder back to the operator's user, with its permission bits.
    #[serde(rename_all = "camelCase")]
    OwnFolder {
        /// Path from the project's folder.
        path: String,
        /// Permission bits.
        mode: u32,
        /// The operator's user on the host.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// Take a file away whose name alone counts.
    #[serde(rename_all = "camelCase")]
    RemoveFile {
        /// Path from the project's folder.
        path: String,
    },
    /// Make a network that is not there.
    CreateNetwork {
        /// Name of the network.
        network: String,
    },
    /// Make a network anew, and everything that is in it.
    ReplaceNetwork {
        /// Name of the network.
        network: String,
    },
    /// Make a running service take up its files again.
    Reload {
        /// Compose service.
        service: String,
        /// Whether it takes up what its configuration only names, too, such as a certificate.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        anew: bool,
    },
    /// Give a container its own name back.
    Rename {
        /// Compose service.
        service: String,
        /// Name that it has.
        container: String,
        /// Name that it should have.
        to: String,
    },
    /// Let a paused container go on.
    Unpause {
        /// Compose service.
        service: String,
        /// Name of the container.
        container: String,
    },
    /// Start a container that is there.
    Start {
        /// Compose service.
        service: String,
        /// Name of the container.
        container: String,
    },
    /// Stop a container and start it again.
    #[serde(rename_all = "camelCase")]
    Restart {
        /// Compose service.
        service: String,
        /// Name of the container.
        container: String,
        /// Whether it is ended without its grace period, because it serves nobody.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        at_once: bool,
    },
    /// Make another container beside one that does not serve, and end that one without its grace period.
    Replace {
        /// Compose service.
        service: String,
        /// Name of the container.
        container: String,
    },
    /// Give a container its limits and its restart policy while it runs.
    Update {
        /// Compose service.
        service: String,
        /// Name of the container.
        container: String,
        /// What the release has.
        limits: UpdatedLimits,
    },
    /// Give a container more memory than the release has for it, and start it anew: it is OOM-killed whenever it
    /// starts.
    #[serde(rename_all = "camelCase")]
    RaiseMemory {
        /// Compose service.
        service: String,
        /// Name of the container.
        container: String,
        /// Its limit so far, in bytes.
        from: u64,
        /// What it has from now on.
        limits: UpdatedLimits,
    },
    /// Move what a service reads when it starts to another name beside it, and start the service anew: it is ended for its
    /// memory whenever it starts.
    #[serde(rename_all = "camelCase")]
    MoveAside {
        /// Compose service.
        service: String,
        /// Name of the container.
        container: String,
        /// Its limit of memory, in bytes.
        limit: u64,
        /// What it reads.
        what: ReadAtStart,
    },
    /// Connect a running container to the project's network.
    Connect {
        /// Compose service.
        service: String,
        /// Name of the container.
        container: String,
        /// The network.
        network: String,
        /// Names by which it is known there.
        aliases: Vec<String>,
    },
    /// Disconnect a running container from a network that nobody asked for.
    Disconnect {
        /// Compose service.
        service: String,
        /// Name of the container.
        container: String,
        /// The network.
        network: String,
    },
    /// Make the containers of a service that are not there.
    Create {
        /// Compose service.
        service: String,
    },
    /// Replace the containers of a service.
    Recreate {
        /// Compose service.
        service: String,
    },
    /// Put an object behind the API of a service.
    PutObject {
        /// Compose service.
        service: String,
        /// Path of the object in that API.
        path: String,
    },
    /// Remove a container of ours that nothing asks for.
    RemoveOrphan {
        /// Name of the container.
        container: String,
    },
}

impl Action {
    /// The action in words, for people.
    pub fn words(&self) -> String {
        match self {
            Self::SetAside { path } => format!("set {path} aside"),
            Self::WriteFile { path, .. } | Self::WriteSecret { path, .. } => format!("write {path}"),
            Self::SetMode { path, mode } => format!("set the mode of {path} to {mode:04o}"),
            Self::OwnFolder { path, mode, uid, gid } => {
                format!("give {path} to user {uid}:{gid}, with the mode {mode:04o}")
            }
            Self::RemoveFile { path } => format!("remove {path}"),
            Self::CreateNetwork { network } => format!("create network {network}"),
            Self::ReplaceNetwork { network } => format!("replace network {network}"),
            Self::Reload { service, .. } => format!("reload {service}"),
            Self::Rename { container, to, .. } => format!("rename {container} to {to}"),
            Self::Unpause { container, .. } => format!("unpause {container}"),
            Self::Start { container, .. } => format!("start {container}"),
            Self::Restart { container, at_once: false, .. } => format!("restart {container}"),
            Self::Restart { container, .. } => format!("restart {container} at once"),
            Self::Replace { container, .. } => format!("replace {container}"),
            Self::Update { container, .. } => format!("update {container}"),
            Self::RaiseMemory { container, from, limits, .. } => {
                format!(
                    "raise the memory of {container} from {}Mi to {}Mi",
                    from >> 20,
                    limits.mem_limit >> 20
                )
            }
            Self::MoveAside { container, what, .. } => {
                format!("move {} of {container} aside", what.folders.join(", "))
            }
            Self::Connect { container, network, .. } => format!("connect {container} to {network}"),
            Self::Disconnect { container, network, .. } => format!("disconnect {container} from {network}"),
            Self::Create { service } => format!("create {service}"),
            Self::Recreate { service } => format!("recreate {service}"),
            Self::PutObject { service, path } => format!("put {path} into {service}"),
            Self::RemoveOrphan { container } => format!("remove orphan {container}"),
        }
    }

    /// Why this is enough, and nothing bigger is done.
    pub(super) fn why(&self) -> &'static str {
        match self {
            Self::SetAside { .. } => "nothing is followed or removed: it is kept beside under another name",
            Self::SetMode { .. } => {
                "the content is as the release wants it, only its permission bits are not"
            }
            Self::WriteFile { .. } | Self::WriteSecret { .. } => {
                "only this file differs, and containers see it through the folder that they mount"
            }
            Self::OwnFolder { .. } => {
                "what is in the folder is as it should be, only the folder belongs to somebody else"
            }
            Self::RemoveFile { .. } => "there is nothing in it, and its name leads users to whoever has it",
            Self::CreateNetwork { .. } => "the network alone is missing",
            Self::ReplaceNetwork { .. } => "Docker cannot change a network that is there",
            Self::Reload { .. } => "the service takes up its files while it goes on serving",
            Self::Rename { .. } => "the container is as the release wants it, but for its name",
            Self::Unpause { .. } => "the container is as the release wants it, only paused",
            Self::Start { .. } => "the container is as the release wants it, only not running",
            Self::Restart { .. } => {
                "the container is as the release wants it; its processes or mounts are not"
            }
            Self::Replace { .. } => "only this container does not serve: another one comes up before it goes",
            Self::Update { .. } => "Docker changes limits and the restart policy while the container runs",
            Self::RaiseMemory { .. } => "it loses nothing by it, and the host has the memory",
            Self::MoveAside { .. } => {
                "it has no more memory to get; nothing is removed, and what is older stays"
            }
            Self::Connect { .. } => "the container is as the release wants it, but for its network",
            Self::Disconnect { .. } => {
                "the container is as the release wants it, and in one network too many"
            }
            Self::Create { .. } => "only what is missing is made; containers that are there stay",
            Self::Recreate { .. } => "a container's settings are fixed when it is made; other services stay",
            Self::PutObject { .. } => "the service serves, only this object of it is another one",
            Self::RemoveOrphan { .. } => "nothing asks for it; volumes stay",
        }
    }

    /// The service that has to serve afterwards.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::SetAside { .. }
            | Self::WriteFile { .. }
            | Self::WriteSecret { .. }
            | Self::SetMode { .. }
            | Self::OwnFolder { .. }
            | Self::RemoveFile { .. }
            | Self::CreateNetwork { .. }
            | Self::ReplaceNetwork { .. }
            | Self::RemoveOrphan { .. } => None,
            Self::Reload { service, .. }
            | Self::Rename { service, .. }
            | Self::Unpause { service, .. }
            | Self::Start { service, .. }
            | Self::Restart { service, .. }
            | Self::Replace { service, .. }
            | Self::Update { service, .. }
            | Self::RaiseMemory { service, .. }
            | Self::MoveAside { service, .. }
            | Self::Connect { service, .. }
            | Self::Disconnect { service, .. }
            | Self::Create { service }
            | Self::PutObject { service, .. }
            | Self::Recreate { service } => Some(service),
        }
    }

    /// The service that it belongs to: the one that serves afterwards, or the one whose file it is.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::SetAside { path }
            | Self::WriteFile { path, .. }
            | Self::WriteSecret { path, .. }
            | Self::SetMode { path, .. }
            | Self::OwnFolder { path, .. }
            | Self::RemoveFile { path } => service_of(path),
            _ => self.service(),
        }
    }

    /// Whether what runs is stopped for it.
    pub fn takes_down(&self) -> bool {
        matches!(
            self,
            Self::Restart { .. }
                | Self::Recreate { .. }
                | Self::Replace { .. }
                | Self::ReplaceNetwork { .. }
                | Self::RaiseMemory { .. }
                | Self::MoveAside { .. }
        )
    }

    /// The service that takes up its files, where that is all.
    pub fn reloaded(&self) -> Option<&str> {
        if let Self::Reload { service, .. } = self { Some(service) } else { None }
    }

    /// The container that another one takes the place of.
    pub fn replaced(&self) -> Option<&str> {
        if let Self::Replace { container, .. } = self { Some(container) } else { None }
    }

    /// The container that it starts, where that is all.
    pub fn started(&self) -> Option<&str> {
        if let Self::Start { container, .. } = self { Some(container) } else { None }
    }

    /// Whether it is about files alone.
    pub fn is_of_files(&self) -> bool {
        matches!(
            self,
            Self::SetAside { .. }
                | Self::WriteFile { .. }
                | Self::WriteSecret { .. }
                | Self::SetMode { .. }
                | Self::OwnFolder { .. }
                | Self::RemoveFile { .. }
        )
    }

    /// What the writing program needs for a file.
    pub fn placement(&self) -> Option<Placement> {
        let Self::WriteFile { path, mode, sha256, source } = self else {
            return None;
        };
        Some(Placement { path: path.clone(), mode: *mode, sha256: sha256.clone(), source: source.clone() })
    }
}
