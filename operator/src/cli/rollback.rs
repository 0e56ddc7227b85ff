//! `rollback`: goes back to a release that the hosts keep.

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
        let back = async |site: Site<'_>, lock: &HostLock, look: &Look| {
            Ok(site.rollback(lock, look, release, &person()).await?)
        };
        match looked.under_lock(back).await {
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
