//! The same commands where the API server has the stacks: plans come from the status, wishes are annotations. No host is
//! asked from here.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use tasktracker_crds::{Deletion, DriftItem, HistoryEntry, HostStatus, TaskTrackerStackStatus, conditions};

use super::{
    Verdict,
    plan::headline,
    printer::{Printer, Tone, table},
};
use crate::{
    engine::now,
    kubernetes::{Read, Stacks, Where, connect},
    source::{
        ADOPT_ANNOTATION, APPROVE_ANNOTATION, DELETE_HOST_ANNOTATION, DELETE_HOST_SUFFIXES,
        LEAVE_DATA_ANNOTATION, RECONCILE_ANNOTATION, RETRY_ANNOTATION, ROLLBACK_ANNOTATION,
    },
};

/// Which cluster.
#[derive(Clone, Debug, Args)]
pub(super) struct ClusterArguments {
    /// Stacks are objects of an API server: that of the kubeconfig, or of the pod's own cluster.
    #[arg(long, env = "TASKTRACKER_KUBERNETES")]
    pub(super) kubernetes: bool,
    /// Namespace of the stacks; for `run`, of its lease. Default: that of the context, or of the pod.
    #[arg(
        long,
        short = 'n',
        env = "TASKTRACKER_NAMESPACE",
        requires = "kubernetes",
        value_name = "NAMESPACE"
    )]
    namespace: Option<String>,
    /// Context of the kubeconfig.
    #[arg(long, requires = "kubernetes", value_name = "CONTEXT")]
    context: Option<String>,
}

impl ClusterArguments {
    pub(super) fn place(&self) -> Where {
        Where { context: self.context.clone(), namespace: self.namespace.clone() }
    }

    async fn stacks(&self) -> anyhow::Result<Stacks> {
        let (client, namespace) = connect(&self.place(), None).await?;
        Ok(Stacks::new(client, namespace))
    }
}

