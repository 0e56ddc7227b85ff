//! The commands that look at hosts, side by side: `plan`, `apply`, `status`.

use std::sync::Arc;

use anyhow::bail;
use serde_json::json;
use tasktracker_crds::{DriftItem, HostSpec};

use super::{
    Selection, Verdict,
    commands::stacks,
    printer::{Printer, Tone},
};
use crate::{
    apply,
    engine::{self, Hosts, Look, act, look, now},
    host::{Host, HostLock},
    plan::{Approval, Plan},
    report::HostReport,
    source::{Secrets, Stack, target},
};

/// One host of a stack, and what came of looking at it.
struct Looked {
    stack: Arc<Stack>,
    spec: HostSpec,
    host: Option<Arc<Host>>,
    result: Result<Vec<Look>, engine::Error>,
}

/// Looks at every host of the chosen stacks, side by side: a slow one does not delay the others.
async fn look_at_all(selection: &Selection, approval: Approval) -> anyhow::Result<Vec<Looked>> {
    let secrets = selection.source.secrets();
    let hosts = Hosts::default();
    let mut looks = Vec::new();
    for stack in stacks(selection)? {
        let stack = Arc::new(stack);
        let specs: Vec<HostSpec> = stack.app_hosts().cloned().collect();
        for spec in specs {
            looks.push(look_at(stack.clone(), spec, &secrets, &hosts, approval));
        }
    }
    Ok(futures::future::join_all(looks).await)
}

async fn look_at(
    stack: Arc<Stack>,
    spec: HostSpec,
    secrets: &Secrets,
    hosts: &Hosts,
    approval: Approval,
) -> Looked {
    let target = match target(&stack, &spec, secrets) {
        Ok(target) => target,
        Err(error) => {
            let result = Err(error.into());
            return Looked { stack, spec, host: None, result };
        }
    };
    let host = hosts.get(target);
    let result = look(&stack, &spec, &host, approval, None).await.map_err(engine::Error::from);
    Looked { stack, spec, host: Some(host), result }
}

impl Looked {
    fn error_line(&self, error: &dyn std::fmt::Display) -> String {
        format!("{} {}: {error}", self.stack.key, self.spec.name)
    }

    fn verdict(&self) -> Verdict {
        let Ok(looks) = &self.result else { return Verdict::Failed };
        let same = |look: &Look| look.drift.is_empty() && look.plan.is_empty() && !look.observed.busy;
        if looks.iter().all(same) { Verdict::InSync } else { Verdict::Differs }
    }

    fn reports(&self) -> Vec<HostReport> {
        match &self.result {
            Ok(looks) => looks.iter().map(|look| look.report(self.spec.name.as_str())).collect(),
            Err(error) => vec![error.report(self.spec.name.as_str(), None)],
        }
    }
}

/// `plan`
pub(super) async fn plan(printer: &Printer, selection: &Selection) -> anyhow::Result<Verdict> {
    let all = look_at_all(selection, Approval::Policy).await?;
    let mut documents = Vec::new();
    for looked in &all {
        let (stack, host) = (looked.stack.key.to_string(), &looked.spec.name);
        match &looked.result {
            Err(error) => {
                printer.error(&looked.error_line(error));
                documents.push(json!({ "stack": stack, "host": host, "error": error.to_string(), "reason": error.reason() }));
            }
            Ok(looks) => {
                for Look { project, observed, drift, plan } in looks {
                    let component = &project.component;
                    documents.push(json!({
                        "stack": stack, "host": host, "component": component,
                        "hash": plan.hash(), "busy": observed.busy, "drift": drift, "plan": plan,
                    }));
                    if printer.is_json() {
                        continue;
                    }
                    if observed.busy {
                        printer.line(Tone::Attention, &format!("{stack} on {host} ({component}): another writer is at work; look again when it is done"));
                    } else {
                        print_plan(printer, &format!("{stack} on {host} ({component})"), drift, plan);
                    }
                }
            }
        }
    }
    if printer.is_json() {
        printer.json(&documents);
    }
    Ok(all.iter().map(Looked::verdict).fold(Verdict::InSync, Verdict::and))
}

fn print_plan(printer: &Printer, title: &str, drift: &[DriftItem], plan: &Plan) {
    if drift.is_empty() && plan.is_empty() {
        printer.line(Tone::Good, &format!("{title}: in sync, nothing to do"));
        return;
    }
    printer.line(Tone::Plain, &format!("{title}: plan {}", plan.hash()));
    for item in drift {
        printer.line(Tone::Attention, &format!("  drift   {}", drift_words(item)));
    }
    for action in &plan.repairs {
        printer.line(Tone::Plain, &format!("  repair  {}", action.words()));
    }
    if let Some(change) = plan.change() {
        let from = change.from_revision.as_deref().unwrap_or("nothing");
        printer.line(Tone::Attention, &format!("  change  revision {from} -> {}", change.to_revision));
        for item in &change.items {
            let service = item.service.as_deref().unwrap_or("-");
            printer
                .line(Tone::Dim, &format!("          {service} {}: {} -> {}", item.path, item.from, item.to));
        }
    }
    if let Some(waiting) = &plan.waiting {
        printer.line(Tone::Attention, &format!("  waits   {}: {}", waiting.reason, waiting.message));
    }
}

