//! `approve`: the plan that waits for a person may be carried out, and only that one.

use std::collections::BTreeSet;

use anyhow::bail;
use serde_json::json;

use super::{
    Selection, Verdict,
    apply::person,
    hosts::{Looked, Reach, hashes, look_at_all, on_each},
    printer::Printer,
};
use crate::{
    engine::{Look, Site},
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
    let reach = Reach::default();
    let all = look_at_all(selection, &reach, Approval::Policy, Depth::Slow).await?;
    for (stack, found) in hashes(&all) {
        if found != wanted {
            bail!(
                "{stack}: expected the plan to be {wanted}, found {found}: something changed since; look at `plan` again"
            );
        }
    }
    let shown: BTreeSet<(&str, String)> = all.iter().flat_map(waiting).collect();
    if shown.is_empty() {
        bail!("expected a change that waits for approval, found none");
    }
    let keep = async |site: Site<'_>, lock: &HostLock, look: &Look| {
        let (host, plan) = (site.spec.name.as_str(), look.plan.hash());
        if !shown.contains(&(host, plan.clone())) {
            if look.plan.needs_approval() {
                bail!("something changed meanwhile: found the plan {plan}; look at `plan` again");
            }
            return Ok(None);
        }
        site.approve(lock, look, &person()).await?;
        Ok(Some((format!("plan {plan} is approved"), json!({ "plan": plan }))))
    };
    // What waits for nobody is left alone; what could not be read is told as not covered.
    let concerned = all.iter().filter(|looked| looked.result.is_err() || waiting(looked).next().is_some());
    Ok(on_each(printer, concerned, keep).await)
}

/// The plans of a host that wait for a person.
fn waiting(looked: &Looked) -> impl Iterator<Item = (&str, String)> {
    let looks = looked.result.iter().flatten().filter(|look| look.plan.needs_approval());
    looks.map(|look| (looked.spec.name.as_str(), look.plan.hash()))
}
