//! What a check of one project comes to: desired, observed, and what follows. Pure.

use jiff::Timestamp;
use serde_json::json;
use tasktracker_crds::{
    Answer, DriftItem, DriftKind, Heal, HistoryEntry, Layer, PolicySpec, conditions::reasons,
};

use super::ProjectContext;
use crate::{
    diff::{self, Change},
    host,
    ledger::{Ledger, Rollout},
    model::{ComponentName, Hold},
    observe::Observed,
    plan::{self, Approval, Decision, Plan, RolloutGate, SpecApproval, Waiting},
    project::Project,
    report::{Failure, ProjectReport},
    source::ApprovedPlan,
};

/// One project on one host: what is asked for, what is there, and what follows.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// What the spec asks for, with volumes and images as they are to be on this host.
    pub project: Project,
    /// What is there.
    pub observed: Observed,
    /// Applied against observed.
    pub drift: Vec<DriftItem>,
    /// What is to be done.
    pub plan: Plan,
}

/// A desired project joined with everything that an evaluation needs. Immutable.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    /// What the spec asks for, with volumes and images as they are to be on this host.
    pub(super) project: Project,
    /// What is there, and what is known from elsewhere.
    pub(super) observed: Observed,
    /// What the spec asks for beyond the applied release.
    pub(super) change: Option<Change>,
}

/// What an evaluation is told beside the resolved project.
pub(super) struct Terms<'a> {
    /// Who may release a change.
    pub(super) approval: Approval,
    /// What the rollout coordinator decides.
    pub(super) decision: Decision,
    /// Hash of the plan that the spec approves for this project.
    pub(super) approved: Option<String>,
    /// Why nothing but repairs is begun.
    pub(super) read_only_reason: Option<&'a Hold>,
    /// The time.
    pub(super) now: Timestamp,
}

impl ProjectContext<'_> {
    /// A rendered project whose volumes have the names that they have on this host.
    ///
    /// # Errors
    /// Where what is there belongs to another stack.
    pub(super) fn resolve_volumes(
        &self,
        rendered: &Project,
        observed: &Observed,
        approval: Approval,
    ) -> Result<Project, host::Error> {
        let known = match &observed.ledger {
            Some(ledger) => ledger.all_volumes(),
            None => volumes_in_use(rendered, observed),
        };
        let project = rendered.clone().with_volumes(&known);
        if let Some(ledger) = observed.ledger.as_ref().filter(|ledger| ledger.owner != project.owner) {
            // The same stack made anew is another owner, too: that one may be adopted, or finds nothing of the one before.
            let is_same = ledger.stack == self.stack.key.to_string();
            if !is_same || (approval != Approval::Adopting && !ledger.is_torn_down()) {
                let found = crate::text::printable(&ledger.stack);
                return Err(host::Error::NameConflict { project: project.name, found });
            }
        }
        Ok(project)
    }

    /// Decides what follows from a resolved project.
    ///
    /// # Errors
    /// Where what is stored on the host is damaged, and nobody may roll it out anew.
    pub(super) fn evaluate(
        &self,
        Resolved { project, observed, change }: Resolved,
        terms: Terms<'_>,
    ) -> Result<Evaluation, host::Error> {
        let Self { stack, spec, .. } = self;
        let Terms { approval, decision, approved, read_only_reason, now } = terms;
        // Nothing is taken away by an operator that may not be the one that acts.
        let prune = if read_only_reason.is_some() { Heal::Report } else { stack.spec.policy.prune };
        let policy = &PolicySpec { prune, ..stack.spec.policy.clone() };
        let drift = diff::judge(diff::drift(spec.name.as_str(), &project, &observed), policy);
        let is_approved_by_damage = observed.damaged.is_some() && approval == Approval::Policy;
        if let Some(error) = observed.damaged.as_ref().filter(|_| is_approved_by_damage) {
            // What cannot be relied on any more is rolled out anew where that is the same release, or a person says so.
            let same = change.as_ref().is_some_and(|change| {
                observed.ledger.is_some()
                    && observed.remembered.desired_hash.as_ref() == Some(&change.desired_hash)
            });
            if !same {
                return Err(error.clone());
            }
        }
        let gate = RolloutGate {
            approval: if is_approved_by_damage { Approval::Person } else { approval },
            decision,
            closed: plan::closed(&policy.windows, now),
            approved: SpecApproval {
                plan: approved,
                named: named(&stack.approved_plans(), project.component),
            },
            drain: plan::drain(&project, spec.state, &observed),
            heal_only: read_only_reason.cloned(),
        };
        let plan = plan::plan(&drift, change, &project, &observed, policy, gate);
        let hold = plan::hold(stack.spec.suspend.as_ref(), spec.state, observed.hold.as_ref(), now)
            .or_else(|| plan::hold_for_interrupted_apply(read_only_reason, &observed));
        // What an interrupted rollout left is neither drift nor change: it is finished or taken back first.
        let has_open_intent = observed.has_open_intent();
        let is_told = |item: &DriftItem| !has_open_intent || item.kind.layer() == Layer::Host;
        let drift = drift.into_iter().filter(is_told).collect();
        Ok(Evaluation { project, observed, drift, plan: Plan { hold, ..plan } })
    }
}

