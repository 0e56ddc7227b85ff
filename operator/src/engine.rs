//! The driver: from a stack and a host to a plan, and from a plan to an outcome.

mod act;
mod check;
mod error;
mod hosts;
mod images;
mod left;
mod notifier;
mod requests;
mod retire;
mod rivals;
mod rollback;
mod run;
mod stacks;
mod turns;
mod vanished;
mod watcher;
mod worker;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::json;
use tasktracker_crds::{DriftItem, Heal, HistoryEntry, HostSpec, Layer, PolicySpec, conditions::reasons};

pub use error::Error;
pub use hosts::Hosts;
pub use images::Images;
pub use retire::{Removal, Retired, retained};
pub use rollback::RollbackError;
pub use run::{Settings, run};
pub use stacks::{Parts, Stacks};
pub use turns::Turns;
pub use watcher::Listener;

pub use crate::state::{Deployed, DeployedHost, Deployment, Memory, is_named};

use crate::{
    desired::{self, Project, compose},
    diff::{self, certificate},
    host::{self, Host, HostLock},
    ledger::Rollout,
    observe::{self, Depth, Observed, Remembered},
    plan::{self, Approval, Granted, Hold, Leave, Plan, Waiting},
    report::{Failure, HostReport},
    source::{Secrets, Stack},
    state::deployed,
    text::printable,
};

/// Who writes where no person asks for it.
pub const OPERATOR: &str = "tasktracker-operator";

/// Reads the clock: the one place that does, beside the command line.
#[expect(clippy::disallowed_methods, reason = "the engine is where time comes in")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// One project on one host: what is asked for, what is there, and what follows.
#[derive(Clone, Debug)]
pub struct Look {
    /// What the spec asks for.
    pub project: Project,
    /// What is there.
    pub observed: Observed,
    /// Applied against observed.
    pub drift: Vec<DriftItem>,
    /// What is to be done.
    pub plan: Plan,
}

/// Who asks for a look, and how thorough it is.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Who may release a change.
    pub approval: Approval,
    /// How much is read anew.
    pub depth: Depth,
    /// Whoever holds the lock is alone on the host.
    pub lock: Option<&'a HostLock>,
    /// Whose turn it is among the hosts of the stack, where that counts.
    pub turns: Option<&'a Turns>,
    /// Why nothing but repairs may be begun.
    pub barred: Option<&'a Hold>,
}

/// One host of a stack, and what is needed to judge and repair it.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The stack.
    pub stack: &'a Stack,
    /// What it says of the host.
    pub spec: &'a HostSpec,
    /// The host.
    pub host: &'a Arc<Host>,
    /// Where the values of secrets come from.
    pub secrets: &'a Secrets,
    /// The operator's own folder.
    pub memory: &'a Memory,
    /// What tags mean, and what is on its way.
    pub images: &'a Arc<Images>,
}

