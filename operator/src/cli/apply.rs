//! `apply`: does now what `plan` shows, as a person asks for.

use std::time::Duration;

use anyhow::{anyhow, bail};
use serde_json::json;
use tasktracker_crds::{DriftItem, OnFailure};
use tokio::time::{Instant, sleep};

use super::{
    Selection, Verdict,
    hosts::{CheckedProject, Reach, check_all, hashes},
    plan::{headline, print_details},
    printer::{Printer, Tone},
};
use crate::{
    apply,
    engine::{CheckOptions, Evaluation, Memory, ProjectContext},
    host::HostLock,
    model::ComponentName,
    observe::Depth,
    plan::{Approval, PeerFailure},
    project::Project,
    source::StackKey,
};

/// How long another writer is waited for before there is a plan.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is checked whether they are done.
const PAUSE: Duration = Duration::from_millis(300);

/// `apply`
pub(super) async fn apply(
    printer: &Printer,
    selection: &Selection,
    wanted: Option<&str>,
    approval: Approval,
) -> anyhow::Result<Verdict> {
    let reach = Reach::default();
    let mut all = check_without_writer(selection, &reach, approval).await?;
    // Hosts are in order within each component: its rollout goes from one to the next.
    all.sort_by(|one, other| group(one).cmp(&group(other)));
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
    let results = futures::future::join_all(stacks.map(|projects| apply_stack(projects, approval))).await;
    for (checked, result) in all.iter().zip(results.into_iter().flatten()) {
        let (stack, host) = (checked.stack.key.to_string(), &checked.spec.name);
        match result {
            Err(error) => {
                printer.error(&checked.error_line(&format!("{error:#}")));
                documents.push(json!({ "stack": stack, "host": host, "error": format!("{error:#}") }));
                verdict = Verdict::Failed;
            }
            Ok(applied) => {
                print_applied(printer, checked, &applied);
                if !applied.left.is_empty() && verdict == Verdict::InSync {
                    verdict = Verdict::Differs;
                }
                let Applied { outcome, left } = applied;
                let (component, release) =
                    (checked.project.component, outcome.rolled_out.map(|release| release.id));
                documents.push(json!({ "stack": stack, "host": host, "component": component, "repaired": outcome.repaired, "release": release, "drift": left }));
            }
        }
    }
    if printer.is_json() {
        printer.json(&documents);
    }
    Ok(verdict)
}

