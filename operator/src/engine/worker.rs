//! Keeps one host of one stack equal to it: check, repair, prove, wait.

use std::{sync::Arc, time::Duration};

use tasktracker_crds::HostSpec;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{Error, Hosts, Look, act, look, now, watcher::Watcher};
use crate::{
    desired::sha256,
    host::{Host, HostLock},
    metrics::StackLabels,
    plan::Approval,
    source::{Secrets, Stack, target},
};

/// Longest wait after failures.
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);

/// Shortest wait between checks, whatever the interval.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);

/// What a worker shares with the others.
pub(super) struct Shared {
    pub(super) watcher: Watcher,
    pub(super) hosts: Hosts,
    pub(super) secrets: Secrets,
}

/// Works on one host until the stack goes.
pub(super) async fn work(
    shared: Arc<Shared>,
    host_name: String,
    mut stacks: watch::Receiver<Option<Arc<Stack>>>,
) {
    let mut failures: u32 = 0;
    let mut kept: Option<Arc<Host>> = None;
    loop {
        let Some(stack) = stacks.borrow_and_update().clone() else {
            return;
        };
        let Some(spec) = stack.app_hosts().find(|host| host.name.as_str() == host_name).cloned() else {
            return;
        };
        // A check runs in a task of its own, so that a defect in one stack cannot end the others.
        let task = tokio::spawn(check(shared.clone(), stack.clone(), spec, kept.clone()));
        let (good, host) = task.await.unwrap_or_else(|error| {
            tracing::error!(stack = %stack.key, host = %host_name, %error, "a check ended in a defect");
            (false, None)
        });
        kept = host;
        failures = if good { 0 } else { failures.saturating_add(1) };
        let pause = spread(pause(failures, stack.spec.interval.duration()), &host_name);
        let _: Result<_, _> = timeout(pause, stacks.changed()).await;
    }
}

/// The interval after success; after failures 1 s, 2 s, 4 s, … up to a minute.
fn pause(failures: u32, interval: Duration) -> Duration {
    match failures {
        0 => interval.max(SHORTEST_PAUSE),
        _ => Duration::from_secs(1 << (failures - 1).min(6)).min(LONGEST_BACKOFF),
    }
}

/// Up to a tenth more, by the name of the host, so that hosts which began together do not stay together.
fn spread(pause: Duration, host: &str) -> Duration {
    let digest = sha256(host.as_bytes());
    let share = u32::from_str_radix(&digest[..4], 16).unwrap_or_default();
    pause + pause * share / (10 * 0x10000)
}

/// One check with its repairs; the host comes back so that its connection is kept.
async fn check(
    shared: Arc<Shared>,
    stack: Arc<Stack>,
    spec: HostSpec,
    kept: Option<Arc<Host>>,
) -> (bool, Option<Arc<Host>>) {
    let name = spec.name.as_str();
    let failed = |error: Error| {
        let before = shared.watcher.last(&stack.key, name);
        shared.watcher.publish(&stack, error.report(name, before), now());
    };
    let host = match target(&stack, &spec, &shared.secrets) {
        Ok(target) => shared.hosts.get(target),
        Err(error) => {
            failed(error.into());
            return (false, None);
        }
    };
    drop(kept);
    let result = repaired(&shared, &stack, &spec, &host).await;
    let good = result.is_ok();
    shared.watcher.metrics().reconciled(&StackLabels::of(&stack), good);
    if let Err(error) = result {
        failed(error);
    }
    (good, Some(host))
}

async fn repaired(shared: &Shared, stack: &Stack, spec: &HostSpec, host: &Host) -> Result<(), Error> {
    let labels = StackLabels::of(stack);
    if host.connect().await? {
        shared.watcher.metrics().connected(&labels, spec.name.as_str());
        let facts = host.facts().await?;
        tracing::info!(stack = %stack.key, host = %spec.name, engine = facts.engine, compose = facts.compose, "connected");
    }
    if !seen(shared, stack, spec, host, None).await?.iter().any(Look::has_work) {
        return Ok(());
    }
    let lock = host.lock().await?;
    let result = under_lock(shared, stack, spec, host, &lock).await;
    lock.release().await;
    result
}

/// What was seen before the lock may be over: it is looked at anew, and again when the work is done.
async fn under_lock(
    shared: &Shared,
    stack: &Stack,
    spec: &HostSpec,
    host: &Host,
    lock: &HostLock,
) -> Result<(), Error> {
    for look in seen(shared, stack, spec, host, Some(lock)).await? {
        if look.has_work() {
            carry_out(shared, stack, host, lock, &look).await?;
        }
    }
    seen(shared, stack, spec, host, Some(lock)).await.map(drop)
}

async fn seen(
    shared: &Shared,
    stack: &Stack,
    spec: &HostSpec,
    host: &Host,
    lock: Option<&HostLock>,
) -> Result<Vec<Look>, Error> {
    let started = Instant::now();
    let looks = look(stack, spec, host, Approval::Policy, lock).await?;
    shared.watcher.metrics().phase(&StackLabels::of(stack), "look", started.elapsed().as_secs_f64());
    for look in looks.iter().filter(|look| !look.observed.busy) {
        let mut report = look.report(spec.name.as_str());
        if look.has_work() {
            // What failed before is tried again now: the failure is over when that succeeds, not before.
            let before = shared.watcher.last(&stack.key, spec.name.as_str());
            report.failure = before.and_then(|report| report.failure).filter(|failure| failure.reachable);
        }
        shared.watcher.publish(stack, report, now());
    }
    Ok(looks)
}

async fn carry_out(
    shared: &Shared,
    stack: &Stack,
    host: &Host,
    lock: &HostLock,
    look: &Look,
) -> Result<(), Error> {
    let labels = StackLabels::of(stack);
    let metrics = shared.watcher.metrics();
    let name = &host.target().name;
    for action in &look.plan.repairs {
        tracing::info!(stack = %stack.key, host = %name, "repairing: {}", action.words());
    }
    if let Some(change) = &look.plan.rollout {
        tracing::info!(stack = %stack.key, host = %name, from = change.from_revision, to = change.to_revision, "rolling out");
    }
    let started = Instant::now();
    let outcome = act(stack, host, lock, look, "tasktracker-operator", now()).await;
    let seconds = started.elapsed().as_secs_f64();
    metrics.phase(&labels, "apply", seconds);
    if look.plan.rollout.is_some() {
        metrics.rollout(&labels, outcome.is_ok(), seconds);
    }
    if let Some(release) = outcome?.rolled_out {
        tracing::info!(stack = %stack.key, host = %name, release = release.id, revision = release.project.revision, seconds, "rolled out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_wait_longer_and_longer_and_success_the_interval() {
        let interval = Duration::from_secs(30);
        let waits: Vec<u64> = (0..9).map(|failures| pause(failures, interval).as_secs()).collect();
        assert_eq!(waits, [30, 1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn hosts_are_spread_over_a_tenth_of_the_pause() {
        let pauses: Vec<Duration> =
            ["a", "b", "c"].iter().map(|host| spread(Duration::from_secs(10), host)).collect();
        assert!(pauses.iter().all(|pause| (10.0..11.0).contains(&pause.as_secs_f64())), "{pauses:?}");
        assert!(pauses[0] != pauses[1] && pauses[1] != pauses[2]);
    }
}
