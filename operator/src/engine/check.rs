//! One check of one host: a look, what is to be done about it, and the proof.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tasktracker_crds::{HostSpec, conditions::reasons};
use tokio::{sync::watch, time::Instant};

use super::{
    Error, Look, OPERATOR, Site, Wish, images::waits_for_images, now, requests, rivals::Rivals,
    worker::Shared,
};
use crate::{
    failpoint,
    host::{self, Host, HostLock},
    metrics::{ERROR, Metrics, PANIC, SUCCESS, StackLabels},
    observe::Depth,
    plan::Approval,
    source::{Authority, Stack, target},
};

/// How often it is said that a host is worked on.
const ALIVE: Duration = Duration::from_secs(30);
/// Who wishes for something through an annotation.
const PERSON: &str = "annotation";

/// Why a check is made.
#[derive(Clone, Copy)]
pub(super) struct Occasion {
    pub(super) depth: Depth,
    /// When what woke it came to our ears.
    pub(super) woken: Option<Instant>,
}

/// What a check leaves for the next one: the host, so that its connection is kept, and what happened since it began.
pub(super) struct Checked {
    pub(super) good: bool,
    pub(super) host: Option<Arc<Host>>,
    pub(super) hints: Option<watch::Receiver<Instant>>,
}

/// One check of one host.
struct Check<'a> {
    shared: &'a Shared,
    stack: &'a Stack,
    spec: &'a HostSpec,
    host: &'a Arc<Host>,
    occasion: Occasion,
    rivals: &'a Mutex<Rivals>,
}

/// One check with its repairs.
pub(super) async fn check(
    shared: Arc<Shared>,
    stack: Arc<Stack>,
    spec: HostSpec,
    kept: Option<Arc<Host>>,
    occasion: Occasion,
    rivals: Arc<Mutex<Rivals>>,
) -> Checked {
    failpoint::defect(&format!("check of {}", stack.key.name));
    let name = spec.name.as_str();
    let failed = |error: Error| {
        let before = shared.watcher.last(&stack.key, name);
        shared.watcher.publish(&stack, error.report(name, before), now(), occasion.woken);
    };
    let host = match target(&stack, &spec, &shared.secrets).await {
        Ok(target) => shared.hosts.get(&stack.key, target),
        Err(error) => {
            shared.turns.missed(&stack.key, name);
            shared.watcher.count(&stack, name, |metrics, labels| metrics.reconciled(labels, ERROR));
            failed(error.into());
            return Checked { good: false, host: None, hints: None };
        }
    };
    drop(kept);
    let hints = host.hints();
    let check = Check { shared: &shared, stack: &stack, spec: &spec, host: &host, occasion, rivals: &rivals };
    let result = check.run().await;
    let good = result.is_ok();
    let outcome = if good { SUCCESS } else { ERROR };
    shared.watcher.count(&stack, name, |metrics, labels| metrics.reconciled(labels, outcome));
    if let Err(error) = result {
        shared.turns.missed(&stack.key, name);
        failed(error);
    }
    Checked { good, host: Some(host), hints: Some(hints) }
}

/// Tells of a check that did not come to its end.
pub(super) fn ended_in_a_defect(shared: &Shared, stack: &Stack, host: &str) {
    shared.turns.missed(&stack.key, host);
    shared.watcher.count(stack, host, |metrics, labels| metrics.reconciled(labels, PANIC));
    // What cannot be told without another defect stays in the log.
    let _: Result<(), _> = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let before = shared.watcher.last(&stack.key, host);
        shared.watcher.publish(stack, Error::Defect.report(host, before), now(), None);
    }));
}

