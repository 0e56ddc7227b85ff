//! `apply`: does now what `plan` shows, as a person's wish.

use std::time::Duration;

use anyhow::{anyhow, bail};
use serde_json::json;
use tasktracker_crds::OnFailure;
use tokio::time::{Instant, sleep};

use super::{
    Selection, Verdict,
    hosts::{Looked, Reach, hashes, look_at_all},
    printer::{Printer, Tone},
};
use crate::{
    apply,
    engine::{Look, Memory, Site, Wish},
    host::HostLock,
    observe::Depth,
    plan::Approval,
};

/// How long another writer is waited for before there is a plan.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is looked whether they are done.
const PAUSE: Duration = Duration::from_millis(300);

/// `apply`
pub(super) async fn apply(
    printer: &Printer,
    selection: &Selection,
    wanted: Option<&str>,
    approval: Approval,
) -> anyhow::Result<Verdict> {
    let reach = Reach::default();
    let all = look_in_peace(selection, &reach, approval).await?;
    if let Some(wanted) = wanted {
        let found: Vec<String> = hashes(&all).into_values().collect();
        if !found.iter().any(|found| found == wanted) || found.len() > 1 {
            let found = found.join(", ");
            bail!(
                "--plan: expected the plan {wanted} of one stack, found {found}: something changed since; look at `plan` again"
            );
        }
    }
    let mut verdict = Verdict::InSync;
    let mut documents = Vec::new();
    let stacks = all.chunk_by(|one, next| one.stack.key == next.stack.key);
    let results = futures::future::join_all(stacks.map(|hosts| apply_stack(hosts, approval))).await;
    for (looked, result) in all.iter().zip(results.into_iter().flatten()) {
        let (stack, host) = (looked.stack.key.to_string(), &looked.spec.name);
        match result {
            Err(error) => {
                printer.error(&looked.error_line(&format!("{error:#}")));
                documents.push(json!({ "stack": stack, "host": host, "error": format!("{error:#}") }));
                verdict = Verdict::Failed;
            }
            Ok(done) => {
                for (component, outcome) in done {
                    print_outcome(printer, looked, &outcome);
                    let release = outcome.rolled_out.map(|release| release.id);
                    documents.push(json!({ "stack": stack, "host": host, "component": component, "repaired": outcome.repaired, "release": release }));
                }
            }
        }
    }
    if printer.is_json() {
        printer.json(&documents);
    }
    Ok(verdict)
}

/// Looks when nobody writes: while somebody does, there is no plan to compare with. Whoever writes for too long is told
/// of where the lock is asked for.
async fn look_in_peace(
    selection: &Selection,
    reach: &Reach,
    approval: Approval,
) -> anyhow::Result<Vec<Looked>> {
    let started = Instant::now();
    let (mut depth, mut fetched) = (Depth::Slow, false);
    loop {
        let all = look_at_all(selection, reach, approval, depth).await?;
        let busy =
            all.iter().flat_map(|looked| looked.result.iter().flatten()).any(|look| look.observed.busy);
        if !busy && !fetched && fetch_images(&all).await {
            (depth, fetched) = (Depth::Whole, true);
            continue;
        }
        if !busy || started.elapsed() > PATIENCE {
            return Ok(all);
        }
        depth = Depth::Whole;
        sleep(PAUSE).await;
    }
}

/// Pulls on every host what its change waits for; whether there was anything.
async fn fetch_images(all: &[Looked]) -> bool {
    let sites = all.iter().filter_map(|looked| Some((looked.site()?, looked.result.as_ref().ok()?)));
    let fetched = sites.map(async |(site, looks)| {
        let mut any = false;
        for look in looks {
            any |= site.fetch_images(look).await;
        }
        any
    });
    futures::future::join_all(fetched).await.into_iter().any(|any| any)
}

/// What was done on a host, by component.
type Done = Vec<(String, apply::Outcome)>;

/// What a host of a stack lacks for its change, in words.
fn lacking(hosts: &[Looked]) -> Option<String> {
    let looks = hosts
        .iter()
        .flat_map(|looked| looked.result.iter().flatten().map(move |look| (&looked.spec.name, look)));
    let mut lacking = looks.filter_map(|(name, look)| Some(format!("{name}: {}", look.plan.lacking()?)));
    lacking.next()
}

