//! Parts of the schema that this version of the operator does not carry out yet: refused, never ignored.

use crate::{DockerAccess, OnFailure, TaskTrackerStackSpec, TlsMode};

/// The parts of a spec that are not supported yet, as path and message.
pub fn unsupported(spec: &TaskTrackerStackSpec) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut refuse = |present: bool, path: &str| {
        if present {
            found.push((path.to_owned(), "not supported yet by this version of the operator".to_owned()));
        }
    };
    refuse(spec.monitoring.is_some(), "spec.monitoring");
    refuse(spec.logging.is_some(), "spec.logging");
    refuse(!spec.notifications.is_empty(), "spec.notifications");
    unsupported_policy(spec, &mut refuse);
    unsupported_app(spec, &mut refuse);
    for (index, host) in spec.hosts.iter().enumerate() {
        refuse(host.jump.is_some(), &format!("spec.hosts[{index}].jump"));
        refuse(host.docker_access == DockerAccess::DialStdio, &format!("spec.hosts[{index}].dockerAccess"));
    }
    found
}

fn unsupported_policy(spec: &TaskTrackerStackSpec, refuse: &mut impl FnMut(bool, &str)) {
    let policy = &spec.policy;
    refuse(policy.rollout.on_failure == OnFailure::Hold, "spec.policy.rollout.onFailure");
}

fn unsupported_app(spec: &TaskTrackerStackSpec, refuse: &mut impl FnMut(bool, &str)) {
    let Some(app) = &spec.app else { return };
    refuse(app.tls.mode != TlsMode::Off, "spec.app.tls.mode");
    refuse(app.registry_auth.is_some(), "spec.app.registryAuth");
}
