//! `rollback`: goes back to a release that the hosts keep.

use serde_json::json;

use super::{
    Selection, Verdict,
    apply::person,
    hosts::{Reach, look_at_all, on_each},
    printer::Printer,
};
use crate::{
    engine::{Look, Site},
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
    let all = look_at_all(selection, &reach, Approval::Policy, Depth::Slow).await?;
    let looks = all.iter().filter_map(|looked| Some((looked.site()?, looked.result.as_ref().ok()?)));
    let brought = looks.map(async |(site, looks)| {
        for look in looks {
            if let Err(error) = site.bring_images_back(look, release).await {
                tracing::debug!(host = %site.spec.name, %error, "nothing is pulled");
            }
        }
    });
    futures::future::join_all(brought).await;
    let back = async |site: Site<'_>, lock: &HostLock, look: &Look| {
        let outcome = site.rollback(lock, look, release, &person()).await?;
        Ok(outcome.rolled_out.map(|release| {
            let revision = &release.project.revision;
            let words =
                format!("back to release {} of revision {revision}, until the spec changes", release.id);
            (words, json!({ "release": release.id, "revision": revision }))
        }))
    };
    Ok(on_each(printer, &all, back).await)
}