/// Applies to one host of a stack after the other, where none of them lacks anything for it. A release that fails on one of
/// them is tried on no other, and those that have it already go back.
async fn apply_stack(hosts: &[Looked], approval: Approval) -> Vec<anyhow::Result<Done>> {
    let mut results: Vec<anyhow::Result<Done>> = Vec::new();
    let mut failed = None;
    let lacking = lacking(hosts);
    let is_change = |looked: &Looked| {
        looked
            .result
            .iter()
            .flatten()
            .any(|look| look.plan.rollout.is_some() && !look.observed.is_under_way())
    };
    for looked in hosts {
        if let Some(found) = lacking.as_ref().filter(|_| is_change(looked)) {
            results.push(Err(anyhow!("nothing is begun: {found}")));
            continue;
        }
        if let Some(failed) = &failed {
            results.push(Err(anyhow!("not tried here: it failed on {failed}")));
            continue;
        }
        let result = Box::pin(apply_looked(looked, approval)).await;
        let release = result.as_ref().err().and_then(|error| error.downcast_ref::<apply::Error>());
        if let Some(error) = release.filter(|error| error.is_of_release()) {
            let found = format!("{}: {error}", looked.spec.name);
            let goes_back = looked.stack.spec.policy.rollout.on_failure == OnFailure::Rollback;
            for (done, earlier) in hosts.iter().zip(&mut results).filter(|_| goes_back) {
                let releases =
                    earlier.iter().flatten().filter_map(|(_, outcome)| outcome.rolled_out.as_ref());
                let releases: Vec<String> = releases.map(|release| release.id.clone()).collect();
                if !releases.is_empty() {
                    let back = Box::pin(take_back(done, &releases, &found)).await;
                    *earlier = back.and_then(|()| bail!("went back: it failed on {found}"));
                }
            }
            failed = Some(found);
        }
        results.push(result);
    }
    results
}

/// Goes back on a host to the release before the one that failed elsewhere, where nobody else did so meanwhile.
async fn take_back(looked: &Looked, releases: &[String], found: &str) -> anyhow::Result<()> {
    let back = async |site: Site<'_>, lock: &HostLock, look: &Look| {
        if look.observed.applied.as_ref().is_some_and(|applied| releases.contains(&applied.id)) {
            site.take_back(lock, look, found, &person()).await?;
        }
        Ok(())
    };
    looked.under_lock(back).await.map(drop)
}

async fn apply_looked(looked: &Looked, approval: Approval) -> anyhow::Result<Done> {
    let looks = match &looked.result {
        Err(error) => bail!("{error}"),
        Ok(looks) => looks,
    };
    let Some(site) = looked.site() else { return Ok(Vec::new()) };
    for look in looks {
        may_apply(look)?;
    }
    if !looks.iter().any(|look| look.has_work() || look.observed.busy) {
        return Ok(looks
            .iter()
            .map(|look| (look.project.component.clone(), apply::Outcome::default()))
            .collect());
    }
    let lock = site.host.lock(&Memory::none().writer()).await?;
    let result = apply_locked(site, looks, &lock, approval).await;
    lock.release().await;
    result
}

/// Looks again, alone on the host, and carries out what is the same plan still.
async fn apply_locked(
    site: Site<'_>,
    shown: &[Look],
    lock: &HostLock,
    approval: Approval,
) -> anyhow::Result<Vec<(String, apply::Outcome)>> {
    let mut done = Vec::new();
    let wish = Wish { approval, depth: Depth::Whole, lock: Some(lock), turns: None, barred: None };
    for (look, shown) in site.look(wish).await?.into_iter().zip(shown) {
        may_apply(&look)?;
        // What another writer was about could not be planned.
        let (expected, found) = (shown.plan.hash(), look.plan.hash());
        if !shown.observed.busy && expected != found {
            bail!(
                "expected the plan to be still {expected}, found {found}: something changed meanwhile; look at `plan` again"
            );
        }
        let outcome = site.act(lock, &look, &person()).await?;
        done.push((look.project.component, outcome));
    }
    Ok(done)
}

/// Whether a person may have this plan carried out now: nothing in it has to wait even for them.
fn may_apply(look: &Look) -> anyhow::Result<()> {
    if let Some(hold) = &look.plan.hold {
        bail!("nothing is written: {}", hold.message);
    }
    if let Some(waiting) = &look.plan.waiting {
        bail!("{}", waiting.message);
    }
    Ok(())
}

fn print_outcome(printer: &Printer, looked: &Looked, outcome: &apply::Outcome) {
    if printer.is_json() {
        return;
    }
    let title = format!("{} on {}", looked.stack.key, looked.spec.name);
    for action in &outcome.repaired {
        printer.line(Tone::Good, &format!("{title}: done: {action}"));
    }
    match &outcome.rolled_out {
        Some(release) => printer.line(
            Tone::Good,
            &format!("{title}: release {} of revision {} serves", release.id, release.project.revision),
        ),
        None if outcome.repaired.is_empty() => {
            printer.line(Tone::Good, &format!("{title}: nothing to do"));
        }
        None => {}
    }
}

/// Who applies, for the ledger.
pub(super) fn person() -> String {
    std::env::var("USER").unwrap_or_else(|_| "a person".to_owned())
}
