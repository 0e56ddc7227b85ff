//! Checks the projects of the chosen stacks, side by side, for `plan`, `apply` and `status`.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::bail;
use serde_json::{Value, json};
use tasktracker_crds::HostSpec;

use super::{
    Selection, Verdict,
    commands::stacks,
    printer::{Printer, Tone},
};
use crate::{
    component,
    engine::{self, CheckOptions, Evaluation, Hosts, Images, Memory, ProjectContext, now},
    host::{Host, HostLock},
    observe::Depth,
    plan::{self, Approval},
    project::Project,
    report::ProjectReport,
    source::{ProjectKey, Secrets, Stack, StackKey, target},
};

/// One project of a stack on a host, and what its check came to.
pub(super) struct CheckedProject {
    pub(super) stack: Arc<Stack>,
    pub(super) spec: HostSpec,
    pub(super) project: Project,
    pub(super) host: Option<Arc<Host>>,
    pub(super) result: Result<Evaluation, engine::Error>,
    means: Arc<Means>,
}

/// What every check of one command uses.
struct Means {
    secrets: Secrets,
    memory: Memory,
    images: Arc<Images>,
}

/// What one command keeps from one check to the next: connections, and what tags mean.
pub(super) struct Reach {
    hosts: Hosts,
    images: Arc<Images>,
}

impl Default for Reach {
    fn default() -> Self {
        Self { hosts: Hosts::default(), images: Arc::new(Images::patient()) }
    }
}

/// Checks every project of the chosen stacks and components, side by side: a slow host does not delay the others.
pub(super) async fn check_all(
    selection: &Selection,
    reach: &Reach,
    approval: Approval,
    depth: Depth,
) -> anyhow::Result<Vec<CheckedProject>> {
    let means = Arc::new(Means {
        secrets: selection.source.secrets(),
        memory: selection.state.share()?,
        images: reach.images.clone(),
    });
    let mut checks = Vec::new();
    for stack in stacks(selection)? {
        let stack = Arc::new(stack);
        let hosts = stack.spec.hosts.iter();
        let projects = hosts.flat_map(|spec| {
            component::for_host(&stack, spec).into_iter().map(move |one| (spec.clone(), one))
        });
        let chosen: Vec<(HostSpec, Project)> =
            projects.filter(|(_, project)| selection.components.have(project.component)).collect();
        for place in chosen {
            let options = CheckOptions { approval, ..CheckOptions::read_only(depth) };
            checks.push(check(stack.clone(), place, means.clone(), reach, options));
        }
    }
    Ok(futures::future::join_all(checks).await)
}

async fn check(
    stack: Arc<Stack>,
    (spec, project): (HostSpec, Project),
    means: Arc<Means>,
    reach: &Reach,
    options: CheckOptions<'_>,
) -> CheckedProject {
    let target = match target(&stack, &spec, &means.secrets).await {
        Ok(target) => target,
        Err(error) => {
            let result = Err(error.into());
            return CheckedProject { stack, spec, project, host: None, result, means };
        }
    };
    let host = reach.hosts.get(&stack.key, target);
    let context = ProjectContext {
        stack: &stack,
        spec: &spec,
        host: &host,
        secrets: &means.secrets,
        memory: &means.memory,
        images: &means.images,
    };
    let result = context.check(&project, options).await.map_err(engine::Error::from);
    CheckedProject { stack, spec, project, host: Some(host), result, means }
}

impl CheckedProject {
    /// Checks again, alone on the host, and does something about the project, where anything may be written.
    pub(super) async fn under_lock<T>(
        &self,
        work: impl AsyncFn(ProjectContext<'_>, &HostLock, &Evaluation) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        if let Err(error) = &self.result {
            bail!("{error}");
        }
        let Some(context) = self.context() else { return Ok(None) };
        let lock = context.host.lock(&Memory::none().writer()).await?;
        let result = async {
            let options = CheckOptions {
                approval: Approval::Policy,
                depth: Depth::Whole,
                lock: Some(&lock),
                coordinator: None,
                read_only_reason: None,
            };
            let evaluation = context.check(&self.project, options).await?;
            if let Some(hold) = &evaluation.plan.hold {
                bail!("nothing is written: {}", hold.message);
            }
            work(context, &lock, &evaluation).await
        };
        let result = result.await;
        lock.release().await;
        result
    }

