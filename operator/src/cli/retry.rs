//! `retry`: what failed is tried again.

use anyhow::bail;
use serde_json::json;

use super::{
    Selection, Verdict,
    apply::person,
    hosts::{Looked, look_at_all},
    printer::{Printer, Tone},
};
use crate::{
    engine::{Hosts, Memory, Wish},
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
        match again(looked).await {
            Ok(again) => {
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

/// Whether there was anything to be tried again on a host.
async fn again(looked: &Looked) -> anyhow::Result<bool> {
    if let Err(error) = &looked.result {
        bail!("{error}");
    }
    let Some(site) = looked.site() else { return Ok(false) };
    let lock = site.host.lock(&Memory::none().writer()).await?;
    let result = async {
        let wish = Wish { approval: Approval::Policy, depth: Depth::Whole, lock: Some(&lock), turns: None };
        let mut again = false;
        for look in &site.look(wish).await? {
            if let Some(hold) = &look.plan.hold {
                bail!("nothing is written: {}", hold.message);
            }
            again |= site.retry(&lock, look, &person()).await?;
        }
        anyhow::Ok(again)
    };
    let result = result.await;
    lock.release().await;
    result
}
