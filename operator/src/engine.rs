//! The driver: from a stack and a host to a plan, and from a plan to an outcome.

mod audit;
mod deployed;
mod hosts;
mod memory;
mod retire;
mod rivals;
mod rollback;
mod run;
mod vanished;
mod watcher;
mod worker;

use std::collections::BTreeMap;

use audit::{Entry, State};
use jiff::Timestamp;
use tasktracker_crds::{DriftItem, DriftKind, HostSpec, Layer, conditions::reasons};
use tokio::time::Instant;

pub use deployed::{Deployed, DeployedHost, Deployment, is_named};
pub use hosts::Hosts;
pub use memory::Memory;
pub use retire::{Removal, Retired};
pub use rollback::RollbackError;
pub use run::{Settings, run};

use crate::{
    apply,
    desired::{self, Project, compose},
    diff,
    host::{self, Host, HostLock},
    observe::{self, Depth, Observed, Remembered},
    plan::{self, Approval, Plan},
    release::Release,
    report::{Failure, HostReport},
    source::{SecretError, Secrets, Stack},
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
}

/// One host of a stack, and what is needed to judge and repair it.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The stack.
    pub stack: &'a Stack,
    /// What it says of the host.
    pub spec: &'a HostSpec,
    /// The host.
    pub host: &'a Host,
    /// Where the values of secrets come from.
    pub secrets: &'a Secrets,
    /// The operator's own folder.
    pub memory: &'a Memory,
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
        let observed = self.observe(&project, wish.depth).await?;
        let first = self.judge(project, observed, wish)?;
        if wish.lock.is_some() || (first.drift.is_empty() && first.plan.is_empty()) {
            return Ok(first);
        }
        // Something differs. Another writer at work, or one that ended just now, would explain it: it is looked again
        // between two moments at which nobody was.
        let project = first.into_project();
        let mut busy = observe::is_busy(host, &project).await?;
        let mut observed = self.observe(&project, Depth::Whole).await?;
        busy = busy || observe::is_busy(host, &project).await?;
        observed.busy = busy;
        self.judge(project, observed, wish)
    }

    /// The host, and what the source of secrets has for it.
    async fn observe(&self, project: &Project, depth: Depth) -> Result<Observed, host::Error> {
        let observed = observe::observe(self.host, project, depth).await?;
        let mut wanted = project.secrets.clone();
        for (path, key) in observed.applied.iter().flat_map(|applied| &applied.project.secrets) {
            wanted.entry(path.clone()).or_insert_with(|| key.clone());
        }
        let mut observed = Observed { secrets: self.secrets.values(&wanted).await, ..observed };
        self.remember(project, &mut observed);
        Ok(observed)
    }

    /// Adds what the operator's own folder tells of a project on this host, and of its data on hosts that the spec names
    /// no longer. A manifest that is another one than was seen first is damaged.
    fn remember(&self, project: &Project, observed: &mut Observed) {
        let Some(known) = self.memory.deployed(&self.stack.key.to_string()) else { return };
        let component = &project.component;
        let here = known.hosts.get(self.spec.name.as_str()).and_then(|host| host.components.get(component));
        if let (Some(applied), Some(here)) = (&observed.applied, here)
            && applied.id == here.release
        {
            let path = applied.stored("manifest.json");
            let found = observed.files.get(&path).and_then(host::FileFact::sha256);
            if here.manifest.as_deref().zip(found).is_some_and(|(wanted, found)| wanted != found) {
                let found = "another content than was seen first";
                observed.damaged = Some(observe::damaged(&observed.directory, project, &path, found));
                observed.applied = None;
            }
        }
        let is_left = |host: &DeployedHost| !deployed::is_named(self.stack, &host.spec);
        let elsewhere = known.hosts.iter().filter(|(_, host)| is_left(host)).find_map(|(name, host)| {
            let volume = host.components.get(component)?.project.volumes.values().next()?;
            Some((name.clone(), volume.clone()))
        });
        observed.remembered = Remembered {
            release: here.map(|here| here.release.clone()),
            desired_hash: here.map(|here| here.desired_hash.clone()),
            volumes: here.map(|here| here.project.volumes.clone()).unwrap_or_default(),
            elsewhere,
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
            // The same stack made anew is another owner, too: that one may be adopted.
            if wish.approval != Approval::Adopting || ledger.stack != stack.key.to_string() {
                let found = printable(&ledger.stack);
                return Err(host::Error::NameConflict { project: project.name, found });
            }
        }
        let now = now();
        observed.clock_ahead_seconds = clock_ahead(&observed, now);
        let policy = &stack.spec.policy;
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
        let mut plan = plan::plan(&drift, change, &project, &observed, policy, approval);
        plan.hold = plan::hold(stack.spec.suspend.as_ref(), spec.state, observed.hold.as_ref(), now);
        if observed.is_under_way() {
            // What a cut rollout left is neither drift nor change: it is finished or taken back first.
            drift.retain(|item| item.kind.layer() == Layer::Host);
        }
        Ok(Look { project, observed, drift, plan })
    }

    /// Carries out what was planned for one project, looks again, and keeps what did not hold; all of it is in the audit
    /// log.
    ///
    /// # Errors
    /// The first thing that went wrong.
    pub async fn act(&self, lock: &HostLock, look: &Look, who: &str) -> Result<apply::Outcome, apply::Error> {
        self.act_on(lock, look, who, None).await
    }

    async fn act_on(
        &self,
        lock: &HostLock,
        look: &Look,
        who: &str,
        back: Option<apply::Back>,
    ) -> Result<apply::Outcome, apply::Error> {
        let (when, started) = (now().to_string(), Instant::now());
        let outcome = Box::pin(self.carry_out(lock, look, who, back)).await;
        let before = look.observed.applied.as_ref();
        let after = outcome.as_ref().ok().and_then(|outcome| outcome.rolled_out.as_ref()).or(before);
        self.memory.audit(&Entry {
            when: &when,
            who,
            why: &look.plan.why(),
            stack: &self.stack.key.to_string(),
            host: self.spec.name.as_str(),
            component: &look.project.component,
            what: look.plan.words(),
            plan: Some(look.plan.hash()),
            before: State::of(before),
            after: State::of(after),
            result: outcome.as_ref().map_or_else(apply::Error::reason, |_| reasons::SUCCEEDED),
            seconds: started.elapsed().as_secs_f64(),
        });
        outcome
    }

    async fn carry_out(
        &self,
        lock: &HostLock,
        look: &Look,
        who: &str,
        back: Option<apply::Back>,
    ) -> Result<apply::Outcome, apply::Error> {
        let Self { stack, host, .. } = self;
        let context = apply::Context {
            lock,
            project: &look.project,
            rollout: &stack.spec.policy.rollout,
            owner: look.project.owner.clone(),
            stack: stack.key.to_string(),
            who: who.to_owned(),
            now: now().to_string(),
            back,
        };
        let outcome = apply::apply(host, &look.plan, &look.observed, &context).await;
        if look.plan.rollout.is_some() {
            return self.finish(outcome?, lock, look, &context).await;
        }
        if look.plan.repairs_now().next().is_none() {
            return outcome;
        }
        let remembered = async {
            let wish = Wish { approval: Approval::Policy, depth: Depth::Whole, lock: Some(lock) };
            let after = self.look_at(look.project.clone(), wish).await?;
            apply::remember(host, &look.plan, &after.observed, &after.drift, &context).await
        };
        // What went wrong first is what is told.
        let remembered = remembered.await;
        outcome.and_then(|outcome| remembered.map(|()| outcome))
    }

    /// A rollout leaves alone what is as the release wants it by its definition. What differs all the same, such as a
    /// mount that leads to a folder that is gone, is repaired at once.
    async fn finish(
        &self,
        rolled_out: apply::Outcome,
        lock: &HostLock,
        look: &Look,
        context: &apply::Context<'_>,
    ) -> Result<apply::Outcome, apply::Error> {
        let wish = Wish { approval: Approval::Policy, depth: Depth::Whole, lock: Some(lock) };
        let after = self.look_at(look.project.clone(), wish).await?;
        if !after.has_work() || after.plan.rollout.is_some() {
            return Ok(rolled_out);
        }
        let repaired = apply::apply(self.host, &after.plan, &after.observed, context).await?;
        Ok(apply::Outcome { repaired: repaired.repaired, ..rolled_out })
    }
}

