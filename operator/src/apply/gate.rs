//! Gates of serial services: no two instances may be down at once.

use super::Error;
use crate::{
    host::Host,
    model::{Probe, ProbeFailure},
    observe::{Observed, Prober},
};

/// Checks the gates of the running instances that are about to stop; `stops` says whether those of a service are. An
/// instance that is not ready or does not answer is down already and needs no gate.
///
/// # Errors
/// [`Error::GateClosed`] where an instance must stay; the next check tries again.
pub(super) async fn check(
    host: &Host,
    observed: &Observed,
    stops: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let Some(release) = &observed.applied else { return Ok(()) };
    let prober = Prober { release, secrets: &observed.secrets, key: observed.seal_key.as_ref() };
    let is_ready =
        |id: &str| observed.probe_results.get(&(id.to_owned(), Probe::Ready)).is_none_or(Result::is_ok);
    let is_gate =
        |service: &str, id: &str, probe: &Probe| *probe == Probe::Gate && stops(service) && is_ready(id);
    for ((id, _), result) in prober.run(host, &observed.containers, is_gate).await? {
        if let Err(ProbeFailure::Unexpected(found)) = result {
            let container = observed.containers.iter().find(|one| one.id == id);
            let container = container.map(|one| one.name.clone()).unwrap_or_default();
            return Err(Error::GateClosed { container, found });
        }
    }
    Ok(())
}
