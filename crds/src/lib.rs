//! The `TaskTrackerStack` resource: types, schema, conditions and validation.
//!
//! No IO and no async here: this crate is what both doors of the operator (a Kubernetes API server and a
//! folder of YAML files) agree on. The generated schema is in `crds/tasktrackerstacks.yaml`.

#![expect(unreachable_pub, reason = "the derive of KubeSchema repeats every type inside a function")]

pub mod conditions;
pub mod drift;
pub mod line_pattern;
pub mod scalars;
pub mod spec;
pub mod status;
pub mod validation;

pub use drift::{Answer, DriftItem, DriftKind, Layer};
pub use spec::*;
pub use status::*;

use kube::CustomResourceExt;

/// API group and version, as written in `apiVersion`.
pub const API_VERSION: &str = "tasktracker.dev/v1alpha1";
/// The kind, as written in `kind`.
pub const KIND: &str = "TaskTrackerStack";

/// Renders the `CustomResourceDefinition` as the YAML kept in `crds/tasktrackerstacks.yaml`.
///
/// # Errors
/// When the definition cannot be written as YAML, which a test rules out.
pub fn crd_yaml() -> Result<String, serde_saphyr::SerializeError> {
    serde_saphyr::to_string(&TaskTrackerStack::crd())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schema_has_nothing_that_an_api_server_refuses() {
        for word in ["patternProperties", "propertyNames", "$ref", "oneOf"] {
            assert!(!super::crd_yaml().unwrap().contains(word), "{word}");
        }
    }

    #[test]
    fn the_generated_yaml_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tasktrackerstacks.yaml");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == super::crd_yaml().unwrap(),
            "crds/tasktrackerstacks.yaml is stale: run `cargo xtask generate`"
        );
    }
}