/// How far the host's clock is ahead of ours, in seconds.
fn clock_ahead(observed: &Observed, now: Timestamp) -> Option<i64> {
    let facts = observed.facts.as_ref()?;
    let then = now.as_second() - i64::try_from(facts.taken.elapsed().as_secs()).ok()?;
    Some(facts.seconds?.saturating_sub(then))
}

impl<'a> State<'a> {
    fn of(release: Option<&'a Release>) -> Self {
        let revision = release.map(|release| release.project.revision.as_str());
        Self { release: release.map(|release| release.id.as_str()), revision }
    }
}

impl Look {
    /// The project alone: what was seen once is not kept beside what is seen next.
    fn into_project(self) -> Project {
        self.project
    }

    /// Whether there is something to be done now.
    pub fn has_work(&self) -> bool {
        self.plan.has_work()
    }

    /// What a report says of this look.
    pub fn report(&self, host: &str) -> HostReport {
        let applied = self.observed.applied.as_ref();
        let waiting = self.plan.waiting.clone();
        HostReport {
            host: host.to_owned(),
            component: self.project.component.clone(),
            busy: self.observed.busy,
            failure: not_converging(&self.plan.given_up),
            release: applied.map(|release| release.id.clone()),
            revision: applied.map(|release| release.project.revision.clone()),
            healthy: applied.is_some_and(|release| diff::serving(release, &self.observed)),
            drift: self.drift.clone(),
            rolling_out: self.plan.rollout.as_ref().map(|change| change.to_revision.clone()),
            waiting_plan: waiting.is_some().then(|| self.plan.hash()),
            waiting,
            hold: self.plan.hold.clone(),
            retained: None,
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

/// Hosts that a stack names no longer, though something of it is there.
pub fn retained(stack: &Stack, memory: &Memory) -> Vec<HostReport> {
    let hosts = memory.deployed(&stack.key.to_string()).map(|known| known.hosts).unwrap_or_default();
    let left = hosts.into_iter().filter(|(_, host)| !deployed::is_named(stack, &host.spec));
    left.flat_map(|(name, host)| {
        let stack = &stack.key;
        host.components.into_iter().map(move |(component, deployed)| {
            let remedy = format!("`delete {} --host {name}` takes it away", stack.name);
            let message = format!(
                "the spec names this host no longer: expected release {} to stay there as it is; {remedy}, or name the host again",
                deployed.release
            );
            HostReport {
                host: name.clone(),
                component,
                release: Some(deployed.release),
                revision: Some(deployed.project.revision),
                retained: Some(message),
                ..HostReport::default()
            }
        })
    })
    .collect()
}

/// What was repaired again and again and did not stay so.
fn not_converging(given_up: &[String]) -> Option<Failure> {
    let message = format!(
        "repairs: expected them to hold, found the same differences after each of three: {}; look at `plan`, then run `apply`, or ignore them by policy.ignore",
        given_up.join(", ")
    );
    let failure = Failure { reason: reasons::NOT_CONVERGING, message, reachable: true, stalled: true };
    (!given_up.is_empty()).then_some(failure)
}

/// What keeps a host from being checked or repaired.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A secret that is needed to reach it.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The host itself, or what was done on it.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// A person wants nothing to be written.
    #[error("nothing is written: {found}")]
    Held {
        /// The reason, as in conditions.
        reason: &'static str,
        /// Who wants it, why, and until when.
        found: String,
    },
    /// Another operator wants it otherwise.
    #[error(
        "writer {writer}: expected to be the only operator of this host, found that another one wrote between our own writes again and again; end one of the two, or take the stack from its source: nothing is written for a while"
    )]
    OtherWriter {
        /// Who it is, as the host's `.epoch` names it.
        writer: String,
    },
}

