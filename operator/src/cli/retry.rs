//! `retry`: what failed is tried again.

use anyhow::bail;
use serde_json::json;

use super::{
    Selection, Verdict,
    apply::person,
    hosts::look_at_all,
    printer::{Printer, Tone},
};
use crate::{
    engine::{Hosts, Look, Site},
    host::HostLock,
    observe::Depth,
    plan::Approval,
};

/// `retry`
pub(super) async fn retry(printer: &Printer, selection: &Selection) -> anyhow::Result<Verdict> {
    let hosts = Hosts::default();
    let all = look_at_all(selection, &hosts, Approval::Policy, Depth::Slow).await?;
    let mut verdict = Verdict::InSync;
    let mut documents = Vec::new();
    for looked in &all {
        let (stack, host) = (looked.stack.key.to_string(), &looked.spec.name);
        match looked.under_lock(again).await {
            Ok(done) => {
                let again = done.contains(&true);
                let words = if again { "what failed is tried again" } else { "nothing failed" };
                if !printer.is_json() {
                    printer.line(Tone::Good, &format!("{stack} on {host}: {words}"));
                }
                documents.push(json!({ "stack": stack, "host": host, "retry": again }));
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

/// Forgets what failed on a host; whether there was any.
async fn again(site: Site<'_>, lock: &HostLock, look: &Look) -> anyhow::Result<bool> {
    if let Some(hold) = &look.plan.hold {
        bail!("nothing is written: {}", hold.message);
    }
    Ok(site.retry(lock, look, &person()).await?)
}
