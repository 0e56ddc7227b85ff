//! What parts of monitoring and logging have in common, and the app's ports.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ResourcesSpec, fixed};
use crate::scalars::{ImageReference, Name, Port};

/// Another stack whose service is used.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UseSpec {
    /// Namespace of that stack. Default: this stack's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// Name of that stack.
    pub stack: Name,
}

/// A stack by namespace and name.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StackReference {
    /// Namespace of the stack.
    pub namespace: Name,
    /// Name of the stack.
    pub stack: Name,
}

/// What every service of monitoring and logging has.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Whether it is deployed.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Its image, if not the tested one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageReference>,
    /// Its published port, if not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// Limits of its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
}

impl Default for ServiceSpec {
    fn default() -> Self {
        Self { enabled: enabled(), image: None, port: None, resources: None }
    }
}

fn enabled() -> bool {
    true
}

macro_rules! ports {
    ($($(#[$doc:meta])* $field:ident = $number:literal),* $(,)?) => {
        /// Ports of the app. On a host, each is used once.
        #[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct PortsSpec {
            $($(#[$doc])* pub $field: Port,)*
        }

        impl Default for PortsSpec {
            fn default() -> Self {
                Self { $($field: Port($number)),* }
            }
        }
    };
}

ports! {
    /// The page, and the API under `/api`.
    page = 3500,
    /// The API alone.
    api = 8000,
    /// With TLS, in the place of `page`: leads to `https`.
    http = 80,
    /// With TLS, in the place of `page`: the page, and the API under `/api`.
    https = 443,
}

/// A length of time known to have the form of its type.
pub(super) fn span(text: &str) -> crate::scalars::Span {
    fixed!(text)
}