impl Check<'_> {
    fn count(&self, count: impl FnOnce(&Metrics, &StackLabels)) {
        self.shared.watcher.count(self.stack, self.spec.name.as_str(), count);
    }

    fn site(&self) -> Site<'_> {
        Site {
            stack: self.stack,
            spec: self.spec,
            host: self.host,
            secrets: &self.shared.secrets,
            memory: &self.shared.memory,
            images: &self.shared.images,
        }
    }

    async fn run(&self) -> Result<(), Error> {
        let Self { stack, spec, host, .. } = self;
        if host.connect().await? {
            self.count(|metrics, labels| metrics.connected(labels, spec.name.as_str()));
            let facts = host.facts().await?;
            tracing::info!(stack = %stack.key, host = %spec.name, engine = facts.engine, compose = facts.compose, "connected");
        }
        // What happens while it is looked is heard: the look after this one sees it.
        host.watch().await?;
        let looks = self.seen(self.occasion.depth, None).await?;
        // What was approved just now was not known to the look that showed it.
        let is_granted = |look: &Look| self.shared.turns.grants(stack, spec.name.as_str(), look);
        let may_grant = self.authority() == Authority::Full;
        let is_asked = |look: &Look| may_grant && !requests::open(stack, look).is_empty();
        if !looks.iter().any(|look| look.has_work() || is_granted(look) || is_asked(look))
            || self.may_write_nothing()
        {
            return Ok(());
        }
        self.refuse_rival(None)?;
        let lock = host.lock(&self.shared.writer).await?;
        failpoint::reached("locked");
        let other = lock.before.as_deref().filter(|before| *before != self.shared.writer);
        let result = match self.refuse_rival(other) {
            Ok(()) if self.is_still_wanted(other).await => self.under_lock(&lock).await,
            refused => refused,
        };
        lock.release().await;
        result
    }

    /// Nothing is written against another operator that writes on the host again and again; `met` has just been there.
    fn refuse_rival(&self, met: Option<&str>) -> Result<(), Error> {
        let mut rivals = self.rivals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(met) = met {
            rivals.met(met, Instant::now());
        }
        let insistent = rivals.insistent(Instant::now(), self.stack.spec.interval.duration());
        insistent.map_or(Ok(()), |writer| Err(Error::OtherWriter { writer }))
    }

    /// Where somebody else wrote since, it may be for another spec than we know: the source is read anew. What is not
    /// wanted any more is left to the next check, which has the new spec.
    async fn is_still_wanted(&self, other: Option<&str>) -> bool {
        let Self { shared, stack, spec, .. } = self;
        if other.is_none() {
            return true;
        }
        let wanted = shared.source.is_current(stack).await;
        if !wanted {
            tracing::warn!(stack = %stack.key, host = %spec.name, "another operator wrote there, and the stack is another one by now: nothing is done");
        }
        wanted
    }

    /// What was seen before the lock may be over: it is looked at anew, and again when the work is done.
    async fn under_lock(&self, lock: &HostLock) -> Result<(), Error> {
        // It may have taken long to get it.
        if self.may_write_nothing() {
            return Ok(());
        }
        let before = self.seen(Depth::Whole, Some(lock)).await?;
        failpoint::reached("looked");
        for look in &before {
            if look.has_work() && self.may_bring_back(look).await && !self.may_write_nothing() {
                self.carry_out(lock, look).await?;
            }
        }
        let is_asked = before.iter().any(|look| !requests::open(self.stack, look).is_empty());
        if is_asked && self.authority() == Authority::Full {
            Box::pin(self.grant_requests(lock)).await?;
        }
        self.seen(Depth::Whole, Some(lock)).await?;
        Ok(())
    }

    /// Whether another operator acts.
    fn may_write_nothing(&self) -> bool {
        self.authority() == Authority::Nothing
    }

    fn authority(&self) -> Authority {
        self.shared.source.authority(&self.stack.key)
    }

    /// What a person took away comes back only where the source, read anew, asks for it: its file may have gone before.
    async fn may_bring_back(&self, look: &Look) -> bool {
        let ledger = look.observed.ledger.as_ref();
        let was_removed = ledger.is_some_and(|ledger| ledger.current.is_none() && ledger.previous.is_some());
        !was_removed || self.shared.source.is_current(self.stack).await
    }

    /// Carries out what people wish for through annotations, where the host did not hear it yet.
    async fn grant_requests(&self, lock: &HostLock) -> Result<(), Error> {
        let Self { shared, stack, host, .. } = self;
        let name = &host.target().name;
        loop {
            let looks = self.seen(Depth::Whole, Some(lock)).await?;
            let first =
                looks.iter().find_map(|look| Some((look, requests::open(stack, look).into_iter().next()?)));
            let Some((look, request)) = first else { return Ok(()) };
            tracing::info!(stack = %stack.key, host = %name, "an annotation asks for it: {request:?}");
            let Some(_turn) = shared.turns.slot(stack, name, look) else { return Ok(()) };
            let granted = self.alive(Box::pin(self.site().grant(lock, look, &request, PERSON))).await?;
            if let Some(refused) = granted {
                tracing::error!(stack = %stack.key, host = %name, reason = refused.reason, "{}", refused.found);
                shared.watcher.refused_request(stack, name, &refused);
            }
        }
    }

    async fn seen(&self, depth: Depth, lock: Option<&HostLock>) -> Result<Vec<Look>, Error> {
        let Self { shared, stack, spec, .. } = self;
        let name = spec.name.as_str();
        let started = Instant::now();
        let authority = self.authority();
        let barred = match &authority {
            Authority::Repairs(why) => Some(why),
            Authority::Full | Authority::Nothing => None,
        };
        let wish = Wish { approval: Approval::Policy, depth, lock, turns: Some(&shared.turns), barred };
        let looked = self.site().look(wish).await;
        let released = released(stack, &looked).filter(|_| barred.is_none());
        let looks = match released {
            Some(approval) => self.site().look(Wish { approval, ..wish }).await?,
            None => looked?,
        };
        let phase = if depth == Depth::Slow { "slow" } else { "look" };
        self.count(|metrics, labels| metrics.phase(labels, phase, started.elapsed().as_secs_f64()));
        for look in looks.iter().filter(|look| !look.observed.busy) {
            shared.turns.saw(stack, name, look);
            if let Some(applied) = &look.observed.applied {
                shared.memory.record(stack, spec, applied, Some(&look.observed));
            }
            let mut report = look.report(name);
            if look.has_work() {
                // What failed before is tried again now: the failure is over when that succeeds, not before.
                let before = shared.watcher.last(&stack.key, name);
                report.failure = before.and_then(|report| report.failure).filter(|failure| failure.reachable);
            }
            shared.watcher.publish(stack, report, now(), self.occasion.woken);
            if waits_for_images(look) {
                drop(shared.images.fetch(&self.site(), &look.observed.supply.missing).await);
            }
        }
        Ok(looks)
    }

    /// Does something that may take long, and says all the while that the host is not forgotten.
    async fn alive<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(ALIVE);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => {
                    self.shared.watcher.alive(self.stack, self.spec.name.as_str(), now());
                }
            }
        }
    }

    async fn carry_out(&self, lock: &HostLock, look: &Look) -> Result<(), Error> {
        let Self { shared, stack, host, .. } = self;
        let name = &host.target().name;
        if let Some(found) = &look.plan.take_back {
            let Some(_turn) = shared.turns.slot(stack, name, look) else { return Ok(()) };
            tracing::warn!(stack = %stack.key, host = %name, "the release before comes back: what is in force failed on {found}");
            self.alive(Box::pin(self.site().take_back(lock, look, found, OPERATOR))).await?;
            return Ok(());
        }
        let _turn = if look.plan.rollout.is_some() {
            // Another host may have been faster.
            let Some(taken) = shared.turns.take(stack, name, look) else { return Ok(()) };
            Some(taken)
        } else {
            None
        };
        for repair in look.plan.repairs_now() {
            tracing::info!(stack = %stack.key, host = %name, "repairing: {}", repair.action.words());
        }
        if let Some(change) = &look.plan.rollout {
            tracing::info!(stack = %stack.key, host = %name, from = change.from_revision, to = change.to_revision, "rolling out");
        }
        let started = Instant::now();
        let outcome = self.alive(self.site().act(lock, look, OPERATOR)).await;
        let seconds = started.elapsed().as_secs_f64();
        self.count(|metrics, labels| {
            metrics.phase(labels, "apply", seconds);
            if look.plan.rollout.is_some() {
                metrics.rollout(labels, outcome.is_ok(), seconds);
            }
        });
        if let Some(release) = outcome?.rolled_out {
            tracing::info!(stack = %stack.key, host = %name, release = release.id, revision = release.project.revision, seconds, "rolled out");
        }
        Ok(())
    }
}

/// What a person has said through an annotation, where a look shows that exactly this is waited for.
fn released(stack: &Stack, looked: &Result<Vec<Look>, host::Error>) -> Option<Approval> {
    let waits = |reason: &str| {
        let waiting = looked.iter().flatten().filter_map(|look| look.plan.waiting.as_ref());
        waiting.into_iter().any(|waiting| waiting.reason == reason)
    };
    let is_unclear =
        matches!(looked, Err(host::Error::NameConflict { .. } | host::Error::ReleaseDamaged { .. }));
    if stack.is_adopting() && (is_unclear || waits(reasons::LEDGER_MISSING)) {
        return Some(Approval::Adopting);
    }
    (stack.is_leaving_data() && waits(reasons::DATA_WOULD_BE_LEFT)).then_some(Approval::LeavingData)
}
