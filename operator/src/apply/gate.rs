//! Gates of serial services: no two instances may be down at once.

use std::{borrow::Cow, collections::BTreeMap};

use super::{Error, applied_secrets, rolling};
use crate::{
    host::{Container, Host},
    model::{Probe, ProbeFailure},
    observe::{ANY_TIME, Observed, Prober, is_ready},
    plan::Plan,
    project::compose::COMPOSE_SERVICE,
};

/// Why a gate that cannot be asked is closed.
const NOT_CHECKED: &str = "expected an answer, found that it cannot be asked: its password is unknown, or the SSH server forbids TCP forwarding (set AllowTcpForwarding to local)";

/// The part of a plan of repairs that no closed gate holds back. What belongs to a service with a closed gate is put off
/// as a whole: a file that is restored without the restart that loads it would hide that it was never loaded.
///
/// # Errors
/// [`Error::GateClosed`] where nothing is left to do; the next check tries again.
pub async fn open_part<'a>(host: &Host, plan: &'a Plan, observed: &Observed) -> Result<Cow<'a, Plan>, Error> {
    let is_reloaded =
        |service: &str| observed.applied.as_ref().is_some_and(|applied| applied.project.is_reloaded(service));
    let stops = |service: &str| {
        let mut repairs = plan.repairs_now().map(|repair| &repair.action);
        repairs.any(|action| match action.reloaded() {
            Some(reloaded) => reloaded == service && !is_reloaded(service),
            None => action.takes_down() && action.service().is_none_or(|one| one == service),
        })
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
    let is_nothing_left =
        open.repairs_now().next().is_none() && open.drain.is_none() && open.approve.is_none();
    match closed.pop_first() {
        Some((_, error)) if is_nothing_left => Err(error),
        _ => Ok(Cow::Owned(open)),
    }
}

/// Checks the gates of the running instances that are about to stop; `stops` says whether those of a service are. An
/// instance that is not ready or does not answer is down already and needs no gate, nor does one of a release that failed:
/// it goes back whatever its gate says, since its gate may be closed because of it.
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

/// The services whose gate is closed, each with its [`Error::GateClosed`]. A gate that cannot be asked is closed.
async fn closed(
    host: &Host,
    observed: &Observed,
    stops: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Error>, Error> {
    let Some(release) = &observed.applied else { return Ok(BTreeMap::new()) };
    let is_up = |service: &str, container: &Container| {
        let definition = release.project.services.get(service);
        let ready = observed.probe_results.get(&(container.id.clone(), Probe::Ready));
        definition.is_some_and(|definition| is_ready(definition, container))
            && ready.is_none_or(Result::is_ok)
    };
    let gated: Vec<(&str, &Container)> = observed
        .containers
        .iter()
        .filter_map(|container| Some((container.labels.get(COMPOSE_SERVICE)?.as_str(), container)))
        .filter(|(service, container)| {
            release.project.is_gated(service) && stops(service) && is_up(service, container)
        })
        .filter(|(service, container)| rolling::is_of(container, release, service))
        .collect();
    if gated.is_empty() {
        return Ok(BTreeMap::new());
    }
    let secrets = applied_secrets::values(host, observed).await?;
    let prober = Prober { release, secrets: &secrets, key: None, now: ANY_TIME };
    let is_gate = |service: &str, container: &Container, probe: &Probe| {
        *probe == Probe::Gate && gated.iter().any(|(one, gated)| *one == service && gated.id == container.id)
    };
    let mut results = prober.run(host, &observed.containers, is_gate).await?;
    let closed = gated.into_iter().filter_map(|(service, container)| {
        let found = match results.remove(&(container.id.clone(), Probe::Gate)) {
            Some(Ok(()) | Err(ProbeFailure::NoAnswer(_))) => return None,
            Some(Err(ProbeFailure::Unexpected(found))) => found,
            None => NOT_CHECKED.to_owned(),
        };
        Some((service.to_owned(), Error::GateClosed { container: container.name.clone(), found }))
    });
    Ok(closed.collect())
}
