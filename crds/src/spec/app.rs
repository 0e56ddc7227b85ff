//! The app: backend, frontend and the edge in front of them.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fixed;
use crate::scalars::{
    ComposeProject, Cpu, Digest, EnvironmentValue, ImageReference, Line, Memory, OptionalOrigin, Origin,
    Registry, SecretName, Span, VolumeName,
};

/// The app: backend, frontend and the edge in front of them.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.tls) || self.tls.mode == 'Off' || (has(self.publicUrl) && self.publicUrl.startsWith('https://'))").message("TLS needs publicUrl with https://: the certificate is for its host"))]
pub struct AppSpec {
    /// Registry host and path in front of `/backend:REVISION` and `/frontend:REVISION`.
    pub registry: Registry,
    /// Digests that win over the tag, for promotion between environments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digests: Option<DigestsSpec>,
    /// Where users find the page. With TLS, the certificate is for its host, and plain HTTP leads there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_url: Option<Origin>,
    /// TLS at the edge.
    #[serde(default)]
    pub tls: TlsSpec,
    /// Commands run with the new image around a rollout.
    #[serde(default)]
    pub hooks: HooksSpec,
    /// How hosts log in to the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_auth: Option<RegistryAuthSpec>,
    /// The task API.
    #[serde(default)]
    pub backend: BackendSpec,
    /// The page.
    #[serde(default)]
    pub frontend: FrontendSpec,
    /// Where tasks are kept.
    #[serde(default)]
    pub database: DatabaseSpec,
    /// The proxy in front of page and API.
    #[serde(default)]
    pub edge: EdgeSpec,
    /// An existing Compose project made by hand, taken over once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<AdoptSpec>,
}

/// Digests that win over the tag.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DigestsSpec {
    /// Digest of the backend's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Digest>,
    /// Digest of the frontend's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frontend: Option<Digest>,
}

/// TLS at the edge.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode != 'Secret' || has(self.secret)").message("tls.mode Secret needs tls.secret"),
    validation = Rule::new("self.mode != 'Acme' || has(self.acme)").message("tls.mode Acme needs tls.acme")
)]
pub struct TlsSpec {
    /// Where certificates come from.
    #[serde(default)]
    pub mode: TlsMode,
    /// Secret with `tls.crt` (the certificate and what leads from it to an authority) and `tls.key`, both PEM, for mode
    /// Secret. Another value is taken up without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretName>,
    /// Account and directory, for mode Acme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme: Option<AcmeSpec>,
    /// For how many days browsers that came over TLS come so again, on every port of that name (HSTS). Before TLS is given
    /// up, 0 makes those that come by forget it.
    #[serde(default = "default_hsts_days")]
    #[schemars(range(min = 0, max = 730))]
    pub hsts_days: u32,
}

impl Default for TlsSpec {
    fn default() -> Self {
        Self { mode: TlsMode::default(), secret: None, acme: None, hsts_days: default_hsts_days() }
    }
}

/// Where certificates come from.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsMode {
    /// No TLS at the edge.
    #[default]
    Off,
    /// The edge's own authority, which nobody trusts unless told to.
    Internal,
    /// A certificate from a Secret.
    Secret,
    /// An ACME authority, which asks the edge on the ports 80 and 443.
    Acme,
}

/// An ACME account.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcmeSpec {
    /// Address for the authority's messages.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+$"), length(max = 254))]
    pub email: String,
    /// Directory of the authority. Default: Caddy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^https://[A-Za-z0-9.:/_-]+$"), length(max = 512))]
    pub directory: Option<String>,
    /// Secret with `ca.crt`, PEM: who vouches for the directory itself. Default: the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret: Option<SecretName>,
}

/// Commands run with the new image around a rollout.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HooksSpec {
    /// In a container of the new backend, on each host, before anything is changed; a failure changes nothing. What was
    /// cut runs it again: it must be safe to repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_rollout: Option<HookSpec>,
    /// The same when the new release serves users; where it fails, the release before comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_rollout: Option<HookSpec>,
}

/// One command with a time limit.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookSpec {
    /// Program and arguments.
    #[schemars(length(min = 1, max = 32))]
    pub command: Vec<Line>,
    /// Time limit.
    #[serde(default = "default_hook_timeout")]
    pub timeout: Span,
}

/// How hosts log in to the registry: one of the three.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.secret), has(self.hostHelper), has(self.command)].filter(x, x).size() == 1").message("registryAuth has exactly one of secret, hostHelper, command"))]
pub struct RegistryAuthSpec {
    /// Secret with `username` and `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretName>,
    /// Credential helper installed on the hosts, without the prefix `docker-credential-`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"), length(max = 64))]
    pub host_helper: Option<String>,
    /// Command run beside the operator that prints a short-lived password, or what a credential helper of Docker prints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub command: Option<Vec<Line>>,
    /// User that goes with what `command` prints, where that is a password alone. Default: AWS, as Amazon ECR wants it.
    #[serde(default = "ecr_user")]
    pub username: Line,
}

