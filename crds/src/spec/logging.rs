//! Elasticsearch and what feeds it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ContainerResourcesSpec, SecretKeySpec, SecretReference, ServiceSpec, StackReference, UseSpec, fixed,
};
use crate::scalars::{ImageReference, Line, Name, OptionName, Port};

/// Elasticsearch, on the hosts with the role logging, and what ships logs to it, on every host with a role.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoggingSpec {
    /// Use another stack's logging instead of one's own.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub use_stack: Option<UseSpec>,
    /// Stacks that may use this one's logging.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["namespace", "stack"]))]
    pub accepts: Vec<StackReference>,
    /// Secret with the passwords of those who are let in: `password` of the user `admin`, `shipperPassword` of `shipper`, who
    /// may only add, and `readerPassword` of `reader`, who may only read.
    pub credentials_secret_ref: SecretReference,
    /// Log store.
    pub elasticsearch: ElasticsearchSpec,
    /// Log shipper, on every host with a role.
    pub fluent_bit: FluentBitSpec,
    /// Log search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kibana: Option<ServiceSpec>,
}

impl Default for LoggingSpec {
    fn default() -> Self {
        Self {
            use_stack: None,
            accepts: Vec::new(),
            credentials_secret_ref: SecretReference { name: fixed!("logging") },
            elasticsearch: ElasticsearchSpec::default(),
            fluent_bit: FluentBitSpec::default(),
            kibana: None,
        }
    }
}

/// The log store.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ElasticsearchSpec {
    /// Its image.
    pub image: ImageReference,
    /// Its port on `bindAddress`; shippers send to it.
    pub port: Port,
    /// What it may use. Half of the memory is its heap.
    pub resources: ContainerResourcesSpec,
    /// How long logs are kept.
    pub retention: LogRetentionSpec,
}

impl Default for ElasticsearchSpec {
    fn default() -> Self {
        Self {
            image: fixed!("docker.elastic.co/elasticsearch/elasticsearch:8.19.21"),
            port: Port(9200),
            resources: ContainerResourcesSpec::new("2Gi", "2"),
            retention: LogRetentionSpec::default(),
        }
    }
}

/// How long logs are kept.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogRetentionSpec {
    /// Days.
    #[schemars(range(min = 1, max = 3650))]
    pub days: u32,
}

impl Default for LogRetentionSpec {
    fn default() -> Self {
        Self { days: 30 }
    }
}

/// The log shipper.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FluentBitSpec {
    /// Its image. Its version decides about the format of its configuration: YAML from 3.2 on.
    pub image: ImageReference,
    /// What it may use.
    pub resources: ContainerResourcesSpec,
    /// Where it finds the host's own log.
    pub host_log: HostLog,
    /// What is replaced in lines before they leave the host, beside passwords in URLs and in `Authorization` headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub mask: Vec<MaskSpec>,
    /// Lines that are not kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub drop: Vec<DropSpec>,
    /// Where documents are sent, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub extra_outputs: Vec<LogOutputSpec>,
}

/// Where a host's own log is.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostLog {
    /// In systemd's journal.
    #[default]
    Journal,
    /// In files of a syslog server: `/var/log/syslog`, `messages`, `auth.log` and `secure`, whichever there are.
    Files,
    /// It is not read.
    None,
}

/// What is replaced in lines.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MaskSpec {
    /// A regular expression, without look-around and back-references; a group cannot be repeated any number of times.
    pub pattern: Line,
    /// What stands in its place.
    #[serde(default = "stars")]
    pub replacement: Line,
}

fn stars() -> Line {
    fixed!("***")
}

/// Lines that are not kept.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DropSpec {
    /// Of which service; of each where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// A regular expression as in `mask`; a line that it fits is not kept.
    pub pattern: Line,
}

/// Where documents are sent, too.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogOutputSpec {
    /// Name of an output plugin of Fluent Bit, such as `loki`.
    pub plugin: OptionName,
    /// The plugin's options.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Line>", extend("maxProperties" = 50))]
    pub options: BTreeMap<OptionName, Line>,
    /// Options with values from a Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, SecretKeySpec>", extend("maxProperties" = 10))]
    pub secret_options: BTreeMap<OptionName, SecretKeySpec>,
}

impl Default for FluentBitSpec {
    fn default() -> Self {
        Self {
            image: fixed!("fluent/fluent-bit:5.1.1"),
            resources: ContainerResourcesSpec::new("128Mi", "0.5"),
            host_log: HostLog::default(),
            mask: Vec::new(),
            drop: Vec::new(),
            extra_outputs: Vec::new(),
        }
    }
}