impl Site<'_> {
    /// Looks at every project of the stack on the host. Writes nothing.
    ///
    /// # Errors
    /// When the host cannot be read.
    pub async fn look(&self, wish: Wish<'_>) -> Result<Vec<Look>, host::Error> {
        let mut looks = Vec::new();
        for project in desired::for_host(self.stack, self.spec) {
            looks.push(self.look_at(project, wish).await?);
        }
        Ok(looks)
    }

    async fn look_at(&self, project: Project, wish: Wish<'_>) -> Result<Look, host::Error> {
        let Self { host, .. } = self;
        let (pinned, observed) = self.see(&project, wish.depth).await?;
        let first = self.judge(pinned, observed, wish)?;
        let quiet = first.drift.is_empty() && first.plan.is_empty() && !first.observed.is_under_way();
        if wish.lock.is_some() || quiet {
            return Ok(first);
        }
        // Something differs, or is under way. Another writer at work, or one that ended just now, would explain it: it is looked again
        // between two moments at which nobody was.
        drop(first);
        let mut busy = observe::is_busy(host, &project).await?;
        let (pinned, mut observed) = self.see(&project, Depth::Whole).await?;
        busy = busy || observe::is_busy(host, &project).await?;
        observed.busy = busy;
        self.judge(pinned, observed, wish)
    }

    /// The host, and the project with what its tags mean.
    async fn see(&self, project: &Project, depth: Depth) -> Result<(Project, Observed), host::Error> {
        let mut observed = self.observe(project, depth).await?;
        let project = Box::pin(self.images.settle(self, project.clone(), &mut observed)).await?;
        Ok((project, observed))
    }

    /// The host, and what the source of secrets has for it.
    async fn observe(&self, project: &Project, depth: Depth) -> Result<Observed, host::Error> {
        let mut observed = observe::observe(self.host, project, depth).await?;
        let secrets = self.secrets.of(&self.stack.key);
        secrets.add(&mut observed.secrets, &project.secrets).await;
        if let Some(applied) = &observed.applied {
            secrets.add(&mut observed.secrets, &applied.project.secrets).await;
        }
        certificate::refuse_unusable(project, &mut observed, now());
        self.remember(project, &mut observed);
        Ok(observed)
    }

    /// Adds what the operator's own folder tells of a project on this host, and of its data on hosts that the spec names
    /// no longer. A manifest that is another one than was seen first is damaged.
    fn remember(&self, project: &Project, observed: &mut Observed) {
        let Some(known) = self.memory.deployed(&self.stack.key.to_string()) else { return };
        let component = &project.component;
        let same_place = || known.hosts.values().find(|host| deployed::is_same_place(&host.spec, self.spec));
        let host = known.hosts.get(self.spec.name.as_str()).or_else(same_place);
        let here = host.and_then(|host| host.components.get(component));
        if let (Some(applied), Some(here)) = (&observed.applied, here)
            && applied.id == here.release
        {
            let path = applied.stored("manifest.json");
            let found = observed.files.get(&path).and_then(host::FileFact::sha256);
            if here.manifest_hash.as_deref().zip(found).is_some_and(|(wanted, found)| wanted != found) {
                let found = "another content than was seen first";
                observed.damaged = Some(observe::damaged(&observed.directory, project, &path, found));
                observed.applied = None;
            }
        }
        let is_left = |host: &DeployedHost| !deployed::is_named(self.stack, &host.spec);
        let mut left: Vec<_> = known.hosts.iter().filter(|(_, host)| is_left(host)).collect();
        left.sort_by_key(|(_, host)| host.overtaken);
        let elsewhere = left.into_iter().find_map(|(name, host)| {
            let volume = host.components.get(component)?.data_volume()?;
            Some((name.clone(), volume.to_owned()))
        });
        observed.remembered = Remembered {
            release: here.map(|here| here.release.clone()),
            desired_hash: here.map(|here| here.desired_hash.clone()),
            volumes: here.map(Deployed::volume_names).unwrap_or_default(),
            elsewhere,
            overtaken: host.is_none_or(|host| host.overtaken),
        };
    }

    /// What follows from what is there.
    fn judge(&self, project: Project, mut observed: Observed, wish: Wish<'_>) -> Result<Look, host::Error> {
        let known = match &observed.ledger {
            Some(ledger) => ledger.volumes.clone(),
            None => volumes_in_use(&project, &observed),
        };
        let project = project.with_volumes(&known);
        let Self { stack, spec, .. } = self;
        if let Some(ledger) = observed.ledger.as_ref().filter(|ledger| ledger.owner != project.owner) {
            // The same stack made anew is another owner, too: that one may be adopted, or finds nothing of the one before.
            let is_same = ledger.stack == stack.key.to_string();
            if !is_same || (wish.approval != Approval::Adopting && !ledger.is_over()) {
                let found = printable(&ledger.stack);
                return Err(host::Error::NameConflict { project: project.name, found });
            }
        }
        let now = now();
        observed.clock_ahead_seconds = clock_ahead(&observed, now);
        // Nothing is taken away by an operator that may not be the one that acts.
        let barred = wish.barred;
        let prune = if barred.is_some() { Heal::Report } else { stack.spec.policy.prune };
        let policy = &PolicySpec { prune, ..stack.spec.policy.clone() };
        let mut drift = diff::judge(diff::drift(spec.name.as_str(), &project, &observed), policy);
        let change = diff::change(&project, &observed);
        let mut approval = wish.approval;
        if let Some(error) = observed.damaged.take().filter(|_| approval == Approval::Policy) {
            // What cannot be relied on any more is rolled out anew where that is the same release, or a person says so.
            let same = change.as_ref().is_some_and(|change| {
                observed.ledger.is_some()
                    && observed.remembered.desired_hash.as_ref() == Some(&change.desired_hash)
            });
            if !same {
                return Err(error);
            }
            approval = Approval::Person;
        }
        let (host, turns) = (spec.name.as_str(), wish.turns);
        let leave = Leave {
            approval,
            turn: turns.map(|turns| turns.of(stack, host, &project)).unwrap_or_default(),
            closed: plan::closed(&policy.windows, now),
            granted: Granted {
                plan: turns.and_then(|turns| turns.granted(stack, host, &project.component)),
                named: named(&stack.approved_plans()),
            },
            drain: plan::drain(spec.state, &observed),
            barred: barred.cloned(),
        };
        let mut plan = plan::plan(&drift, change, &project, &observed, policy, leave);
        plan.hold = plan::hold(stack.spec.suspend.as_ref(), spec.state, observed.hold.as_ref(), now)
            .or_else(|| plan::hold_of_the_cut(barred, &observed));
        if observed.is_under_way() {
            // What a cut rollout left is neither drift nor change: it is finished or taken back first.
            drift.retain(|item| item.kind.layer() == Layer::Host);
        }
        Ok(Look { project, observed, drift, plan })
    }
}

