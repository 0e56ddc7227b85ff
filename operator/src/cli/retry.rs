//! `retry`: what failed is tried again.

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

/// `retry`
pub(super) async fn retry(printer: &Printer, selection: &Selection) -> anyhow::Result<Verdict> {
    let reach = Reach::default();
    let all = check_all(selection, &reach, Approval::Policy, Depth::Slow).await?;
    let again = async |context: ProjectContext<'_>, lock: &HostLock, evaluation: &Evaluation| {
        let again = context.retry(lock, evaluation, &person()).await?;
        let words = if again { "what failed is tried again" } else { "nothing failed" };
        Ok(Some((words.to_owned(), json!({ "retry": again }))))
    };
    Ok(on_each(printer, &all, again).await)
}
