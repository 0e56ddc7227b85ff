//! Reloads: a running service takes up the files of a release.

use std::collections::BTreeMap;

use super::compose::Compose;
use crate::{host::Step, observe::Observed, project::service_of, release::Release};

/// Whether a running service may have taken up other files than a release has; the value says whether it must take up
/// what its configuration only names, too, such as a certificate. Which containers have the traffic is no configuration.
pub(super) fn needed(
    service: &str,
    (before, after): (Option<&Release>, &Release),
    observed: &Observed,
) -> Option<bool> {
    let files = |release: &Release| -> BTreeMap<String, String> {
        let is_read = |path: &str| service_of(path) == Some(service) && !release.project.is_upstream(path);
        let files = release.files.iter().filter(|(path, _)| is_read(path));
        files.map(|(path, record)| (path.clone(), record.sha256.clone())).collect()
    };
    let seals = |release: &Release| -> BTreeMap<String, String> {
        let seals = release.seals.iter().filter(|(path, _)| service_of(path) == Some(service));
        seals.map(|(path, seal)| (path.clone(), seal.clone())).collect()
    };
    let is_other_file = before.is_some_and(|before| files(before) != files(after));
    let is_other_secret = before.is_some_and(|before| seals(before) != seals(after));
    // Of a release that was tried, it may have taken up anything.
    let has_failed = observed.ledger.as_ref().is_some_and(|ledger| ledger.failed.is_some());
    let is_unknown = observed.has_open_intent() || has_failed;
    let force = is_other_secret || (is_unknown && !seals(after).is_empty());
    (is_other_file || force || is_unknown).then_some(force)
}

/// The step that reloads a service where that is needed; none for one that is reloaded over HTTP.
pub(super) fn step(
    service: &str,
    releases: (Option<&Release>, &Release),
    observed: &Observed,
    compose: &Compose<'_>,
) -> Option<Step> {
    let force = needed(service, releases, observed)?;
    compose.reload(service, &releases.1.project.services.get(service)?.reload, force)
}
