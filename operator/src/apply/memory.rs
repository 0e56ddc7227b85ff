//! What is done about services that are OOM-killed whenever they start: it is kept, and whether it helps is seen.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Error;
use crate::{diff, host::Host, ledger::Ledger, observe::Observed, plan::Action};

/// From one look to the next whether a service is OOM-killed again.
const PAUSE: Duration = Duration::from_millis(200);

/// A ledger that knows of an action about the memory of a service.
pub(super) fn known_to(ledger: Ledger, action: &Action) -> Ledger {
    match action {
        Action::RaiseMemory { service, from, limits, .. } => {
            ledger.with_memory_help(service, *from, limits.mem_limit, false)
        }
        Action::MoveAside { service, limit, .. } => ledger.with_memory_help(service, *limit, *limit, true),
        _ => ledger,
    }
}

/// Services and numbers of containers for whose memory something is done.
pub(super) fn helped<'a>(repairs: &'a [&Action], observed: &'a Observed) -> Vec<(&'a String, &'a String)> {
    let names = repairs.iter().filter_map(|action| match action {
        Action::RaiseMemory { container, .. } | Action::MoveAside { container, .. } => Some(container),
        _ => None,
    });
    let named = |name: &String| observed.containers.iter().find(|container| container.name == *name);
    names.filter_map(|name| named(name)?.replica()).collect()
}

/// Waits until a service is OOM-killed again although something was done about that; for ever where it is not.
pub(super) async fn ended_again(host: &Host, project: &str, helped: &[(&String, &String)]) -> Error {
    let begun = Instant::now();
    loop {
        sleep(PAUSE).await;
        let is_again = |(service, replica): &&(&String, &String)| {
            host.oom_kills_since_serving(project, service, replica) >= diff::OOM_KILLS
        };
        if let Some((service, _)) = helped.iter().find(is_again) {
            let faults = vec![format!("{service}: expected to serve, found it OOM-killed again")];
            return Error::Unhealthy { faults, logs: Vec::new(), limit: begun.elapsed() };
        }
    }
}
