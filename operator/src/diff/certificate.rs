//! The certificate that the edge is given, against the name that users come by and against what is in force.

use jiff::Timestamp;

use super::secrets;
use crate::{
    certificate::{Certificate, read_pair},
    desired::{Project, edge},
    observe::Observed,
    release::Release,
    secret::{Secret, Values},
};

/// The certificate that a project's edge is given, where it is given one that can be had.
pub(crate) fn given(project: &Project, values: &Values) -> Option<Result<Certificate, String>> {
    let [chain, key] = edge::certificate_files();
    let value = |path: &String| values.known.get(project.secrets.get(path)?).map(Secret::reveal);
    Some(read_pair(&project.tls.as_ref()?.name, value(&chain)?, value(&key)?))
}

/// The certificate that a release was rolled out with, where its source still has it.
pub(crate) fn applied(release: &Release, observed: &Observed) -> Option<Certificate> {
    let [chain, _] = edge::certificate_files();
    let is_applied = secrets::has_applied_value(release, &chain, observed);
    given(&release.project, &observed.secrets).filter(|_| is_applied)?.ok()
}

/// Takes a certificate that users would not accept from what can be had: it is told as missing, and what is in force stays
/// so. One that is in force already, and ended meanwhile, is no reason to refuse anything else.
pub(crate) fn refuse_unusable(project: &Project, observed: &mut Observed, now: Timestamp) {
    let found = match given(project, &observed.secrets) {
        Some(Err(found)) => Some(found),
        Some(Ok(given)) => given.fault(now).filter(|_| !is_in_force(project, observed)),
        None => None,
    };
    let Some(found) = found else { return };
    let [chain, _] = edge::certificate_files();
    let (Some(reference), Some(tls)) = (project.secrets.get(&chain), &project.tls) else { return };
    let message = format!(
        "secret {}: expected a certificate for {} in {} and its key in tls.key, found {found}",
        reference.secret, tls.name, reference.key
    );
    observed.secrets.known.remove(reference);
    observed.secrets.missing.insert(reference.clone(), message);
}

/// Whether the certificate that a project's edge is given is the one that was rolled out last.
fn is_in_force(project: &Project, observed: &Observed) -> bool {
    let [chain, _] = edge::certificate_files();
    let applied = observed.applied.as_ref().and_then(|applied| applied.seals.get(&chain));
    let key = observed.seal_key.as_ref();
    let now = key.and_then(|key| observed.secrets.sealed(&project.secrets, key).remove(&chain));
    now.is_some() && applied == now.as_ref()
}
