//! `rollback`: goes back to a release that the hosts keep.

use anyhow::bail;
use serde_json::json;

use super::{
    Selection, Verdict,
    apply::person,
    hosts::{Looked, look_at_all},
    printer::{Printer, Tone},
};
use crate::{
    apply::Outcome,
    engine::{Hosts, Look, Memory, Wish},
    observe::Depth,
    plan::Approval,
};

/// `rollback`
pub(super) async fn rollback(
    printer: &Printer,
    selection: &Selection,
    release: Option<&str>,
) -> anyhow::Result<Verdict> {
    let hosts = Hosts::default();
    let all = look_at_all(selection, &hosts, Approval::Policy, Depth::Slow).await?;
    let mut verdict = Verdict::InSync;
    let mut documents = Vec::new();
    for looked in &all {
        let (stack, host) = (looked.stack.key.to_string(), &looked.spec.name);
        match back(looked, release).await {
            Ok(outcomes) => {
                for release in outcomes.into_iter().filter_map(|outcome| outcome.rolled_out) {
                    let revision = &release.project.revision;
                    if !printer.is_json() {
                        let words = format!(
                            "back to release {} of revision {revision}, until the spec changes",
                            release.id
                        );
                        printer.line(Tone::Good, &format!("{stack} on {host}: {words}"));
                    }
                    documents.push(
                        json!({ "stack": stack, "host": host, "release": release.id, "revision": revision }),
                    );
                }
            }
            Err(error) => {
                printer.error(&looked.error_line(&format!("{error:#}")));
                documents.push(json!({ "stack": stack, "host": host, "error": format!("{error:#}") }));
                verdict = Verdict::Failed;
            }
        }
    }
    if printer.is_json() {
        printer.json(&documents);
    }
    Ok(verdict)
}

async fn back(looked: &Looked, release: Option<&str>) -> anyhow::Result<Vec<Outcome>> {
    if let Err(error) = &looked.result {
        bail!("{error}");
    }
    let Some(site) = looked.site() else { return Ok(Vec::new()) };
    let lock = site.host.lock(&Memory::none().writer()).await?;
    let result = async {
        let wish = Wish { approval: Approval::Policy, depth: Depth::Whole, lock: Some(&lock), turns: None };
        let looks: Vec<Look> = site.look(wish).await?;
        let mut outcomes = Vec::new();
        for look in &looks {
            let outcome = site.rollback(&lock, look, release, &person()).await?;
            outcomes.push(outcome);
        }
        anyhow::Ok(outcomes)
    };
    let result = result.await;
    lock.release().await;
    result
}