fn drift_words(item: &DriftItem) -> String {
    let what =
        [item.service.as_deref(), item.path.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    format!("{} {what}: wanted {}, found {}", item.kind.as_str(), item.wanted, item.found)
}

/// `apply`
pub(super) async fn apply(
    printer: &Printer,
    selection: &Selection,
    wanted: Option<&str>,
) -> anyhow::Result<Verdict> {
    let all = look_at_all(selection, Approval::Person).await?;
    let mut verdict = Verdict::InSync;
    let mut documents = Vec::new();
    for looked in &all {
        match apply_to(looked, wanted).await {
            Ok(done) => {
                for (component, outcome) in done {
                    documents.push(json!({
                        "stack": looked.stack.key.to_string(), "host": looked.spec.name, "component": component,
                        "repaired": outcome.repaired, "release": outcome.rolled_out.as_ref().map(|release| &release.id),
                    }));
                    print_outcome(printer, looked, &outcome);
                }
            }
            Err(error) => {
                printer.error(&looked.error_line(&error));
                documents.push(json!({ "stack": looked.stack.key.to_string(), "host": looked.spec.name, "error": error.to_string() }));
                verdict = Verdict::Failed;
            }
        }
    }
    if printer.is_json() {
        printer.json(&documents);
    }
    Ok(verdict)
}

/// Applies to one host: locks it, looks again, and does what is to be done then.
async fn apply_to(looked: &Looked, wanted: Option<&str>) -> anyhow::Result<Vec<(String, apply::Outcome)>> {
    let looks = looked.result.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
    let Some(host) = &looked.host else { return Ok(Vec::new()) };
    if !looks.iter().any(|look| look.has_work() || look.observed.busy) {
        looks.iter().try_for_each(|look| may_apply(look, wanted))?;
        return Ok(looks
            .iter()
            .map(|look| (look.project.component.clone(), apply::Outcome::default()))
            .collect());
    }
    let lock = host.lock().await?;
    let result = apply_locked(looked, host, &lock, wanted).await;
    lock.release().await;
    result
}

async fn apply_locked(
    looked: &Looked,
    host: &Host,
    lock: &HostLock,
    wanted: Option<&str>,
) -> anyhow::Result<Vec<(String, apply::Outcome)>> {
    let mut done = Vec::new();
    for look in look(&looked.stack, &looked.spec, host, Approval::Person, Some(lock)).await? {
        may_apply(&look, wanted)?;
        let outcome = act(&looked.stack, host, lock, &look, &person(), now()).await?;
        done.push((look.project.component, outcome));
    }
    Ok(done)
}

/// Whether a person may have this plan carried out now: it is the one wanted, and nothing in it has to wait even for them.
fn may_apply(look: &Look, wanted: Option<&str>) -> anyhow::Result<()> {
    if let Some(waiting) = &look.plan.waiting {
        bail!("{}", waiting.message);
    }
    let found = look.plan.hash();
    match wanted.filter(|wanted| *wanted != found) {
        Some(wanted) => bail!(
            "--plan: expected the plan {wanted}, found {found}: something changed since; look at `plan` again"
        ),
        None => Ok(()),
    }
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
            printer.line(Tone::Good, &format!("{title}: in sync, nothing to do"));
        }
        None => {}
    }
}

/// Who applies, for the ledger.
fn person() -> String {
    std::env::var("USER").unwrap_or_else(|_| "a person".to_owned())
}

/// `status`
pub(super) async fn status(printer: &Printer, selection: &Selection) -> anyhow::Result<Verdict> {
    let all = look_at_all(selection, Approval::Policy).await?;
    let verdict = all.iter().map(Looked::verdict).fold(Verdict::InSync, Verdict::and);
    let reports: Vec<(String, HostReport)> = all
        .iter()
        .flat_map(|looked| looked.reports().into_iter().map(|report| (looked.stack.key.to_string(), report)))
        .collect();
    if printer.is_json() {
        let documents = reports.iter().map(|(stack, report)| json!({ "stack": stack, "report": report }));
        printer.json(&documents.collect::<Vec<_>>());
        return Ok(verdict);
    }
    let rows: Vec<_> = reports.iter().map(|(stack, report)| status_row(stack, report)).collect();
    printer.table(&["STACK", "HOST", "COMPONENT", "REVISION", "REACHABLE", "HEALTHY", "STATE"], &rows);
    for (_, report) in &reports {
        match &report.failure {
            Some(failure) => printer.line(Tone::Bad, &format!("  {}: {}", report.host, failure.message)),
            None => print_drift(printer, report),
        }
    }
    Ok(verdict)
}

fn print_drift(printer: &Printer, report: &HostReport) {
    for item in &report.drift {
        printer.line(Tone::Attention, &format!("  {}: {}", report.host, drift_words(item)));
    }
}

fn status_row(stack: &str, report: &HostReport) -> (Tone, Vec<String>) {
    let (tone, words) = match &report.failure {
        Some(failure) => (Tone::Bad, failure.reason.to_owned()),
        None if report.busy => (Tone::Attention, "another writer".to_owned()),
        None if !report.drift.is_empty() => (Tone::Attention, format!("{} drifted", report.drift.len())),
        None if report.waiting.is_some() => (Tone::Attention, "change waits".to_owned()),
        None if !report.in_sync() => (Tone::Attention, "change".to_owned()),
        None if !report.healthy => (Tone::Attention, "in sync, not healthy".to_owned()),
        None => (Tone::Good, "in sync".to_owned()),
    };
    let yes = |value: bool| if value { "yes" } else { "no" }.to_owned();
    let revision = report.revision.clone().unwrap_or_else(|| "-".to_owned());
    let row = vec![
        stack.to_owned(),
        report.host.clone(),
        report.component.clone(),
        revision,
        yes(report.reachable()),
        yes(report.healthy),
        words,
    ];
    (tone, row)
}
