//! What a service needs beyond its containers.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::compose;

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its containers.
    pub compose: compose::Service,
    /// How a new release takes the place of the one before.
    pub strategy: Strategy,
    /// How it takes up a changed file that it mounts.
    pub reload: Reload,
    /// When a running container of it serves.
    pub readiness: Readiness,
    /// What must accept its files before they are put in place.
    pub validations: Vec<Validation>,
    /// What it must answer when it has loaded what was rolled out.
    pub loaded: Vec<LoadedProbe>,
    /// What users must get at the ports that it publishes.
    pub published: Vec<PublishedProbe>,
}

impl Service {
    /// A service that is made anew for every change, and serves when its health check says so.
    pub fn new(compose: compose::Service) -> Self {
        Self {
            compose,
            strategy: Strategy::Recreate,
            reload: Reload::Restart,
            readiness: Readiness::Healthcheck,
            validations: Vec::new(),
            loaded: Vec::new(),
            published: Vec::new(),
        }
    }
}

/// How a new release of a service takes the place of the one before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Strategy {
    /// New containers come up beside the old ones; a proxy moves the traffic.
    BlueGreen(BlueGreen),
    /// The old container goes before the new one comes.
    Recreate,
    /// As `Recreate`, never on two hosts of a stack at once, whatever `maxUnavailable` says.
    Serial {
        /// What must hold before an instance goes, and again before the next one does.
        gate: HttpProbe,
    },
}

/// How traffic moves from old containers to new ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlueGreen {
    /// The service that leads traffic to it.
    pub proxy: String,
    /// Folder from the project's own; the name of the one file in it is the network alias of the containers that have
    /// the traffic.
    pub upstreams: String,
    /// Folder from the project's own; the names of the files in it are the addresses of running containers, by which the
    /// proxy goes while it cannot look names up. Empty where it has no such way.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub addresses: String,
    /// Port inside the container.
    pub port: u16,
    /// What each new container must answer to the proxy before users are led to it.
    pub paths: Vec<String>,
}

/// How a service takes up a changed file that it mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reload {
    /// It reads files when it starts, and is made anew.
    Restart,
    /// A program inside the container.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
        /// More arguments where it must take up what its configuration only names, such as a certificate.
        force: Vec<String>,
    },
    /// A signal to its first process.
    Signal(String),
    /// A POST request.
    Http(Endpoint),
    /// It looks for changed files by itself.
    Watched,
}

/// A path on a port of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Port inside the container.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Name of the certificate that it shows; none where it speaks without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_name: Option<String>,
}

impl Endpoint {
    /// One without TLS.
    pub fn new(port: u16, path: impl Into<String>) -> Self {
        Self { port, path: path.into(), tls_name: None }
    }
}

/// When a running container serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Readiness {
    /// Docker's health check says so.
    Healthcheck,
    /// It runs.
    Running,
    /// It answers.
    Http(HttpProbe),
}

/// A GET request to a container, and what its answer must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpProbe {
    /// What is asked.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// User, and secret file with the password, by its path from the project's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<(String, String)>,
    /// What the answer must be.
    pub expect: Expect,
}

/// What the answer to a probe must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Expect {
    /// A status.
    Status(u16),
    /// Status 200 and a text with this in it.
    Text(String),
    /// Status 200 and a JSON value that has at least these fields.
    JsonSubset(serde_json::Value),
    /// Status 200 and a JSON list with these objects, and no others of ours.
    Listed(Listed),
}

/// Proof that a service has loaded what was rolled out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadedProbe {
    /// What it is about, for people: a file, say.
    pub what: String,
    /// The request and its expected answer.
    pub probe: HttpProbe,
}

/// A GET request as users send it to a published port of the host, and what they must get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedProbe {
    /// Port of the host.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Name of the host that users come to over TLS; none where they come without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_name: Option<String>,
    /// What the answer must be.
    pub expect: Expect,
    /// The service behind this one that makes the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
}

/// A command that must exit with 0 in a throw-away container of the new image, with the staged files of the service
/// mounted read-only, before anything changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validation {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// How long it may take.
    pub limit: Duration,
}

/// An object behind the API of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiObject {
    /// The service whose API keeps it.
    pub service: String,
    /// Where it is written with PUT.
    pub endpoint: Endpoint,
    /// User, and secret file with the password, by its path from the project's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<(String, String)>,
    /// What is written.
    pub body: serde_json::Value,
    /// Places in that, as JSON pointers, with the secret file whose value stands there, by its path from the project's folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// What tells that it is as it was written; where there is none, it is read where it is written, and has at least the
    /// fields of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<HttpProbe>,
}

impl ApiObject {
    /// What tells that it is as it was written.
    pub fn probe(&self) -> HttpProbe {
        self.probe.clone().unwrap_or_else(|| HttpProbe {
            endpoint: self.endpoint.clone(),
            credentials: self.credentials.clone(),
            expect: Expect::JsonSubset(self.body.clone()),
        })
    }
}

/// Objects behind the API of a service that gives them names itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiCollection {
    /// The service whose API keeps them.
    pub service: String,
    /// Where they are listed with GET, and one is made with POST.
    pub endpoint: Endpoint,
    /// What stands before an identifier where that object is removed with DELETE.
    pub item: String,
    /// User, and secret file with the password, by its path from the project's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<(String, String)>,
    /// Those that there should be.
    pub wanted: Listed,
}

/// Objects that a service should list: JSON values with an `id` that the service made up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Fields of those that are ours: others are left alone.
    pub ours: serde_json::Value,
    /// Fields of those that ended, and are only remembered.
    pub over: serde_json::Value,
    /// The objects.
    pub objects: Vec<ListedObject>,
}

/// An object that a service should list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedObject {
    /// What is sent; what is listed must have at least these fields.
    pub body: serde_json::Value,
    /// Fields that are sent, too, and that the service may change.
    pub only_sent: serde_json::Value,
    /// From when on it is not wanted any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<jiff::Timestamp>,
}