/// Which plans are approved, and where that stands, in words.
fn named(plans: &[(&str, &str)]) -> Option<String> {
    let words: Vec<String> = plans.iter().map(|(place, hash)| format!("{place} {hash}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// How far the host's clock is ahead of ours, in seconds.
fn clock_ahead(observed: &Observed, now: Timestamp) -> Option<i64> {
    let facts = observed.facts.as_ref()?;
    let then = now.as_second() - i64::try_from(facts.taken.elapsed().as_secs()).ok()?;
    Some(facts.seconds?.saturating_sub(then))
}

impl Look {
    /// Whether there is something to be done now.
    pub fn has_work(&self) -> bool {
        self.plan.has_work()
    }

    /// The rollouts that the host remembers, newest first.
    fn history(&self, host: &str) -> Vec<HistoryEntry> {
        let history = self.observed.ledger.iter().flat_map(|ledger| &ledger.history);
        let entry = |rollout: &Rollout| HistoryEntry {
            when: rollout.when.clone(),
            host: host.to_owned(),
            component: self.project.component.clone(),
            release: rollout.release.clone(),
            revision: rollout.revision.clone(),
            result: rollout.result.clone(),
            who: rollout.who.clone(),
        };
        history.map(entry).collect()
    }

    /// What a report says of this look.
    pub fn report(&self, host: &str) -> HostReport {
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
        HostReport {
            host: host.to_owned(),
            component: self.project.component.clone(),
            busy: self.observed.busy,
            cut: self.observed.is_under_way(),
            drained: self.observed.files.contains_key(desired::DRAINED),
            failure: not_converging(&self.plan.given_up).or_else(|| stranded(self.plan.stranded.as_deref())),
            release: applied.map(|release| release.id.clone()),
            revision: applied.map(|release| release.project.revision.clone()),
            healthy: applied.is_some_and(|release| diff::serving(release, &self.observed))
                && certificate.as_ref().is_none_or(|certificate| certificate.fault(now()).is_none())
                && uncertified.is_none(),
            certificate,
            uncertified,
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

/// Without a ledger: the volumes that containers of the project have, and those that the operator's own folder knows.
fn volumes_in_use(project: &Project, observed: &Observed) -> BTreeMap<String, String> {
    let mut known = observed.remembered.volumes.clone();
    for (service, definition) in &project.services {
        let ours = observed.containers.iter().filter(|one| one.has_label(compose::COMPOSE_SERVICE, service));
        for details in ours.filter_map(|container| container.details.as_ref()) {
            for mount in definition.volumes.iter().filter(|mount| mount.kind == "volume") {
                let used = details.settings.get(&format!("volumes/{}", mount.target));
                let used = used.and_then(|used| used.strip_prefix("volume ")?.split(' ').next());
                known.extend(used.map(|used| (mount.source.clone(), used.to_owned())));
            }
        }
    }
    known
}

/// What failed on another host, and could not be taken back.
fn stranded(found: Option<&str>) -> Option<Failure> {
    let message = format!(
        "this desired state failed {}; expected the release before to serve again, found that it does not; change the spec, or run `retry` or `rollback`",
        found?
    );
    Some(Failure { reason: reasons::ROLLED_BACK, message, reachable: true, stalled: true })
}

/// What was repaired again and again and did not stay so.
fn not_converging(given_up: &[String]) -> Option<Failure> {
    let message = format!(
        "repairs: expected them to hold, found the same differences after each of three: {}; look at `plan`, then run `retry` or `apply`, or ignore them by policy.ignore",
        given_up.join(", ")
    );
    let failure = Failure { reason: reasons::NOT_CONVERGING, message, reachable: true, stalled: true };
    (!given_up.is_empty()).then_some(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_ledger_the_volume_that_a_container_has_is_the_one_that_counts() {
        let text = include_str!("../../examples/staging.yaml");
        let stack = Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), "s.yaml".into());
        let project = desired::app_project(&stack, stack.spec.app.as_ref().unwrap());
        let settings = [("volumes//data".to_owned(), "volume by_hand_tasks rw".to_owned())].into();
        let backend = host::Container {
            labels: [(compose::COMPOSE_SERVICE.to_owned(), "backend".to_owned())].into(),
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

    #[test]
    fn a_clock_at_the_end_of_time_is_no_panic() {
        let facts = |seconds| host::Facts {
            user: String::new(),
            compose: String::new(),
            engine: String::new(),
            api: (1, 41),
            disks: Vec::new(),
            forwarding: None,
            seconds: Some(seconds),
            taken: tokio::time::Instant::now(),
        };
        let ahead = |seconds| {
            let observed = Observed { facts: Some(facts(seconds)), ..Observed::default() };
            clock_ahead(&observed, Timestamp::from_second(100).unwrap())
        };
        assert_eq!(ahead(160), Some(60));
        assert!(
            ahead(i64::MIN).is_some_and(|ahead| ahead < 0) && ahead(i64::MAX).is_some_and(|ahead| ahead > 0)
        );
    }
}