/// What a person asks for.
pub(super) enum Asked<'a> {
    Plan,
    Status,
    History,
    Approve(&'a str),
    Rollback(Option<&'a str>),
    Retry,
    Reconcile,
    Adopt,
    LeaveData,
    Delete(&'a [String], Deletion),
}

/// Carries out one command.
pub(super) async fn run(
    printer: &Printer,
    cluster: &ClusterArguments,
    names: &[String],
    asked: Asked<'_>,
) -> anyhow::Result<Verdict> {
    let stacks = cluster.stacks().await?;
    let all = stacks.read(names).await?;
    match asked {
        Asked::Plan => plan(printer, &stacks, &all).await,
        Asked::Status => Ok(status(printer, &all)),
        Asked::History => Ok(history(printer, &all)),
        Asked::Approve(wanted) => {
            for stack in &all {
                let waiting = stack.status.waiting_plan.as_deref();
                let waiting = waiting.context("expected a change that waits for approval, found none")?;
                if waiting != wanted {
                    bail!(
                        "{}: expected the plan to be {wanted}, found {waiting}: something changed since; look at `plan` again",
                        stack.key
                    );
                }
            }
            let words = format!("plan {wanted} is approved");
            annotate(printer, &stacks, &all, APPROVE_ANNOTATION, |_| (wanted.to_owned(), words.clone())).await
        }
        Asked::Rollback(release) => {
            let release = release.unwrap_or("previous");
            let now = now();
            let wish = |stack: &Read| format!("{release}@{}/{now}", stack.generation.unwrap_or_default());
            let words = format!("it goes back to the release {release}; see `history`");
            annotate(printer, &stacks, &all, ROLLBACK_ANNOTATION, |stack| (wish(stack), words.clone())).await
        }
        Asked::Retry => {
            let words = "what failed is tried again".to_owned();
            annotate(printer, &stacks, &all, RETRY_ANNOTATION, |_| (now().to_string(), words.clone())).await
        }
        Asked::Reconcile => {
            let words = "everything is looked at".to_owned();
            annotate(printer, &stacks, &all, RECONCILE_ANNOTATION, |_| (now().to_string(), words.clone()))
                .await
        }
        Asked::LeaveData => {
            anyhow::ensure!(!names.is_empty(), "apply --leave-data: expected names of stacks, found none");
            let words = "services may begin without the data that they had, for this spec".to_owned();
            let generation = |stack: &Read| stack.generation.unwrap_or_default().to_string();
            annotate(printer, &stacks, &all, LEAVE_DATA_ANNOTATION, |stack| {
                (generation(stack), words.clone())
            })
            .await
        }
        Asked::Delete(hosts, deletion) => {
            for stack in &all {
                let left = stack.status.hosts.iter().filter(|host| host.retained);
                let left: Vec<&str> = left.map(|host| host.name.as_str()).collect();
                if let Some(unknown) = hosts.iter().find(|host| !left.contains(&host.as_str())) {
                    let left = if left.is_empty() { "none".to_owned() } else { left.join(", ") };
                    bail!(
                        "--host: expected a host that {} names no longer ({left}), found {unknown}; a new spec is seen within seconds",
                        stack.key
                    );
                }
            }
            let hosts = hosts.join(",");
            let words = match deletion {
                Deletion::Retain => format!("{hosts}: forgotten; what is there stays"),
                Deletion::Down => format!("{hosts}: what is there is taken away; volumes stay"),
                Deletion::DownAndVolumes => format!("{hosts}: what is there is taken away, with its volumes"),
            };
            let suffix = DELETE_HOST_SUFFIXES
                .iter()
                .find(|(one, _)| *one == deletion)
                .map_or("", |(_, suffix)| suffix);
            let wish = |stack: &Read| format!("{hosts}@{}{suffix}", stack.generation.unwrap_or_default());
            annotate(printer, &stacks, &all, DELETE_HOST_ANNOTATION, |stack| (wish(stack), words.clone()))
                .await
        }
        Asked::Adopt => {
            let this = |stack: &Read| format!("{}@{}", stack.uid, stack.generation.unwrap_or_default());
            let words = "what another owner of that name had is taken over".to_owned();
            annotate(printer, &stacks, &all, ADOPT_ANNOTATION, |stack| (this(stack), words.clone())).await
        }
    }
}

/// Sets an annotation of each stack, and says in words what comes of it.
async fn annotate(
    printer: &Printer,
    stacks: &Stacks,
    all: &[Read],
    annotation: &str,
    wish: impl Fn(&Read) -> (String, String),
) -> anyhow::Result<Verdict> {
    let mut documents = Vec::new();
    for stack in all {
        let (value, words) = wish(stack);
        stacks.annotate(&stack.key.name, annotation, &value).await?;
        documents.push(json!({ "stack": stack.key.to_string(), "annotation": annotation, "value": value }));
        if !printer.is_json() {
            printer.line(Tone::Good, &format!("{}: {words}", stack.key));
        }
    }
    if printer.is_json() {
        printer.json(&documents);
    }
    Ok(Verdict::InSync)
}

/// Whether the operator has seen the newest spec, and everything is as it asks for.
fn verdict(all: &[Read]) -> Verdict {
    let is_good = |stack: &Read| {
        let is_true = |kind: &str| {
            let mut conditions = stack.status.conditions.iter();
            conditions.any(|condition| condition.type_ == kind && condition.status == "True")
        };
        stack.status.observed_generation == stack.generation
            && is_true(conditions::READY)
            && is_true(conditions::IN_SYNC)
    };
    if all.iter().all(is_good) { Verdict::InSync } else { Verdict::Differs }
}

async fn plan(printer: &Printer, stacks: &Stacks, all: &[Read]) -> anyhow::Result<Verdict> {
    let mut documents = Vec::new();
    for stack in all {
        let TaskTrackerStackStatus { waiting_plan, waiting_plan_config_map, .. } = &stack.status;
        let plan = match waiting_plan_config_map {
            Some(name) => stacks.plan(name).await?,
            None => Value::Null,
        };
        documents.push(json!({ "stack": stack.key.to_string(), "hash": waiting_plan, "waiting": plan, "drift": drift(&stack.status) }));
        if printer.is_json() {
            continue;
        }
        match waiting_plan {
            Some(hash) => {
                printer.line(Tone::Attention, &format!("{}: plan {hash} waits for approval", stack.key));
            }
            None => printer.line(Tone::Plain, &format!("{}: no plan waits", stack.key)),
        }
        for project in plan.as_array().into_iter().flatten() {
            let change = &project["plan"]["waiting"]["change"];
            let text = |value: &Value| value.as_str().unwrap_or("nothing").to_owned();
            let title = format!("  {} {}", text(&project["host"]), text(&project["component"]));
            let (from, to) = (text(&change["fromRevision"]), text(&change["toRevision"]));
            printer.line(Tone::Plain, &format!("{title}: revision {from} to {to}"));
            for item in change["items"].as_array().into_iter().flatten() {
                let service =
                    item["service"].as_str().map(|service| format!("{service} ")).unwrap_or_default();
                printer.line(
                    Tone::Dim,
                    &format!(
                        "    {service}{}: {} -> {}",
                        text(&item["path"]),
                        text(&item["from"]),
                        text(&item["to"])
                    ),
                );
            }
        }
        for item in drift(&stack.status) {
            printer.line(
                Tone::Attention,
                &format!("  {} {}: wanted {}, found {}", item.host, headline(item), item.wanted, item.found),
            );
        }
    }
    if printer.is_json() {
        printer.json(&documents);
    }
    Ok(verdict(all))
}

fn drift(status: &TaskTrackerStackStatus) -> Vec<&DriftItem> {
    status.hosts.iter().flat_map(|host| &host.drift).collect()
}

fn status(printer: &Printer, all: &[Read]) -> Verdict {
    if printer.is_json() {
        let documents =
            all.iter().map(|stack| json!({ "stack": stack.key.to_string(), "status": stack.status }));
        printer.json(&documents.collect::<Vec<_>>());
        return verdict(all);
    }
    let rows: Vec<_> = all
        .iter()
        .flat_map(|stack| stack.status.hosts.iter().map(move |host| host_row(&stack.key.to_string(), host)))
        .collect();
    let head = ["STACK", "HOST", "COMPONENT", "REVISION", "REACHABLE", "HEALTHY", "DRIFT"];
    for (tone, line) in table(&head, &rows) {
        printer.line(tone, &line);
    }
    for stack in all {
        for condition in &stack.status.conditions {
            let is_good = condition.message.is_empty();
            let tone = if is_good { Tone::Dim } else { Tone::Attention };
            let message = if is_good { String::new() } else { format!(": {}", condition.message) };
            let (kind, status, reason) = (&condition.type_, &condition.status, &condition.reason);
            printer.line(tone, &format!("  {} {kind}={status} {reason}{message}", stack.key));
        }
        for host in &stack.status.hosts {
            let told = host.message.iter().chain(&host.hold);
            told.for_each(|told| printer.line(Tone::Attention, &format!("  {}: {told}", host.name)));
        }
        for item in drift(&stack.status) {
            let since = item.first_seen.as_deref().unwrap_or("-");
            printer.line(Tone::Attention, &format!("  {} {} since {since}", item.host, headline(item)));
        }
    }
    verdict(all)
}

fn host_row(stack: &str, host: &HostStatus) -> (Tone, Vec<String>) {
    let component = host.components.first().cloned().unwrap_or_default();
    let yes = |value: bool| if value { "yes" } else { "no" }.to_owned();
    let tone = if host.reachable && component.healthy && host.drift_count == 0 {
        Tone::Good
    } else {
        Tone::Attention
    };
    let row = vec![
        stack.to_owned(),
        host.name.clone(),
        component.name,
        component.revision.unwrap_or_else(|| "-".to_owned()),
        yes(host.reachable),
        yes(component.healthy),
        host.drift_count.to_string(),
    ];
    (tone, row)
}

fn history(printer: &Printer, all: &[Read]) -> Verdict {
    if printer.is_json() {
        let documents = all
            .iter()
            .map(|stack| json!({ "stack": stack.key.to_string(), "history": stack.status.history }));
        printer.json(&documents.collect::<Vec<_>>());
        return Verdict::InSync;
    }
    let row = |stack: &Read, entry: &HistoryEntry| {
        let HistoryEntry { when, host, component, release, revision, result, who } = entry.clone();
        let tone = if result == conditions::reasons::SUCCEEDED { Tone::Good } else { Tone::Attention };
        (tone, vec![stack.key.to_string(), when, host, component, release, revision, result, who])
    };
    let rows: Vec<_> = all
        .iter()
        .flat_map(|stack| stack.status.history.iter().map(move |entry| row(stack, entry)))
        .collect();
    for (tone, line) in
        table(&["STACK", "WHEN", "HOST", "COMPONENT", "RELEASE", "REVISION", "RESULT", "WHO"], &rows)
    {
        printer.line(tone, &line);
    }
    Verdict::InSync
}
