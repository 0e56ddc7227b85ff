//! The certificate that a service is given, against the name that users come by and against what is in force.

use jiff::Timestamp;

use super::secrets;
use crate::{
    certificate::{Certificate, read_pair},
    observe::Observed,
    project::{CertificatePair, Project},
    release::Release,
    secret::{Secret, SecretSource, Values},
};

/// The certificate that a project is given, where it is given one that can be had.
pub(crate) fn given(project: &Project, values: &Values) -> Option<Result<Certificate, String>> {
    let certificate = project.certificate.as_ref()?;
    let CertificatePair { chain, key } = certificate.pair.as_ref()?;
    let value = |path: &String| values.known.get(&project.secrets.get(path)?.reference).map(Secret::reveal);
    Some(read_pair(&certificate.name, value(chain)?, value(key)?))
}

/// The certificate that a release was rolled out with, where its source still has it.
pub(crate) fn applied(release: &Release, observed: &Observed) -> Option<Certificate> {
    let CertificatePair { chain, .. } = release.project.certificate.as_ref()?.pair.as_ref()?;
    let is_applied = secrets::has_applied_value(release, chain, observed);
    given(&release.project, &observed.secrets).filter(|_| is_applied)?.ok()
}

/// Takes a certificate that users would not accept from what can be had: it is told as missing, and what is in force stays
/// so. One that is in force already, and ended meanwhile, is no reason to refuse anything else.
pub(crate) fn without_unusable(project: &Project, observed: Observed, now: Timestamp) -> Observed {
    match unusable(project, &observed, now) {
        None => observed,
        Some((chain, message)) => {
            let mut secrets = observed.secrets;
            secrets.known.remove(&chain);
            secrets.missing.insert(chain, message);
            Observed { secrets, ..observed }
        }
    }
}

/// A certificate that users would not accept: where it comes from, and why.
fn unusable(project: &Project, observed: &Observed, now: Timestamp) -> Option<(SecretSource, String)> {
    let found = match given(project, &observed.secrets) {
        Some(Err(found)) => Some(found),
        Some(Ok(given)) => given.fault(now).filter(|_| !is_in_force(project, observed)),
        None => None,
    };
    let found = found?;
    let certificate = project.certificate.as_ref()?;
    let CertificatePair { chain, key } = certificate.pair.as_ref()?;
    let reference = |path: &String| project.secrets.get(path).map(|file| &file.reference);
    let (chain, key) = (reference(chain)?, reference(key)?);
    let message = format!(
        "secret {}: expected a certificate for {} in {} and its key in {}, found {found}",
        chain.secret, certificate.name, chain.key, key.key
    );
    Some((chain.clone(), message))
}

/// Whether the certificate that a project is given is the one that was rolled out last.
fn is_in_force(project: &Project, observed: &Observed) -> bool {
    let pair = project.certificate.as_ref().and_then(|certificate| certificate.pair.as_ref());
    let Some(CertificatePair { chain, .. }) = pair else { return false };
    let applied = observed.applied.as_ref().and_then(|applied| applied.seals.get(chain));
    let key = observed.seal_key.as_ref();
    let now = key.and_then(|key| observed.secrets.sealed(&project.references(), key).remove(chain));
    now.is_some() && applied == now.as_ref()
}