/// Checks while nobody writes: while somebody does, there is no plan to compare with. Whoever writes for too long is told
/// of where the lock is asked for.
async fn check_without_writer(
    selection: &Selection,
    reach: &Reach,
    approval: Approval,
) -> anyhow::Result<Vec<CheckedProject>> {
    let started = Instant::now();
    let (mut depth, mut fetched) = (Depth::Slow, false);
    loop {
        let all = check_all(selection, reach, approval, depth).await?;
        let busy = all.iter().flat_map(|checked| &checked.result).any(|evaluation| evaluation.observed.busy);
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

/// What was done, and what differs still.
#[derive(Default)]
struct Applied {
    outcome: apply::Outcome,
    left: Vec<DriftItem>,
}

/// The stack and component of a project: within those, one host follows the other.
fn group(checked: &CheckedProject) -> (&StackKey, ComponentName) {
    (&checked.stack.key, checked.project.component)
}

/// Pulls on every host what its change waits for; whether there was anything.
async fn fetch_images(all: &[CheckedProject]) -> bool {
    let checked = all.iter().filter_map(|checked| Some((checked.context()?, checked.result.as_ref().ok()?)));
    let fetched = checked.map(async |(context, evaluation)| context.fetch_images(evaluation).await);
    futures::future::join_all(fetched).await.into_iter().any(|any| any)
}

/// What a project lacks for its change, in words.
fn lacking(projects: &[CheckedProject]) -> Option<String> {
    let mut lacking = projects.iter().filter_map(|checked| {
        let evaluation = checked.result.as_ref().ok()?;
        Some(format!("{}: {}", checked.spec.name, evaluation.plan.lacking()?))
    });
    lacking.next()
}

/// Applies the components of a stack one after the other; what fails of one leaves the others alone.
async fn apply_stack(projects: &[CheckedProject], approval: Approval) -> Vec<anyhow::Result<Applied>> {
    let mut results = Vec::new();
    for hosts in projects.chunk_by(|one, next| group(one) == group(next)) {
        results.extend(apply_component(hosts, approval).await);
    }
    results
}

/// Applies a component to one host after the other, where none of them lacks anything for it. A release that fails on one
/// of them is tried on no other, and those that have it already go back. Of a serial component, whatever fails on a host
/// ends it.
async fn apply_component(hosts: &[CheckedProject], approval: Approval) -> Vec<anyhow::Result<Applied>> {
    let mut results: Vec<anyhow::Result<Applied>> = Vec::new();
    let mut failed: Option<PeerFailure> = None;
    let mut left_down: Option<&str> = None;
    let lacking = lacking(hosts);
    let is_change = |checked: &CheckedProject| {
        let evaluation = checked.result.as_ref().ok();
        evaluation.is_some_and(|one| one.plan.rollout.is_some() && !one.observed.has_open_intent())
    };
    for checked in hosts {
        if let Some(found) = lacking.as_ref().filter(|_| is_change(checked)) {
            results.push(Err(anyhow!("nothing is begun: {found}")));
            continue;
        }
        if let Some(failed) = &failed {
            results.push(Err(anyhow!("not tried here: it failed on {failed}")));
            continue;
        }
        if let Some(host) = &left_down {
            results.push(Err(anyhow!(
                "not tried here: {host} failed or waits, and no two hosts may be down at once"
            )));
            continue;
        }
        let result = Box::pin(apply_checked(checked, approval)).await;
        if result.is_err() && checked.project.is_serial() {
            left_down = Some(checked.spec.name.as_str());
        }
        let release = result.as_ref().err().and_then(|error| error.downcast_ref::<apply::Error>());
        if let Some(error) = release.filter(|error| error.is_of_release()) {
            let found = PeerFailure { host: checked.spec.name.to_string(), message: error.to_string() };
            let goes_back = checked.stack.spec.policy.rollout.on_failure == OnFailure::Rollback;
            for (done, earlier) in hosts.iter().zip(&mut results).filter(|_| goes_back) {
                let release = earlier.as_ref().ok().and_then(|applied| applied.outcome.rolled_out.as_ref());
                if let Some(release) = release.map(|release| release.id.clone()) {
                    let back = Box::pin(rollback_for_peer(done, &release, &found)).await;
                    *earlier = back.and_then(|()| bail!("went back: it failed on {found}"));
                }
            }
            failed = Some(found);
        }
        results.push(result);
    }
    results
}

/// Goes back on a host to the release before the one that failed on a peer, where nobody else did so meanwhile.
async fn rollback_for_peer(
    checked: &CheckedProject,
    release: &str,
    found: &PeerFailure,
) -> anyhow::Result<()> {
    let back = async |context: ProjectContext<'_>, lock: &HostLock, evaluation: &Evaluation| {
        if evaluation.observed.applied.as_ref().is_some_and(|applied| applied.id == release) {
            context.rollback_for_peer(lock, evaluation, found, &person()).await?;
        }
        Ok(Some(()))
    };
    Box::pin(checked.under_lock(back)).await.map(drop)
}

async fn apply_checked(checked: &CheckedProject, approval: Approval) -> anyhow::Result<Applied> {
    let evaluation = match &checked.result {
        Err(error) => bail!("{error}"),
        Ok(evaluation) => evaluation,
    };
    let Some(context) = checked.context() else { return Ok(Applied::default()) };
    may_apply(evaluation)?;
    if !(evaluation.has_work() || evaluation.observed.busy) {
        return Ok(Applied { left: evaluation.drift.clone(), ..Applied::default() });
    }
    let lock = context.host.lock(&Memory::none().writer()).await?;
    let locked = apply_locked((context, &checked.project), evaluation, &lock, approval);
    let result = Box::pin(locked).await;
    lock.release().await;
    result
}

/// Checks again, alone on the host, and carries out what is the same plan still.
async fn apply_locked(
    (context, project): (ProjectContext<'_>, &Project),
    shown: &Evaluation,
    lock: &HostLock,
    approval: Approval,
) -> anyhow::Result<Applied> {
    let options = CheckOptions { approval, lock: Some(lock), ..CheckOptions::read_only(Depth::Whole) };
    let evaluation = context.check(project, options).await?;
    may_apply(&evaluation)?;
    // What another writer was about could not be planned.
    let (expected, found) = (shown.plan.hash(), evaluation.plan.hash());
    if !shown.observed.busy && expected != found {
        bail!(
            "expected the plan to be still {expected}, found {found}: something changed meanwhile; look at `plan` again"
        );
    }
    let outcome = context.act(lock, &evaluation, &person()).await?;
    let left = context.check(project, options).await?.drift;
    Ok(Applied { outcome, left })
}

/// Whether a person may have this plan carried out now: nothing in it has to wait even for them.
fn may_apply(evaluation: &Evaluation) -> anyhow::Result<()> {
    if let Some(hold) = &evaluation.plan.hold {
        bail!("nothing is written: {}", hold.message);
    }
    if let Some(waiting) = &evaluation.plan.waiting {
        bail!("{}", waiting.message);
    }
    Ok(())
}

fn print_applied(printer: &Printer, checked: &CheckedProject, Applied { outcome, left }: &Applied) {
    if printer.is_json() {
        return;
    }
    let title = format!("{} on {}", checked.stack.key, checked.spec.name);
    for action in &outcome.repaired {
        printer.line(Tone::Good, &format!("{title}: done: {action}"));
    }
    match &outcome.rolled_out {
        Some(release) => printer.line(
            Tone::Good,
            &format!("{title}: release {} of revision {} serves", release.id, release.project.version()),
        ),
        None if outcome.repaired.is_empty() && left.is_empty() => {
            printer.line(Tone::Good, &format!("{title}: nothing to do"));
        }
        None => {}
    }
    for item in left {
        printer.line(Tone::Attention, &format!("{title}: differs still: {}", headline(item)));
        print_details(printer, item);
    }
}

/// Who applies, for the ledger.
pub(super) fn person() -> String {
    std::env::var("USER").unwrap_or_else(|_| "a person".to_owned())
}
