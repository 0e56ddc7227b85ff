//! Parts of the schema that this version of the operator does not carry out yet: refused, never ignored.

use crate::{DockerAccess, TaskTrackerStackSpec};

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
    for (index, host) in spec.hosts.iter().enumerate() {
        refuse(host.jump.is_some(), &format!("spec.hosts[{index}].jump"));
        refuse(host.docker_access == DockerAccess::DialStdio, &format!("spec.hosts[{index}].dockerAccess"));
    }
    found
}