/// The task API.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.env) || self.env.all(k, k.size() <= 128 && k.matches('^[A-Za-z_][A-Za-z0-9_]*$'))").message("names in env are letters, digits and '_', and do not begin with a digit"),
    validation = Rule::new("!has(self.secretEnv) || self.secretEnv.all(k, k.size() <= 128 && k.matches('^[A-Za-z_][A-Za-z0-9_]*$'))").message("names in secretEnv are letters, digits and '_', and do not begin with a digit"),
    validation = Rule::new("!has(self.env) || !self.env.exists(k, k in ['LISTEN', 'DATABASE_PATH', 'DATABASE_URL', 'REVISION', 'LOG_LEVEL', 'LOG_FORMAT'])").message("env may not set LISTEN, DATABASE_PATH, DATABASE_URL, REVISION, LOG_LEVEL or LOG_FORMAT: the operator sets them"),
    validation = Rule::new("!has(self.secretEnv) || !self.secretEnv.exists(k, k in ['LISTEN', 'DATABASE_PATH', 'DATABASE_URL', 'REVISION', 'LOG_LEVEL', 'LOG_FORMAT'])").message("secretEnv may not set LISTEN, DATABASE_PATH, DATABASE_URL, REVISION, LOG_LEVEL or LOG_FORMAT: the operator sets them"),
    validation = Rule::new("!has(self.env) || !has(self.secretEnv) || self.env.all(k, !(k in self.secretEnv))").message("a name is in env or in secretEnv, not in both"),
    validation = Rule::new("!has(self.env) || !has(self.secretEnv) || self.secretEnv.all(k, !((k + '_FILE') in self.env))").message("env may not set NAME_FILE where secretEnv has NAME: the operator sets it")
)]
pub struct BackendSpec {
    /// Number of containers.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 20))]
    pub replicas: u32,
    /// More environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub env: BTreeMap<String, EnvironmentValue>,
    /// Environment variables whose values are Secrets; the container gets a file and `NAME_FILE`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub secret_env: BTreeMap<String, SecretKeySpec>,
    /// Limits of one container.
    #[serde(default = "backend_resources")]
    pub resources: ResourcesSpec,
    /// Verbosity of its logs.
    #[serde(default)]
    pub log_level: LogLevel,
}

/// One key of a Secret.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeySpec {
    /// Name of the Secret.
    pub secret: SecretName,
    /// Key in it.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"), length(max = 253))]
    pub key: String,
}

/// Limits of one container.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourcesSpec {
    /// Memory limit; there is no swap beyond it.
    pub memory: Memory,
    /// Processor limit in cores.
    pub cpu: Cpu,
}

/// Verbosity of logs.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// And what may become one.
    Warn,
    /// And what a person wants to know.
    #[default]
    Info,
    /// And what a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The level as programs spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The page.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendSpec {
    /// Number of containers.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 20))]
    pub replicas: u32,
    /// Origin of the API as browsers see it. Empty: the page's own, under `/api`.
    #[serde(default = "same_origin")]
    pub backend_url: OptionalOrigin,
    /// Limits of one container.
    #[serde(default = "frontend_resources")]
    pub resources: ResourcesSpec,
}

/// Where tasks are kept: one of the two.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.sqlite) != has(self.postgres)").message("database is either sqlite or postgres"))]
pub struct DatabaseSpec {
    /// A file on a volume of the one app host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<SqliteSpec>,
    /// A PostgreSQL server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresSpec>,
}

/// A file on a volume of the one app host.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SqliteSpec {}

/// A PostgreSQL server.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostgresSpec {
    /// Secret with the key `url`.
    pub url_secret: SecretName,
}

/// The proxy in front of page and API.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeSpec {
    /// Caddy's image.
    #[serde(default = "edge_image")]
    pub image: ImageReference,
    /// Limits of the container.
    #[serde(default = "edge_resources")]
    pub resources: ResourcesSpec,
}

/// An existing Compose project made by hand, taken over once.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.volumes) || self.volumes.all(k, k == 'data')").message("the app has one volume, data"))]
pub struct AdoptSpec {
    /// Name of that Compose project.
    pub project: ComposeProject,
    /// Our volume names and the names of its volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20))]
    pub volumes: BTreeMap<String, VolumeName>,
}

impl Default for BackendSpec {
    fn default() -> Self {
        Self {
            replicas: default_replicas(),
            env: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            resources: backend_resources(),
            log_level: LogLevel::default(),
        }
    }
}

impl Default for FrontendSpec {
    fn default() -> Self {
        Self { replicas: default_replicas(), backend_url: same_origin(), resources: frontend_resources() }
    }
}

impl Default for DatabaseSpec {
    fn default() -> Self {
        Self { sqlite: Some(SqliteSpec {}), postgres: None }
    }
}

impl Default for EdgeSpec {
    fn default() -> Self {
        Self { image: edge_image(), resources: edge_resources() }
    }
}

fn default_replicas() -> u32 {
    1
}

fn default_hsts_days() -> u32 {
    365
}

fn default_hook_timeout() -> Span {
    fixed!("2m")
}

fn ecr_user() -> Line {
    fixed!("AWS")
}

fn same_origin() -> OptionalOrigin {
    fixed!("")
}

fn edge_image() -> ImageReference {
    fixed!("caddy:2.6.2")
}

fn backend_resources() -> ResourcesSpec {
    ResourcesSpec { memory: fixed!("256Mi"), cpu: fixed!("0.5") }
}

fn frontend_resources() -> ResourcesSpec {
    ResourcesSpec { memory: fixed!("64Mi"), cpu: fixed!("0.25") }
}

fn edge_resources() -> ResourcesSpec {
    ResourcesSpec { memory: fixed!("128Mi"), cpu: fixed!("0.5") }
}
