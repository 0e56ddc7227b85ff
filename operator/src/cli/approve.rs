//! `approve`: the plan that waits for a person may be carried out, and only that one.

use std::collections::BTreeSet;

use anyhow::bail;
use serde_json::json;

use super::{
    Selection, Verdict,
    apply::person,
    hosts::{CheckedProject, Reach, check_all, hashes, on_each},
    printer::Printer,
};
use crate::{
    engine::{Evaluation, ProjectContext},
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
    let all = check_all(selection, &reach, Approval::Policy, Depth::Slow).await?;
    for (stack, found) in hashes(&all) {
        if found != wanted {
            bail!(
                "{stack}: expected the plan to be {wanted}, found {found}: something changed since; look at `plan` again"
            );
        }
    }
    let shown: BTreeSet<(&str, String)> = all.iter().filter_map(waiting).collect();
    if shown.is_empty() {
        bail!("expected a change that waits for approval, found none");
    }
    let keep = async |context: ProjectContext<'_>, lock: &HostLock, evaluation: &Evaluation| {
        let (host, plan) = (context.spec.name.as_str(), evaluation.plan.hash());
        if !shown.contains(&(host, plan.clone())) {
            if evaluation.plan.needs_approval() {
                bail!("something changed meanwhile: found the plan {plan}; look at `plan` again");
            }
            return Ok(None);
        }
        context.approve(lock, evaluation, &person()).await?;
        Ok(Some((format!("plan {plan} is approved"), json!({ "plan": plan }))))
    };
    // What waits for nobody is left alone; what could not be read is told as not covered.
    let concerned = all.iter().filter(|checked| checked.result.is_err() || waiting(checked).is_some());
    Ok(on_each(printer, concerned, keep).await)
}

/// The plan of a project that waits for a person.
fn waiting(checked: &CheckedProject) -> Option<(&str, String)> {
    let evaluation = checked.result.as_ref().ok().filter(|one| one.plan.needs_approval())?;
    Some((checked.spec.name.as_str(), evaluation.plan.hash()))
}
