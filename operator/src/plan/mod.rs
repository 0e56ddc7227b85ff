//! The smallest list of actions, and what has to wait. Pure: a plan can only be made from differences.

use serde::Serialize;
use tasktracker_crds::{DriftItem, DriftKind, PolicySpec, Upgrade, conditions::reasons};

use crate::{
    desired::{Project, sha256},
    diff::Change,
    host::{Placement, Source},
    observe::Observed,
    release::{COMPOSE_FILE, Prepared, Release},
};

/// What is to be done with one project on one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Repairs, smallest first: files, then containers.
    pub repairs: Vec<Action>,
    /// The change to carry out after the repairs.
    pub rollout: Option<Change>,
    /// A change that has to wait, and why.
    pub waiting: Option<Waiting>,
}

/// A change that has to wait.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Reason, as in conditions.
    pub reason: &'static str,
    /// For whom or what it waits, in words.
    pub message: String,
    /// The change.
    pub change: Change,
}

/// One repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "camelCase")]
pub enum Action {
    /// Write a file of the release.
    #[serde(rename_all = "camelCase")]
    WriteFile {
        /// Path from the project's folder.
        path: String,
        /// Permission bits.
        mode: u32,
        /// SHA-256 of the content.
        sha256: String,
        /// Where the content comes from: the spec's own rendering, or the stored release.
        #[serde(skip)]
        source: Source,
    },
    /// Make a running service take up its files again.
    Reload {
        /// Compose service.
        service: String,
    },
    /// Start a container that is there.
    Start {
        /// Compose service.
        service: String,
        /// Name of the container.
        container: String,
    },
    /// Make the containers of a service that are not there.
    Create {
        /// Compose service.
        service: String,
    },
    /// Replace the containers of a service.
    Recreate {
        /// Compose service.
        service: String,
    },
}

impl Action {
    /// The action in words, for people.
    pub fn words(&self) -> String {
        match self {
            Self::WriteFile { path, .. } => format!("write {path}"),
            Self::Reload { service } => format!("reload {service}"),
            Self::Start { container, .. } => format!("start {container}"),
            Self::Create { service } => format!("create {service}"),
            Self::Recreate { service } => format!("recreate {service}"),
        }
    }

    /// The service that has to serve afterwards.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::WriteFile { .. } => None,
            Self::Reload { service }
            | Self::Start { service, .. }
            | Self::Create { service }
            | Self::Recreate { service } => Some(service),
        }
    }

    /// What the writing program needs for a file.
    pub fn placement(&self) -> Option<Placement> {
        let Self::WriteFile { path, mode, sha256, source } = self else {
            return None;
        };
        Some(Placement { path: path.clone(), mode: *mode, sha256: sha256.clone(), source: source.clone() })
    }
}

/// Who may release a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// Nobody asked: the policy decides.
    Policy,
    /// A person asks for it now.
    Person,
}

impl Plan {
    /// Whether there is nothing to do and nothing waits.
    pub fn is_empty(&self) -> bool {
        self.repairs.is_empty() && self.rollout.is_none() && self.waiting.is_none()
    }

    /// The change, whether it waits or not.
    pub fn change(&self) -> Option<&Change> {
        self.rollout.as_ref().or(self.waiting.as_ref().map(|waiting| &waiting.change))
    }

    /// Hash of the actions and of the change, the same before and after it was released.
    pub fn hash(&self) -> String {
        sha256(&serde_json::to_vec(&(&self.repairs, self.change())).unwrap_or_default())[..16].to_owned()
    }
}

/// What to do about drift and change.
pub fn plan(
    drift: &[DriftItem],
    change: Option<Change>,
    desired: &Project,
    observed: &Observed,
    policy: &PolicySpec,
    approval: Approval,
) -> Plan {
    let waiting = change
        .as_ref()
        .filter(|_| !observed.busy)
        .map(|change| reason_to_wait(change, desired, observed, policy, approval));
    if let (Some(None), Some(change)) = (&waiting, &change) {
        // A rollout writes every file and makes every container anew that is not as it should be: repairing towards
        // the release that it replaces would be in vain, and might not even be possible.
        return Plan { repairs: Vec::new(), rollout: Some(change.clone()), waiting: None };
    }
    let repairs =
        observed.applied.as_ref().map(|applied| repairs(drift, applied, desired)).unwrap_or_default();
    let waiting =
        waiting.flatten().zip(change).map(|((reason, message), change)| Waiting { reason, message, change });
    Plan { repairs, rollout: None, waiting }
}

