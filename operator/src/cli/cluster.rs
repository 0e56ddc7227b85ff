//! The same commands where the API server has the stacks: plans come from the status, requests are annotations. No host is
//! asked from here.

use clap::Args;
use serde_json::{Value, json};
use tasktracker_crds::{
    ComponentStatus, DriftItem, HistoryEntry, HostStatus, TaskTrackerStackStatus, conditions,
};

use super::{
    ComponentArguments, Verdict,
    plan::headline,
    printer::{Printer, Tone, table},
    request::Request,
};
use crate::kubernetes::{Read, Stacks, Where, connect};

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
    Plan(&'a ComponentArguments),
    Status(&'a ComponentArguments),
    History(&'a ComponentArguments),
    /// What is asked for, and how the value of its annotation begins.
    Request(Request<'a>, String),
}

impl<'a> Asked<'a> {
    /// A request about some components.
    pub(super) fn request(request: Request<'a>, components: &ComponentArguments) -> Self {
        Self::Request(request, components.scope())
    }
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
        Asked::Plan(components) => plan(printer, &stacks, &all, components).await,
        Asked::Status(components) => Ok(status(printer, &all, components)),
        Asked::History(components) => Ok(history(printer, &all, components)),
        Asked::Request(request, scope) => {
            // All or none.
            all.iter().try_for_each(|stack| request.check(stack))?;
            annotate(printer, &stacks, &all, (&request, &scope)).await
        }
    }
}

/// Sets the annotation of a request on each stack, and says in words what comes of it.
async fn annotate(
    printer: &Printer,
    stacks: &Stacks,
    all: &[Read],
    (request, scope): (&Request<'_>, &str),
) -> anyhow::Result<Verdict> {
    let mut documents = Vec::new();
    for stack in all {
        let (annotation, value) = (request.annotation(), format!("{scope}{}", request.value(stack)));
        stacks.annotate(stack, annotation, &value).await?;
        documents.push(json!({ "stack": stack.key.to_string(), "annotation": annotation, "value": value }));
        if !printer.is_json() {
            printer.line(Tone::Good, &format!("{}: {}", stack.key, request.words()));
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

async fn plan(
    printer: &Printer,
    stacks: &Stacks,
    all: &[Read],
    components: &ComponentArguments,
) -> anyhow::Result<Verdict> {
    let mut documents = Vec::new();
    for stack in all {
        let TaskTrackerStackStatus { waiting_plan, waiting_plan_config_map, .. } = &stack.status;
        let mut plan = match waiting_plan_config_map {
            Some(name) => stacks.plan(name).await?,
            None => Value::Null,
        };
        if let Some(projects) = plan.as_array_mut() {
            projects
                .retain(|project| project["component"].as_str().is_some_and(|name| components.names(name)));
        }
        let drift = drift(&stack.status, components);
        documents.push(
            json!({ "stack": stack.key.to_string(), "hash": waiting_plan, "waiting": plan, "drift": drift }),
        );
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
        for item in drift {
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

fn drift<'a>(status: &'a TaskTrackerStackStatus, components: &ComponentArguments) -> Vec<&'a DriftItem> {
    let all = status.hosts.iter().flat_map(|host| &host.components);
    all.filter(|one| components.names(&one.name)).flat_map(|one| &one.drift).collect()
}

fn status(printer: &Printer, all: &[Read], components: &ComponentArguments) -> Verdict {
    if printer.is_json() {
        let documents = all.iter().map(|stack| {
            let mut status = stack.status.clone();
            for host in &mut status.hosts {
                host.components.retain(|one| components.names(&one.name));
            }
            json!({ "stack": stack.key.to_string(), "status": status })
        });
        printer.json(&documents.collect::<Vec<_>>());
        return verdict(all);
    }
    let rows: Vec<_> = all
        .iter()
        .flat_map(|stack| {
            let hosts = stack.status.hosts.iter();
            hosts.flat_map(move |host| rows_of(&stack.key.to_string(), host, components))
        })
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
        for item in drift(&stack.status, components) {
            let since = item.first_seen.as_deref().unwrap_or("-");
            printer.line(Tone::Attention, &format!("  {} {} since {since}", item.host, headline(item)));
        }
    }
    verdict(all)
}

/// One row for each component of a host; one without a component where nothing is known of any.
fn rows_of(stack: &str, host: &HostStatus, components: &ComponentArguments) -> Vec<(Tone, Vec<String>)> {
    let yes = |value: bool| if value { "yes" } else { "no" }.to_owned();
    let text = |value: &str| if value.is_empty() { "-" } else { value }.to_owned();
    let row = |component: &ComponentStatus| {
        let is_good = host.reachable && component.healthy && component.drift_count == 0;
        let row = vec![
            stack.to_owned(),
            host.name.clone(),
            text(&component.name),
            text(component.revision.as_deref().unwrap_or_default()),
            yes(host.reachable),
            yes(component.healthy),
            component.drift_count.to_string(),
        ];
        (if is_good { Tone::Good } else { Tone::Attention }, row)
    };
    if host.components.is_empty() {
        return vec![row(&ComponentStatus::default())];
    }
    host.components.iter().filter(|one| components.names(&one.name)).map(row).collect()
}

fn entries<'a>(stack: &'a Read, components: &ComponentArguments) -> Vec<&'a HistoryEntry> {
    stack.status.history.iter().filter(|entry| components.names(&entry.component)).collect()
}

fn history(printer: &Printer, all: &[Read], components: &ComponentArguments) -> Verdict {
    if printer.is_json() {
        let documents = all
            .iter()
            .map(|stack| json!({ "stack": stack.key.to_string(), "history": entries(stack, components) }));
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
        .flat_map(|stack| entries(stack, components).into_iter().map(move |entry| row(stack, entry)))
        .collect();
    for (tone, line) in
        table(&["STACK", "WHEN", "HOST", "COMPONENT", "RELEASE", "REVISION", "RESULT", "WHO"], &rows)
    {
        printer.line(tone, &line);
    }
    Verdict::InSync
}
