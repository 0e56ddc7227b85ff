//! Sends what the operator itself knows of a stack to the metrics store of that stack, through the SSH connection: so the
//! operator may run where nobody can reach it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{now, worker::Shared};
use crate::{
    component,
    host::{BasicAuth, Host, HttpAnswer, ServiceAddress},
    metrics::remote_write,
    observe::address_of,
    project::{MetricsStore, Project},
    secret::Values,
    source::{ProjectKey, Stack, target},
};

/// How often the series are sent: as often as the agents scrape.
const PAUSE: Duration = Duration::from_secs(15);

/// Sends a stack's series to a store until the stack goes. What cannot be sent is not kept: the next ones say more.
pub(super) async fn push(
    shared: Arc<Shared>,
    key: ProjectKey,
    mut stacks: watch::Receiver<Option<Arc<Stack>>>,
) {
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    loop {
        ticks.tick().await;
        let Some(stack) = stacks.borrow_and_update().clone() else { return };
        let spec = stack.spec.hosts.iter().find(|host| host.name.as_str() == key.host);
        let project = spec.and_then(|spec| Some((spec, component::project(&stack, spec, key.component)?)));
        let Some((spec, project)) = project else { continue };
        let Some(store) = &project.metrics_store else { continue };
        let sent = async {
            let target = target(&stack, spec, &shared.secrets).await.map_err(|error| error.to_string())?;
            let host = shared.hosts.get(&stack.key, target);
            send(&shared, &stack, &host, &project, store).await
        };
        let found = sent.await.err().unwrap_or_default();
        if found != told && !found.is_empty() {
            tracing::warn!(stack = %stack.key, host = %spec.name, "the operator's own metrics are not stored: {found}");
        }
        told = found;
    }
}

async fn send(
    shared: &Shared,
    stack: &Stack,
    host: &Host,
    project: &Project,
    store: &MetricsStore,
) -> Result<(), String> {
    let words = |error: crate::host::Error| error.to_string();
    let address = address_of(host, project, &store.service).await.map_err(words)?;
    // Before its first rollout there is none.
    let Some(address) = address else { return Ok(()) };
    let (user, path) = &store.credentials;
    let mut values = Values::default();
    shared.secrets.of(&stack.key).add(&mut values, &project.references()).await;
    let references = project.references();
    let password = values.of(&references).remove(path).cloned();
    let password = password.ok_or_else(|| format!("the password in {path} is not known"))?;
    let credentials = BasicAuth { user: user.clone(), password };
    let body = remote_write(&shared.watcher.metrics().families(), stack, &shared.writer, now());
    let address = std::net::SocketAddr::new(address, store.endpoint.port);
    let service = ServiceAddress { address, tls_name: store.endpoint.tls_name.as_deref() };
    let answer =
        host.send_samples(service, &store.endpoint.path, &credentials, &body).await.map_err(words)?;
    match answer {
        HttpAnswer::Answered { status: 200..=299, .. } => Ok(()),
        HttpAnswer::Answered { status, body } => {
            let body = String::from_utf8_lossy(&body);
            Err(format!("expected success, found status {status}: {}", crate::text::printable(body.trim())))
        }
        HttpAnswer::NoAnswer(found) => Err(found),
        HttpAnswer::Forbidden => Err("sshd forbids TCP forwarding".to_owned()),
    }
}
