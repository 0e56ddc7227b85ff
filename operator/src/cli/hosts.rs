//! Looking at the hosts of the chosen stacks, side by side, for `plan`, `apply` and `status`.

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
    engine::{self, Hosts, Images, Look, Memory, Site, Wish},
    host::{Host, HostLock},
    observe::Depth,
    plan::{self, Approval},
    report::HostReport,
    source::{Secrets, Stack, StackKey, target},
};

/// One host of a stack, and what came of looking at it.
pub(super) struct Looked {
    pub(super) stack: Arc<Stack>,
    pub(super) spec: HostSpec,
    pub(super) host: Option<Arc<Host>>,
    pub(super) result: Result<Vec<Look>, engine::Error>,
    means: Arc<Means>,
}

/// What every look of one command uses.
struct Means {
    secrets: Secrets,
    memory: Memory,
    images: Arc<Images>,
}

/// What one command keeps from one look to the next: connections, and what tags mean.
pub(super) struct Reach {
    hosts: Hosts,
    images: Arc<Images>,
}

impl Default for Reach {
    fn default() -> Self {
        Self { hosts: Hosts::default(), images: Arc::new(Images::patient()) }
    }
}

/// Looks at every host of the chosen stacks, side by side: a slow one does not delay the others.
pub(super) async fn look_at_all(
    selection: &Selection,
    reach: &Reach,
    approval: Approval,
    depth: Depth,
) -> anyhow::Result<Vec<Looked>> {
    let means = Arc::new(Means {
        secrets: selection.source.secrets(),
        memory: selection.state.share()?,
        images: reach.images.clone(),
    });
    let mut looks = Vec::new();
    for stack in stacks(selection)? {
        let stack = Arc::new(stack);
        let specs: Vec<HostSpec> = stack.app_hosts().cloned().collect();
        for spec in specs {
            looks.push(look_at(
                stack.clone(),
                spec,
                means.clone(),
                reach,
                Wish { approval, depth, lock: None, turns: None, barred: None },
            ));
        }
    }
    Ok(futures::future::join_all(looks).await)
}

async fn look_at(
    stack: Arc<Stack>,
    spec: HostSpec,
    means: Arc<Means>,
    reach: &Reach,
    wish: Wish<'_>,
) -> Looked {
    let target = match target(&stack, &spec, &means.secrets).await {
        Ok(target) => target,
        Err(error) => {
            let result = Err(error.into());
            return Looked { stack, spec, host: None, result, means };
        }
    };
    let host = reach.hosts.get(&stack.key, target);
    let site = Site {
        stack: &stack,
        spec: &spec,
        host: &host,
        secrets: &means.secrets,
        memory: &means.memory,
        images: &means.images,
    };
    let result = site.look(wish).await.map_err(engine::Error::from);
    Looked { stack, spec, host: Some(host), result, means }
}

impl Looked {
    /// Looks again, alone on the host, and does something about each project there, where anything may be written.
    pub(super) async fn under_lock<T>(
        &self,
        work: impl AsyncFn(Site<'_>, &HostLock, &Look) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<T>> {
        if let Err(error) = &self.result {
            bail!("{error}");
        }
        let Some(site) = self.site() else { return Ok(Vec::new()) };
        let lock = site.host.lock(&Memory::none().writer()).await?;
        let result = async {
            let wish = Wish {
                approval: Approval::Policy,
                depth: Depth::Whole,
                lock: Some(&lock),
                turns: None,
                barred: None,
            };
            let mut done = Vec::new();
            for look in &site.look(wish).await? {
                if let Some(hold) = &look.plan.hold {
                    bail!("nothing is written: {}", hold.message);
                }
                done.push(work(site, &lock, look).await?);
            }
            anyhow::Ok(done)
        };
        let result = result.await;
        lock.release().await;
        result
    }

    /// Where it was looked, once the host is known.
    pub(super) fn site(&self) -> Option<Site<'_>> {
        let host = self.host.as_ref()?;
        Some(Site {
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
        let Ok(looks) = &self.result else { return Verdict::Failed };
        let same = |look: &Look| look.drift.is_empty() && look.plan.is_empty() && !look.observed.busy;
        if looks.iter().all(same) { Verdict::InSync } else { Verdict::Differs }
    }

    pub(super) fn reports(&self) -> Vec<HostReport> {
        match &self.result {
            Ok(looks) => looks.iter().map(|look| look.report(self.spec.name.as_str())).collect(),
            Err(error) => vec![error.report(self.spec.name.as_str(), None)],
        }
    }
}

/// What a person asks for on a host, told: a line, and fields of a document.
pub(super) type Told = (String, Value);

/// Does what a person asks for on one host after the other, alone on each, and tells what came of it.
pub(super) async fn on_each(
    printer: &Printer,
    all: impl IntoIterator<Item = &Looked>,
    work: impl AsyncFn(Site<'_>, &HostLock, &Look) -> anyhow::Result<Option<Told>>,
) -> Verdict {
    let mut verdict = Verdict::InSync;
    let mut documents = Vec::new();
    for looked in all {
        let place = json!({ "stack": looked.stack.key.to_string(), "host": looked.spec.name });
        let mut tell = |fields: Value| {
            let mut document = place.clone();
            if let (Some(document), Value::Object(fields)) = (document.as_object_mut(), fields) {
                document.extend(fields);
            }
            documents.push(document);
        };
        match Box::pin(looked.under_lock(&work)).await {
            Ok(done) => {
                for (words, fields) in done.into_iter().flatten() {
                    if !printer.is_json() {
                        let title = format!("{} on {}", looked.stack.key, looked.spec.name);
                        printer.line(Tone::Good, &format!("{title}: {words}"));
                    }
                    tell(fields);
                }
            }
            Err(error) => {
                printer.error(&looked.error_line(&format!("{error:#}")));
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
pub(super) fn verdict(all: &[Looked]) -> Verdict {
    all.iter().map(Looked::verdict).fold(Verdict::InSync, Verdict::and)
}

/// The hash of each stack's plan, over those of its hosts that were read.
pub(super) fn hashes(all: &[Looked]) -> BTreeMap<StackKey, String> {
    let keys: std::collections::BTreeSet<&StackKey> = all.iter().map(|looked| &looked.stack.key).collect();
    keys.into_iter()
        .map(|key| {
            let of_stack = all.iter().filter(|looked| looked.stack.key == *key);
            let plans = of_stack.flat_map(|looked| {
                let looks = looked.result.iter().flatten();
                looks.map(|look| {
                    (looked.spec.name.as_str(), look.project.component.as_str(), look.plan.hash())
                })
            });
            (key.clone(), plan::hash_of(plans))
        })
        .collect()
}
