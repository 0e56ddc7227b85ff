//! Gates of serial services: no two instances may be down at once.

use std::{borrow::Cow, collections::BTreeMap};

use super::Error;
use crate::{
    host::Host,
    model::{Probe, ProbeFailure},
    observe::{Observed, Prober},
    plan::Plan,
    project::compose::COMPOSE_SERVICE,
};

/// The part of a plan of repairs that no closed gate holds back. What belongs to a service with a closed gate is put off
/// as a whole: a file that is restored without the restart that loads it would hide that it was never loaded.
///
/// # Errors
/// [`Error::GateClosed`] where nothing is left to do; the next check tries again.
pub async fn open_part<'a>(host: &Host, plan: &'a Plan, observed: &Observed) -> Result<Cow<'a, Plan>, Error> {
    let stops = |service: &str| {
        let mut repairs = plan.repairs_now().map(|repair| &repair.action);
        repairs.any(|action| action.takes_down() && action.service().is_none_or(|one| one == service))
    };
    let mut closed = closed(host, observed, stops).await?;
    if closed.is_empty() {
        return Ok(Cow::Borrowed(plan));
    }
    let mut open = plan.clone();
    for repair in &mut open.repairs {
        let of_service = repair.action.subject();
        repair.later |= of_service.map_or(repair.action.takes_down(), |service| closed.contains_key(service));
    }
    match closed.pop_first() {
        Some((_, error)) if open.repairs_now().next().is_none() => Err(error),
        _ => Ok(Cow::Owned(open)),
    }
}

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
    closed(host, observed, stops).await?.pop_first().map_or(Ok(()), |(_, error)| Err(error))
}

/// The services whose gate is closed, each with its [`Error::GateClosed`].
async fn closed(
    host: &Host,
    observed: &Observed,
    stops: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Error>, Error> {
    let Some(release) = &observed.applied else { return Ok(BTreeMap::new()) };
    let prober = Prober { release, secrets: &observed.secrets, key: observed.seal_key.as_ref() };
    let is_ready =
        |id: &str| observed.probe_results.get(&(id.to_owned(), Probe::Ready)).is_none_or(Result::is_ok);
    let is_gate =
        |service: &str, id: &str, probe: &Probe| *probe == Probe::Gate && stops(service) && is_ready(id);
    let results = prober.run(host, &observed.containers, is_gate).await?;
    let closed = results.into_iter().filter_map(|((id, _), result)| {
        let Err(ProbeFailure::Unexpected(found)) = result else { return None };
        let container = observed.containers.iter().find(|one| one.id == id)?;
        let service = container.labels.get(COMPOSE_SERVICE)?;
        Some((service.clone(), Error::GateClosed { container: container.name.clone(), found }))
    });
    Ok(closed.collect())
}
