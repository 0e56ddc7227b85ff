//! Services that are OOM-killed whenever they start: what they read then needs more than they may have.

use super::drift::item;
use crate::{
    host::Container,
    observe::Observed,
    project::{Project, ReadAtStart, compose::Limits},
};
use tasktracker_crds::{Answer, DriftItem, DriftKind};

/// A container that was ended so often without serving in between is ended so again and again.
pub const OOM_KILLS: u64 = 2;
/// A limit is raised by no less than this part of it.
const LEAST_RAISE: u64 = 8;

/// What helps next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryRemedy<'a> {
    /// A higher limit, in bytes.
    Raise(u64),
    /// What it reads when it starts is moved aside.
    MoveAside(&'a ReadAtStart),
}

/// What helps next where a service is OOM-killed whenever it starts; nothing where all was done that the spec
/// permits and the host has.
pub fn memory_remedy<'a>(
    service: &str,
    applied: &Project,
    desired: &'a Project,
    observed: &Observed,
) -> Option<MemoryRemedy<'a>> {
    let terms = desired.out_of_memory.get(service)?;
    let limit = applied.services.get(service)?.compose.limits.mem_limit;
    let memory = observed.facts.as_ref().and_then(|facts| facts.memory);
    let most = memory.map_or(0, |memory| {
        let share = memory.total.saturating_mul(u64::from(terms.max_memory_percent)) / 100;
        // What it has may be in use at the moment, or be free: that is not counted on.
        share.min(memory.available) >> 20 << 20
    });
    let raised = limit.saturating_mul(2).min(most);
    if raised > limit.saturating_add(limit / LEAST_RAISE) {
        return Some(MemoryRemedy::Raise(raised));
    }
    let known = observed.ledger.as_ref().and_then(|ledger| ledger.memory.get(service));
    let is_moved = known.is_some_and(|known| known.raised == limit && known.moved_aside);
    terms.read_at_start.as_ref().filter(|_| !is_moved).map(MemoryRemedy::MoveAside)
}

/// A container that is OOM-killed whenever it starts.
pub(super) fn out_of_memory(
    service: &str,
    container: &Container,
    applied: &Project,
    desired: &Project,
    observed: &Observed,
) -> Option<DriftItem> {
    observed.oom_kills.get(&container.id).filter(|kills| **kills >= OOM_KILLS)?;
    let Limits { mem_limit, .. } = applied.services.get(service)?.compose.limits;
    // With less than it should have, that comes first.
    let its_own = container.details.as_ref().and_then(|details| details.settings.get("mem_limit"));
    let its_own = its_own.and_then(|text| text.parse::<u64>().ok());
    if its_own.is_some_and(|its_own| its_own < mem_limit) {
        return None;
    }
    let found = format!("OOM-killed whenever it starts, with a limit of {}Mi", mem_limit >> 20);
    let item = item(DriftKind::OutOfMemory, Some(service), Some(&container.name), "serving", found);
    let is_helped = memory_remedy(service, applied, desired, observed).is_some();
    Some(if is_helped { item } else { DriftItem { answer: Answer::Report, ..item } })
}
