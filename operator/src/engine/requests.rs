//! Requests that people make through annotations of a stack: each is carried out once on each project, whose ledger
//! records that it was acknowledged.

use tasktracker_crds::conditions::reasons;

use super::{Evaluation, ProjectContext};
use crate::{
    apply,
    host::HostLock,
    ledger::Ledger,
    source::{RETRY_ANNOTATION, ROLLBACK_ANNOTATION, Stack},
};

/// A request that a project did not acknowledge yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// What failed is to be tried again.
    Retry(String),
    /// A kept release is to come back: the one before where none is named.
    Rollback { release: Option<String>, requested: String },
}

/// The requests of a stack that a project has not acknowledged; none where nothing was ever rolled out.
pub(super) fn pending(stack: &Stack, evaluation: &Evaluation) -> Vec<Request> {
    let Some(ledger) = evaluation.observed.ledger.as_ref().filter(|ledger| ledger.current.is_some()) else {
        return Vec::new();
    };
    if evaluation.plan.hold.is_some() || evaluation.observed.busy {
        return Vec::new();
    }
    let is_new = |name: &str| {
        let requested = stack.annotation_for(name, evaluation.project.component)?;
        (ledger.requests.get(name).map(String::as_str) != Some(requested)).then(|| requested.to_owned())
    };
    let retry = is_new(RETRY_ANNOTATION).map(Request::Retry);
    // It is about one spec: on a host that is checked late, another one may be in force.
    let rollback = is_new(ROLLBACK_ANNOTATION).and_then(|requested| {
        let (named, rest) = requested.split_once('@')?;
        let generation: i64 = rest.split('/').next()?.parse().ok()?;
        let is_this = stack.resource.metadata.generation == Some(generation);
        let release = (!named.is_empty() && named != "previous").then(|| named.to_owned());
        is_this.then(|| Request::Rollback { release, requested: requested.clone() })
    });
    retry.into_iter().chain(rollback).collect()
}

impl Request {
    /// The ledger once the request is acknowledged.
    fn acknowledged(&self, ledger: &Ledger) -> Ledger {
        let (name, requested) = match self {
            Self::Retry(requested) => (RETRY_ANNOTATION, requested),
            Self::Rollback { requested, .. } => (ROLLBACK_ANNOTATION, requested),
        };
        let mut ledger = ledger.clone();
        ledger.requests.insert(name.to_owned(), requested.clone());
        ledger
    }
}

/// A request that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Reason, as in events.
    pub(super) reason: &'static str,
    /// Why, in words.
    pub(super) found: String,
}

impl ProjectContext<'_> {
    /// Carries out a request. Its acknowledgement is written first: an operator that is cut does not go back twice.
    ///
    /// # Errors
    /// When the host cannot be asked or written to.
    pub(super) async fn carry_out_request(
        &self,
        lock: &HostLock,
        evaluation: &Evaluation,
        request: &Request,
        who: &str,
    ) -> Result<Option<Refused>, apply::Error> {
        let Some(ledger) = &evaluation.observed.ledger else { return Ok(None) };
        let evaluation = evaluation.with_ledger(request.acknowledged(ledger));
        match request {
            Request::Retry(_) => {
                if !self.retry(lock, &evaluation, who).await? {
                    self.acknowledge(lock, &evaluation, who).await?;
                }
                Ok(None)
            }
            Request::Rollback { release, .. } => {
                if let Err(error) = self.bring_images_back(&evaluation, release.as_deref()).await {
                    tracing::debug!(host = %self.spec.name, %error, "nothing is pulled");
                }
                self.acknowledge(lock, &evaluation, who).await?;
                let back = self.rollback(lock, &evaluation, release.as_deref(), who).await;
                Ok(back
                    .err()
                    .map(|refused| Refused { reason: reasons::REQUEST_REFUSED, found: refused.to_string() }))
            }
        }
    }
}
