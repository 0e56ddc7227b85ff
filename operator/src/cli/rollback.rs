//! `rollback`: goes back to a release that the hosts keep.

use std::{cell::RefCell, collections::BTreeSet};

use anyhow::ensure;
use serde_json::json;

use super::{
    Selection, Verdict,
    apply::person,
    hosts::{Reach, check_all, on_each},
    printer::Printer,
};
use crate::{
    engine::{Evaluation, ProjectContext},
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
    let reach = Reach::default();
    let all = check_all(selection, &reach, Approval::Policy, Depth::Slow).await?;
    let brought = all.iter().map(async |checked| {
        let Some((context, evaluation)) = checked.context().zip(checked.result.as_ref().ok()) else { return };
        if let Err(error) = context.bring_images_back(evaluation, release).await {
            tracing::debug!(host = %context.spec.name, %error, "nothing is pulled");
        }
    });
    futures::future::join_all(brought).await;
    let left_down = RefCell::new(BTreeSet::new());
    let back = async |context: ProjectContext<'_>, lock: &HostLock, evaluation: &Evaluation| {
        let group = (context.stack.key.clone(), evaluation.project.component);
        ensure!(
            !left_down.borrow().contains(&group),
            "not tried here: another host failed or waits, and no two hosts may be down at once"
        );
        let outcome = context.rollback(lock, evaluation, release, &person()).await;
        if outcome.is_err() && evaluation.project.is_serial() {
            left_down.borrow_mut().insert(group);
        }
        let outcome = outcome?;
        Ok(outcome.rolled_out.map(|release| {
            let revision = release.project.version();
            let words =
                format!("back to release {} of revision {revision}, until the spec changes", release.id);
            (words, json!({ "release": release.id, "revision": revision }))
        }))
    };
    Ok(on_each(printer, &all, back).await)
}
