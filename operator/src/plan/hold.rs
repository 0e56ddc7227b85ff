//! Why nothing is written at present: reports go on, writes do not.

use jiff::Timestamp;
use tasktracker_crds::{HostState, SuspendSpec, conditions::reasons};

use crate::{
    model::Hold,
    observe::{self, Observed},
    project::Project,
};

/// Whether a host on which something is in force is to be drained, or to serve again; none for a project that cannot be.
pub fn drain(project: &Project, state: HostState, observed: &Observed) -> Option<bool> {
    let file = project.drain_file.as_ref()?;
    let wanted = state == HostState::Drained;
    let is_in_force = observed.ledger.as_ref().is_some_and(|ledger| ledger.current.is_some());
    let differs = observed.files.contains_key(file) != wanted;
    (is_in_force && differs && !observed.busy).then_some(wanted)
}

/// What keeps the operator from writing to a host, if anything does; a person's `apply` is kept from it, too.
pub fn hold(
    suspend: Option<&SuspendSpec>,
    state: HostState,
    on_host: Option<&observe::Hold>,
    now: Timestamp,
) -> Option<Hold> {
    if let Some(suspend) = suspend.filter(|suspend| lasts(suspend, now)) {
        let message = format!("spec.suspend until {}: {}", suspend.until, suspend.reason);
        return Some(Hold { reason: reasons::SUSPENDED, message });
    }
    if state == HostState::Frozen {
        let message = "the host's state is Frozen: reported on, never written to".to_owned();
        return Some(Hold { reason: reasons::FROZEN, message });
    }
    let hold = on_host.filter(|hold| hold.lasts(now))?;
    let end =
        hold.until.map_or_else(|| "it is removed".to_owned(), |until| format!("{until}, or it is removed"));
    let message = format!("the file HOLD on the host holds until {end}: {}", hold.reason);
    Some(Hold { reason: reasons::HELD, message })
}

/// Where nothing but repairs may be begun, an apply that was interrupted stays as it is: neither finished nor taken back.
pub fn hold_for_interrupted_apply(heal_only: Option<&Hold>, observed: &Observed) -> Option<Hold> {
    heal_only.filter(|_| observed.has_open_intent()).cloned()
}

/// Whether a suspension has not ended by itself; one whose end cannot be read does not end.
fn lasts(suspend: &SuspendSpec, now: Timestamp) -> bool {
    suspend.until.as_str().parse::<Timestamp>().map_or(true, |until| now < until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_holds_as_long_as_it_says() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let suspend =
            |until: &str| SuspendSpec { until: until.parse().unwrap(), reason: "audit".parse().unwrap() };
        let told = |suspend: Option<&SuspendSpec>, state, file: Option<&[u8]>| {
            let file = file.map(observe::Hold::read);
            hold(suspend, state, file.as_ref(), now).map(|hold| (hold.reason, hold.message))
        };
        assert_eq!(told(None, HostState::Active, None), None);
        let lasting = told(Some(&suspend("2026-01-31T12:00:01Z")), HostState::Active, None).unwrap();
        assert_eq!(lasting, ("Suspended", "spec.suspend until 2026-01-31T12:00:01Z: audit".to_owned()));
        assert_eq!(told(Some(&suspend("2026-01-31T13:00:00+01:00")), HostState::Active, None), None);
        assert_eq!(told(None, HostState::Frozen, None).unwrap().0, "Frozen");
        let (reason, message) =
            told(None, HostState::Active, Some(b"incident\n2026-01-31T18:00:00Z")).unwrap();
        assert_eq!(reason, "Held");
        assert!(message.contains("2026-01-31T18:00:00Z") && message.ends_with("incident"), "{message}");
        assert_eq!(told(None, HostState::Active, Some(b"2026-01-31T11:00:00Z")), None);
    }
}
