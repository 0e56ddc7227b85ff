//! One difference between what was applied and what is there.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One difference between what was applied and what is there.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftItem {
    /// Host on which it was found.
    pub host: String,
    /// Component: app, agents, monitoring or logging.
    pub component: String,
    /// Compose service, where the difference belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What kind of difference.
    pub kind: DriftKind,
    /// File below the project's folder, or the field of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What the applied release asks for.
    pub wanted: String,
    /// What is there.
    pub found: String,
    /// When this difference was first seen, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<String>,
    /// What the operator does about it.
    pub answer: Answer,
}

impl DriftItem {
    /// What differs, by which it is known again: the path, or the service where there is none.
    pub fn subject(&self) -> Option<&String> {
        self.path.as_ref().or(self.service.as_ref())
    }
}

/// What the operator does about a difference.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Answer {
    /// Repairs it by the smallest action.
    Heal,
    /// Tells and leaves it.
    Report,
    /// Removes what nothing asks for.
    Prune,
}

/// Where a difference lies.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The host itself.
    Host,
    /// Files below the project's folder.
    Files,
    /// Containers, networks and volumes.
    Containers,
    /// What a running service has loaded.
    Loaded,
}

impl Layer {
    /// Every layer, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Host, Self::Files, Self::Containers, Self::Loaded];

    /// The layer as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Files => "files",
            Self::Containers => "containers",
            Self::Loaded => "loaded",
        }
    }
}

macro_rules! drift_kinds {
    ($($(#[$doc:meta])* $kind:ident: $layer:ident, $answer:ident;)*) => {
        /// What kind of difference.
        #[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum DriftKind {
            $($(#[$doc])* $kind,)*
        }

        impl DriftKind {
            /// Every kind, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Where such a difference lies.
            pub fn layer(self) -> Layer {
                match self { $(Self::$kind => Layer::$layer,)* }
            }

            /// What the operator does about it unless the policy says less.
            pub fn answer(self) -> Answer {
                match self { $(Self::$kind => Answer::$answer,)* }
            }

            /// The kind as written in status, metrics and rules.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)* }
            }
        }
    };
}

drift_kinds! {
    /// The host does not answer.
    Unreachable: Host, Report;
    /// The host shows another key than the pinned ones.
    HostKeyChanged: Host, Report;
    /// The user may not open Docker's socket.
    SocketDenied: Host, Report;
    /// The user may not write into the folder.
    FolderNotWritable: Host, Report;
    /// The engine is older than the oldest supported one.
    EngineTooOld: Host, Report;
    /// `docker compose` is missing.
    ComposeMissing: Host, Report;
    /// Compose is another version than at the last apply.
    ComposeVersionChanged: Host, Report;
    /// The disk is nearly full.
    DiskLow: Host, Report;
    /// The host's clock is off.
    ClockSkew: Host, Report;
    /// A kernel setting is too low.
    SysctlTooLow: Host, Report;
    /// Somebody else listens on a port of ours.
    PortTaken: Host, Report;
    /// A named secret is not there.
    SecretMissing: Host, Report;
    /// A damaged secret file, whose source has moved on.
    SecretMoved: Host, Report;
    /// A file of the release is not there.
    FileMissing: Files, Heal;
    /// A file has other content.
    FileChanged: Files, Heal;
    /// A file has another mode.
    FileMode: Files, Heal;
    /// Something that is no file stands in a file's place.
    NotAFile: Files, Heal;
    /// A file that the release does not have.
    FileExtra: Files, Report;
    /// A container is not there.
    Missing: Containers, Heal;
    /// A container does not run.
    Stopped: Containers, Heal;
    /// A container is paused.
    Paused: Containers, Heal;
    /// A container restarts again and again.
    Restarting: Containers, Heal;
    /// A container is OOM-killed whenever it starts, before it serves.
    OutOfMemory: Containers, Heal;
    /// A container's health check fails.
    Unhealthy: Containers, Heal;
    /// A container runs another image.
    ImageChanged: Containers, Heal;
    /// A tag means another image in its registry than was rolled out.
    ImageTagMoved: Containers, Report;
    /// A container has another setting.
    ConfigChanged: Containers, Heal;
    /// The network is not there.
    NetworkMissing: Containers, Heal;
    /// The network has other settings.
    NetworkChanged: Containers, Heal;
    /// A container of ours that nothing asks for.
    Orphan: Containers, Prune;
    /// A container that is not ours, on our ports, folders, network or names.
    Rogue: Containers, Report;
    /// A volume is not there.
    VolumeMissing: Containers, Report;
    /// A volume has other settings.
    VolumeChanged: Containers, Report;
    /// A container sees other content than the file has.
    ContentStale: Loaded, Heal;
    /// A running service has not loaded its configuration.
    ConfigNotLoaded: Loaded, Heal;
    /// Every container serves, and yet users get no answer, or an error.
    NotServing: Loaded, Heal;
}

impl DriftKind {
    /// What a person can do about a difference that the operator only reports; nothing where what was found says so.
    pub fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Self::ComposeVersionChanged => {
                "the next rollout takes the one that is there: nothing has to be done"
            }
            Self::DiskLow => "make room on that disk; `docker system df` shows what Docker has there",
            Self::ClockSkew => "let chrony or systemd-timesyncd set the host's clock",
            Self::SysctlTooLow => "set it with `sysctl -w`, and keep it in /etc/sysctl.d",
            Self::PortTaken => "end what listens there, or change spec.ports",
            Self::FileExtra => "take it away, or leave it be by policy.ignore",
            Self::ImageTagMoved => {
                "another revision, or policy.tags with `moved: Follow`, rolls out what it means now"
            }
            Self::OutOfMemory => {
                "raise its resources.limits.memory; a metrics store may help itself by its outOfMemory"
            }
            Self::Rogue => {
                "end it or take it away, or give it another name, network or port; policy.ignore leaves it be"
            }
            Self::VolumeMissing => {
                "bring the volume back from a backup; `apply --leave-data` goes on without it"
            }
            Self::VolumeChanged => {
                "somebody made it anew: see what is in it, and bring the data back from a backup"
            }
            _ => return None,
        })
    }
}
