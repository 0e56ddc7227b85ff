//! What keeps a host from being checked or repaired, and what a report says of it.

use tasktracker_crds::{DriftItem, DriftKind, Layer, conditions::reasons};

use super::RollbackError;
use crate::{
    apply, host,
    report::{Failure, ProjectReport},
    source::{ProjectKey, SecretError},
};

/// What keeps a host from being checked or repaired.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A secret that is needed to reach it.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The host itself, or what was done on it.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// A person wants nothing to be written.
    #[error("nothing is written: {found}")]
    Held {
        /// The reason, as in conditions.
        reason: &'static str,
        /// Who wants it, why, and until when.
        found: String,
    },
    /// What failed on another host cannot be taken back here.
    #[error("what failed on another host stays here: {found}")]
    NotTakenBack {
        /// Why.
        found: String,
    },
    /// Another host must serve before something is taken down here.
    #[error(
        "waiting for host {peer}, which does not serve or was not checked yet: at most {most} may be unavailable"
    )]
    PeerUnavailable {
        /// The other host.
        peer: String,
        /// How many may be unavailable at once.
        most: usize,
    },
    /// The stack was unfollowed meanwhile.
    #[error("expected the stack to be followed, found that it is no longer")]
    Unfollowed,
    /// The operator itself has a defect.
    #[error("expected an end of the check, found a defect of the operator; its log says where")]
    Defect,
    /// Another operator wants it otherwise.
    #[error(
        "writer {writer}: expected to be the only operator of this host, found that another one wrote between our own writes again and again; end one of the two, or take the stack from its source: nothing is written for a while"
    )]
    OtherWriter {
        /// Who it is, as the host's `.epoch` names it.
        writer: String,
    },
}

impl From<RollbackError> for Error {
    fn from(error: RollbackError) -> Self {
        match error {
            RollbackError::Apply(error) => error.into(),
            other => Self::NotTakenBack { found: other.to_string() },
        }
    }
}

impl From<host::Error> for Error {
    fn from(error: host::Error) -> Self {
        Self::Apply(error.into())
    }
}

impl Error {
    /// The reason for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Secret(_) => reasons::SECRET_MISSING,
            Self::Apply(error) => error.reason(),
            Self::OtherWriter { .. } => reasons::OTHER_WRITER,
            Self::Defect => reasons::INTERNAL_ERROR,
            Self::NotTakenBack { .. } => reasons::ROLLED_BACK,
            Self::PeerUnavailable { .. } | Self::Unfollowed => reasons::PENDING,
            Self::Held { reason, .. } => reason,
        }
    }

    /// Whether nothing failed: something is waited for that is asked again as often as everything is checked.
    pub(super) fn is_patient(&self) -> bool {
        matches!(
            self,
            Self::PeerUnavailable { .. } | Self::Unfollowed | Self::Apply(apply::Error::GateClosed { .. })
        )
    }

    /// Whether the last check says how the project is: what was tried failed, or waits, on a host that answers.
    pub(super) fn is_after_a_check(&self) -> bool {
        self.is_patient() || matches!(self, Self::Apply(error) if !matches!(error, apply::Error::Host(_)))
    }

    /// What is wrong with the host itself, where that is what failed.
    fn of_host(&self) -> Option<&host::Error> {
        match self {
            Self::Apply(apply::Error::Host(error)) => Some(error),
            _ => None,
        }
    }

    /// What a report says of the host; what was known `before` of its release stays known.
    pub fn report(&self, key: &ProjectKey, before: Option<ProjectReport>) -> ProjectReport {
        let before = before.unwrap_or_default();
        // A defect says nothing of the host.
        let was_reachable = !before.host.is_empty() && before.reachable();
        let failure = Failure {
            reason: self.reason(),
            message: self.to_string(),
            reachable: !matches!(self, Self::Secret(_))
                && (was_reachable || !matches!(self, Self::Defect))
                && !self.of_host().is_some_and(host::Error::is_unreachable),
            stalled: matches!(self, Self::OtherWriter { .. } | Self::NotTakenBack { .. })
                || self.of_host().is_some_and(host::Error::is_stalled),
        };
        let kind = match self {
            Self::Secret(_) => Some(DriftKind::SecretMissing),
            _ => self.of_host().and_then(host::Error::drift_kind),
        };
        let item = kind.map(|kind| DriftItem {
            host: key.host.clone(),
            component: key.component.to_string(),
            service: None,
            kind,
            path: None,
            wanted: "a host that can be managed".to_owned(),
            found: self.to_string(),
            first_seen: None,
            answer: kind.answer(),
        });
        ProjectReport {
            host: key.host.clone(),
            component: key.component,
            failure: Some(failure),
            waited: before
                .waits_for()
                .filter(|reason| [reasons::ROLLED_BACK, reasons::ROLLOUT_HELD].contains(reason)),
            release: before.release,
            revision: before.revision,
            version: before.version,
            certificate: before.certificate,
            uncertified: before.uncertified,
            drift: before
                .drift
                .into_iter()
                .filter(|item| item.kind.layer() != Layer::Host)
                .chain(item)
                .collect(),
            ..ProjectReport::default()
        }
    }
}