fn reason_to_wait(
    change: &Change,
    desired: &Project,
    observed: &Observed,
    policy: &PolicySpec,
    approval: Approval,
) -> Option<(&'static str, String)> {
    let before = observed.applied.as_ref().map(|applied| &applied.project.environment);
    if let Some(before) = before.filter(|before| **before != desired.environment) {
        let message = format!(
            "environment cannot be changed: expected {before}, found {}; make another stack",
            desired.environment
        );
        return Some((reasons::INVALID_SPEC, message));
    }
    if approval == Approval::Person {
        return None;
    }
    let failed = observed.ledger.as_ref().and_then(|ledger| ledger.failed.as_ref());
    if let Some(failed) = failed.filter(|failed| failed.desired_hash == change.desired_hash) {
        let message = format!(
            "this desired state was tried and failed ({}); change it, or run `apply`",
            failed.message
        );
        return Some((reasons::UNHEALTHY, message));
    }
    if policy.upgrade == Upgrade::Approve {
        return Some((
            reasons::APPROVAL_NEEDED,
            "policy.upgrade is Approve: a person runs `apply`".to_owned(),
        ));
    }
    None
}

/// Repairs towards the applied release, files first, each service once.
fn repairs(drift: &[DriftItem], applied: &Release, desired: &Project) -> Vec<Action> {
    let mut files = Vec::new();
    let mut services: Vec<Action> = Vec::new();
    for item in drift {
        match (item.kind, &item.service, &item.path) {
            (DriftKind::FileMissing | DriftKind::FileChanged, _, Some(path)) => {
                files.extend(write_file(path, applied, desired));
            }
            (DriftKind::Missing, Some(service), _) => {
                services.push(Action::Create { service: service.clone() });
            }
            (DriftKind::Stopped, Some(service), Some(container)) => {
                services.push(Action::Start { service: service.clone(), container: container.clone() });
            }
            (DriftKind::ImageChanged | DriftKind::ConfigChanged, Some(service), _) => {
                services.push(Action::Recreate { service: service.clone() });
            }
            _ => {}
        }
    }
    let recreated: Vec<String> = services
        .iter()
        .filter_map(
            |action| {
                if let Action::Recreate { service } = action { Some(service.clone()) } else { None }
            },
        )
        .collect();
    services.retain(|action| {
        matches!(action, Action::Recreate { .. })
            || !recreated.iter().any(|service| action.service() == Some(service))
    });
    services.dedup();
    let reloads = reloads(drift, &services);
    files.sort_by_key(|action| matches!(action, Action::WriteFile { path, .. } if path == COMPOSE_FILE));
    files.into_iter().chain(reloads).chain(services).collect()
}

/// A service whose file was repaired takes it up again, unless it is started anyway.
fn reloads(drift: &[DriftItem], services: &[Action]) -> Vec<Action> {
    let mut reloads: Vec<Action> = drift
        .iter()
        .filter(|item| matches!(item.kind, DriftKind::FileMissing | DriftKind::FileChanged))
        .filter_map(|item| item.service.clone())
        .filter(|service| !services.iter().any(|action| action.service() == Some(service)))
        .map(|service| Action::Reload { service })
        .collect();
    reloads.dedup();
    reloads
}

/// The spec's own rendering where it is the same release's; the copy stored on the host otherwise.
fn write_file(path: &str, applied: &Release, desired: &Project) -> Option<Action> {
    let record = applied.files.get(path)?;
    let same = desired.hash() == applied.desired_hash;
    let rendered = if same {
        Prepared::new(desired.clone(), applied.images.clone()).contents.remove(path)
    } else {
        desired.files.get(path).cloned()
    };
    let rendered = rendered.filter(|content| sha256(content.as_bytes()) == record.sha256);
    let source = match rendered {
        Some(content) => Source::Inline(content.into_bytes()),
        None => Source::Copy(applied.stored(path)),
    };
    Some(Action::WriteFile {
        path: path.to_owned(),
        mode: record.mode,
        sha256: record.sha256.clone(),
        source,
    })
}

#[cfg(test)]
mod tests;
