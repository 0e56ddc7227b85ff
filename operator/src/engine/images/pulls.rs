//! Pulls of images onto hosts.

use std::sync::Arc;

use tasktracker_crds::conditions::reasons;
use tokio::{sync::watch, time::Instant};

use super::{
    Images,
    background::spawn_recorded,
    credentials::{Credentials, credentials},
    logins::Logins,
};
use crate::{
    engine::ProjectContext,
    host::Host,
    registry::{Refusal, RefusalKind, exact, registry_of},
    source::StackKey,
};

/// One pull. Namespaces are apart: why a registry refuses the login of one is no business of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PullKey {
    namespace: String,
    /// Address and port of the host.
    endpoint: String,
    reference: String,
}

impl PullKey {
    pub(super) fn new(stack: &StackKey, host: &Host, reference: &str) -> Self {
        Self {
            namespace: stack.namespace.clone(),
            endpoint: host.target().endpoint(),
            reference: reference.to_owned(),
        }
    }
}

/// A pull, under way or failed.
#[derive(Debug)]
pub(super) struct Pull {
    /// There while it is under way.
    pub(super) running: Option<watch::Receiver<()>>,
    /// Why it failed, and when.
    refused: Option<(Refusal, Instant)>,
    /// How often in a row.
    failures: u32,
    pub(super) used: Instant,
}

impl Images {
    /// What a missing image waits for. Why a pull failed is told while it is tried again, too.
    pub(super) fn pending(&self, key: &PullKey, now: Instant) -> (&'static str, String) {
        if let Some(pull) = self.state().pulls.get_mut(key) {
            pull.used = now;
            if let Some((refusal, _)) = &pull.refused {
                return (refusal.reason(), refusal.message(&key.reference));
            }
        }
        let message =
            format!("image {}: not on the host; it is pulled before anything is touched", key.reference);
        (reasons::PULLING_IMAGES, message)
    }

    /// Begins to pull what a change waits for, beside the checks; what is there as long as that takes.
    pub(in crate::engine) async fn fetch(
        self: &Arc<Self>,
        context: &ProjectContext<'_>,
        references: &[String],
    ) -> Vec<watch::Receiver<()>> {
        let mut running = Vec::new();
        for reference in references {
            let key = PullKey::new(&context.stack.key, context.host, reference);
            let credentials = credentials(context, reference).await;
            let (host, image) = (context.host.clone(), reference.clone());
            let logins = self.logins.clone();
            let namespace = key.namespace.clone();
            let pulled = async move { pull(&host, &image, &credentials, (&namespace, &logins)).await };
            running.extend(self.begin_to_pull(key, context.host.clone(), Instant::now(), pulled));
        }
        running
    }

    /// Begins to pull, where that is not under way and did not fail just now; what is there as long as it takes.
    pub(super) fn begin_to_pull(
        self: &Arc<Self>,
        key: PullKey,
        host: Arc<Host>,
        now: Instant,
        pulled: impl Future<Output = Result<(), Refusal>> + Send + 'static,
    ) -> Option<watch::Receiver<()>> {
        let (sender, receiver) = watch::channel(());
        {
            let mut state = self.state();
            let new = || Pull { running: None, refused: None, failures: 0, used: now };
            let pull = state.pulls.entry(key.clone()).or_insert_with(new);
            pull.used = now;
            if pull.running.is_some() {
                return pull.running.clone();
            }
            let failures = pull.failures;
            if pull.refused.as_ref().is_some_and(|(refusal, when)| now < *when + refusal.pause(failures)) {
                return None;
            }
            pull.running = Some(receiver.clone());
        }
        tracing::info!(namespace = key.namespace, host = key.endpoint, image = key.reference, "pulling");
        let images = self.clone();
        spawn_recorded(host, sender, pulled, move |pulled| {
            let mut state = images.state();
            match pulled {
                Ok(()) => drop(state.pulls.remove(&key)),
                Err(refusal) => {
                    let (now, before) = (Instant::now(), state.pulls.get(&key));
                    let failures = before.map_or(0, |pull| pull.failures).saturating_add(1);
                    let refused = Some((refusal, now));
                    state.pulls.insert(key, Pull { running: None, refused, failures, used: now });
                }
            }
        });
        Some(receiver)
    }
}

async fn pull(
    host: &Host,
    reference: &str,
    credentials: &Credentials,
    (namespace, logins): (&str, &Logins),
) -> Result<(), Refusal> {
    let registry = registry_of(reference);
    let login = credentials.login(host, registry).await?;
    let pulled = async {
        let pulled = host.pull(reference, login.as_ref()).await;
        pulled.unwrap_or_else(|error| Err(Refusal::unavailable(error)))
    };
    logins.ask((namespace, registry), login.as_ref(), pulled).await?;
    let wanted = exact(reference);
    let image = host.image(&wanted).await.map_err(Refusal::unavailable)?;
    image
        .map(drop)
        .ok_or_else(|| Refusal { kind: RefusalKind::Missing, found: "nothing after a pull".to_owned() })
}