/// The plans that are approved for a component, and where, in words.
fn named(plans: &[ApprovedPlan<'_>], component: ComponentName) -> Option<String> {
    let plans = plans.iter().filter(|plan| plan.covers(component));
    let words: Vec<String> = plans.map(|plan| format!("{} {}", plan.place, plan.hash)).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

impl Evaluation {
    /// Whether there is something to be done now.
    pub fn has_work(&self) -> bool {
        self.plan.has_work()
    }

    /// The same with another ledger, which is about to be written.
    pub(super) fn with_ledger(&self, ledger: Ledger) -> Self {
        let Self { project, observed, drift, plan } = self.clone();
        Self { project, observed: Observed { ledger: Some(ledger), ..observed }, drift, plan }
    }

    /// The rollouts that the host remembers, newest first.
    fn history(&self, host: &str) -> Vec<HistoryEntry> {
        let history = self.observed.ledger.iter().flat_map(|ledger| &ledger.history);
        let entry = |rollout: &Rollout| HistoryEntry {
            when: rollout.when.clone(),
            host: host.to_owned(),
            component: self.project.component.to_string(),
            release: rollout.release.clone(),
            revision: rollout.revision.clone(),
            result: rollout.result.clone(),
            who: rollout.who.clone(),
        };
        history.map(entry).collect()
    }

    /// What a report says of this evaluation.
    pub fn report(&self, host: &str, now: Timestamp) -> ProjectReport {
        let applied = self.observed.applied.as_ref();
        // Where nothing is written, a change waits for that to end, whatever else it may wait for then.
        let held = self.plan.rollout.as_ref().zip(self.plan.hold.as_ref()).map(|(change, hold)| Waiting {
            reason: hold.reason,
            message: hold.message.clone(),
            change: change.clone(),
        });
        let rolling_out = self.plan.rollout.as_ref().filter(|_| held.is_none());
        let rolling_out = rolling_out.map(|change| change.to_revision.clone());
        let waiting = held.or_else(|| self.plan.waiting.clone());
        let (certificate, uncertified) = match self.observed.certificate.clone() {
            Some(Ok(certificate)) => (Some(certificate), None),
            Some(Err(found)) => (None, Some(found)),
            None => (None, None),
        };
        let is_drained = |path: &String| self.observed.files.contains_key(path);
        ProjectReport {
            host: host.to_owned(),
            component: self.project.component,
            busy: self.observed.busy,
            interrupted: self.observed.has_open_intent(),
            drained: self.project.drain_file.as_ref().is_some_and(is_drained),
            failure: not_converging(&self.plan.given_up)
                .or_else(|| rollback_failed(self.plan.rollback_failed.as_deref()))
                .or_else(|| out_of_memory(&self.drift)),
            release: applied.map(|release| release.id.clone()),
            revision: applied.and_then(|release| release.project.revision.clone()),
            version: applied.map(|release| release.project.version().to_owned()),
            faults: applied.map(|release| diff::faults(release, &self.observed).iter().map(ToString::to_string).collect()).unwrap_or_default(),
            healthy: applied.is_some_and(|release| diff::serving(release, &self.observed))
                && self.drift.iter().all(|item| item.kind != DriftKind::NotServing)
                && certificate.as_ref().is_none_or(|certificate| certificate.fault(now).is_none())
                && uncertified.is_none(),
            certificate,
            uncertified: uncertified.zip(self.project.certificate.as_ref().map(|probe| probe.service.clone())),
            drift: self.drift.clone(),
            rolling_out,
            plan: self.plan.hash(),
            waiting,
            waited: None,
            hold: self.plan.hold.clone(),
            retained: None,
            document: self.plan.needs_approval().then(|| {
                json!({ "host": host, "component": self.project.component, "hash": self.plan.hash(), "plan": self.plan })
            }),
            history: self.history(host),
            generation: None,
            reconcile: None,
        }
    }
}

/// Without a ledger: the volumes that containers of the project have, and those that the operator's own state knows.
fn volumes_in_use(project: &Project, observed: &Observed) -> std::collections::BTreeMap<String, String> {
    let mut known = observed.remembered.volumes.clone();
    for (service, definition) in &project.services {
        let compose_service = crate::project::compose::COMPOSE_SERVICE;
        let ours = observed.containers.iter().filter(|one| one.has_label(compose_service, service));
        for details in ours.filter_map(|container| container.details.as_ref()) {
            for mount in definition.compose.volumes.iter().filter(|mount| mount.kind == "volume") {
                let used = details.settings.get(&format!("volumes/{}", mount.target));
                let used = used.and_then(|used| used.strip_prefix("volume ")?.split(' ').next());
                known.extend(used.map(|used| (mount.source.clone(), used.to_owned())));
            }
        }
    }
    known
}

/// What failed on another host, and could not be taken back.
fn rollback_failed(found: Option<&str>) -> Option<Failure> {
    let message = format!(
        "this desired state failed {}; expected the release before to serve again, found that it does not; change the spec, or run `retry` or `rollback`",
        found?
    );
    Some(Failure { reason: reasons::ROLLED_BACK, message, reachable: true, stalled: true })
}

/// What was repaired again and again and did not stay so.
fn not_converging(given_up: &[String]) -> Option<Failure> {
    let message = format!(
        "repairs: expected them to hold, found the same differences after each of three, or again and again: {}; see `plan`, then run `retry` or `apply`, or ignore them by policy.ignore",
        given_up.join(", ")
    );
    let failure = Failure { reason: reasons::NOT_CONVERGING, message, reachable: true, stalled: true };
    (!given_up.is_empty()).then_some(failure)
}

/// What is OOM-killed whenever it starts, where nothing is left that would help by itself.
fn out_of_memory(drift: &[DriftItem]) -> Option<Failure> {
    let is_it = |item: &&DriftItem| item.kind == DriftKind::OutOfMemory && item.answer == Answer::Report;
    let item = drift.iter().find(is_it)?;
    let message = format!(
        "{}: expected it to serve, found it {}; {}",
        item.subject()?,
        item.found,
        item.kind.remedy().unwrap_or_default()
    );
    Some(Failure { reason: reasons::OUT_OF_MEMORY, message, reachable: true, stalled: true })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{component, observe::Remembered, source::Stack};

    #[test]
    fn without_a_ledger_the_volume_that_a_container_has_is_the_one_that_counts() {
        let text = include_str!("../../../examples/staging.yaml");
        let stack = Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), PathBuf::new());
        let project = component::app_project(&stack, stack.spec.app.as_ref().unwrap());
        let settings = [("volumes//data".to_owned(), "volume by_hand_tasks rw".to_owned())].into();
        let backend = host::Container {
            labels: [(crate::project::compose::COMPOSE_SERVICE.to_owned(), "backend".to_owned())].into(),
            details: Some(host::Details { settings, ..host::Details::default() }),
            ..host::Container::default()
        };
        let remembered = Remembered {
            volumes: [("data".to_owned(), "of-the-state-folder".to_owned())].into(),
            ..Remembered::default()
        };
        let mut observed = Observed { remembered, ..Observed::default() };
        assert_eq!(volumes_in_use(&project, &observed)["data"], "of-the-state-folder");
        observed.containers.push(backend);
        assert_eq!(volumes_in_use(&project, &observed)["data"], "by_hand_tasks");
    }
}
