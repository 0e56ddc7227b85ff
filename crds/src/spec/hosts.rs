//! Hosts, and how they are reached.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fixed;
use crate::scalars::{Address, BindAddress, Directory, HostKey, Name, Port, SecretName, UserName};

/// One Docker host.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostSpec {
    /// Unique name; the alias that host keys are pinned to.
    pub name: Name,
    /// Host name or IP address for SSH.
    pub address: Address,
    /// Port of SSH.
    #[serde(default = "default_ssh_port")]
    pub port: Port,
    /// Address at which other hosts scrape this one and ship to it. Default: `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_address: Option<Address>,
    /// IP address on which ports that are not public are published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind_address: Option<BindAddress>,
    /// What runs here. Empty for a bastion.
    #[schemars(length(max = 3))]
    pub roles: Vec<Role>,
    /// Pinned public host keys. There is no trust on first use and no switch to turn the check off.
    #[schemars(length(min = 1, max = 10))]
    pub host_keys: Vec<HostKey>,
    /// Name of the host to jump over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<Name>,
    /// Folder that belongs to the operator; below one of its `--host-roots`.
    #[serde(default = "default_directory")]
    pub directory: Directory,
    /// How the Docker API is reached through SSH.
    #[serde(default)]
    pub docker_access: DockerAccess,
    /// Whether the host takes part.
    #[serde(default)]
    pub state: HostState,
}

/// What runs on a host.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The app and the agents beside it.
    App,
    /// Prometheus, Alertmanager and Grafana.
    Monitoring,
    /// Elasticsearch and Kibana.
    Logging,
}

/// How the Docker API is reached through SSH.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DockerAccess {
    /// A stream-local channel to the daemon's socket.
    #[default]
    StreamLocal,
    /// `docker system dial-stdio` over an exec channel.
    DialStdio,
}

/// Whether a host takes part.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostState {
    /// Kept equal to the stack.
    #[default]
    Active,
    /// Reported on, never written to.
    Frozen,
    /// Kept equal to the stack, but serves no traffic.
    Drained,
}

/// How the hosts are reached.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SshSpec {
    /// User on every host.
    #[serde(default = "default_user")]
    pub user: UserName,
    /// Secrets with a private key under `ssh-privatekey`; several while keys are rotated.
    #[schemars(length(min = 1, max = 5))]
    pub identity_secrets: Vec<SecretName>,
}

fn default_ssh_port() -> Port {
    Port(22)
}

fn default_directory() -> Directory {
    fixed!("/opt/tasktracker")
}

fn default_user() -> UserName {
    fixed!("deploy")
}