    /// Where it was checked, once the host is known.
    pub(super) fn context(&self) -> Option<ProjectContext<'_>> {
        let host = self.host.as_ref()?;
        Some(ProjectContext {
            stack: &self.stack,
            spec: &self.spec,
            host,
            secrets: &self.means.secrets,
            memory: &self.means.memory,
            images: &self.means.images,
        })
    }

    pub(super) fn error_line(&self, error: &dyn std::fmt::Display) -> String {
        format!("{} {}: {error}", self.stack.key, self.spec.name)
    }

    pub(super) fn verdict(&self) -> Verdict {
        let Ok(Evaluation { drift, plan, observed, .. }) = &self.result else { return Verdict::Failed };
        let same = drift.is_empty() && plan.is_empty() && !observed.busy;
        if same { Verdict::InSync } else { Verdict::Differs }
    }

    pub(super) fn report(&self) -> ProjectReport {
        let host = self.spec.name.to_string();
        match &self.result {
            Ok(evaluation) => evaluation.report(&host, now()),
            Err(error) => {
                let stack = self.stack.key.clone();
                error.report(&ProjectKey { stack, host, component: self.project.component }, None)
            }
        }
    }
}

/// What a person asks for on a host, told: a line, and fields of a document.
pub(super) type Outcome = (String, Value);

/// Does what a person asks for on one host after the other, alone on each, and tells what came of it.
pub(super) async fn on_each(
    printer: &Printer,
    all: impl IntoIterator<Item = &CheckedProject>,
    work: impl AsyncFn(ProjectContext<'_>, &HostLock, &Evaluation) -> anyhow::Result<Option<Outcome>>,
) -> Verdict {
    let mut verdict = Verdict::InSync;
    let mut documents = Vec::new();
    for checked in all {
        let place = json!({ "stack": checked.stack.key.to_string(), "host": checked.spec.name, "component": checked.project.component });
        let mut tell = |fields: Value| {
            let mut document = place.clone();
            if let (Some(document), Value::Object(fields)) = (document.as_object_mut(), fields) {
                document.extend(fields);
            }
            documents.push(document);
        };
        match Box::pin(checked.under_lock(&work)).await {
            Ok(done) => {
                if let Some((words, fields)) = done {
                    if !printer.is_json() {
                        let title = format!("{} on {}", checked.stack.key, checked.spec.name);
                        printer.line(Tone::Good, &format!("{title}: {words}"));
                    }
                    tell(fields);
                }
            }
            Err(error) => {
                printer.error(&checked.error_line(&format!("{error:#}")));
                tell(json!({ "error": format!("{error:#}") }));
                verdict = Verdict::Failed;
            }
        }
    }
    if printer.is_json() {
        printer.json(&documents);
    }
    verdict
}

/// The worst of all.
pub(super) fn verdict(all: &[CheckedProject]) -> Verdict {
    all.iter().map(CheckedProject::verdict).fold(Verdict::InSync, Verdict::and)
}

/// The hash of each stack's plan, over those of its projects that were chosen and could be checked.
pub(super) fn hashes(all: &[CheckedProject]) -> BTreeMap<StackKey, String> {
    let keys: std::collections::BTreeSet<&StackKey> = all.iter().map(|checked| &checked.stack.key).collect();
    keys.into_iter()
        .map(|key| {
            let of_stack = all.iter().filter(|checked| checked.stack.key == *key);
            let plans = of_stack.filter_map(|checked| {
                let evaluation = checked.result.as_ref().ok()?;
                Some((checked.spec.name.as_str(), checked.project.component.as_str(), evaluation.plan.hash()))
            });
            (key.clone(), plan::hash_of(plans))
        })
        .collect()
}
