//! Sends the audit lines of a stack to its log store, by way of the log shipper beside it and through the SSH connection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::worker::Shared;
use crate::{
    component::{self, AUDIT, FLUENT_BIT, SENT_PORT},
    host::HttpAnswer,
    observe::address_of,
    source::{ProjectKey, Stack, target},
    text::printable,
};

/// How often it is looked whether there are any.
const PAUSE: Duration = Duration::from_secs(5);

/// Sends a stack's audit lines to the shipper of a project until the stack goes. What cannot be sent is sent later, unless
/// too much has come since.
pub(super) async fn push(
    shared: Arc<Shared>,
    key: ProjectKey,
    mut stacks: watch::Receiver<Option<Arc<Stack>>>,
) {
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut sent, mut told) = (0, String::new());
    loop {
        ticks.tick().await;
        let Some(stack) = stacks.borrow_and_update().clone() else { return };
        let lines = shared.memory.audit_after(&stack.key.to_string(), sent);
        if lines.is_empty() || component::log_store(&stack).is_none() {
            continue;
        }
        let found = send(&shared, &stack, &key, lines, &mut sent).await.err().unwrap_or_default();
        if found != told && !found.is_empty() {
            tracing::warn!(stack = %stack.key, host = %key.host, "audit lines are not in the log store: {found}");
        }
        told = found;
    }
}

async fn send(
    shared: &Shared,
    stack: &Stack,
    key: &ProjectKey,
    lines: Vec<(u64, String)>,
    sent: &mut u64,
) -> Result<(), String> {
    let words = |error: crate::host::Error| error.to_string();
    let spec = stack.spec.hosts.iter().find(|host| host.name.as_str() == key.host);
    let project = spec.and_then(|spec| Some((spec, component::project(stack, spec, key.component)?)));
    let Some((spec, project)) = project else { return Ok(()) };
    let target = target(stack, spec, &shared.secrets).await.map_err(|error| error.to_string())?;
    let host = shared.hosts.get(&stack.key, target);
    // Before its first rollout there is none.
    let Some(address) = address_of(&host, &project, FLUENT_BIT).await.map_err(words)? else { return Ok(()) };
    let service = SocketAddr::new(address, SENT_PORT);
    for (number, line) in lines {
        match host.send_line(service, &format!("/{AUDIT}"), line.as_bytes()).await.map_err(words)? {
            HttpAnswer::Answered { status: 200..=299, .. } => *sent = number,
            HttpAnswer::Answered { status, body } => {
                let body = String::from_utf8_lossy(&body);
                return Err(format!("expected success, found status {status}: {}", printable(body.trim())));
            }
            HttpAnswer::NoAnswer(found) => return Err(found),
            HttpAnswer::Forbidden => return Err("sshd forbids TCP forwarding".to_owned()),
        }
    }
    Ok(())
}