impl From<host::Error> for Error {
    fn from(error: host::Error) -> Self {
        Self::Apply(error.into())
    }
}

impl Error {
    /// The reason for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Secret(_) => reasons::SECRET_MISSING,
            Self::Apply(error) => error.reason(),
            Self::OtherWriter { .. } => reasons::OTHER_WRITER,
            Self::Held { reason, .. } => reason,
        }
    }

    /// What is wrong with the host itself, where that is what failed.
    fn of_host(&self) -> Option<&host::Error> {
        match self {
            Self::Apply(apply::Error::Host(error)) => Some(error),
            _ => None,
        }
    }

    /// What a report says of the host; what was known `before` of its release stays known.
    pub fn report(&self, host: &str, before: Option<HostReport>) -> HostReport {
        let failure = Failure {
            reason: self.reason(),
            message: self.to_string(),
            reachable: !matches!(self, Self::Secret(_))
                && !self.of_host().is_some_and(host::Error::is_unreachable),
            stalled: matches!(self, Self::OtherWriter { .. })
                || self.of_host().is_some_and(host::Error::is_stalled),
        };
        let kind = match self {
            Self::Secret(_) => Some(DriftKind::SecretMissing),
            Self::Apply(_) | Self::OtherWriter { .. } | Self::Held { .. } => {
                self.of_host().and_then(host::Error::drift_kind)
            }
        };
        let item = kind.map(|kind| DriftItem {
            host: host.to_owned(),
            component: "app".to_owned(),
            service: None,
            kind,
            path: None,
            wanted: "a host that can be managed".to_owned(),
            found: self.to_string(),
            first_seen: None,
            answer: kind.answer(),
        });
        let before = before.unwrap_or_default();
        HostReport {
            host: host.to_owned(),
            component: "app".to_owned(),
            failure: Some(failure),
            release: before.release,
            revision: before.revision,
            drift: before
                .drift
                .into_iter()
                .filter(|item| item.kind.layer() != Layer::Host)
                .chain(item)
                .collect(),
            ..HostReport::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
