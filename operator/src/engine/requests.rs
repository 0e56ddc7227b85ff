//! What people wish for through annotations of a stack: each wish is carried out once on each host, and the host's ledger
//! keeps that it was.

use tasktracker_crds::conditions::reasons;

use super::{Look, Site};
use crate::{
    apply,
    host::HostLock,
    ledger::Ledger,
    source::{RETRY_ANNOTATION, ROLLBACK_ANNOTATION, Stack},
};

/// A wish that a host did not hear yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// What failed is to be tried again.
    Retry(String),
    /// A kept release is to come back: the one before where none is named.
    Rollback { release: Option<String>, wish: String },
}

/// The wishes of a stack that a look shows to be open; none where nothing was ever rolled out.
pub(super) fn open(stack: &Stack, look: &Look) -> Vec<Request> {
    let Some(ledger) = look.observed.ledger.as_ref().filter(|ledger| ledger.current.is_some()) else {
        return Vec::new();
    };
    if look.plan.hold.is_some() || look.observed.busy {
        return Vec::new();
    }
    let is_new = |name: &str| {
        let wish = stack.annotation(name)?;
        (ledger.requests.get(name).map(String::as_str) != Some(wish)).then(|| wish.to_owned())
    };
    let retry = is_new(RETRY_ANNOTATION).map(Request::Retry);
    // It is about one spec: on a host that hears of it late, another one may be in force.
    let rollback = is_new(ROLLBACK_ANNOTATION).and_then(|wish| {
        let (named, rest) = wish.split_once('@')?;
        let generation: i64 = rest.split('/').next()?.parse().ok()?;
        let is_this = stack.resource.metadata.generation == Some(generation);
        let release = (!named.is_empty() && named != "previous").then(|| named.to_owned());
        is_this.then(|| Request::Rollback { release, wish: wish.clone() })
    });
    retry.into_iter().chain(rollback).collect()
}

impl Request {
    /// The ledger once the wish was heard.
    fn heard(&self, ledger: &Ledger) -> Ledger {
        let (name, wish) = match self {
            Self::Retry(wish) => (RETRY_ANNOTATION, wish),
            Self::Rollback { wish, .. } => (ROLLBACK_ANNOTATION, wish),
        };
        let mut ledger = ledger.clone();
        ledger.requests.insert(name.to_owned(), wish.clone());
        ledger
    }
}

/// What became of a wish that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Reason, as in events.
    pub(super) reason: &'static str,
    /// Why, in words.
    pub(super) found: String,
}

impl Site<'_> {
    /// Carries out a wish. That it was heard is written first: whoever is cut does not go back twice.
    ///
    /// # Errors
    /// When the host cannot be asked or written to.
    pub(super) async fn grant(
        &self,
        lock: &HostLock,
        look: &Look,
        request: &Request,
        who: &str,
    ) -> Result<Option<Refused>, apply::Error> {
        let Some(ledger) = &look.observed.ledger else { return Ok(None) };
        let mut look = look.clone();
        look.observed.ledger = Some(request.heard(ledger));
        match request {
            Request::Retry(_) => {
                if !self.retry(lock, &look, who).await? {
                    self.keep_heard(lock, &look, who).await?;
                }
                Ok(None)
            }
            Request::Rollback { release, .. } => {
                if let Err(error) = self.bring_images_back(&look, release.as_deref()).await {
                    tracing::debug!(host = %self.spec.name, %error, "nothing is pulled");
                }
                self.keep_heard(lock, &look, who).await?;
                let back = self.rollback(lock, &look, release.as_deref(), who).await;
                Ok(back
                    .err()
                    .map(|refused| Refused { reason: reasons::REQUEST_REFUSED, found: refused.to_string() }))
            }
        }
    }
}
