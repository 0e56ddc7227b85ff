//! Elasticsearch and what feeds it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ContainerResourcesSpec, SecretReference, ServiceSpec, StackReference, UseSpec, fixed};
use crate::scalars::{ImageReference, Port};

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
}

impl Default for FluentBitSpec {
    fn default() -> Self {
        Self {
            image: fixed!("fluent/fluent-bit:5.1.1"),
            resources: ContainerResourcesSpec::new("128Mi", "0.5"),
        }
    }
}
