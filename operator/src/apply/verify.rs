//! Whether services serve, looked at by the operator itself: `docker compose up --wait` is no proof.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, sleep};

use super::Error;
use crate::{
    desired::compose::COMPOSE_PROJECT,
    diff,
    host::{Host, HostLock},
    observe::Observed,
    release::Release,
};

/// How often it is looked.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until the named services of a release serve, and have served without a break for `soak`.
pub(super) async fn serving(
    host: &Host,
    lock: &HostLock,
    release: &Release,
    services: &BTreeSet<&str>,
    limit: Duration,
    soak: Duration,
) -> Result<(), Error> {
    let started = Instant::now();
    let mut good_since: Option<(Instant, Vec<String>)> = None;
    loop {
        // Without the lock, what is there may be another writer's.
        lock.check()?;
        let project = &release.project;
        let mut containers = host.containers().await?;
        containers.retain(|container| container.has_label(COMPOSE_PROJECT, &project.name));
        let mut ids: Vec<String> = containers.iter().map(|container| container.id.clone()).collect();
        ids.sort();
        let observed = Observed { containers, ..Observed::default() };
        let faults: Vec<String> = diff::faults(release, &observed)
            .into_iter()
            .filter(|fault| services.iter().any(|service| fault.starts_with(&format!("{service}: "))))
            .collect();
        good_since = match good_since {
            _ if !faults.is_empty() => None,
            Some((since, same)) if same == ids => Some((since, same)),
            _ => Some((Instant::now(), ids)),
        };
        if good_since.as_ref().is_some_and(|(since, _)| since.elapsed() >= soak) {
            return Ok(());
        }
        if faults.is_empty() && started.elapsed() > limit + soak {
            let faults =
                vec!["containers: expected the same ones, found them replaced again and again".to_owned()];
            return Err(Error::Unhealthy { faults, limit: limit + soak });
        }
        if !faults.is_empty() && started.elapsed() > limit {
            return Err(Error::Unhealthy { faults, limit });
        }
        sleep(PAUSE).await;
    }
}
