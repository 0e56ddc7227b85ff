//! `approve`: the plan that waits for a person may be carried out, and only that one.

use anyhow::bail;
use serde_json::json;
use tasktracker_crds::conditions::reasons;

use super::{
    Selection, Verdict,
    apply::person,
    hosts::{hashes, look_at_all},
    printer::{Printer, Tone},
};
use crate::{
    engine::{Hosts, Look, Site},
    host::HostLock,
    observe::Depth,
    plan::Approval,
};

/// `approve`
pub(super) async fn approve(
    printer: &Printer,
    selection: &Selection,
    wanted: &str,
) -> anyhow::Result<Verdict> {
    let all = look_at_all(selection, &Hosts::default(), Approval::Policy, Depth::Slow).await?;
    for (stack, found) in hashes(&all) {
        if found != wanted {
            bail!(
                "{stack}: expected the plan to be {wanted}, found {found}: something changed since; look at `plan` again"
            );
        }
    }
    let mut verdict = Verdict::InSync;
    let mut documents = Vec::new();
    let mut is_needed = false;
    for looked in &all {
        let (stack, host) = (looked.stack.key.to_string(), &looked.spec.name);
        let shown: Vec<(bool, String)> =
            looked.result.iter().flatten().map(|look| (waits(look), look.plan.hash())).collect();
        let keep = async |site: Site<'_>, lock: &HostLock, look: &Look| {
            let found = look.plan.hash();
            if !shown.iter().any(|(waited, hash)| *waited && *hash == found) {
                if waits(look) {
                    bail!("something changed meanwhile: found the plan {found}; look at `plan` again");
                }
                return Ok(None);
            }
            Box::pin(site.approve(lock, look, &person())).await?;
            Ok(Some(found))
        };
        let kept = match &looked.result {
            // What waits for nobody is left alone.
            Ok(_) if !shown.iter().any(|(waited, _)| *waited) => continue,
            Ok(_) => Box::pin(looked.under_lock(keep)).await,
            Err(error) => Err(anyhow::anyhow!("it could not be read, and is not covered: {error}")),
        };
        match kept {
            Ok(kept) => {
                is_needed = true;
                for plan in kept.into_iter().flatten() {
                    if !printer.is_json() {
                        printer.line(Tone::Good, &format!("{stack} on {host}: plan {plan} is approved"));
                    }
                    documents.push(json!({ "stack": stack, "host": host, "plan": plan }));
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
    if !is_needed && verdict == Verdict::InSync {
        bail!("expected a change that waits for approval, found none");
    }
    Ok(verdict)
}

fn waits(look: &Look) -> bool {
    look.plan.waiting.as_ref().is_some_and(|waiting| waiting.reason == reasons::APPROVAL_NEEDED)
}
