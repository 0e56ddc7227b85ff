//! One check of one project: observe, evaluate, what is to be done about it, and the proof.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tasktracker_crds::{HostSpec, conditions::reasons};
use tokio::{sync::watch, time::Instant};

use super::{
    CheckOptions, Error, Evaluation, OPERATOR, ProjectContext, images::waits_for_images, now, requests,
    worker::Shared, writers::ConflictingWriters,
};
use crate::{
    apply, failpoint,
    host::{self, Host, HostLock},
    metrics::{ContainerSample, ERROR, Metrics, PANIC, SUCCESS, StackLabels},
    observe::Depth,
    plan::Approval,
    project::Project,
    source::{ProjectKey, Stack, WriteScope, target},
};

/// Interval of the progress log line and of the metric that says that a project is worked on.
const ALIVE: Duration = Duration::from_secs(30);
/// Who asks for something through an annotation.
const PERSON: &str = "annotation";

/// Why a check is made.
#[derive(Clone, Copy)]
pub(super) struct Occasion {
    pub(super) depth: Depth,
    /// When the event that woke it arrived.
    pub(super) woken: Option<Instant>,
    /// Whether something may be done: not within the pause after something failed.
    pub(super) acts: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It succeeded.
    Good,
    /// Something must wait, and is tried again as if it had succeeded.
    Patient,
    /// It failed.
    Failed,
}

/// What a check leaves for the next one: the host, so that its connection is kept, and what happened since it began.
pub(super) struct Checked {
    pub(super) end: End,
    /// Whether the project was observed, whatever failed after that.
    pub(super) is_observed: bool,
    pub(super) host: Option<Arc<Host>>,
    pub(super) hints: Option<watch::Receiver<Instant>>,
}

/// The project that is checked.
#[derive(Clone)]
pub(super) struct Subject {
    pub(super) key: ProjectKey,
    pub(super) stack: Arc<Stack>,
    pub(super) spec: HostSpec,
    /// As the component renders it; once for each spec.
    pub(super) project: Arc<Project>,
}

/// One check of one project.
struct Check<'a> {
    shared: &'a Shared,
    subject: &'a Subject,
    host: &'a Arc<Host>,
    occasion: Occasion,
    writers: &'a Mutex<ConflictingWriters>,
    is_observed: &'a AtomicBool,
}

/// One check with its repairs.
pub(super) async fn check(
    shared: Arc<Shared>,
    subject: Subject,
    kept: Option<Arc<Host>>,
    occasion: Occasion,
    writers: Arc<Mutex<ConflictingWriters>>,
) -> Checked {
    let Subject { key, stack, spec, .. } = &subject;
    failpoint::defect(&format!("check of {}", stack.key.name));
    let failed = |error: Error| {
        if !error.is_after_a_check() {
            shared.coordinator.unavailable(key);
        }
        let before = shared.watcher.last(key);
        shared.watcher.publish(stack, error.report(key, before), now(), occasion.woken);
    };
    let host = match target(stack, spec, &shared.secrets).await {
        Ok(target) => shared.hosts.get(&stack.key, target),
        Err(error) => {
            shared.watcher.count(key, stack, |metrics, labels| metrics.reconciled(labels, ERROR));
            failed(error.into());
            return Checked { end: End::Failed, is_observed: false, host: None, hints: None };
        }
    };
    drop(kept);
    let hints = host.hints();
    let is_observed = AtomicBool::new(false);
    let check = Check {
        shared: &shared,
        subject: &subject,
        host: &host,
        occasion,
        writers: &writers,
        is_observed: &is_observed,
    };
    let result = Box::pin(check.run()).await;
    let outcome = if result.is_ok() { SUCCESS } else { ERROR };
    let end = match &result {
        Ok(()) => End::Good,
        Err(error) if error.is_patient() => End::Patient,
        Err(_) => End::Failed,
    };
    shared.watcher.count(key, stack, |metrics, labels| metrics.reconciled(labels, outcome));
    if let Err(error) = result {
        failed(error);
    }
    let is_observed = is_observed.into_inner();
    Checked { end, is_observed, host: Some(host), hints: Some(hints) }
}

/// Reports a check that ended in a panic.
pub(super) fn panicked(shared: &Shared, subject: &Subject) {
    let Subject { key, stack, .. } = subject;
    shared.coordinator.unavailable(key);
    shared.watcher.count(key, stack, |metrics, labels| metrics.reconciled(labels, PANIC));
    // What cannot be reported without another panic stays in the log.
    let _: Result<(), _> = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let before = shared.watcher.last(key);
        shared.watcher.publish(stack, Error::Defect.report(key, before), now(), None);
    }));
}

impl Check<'_> {
    fn count(&self, count: impl FnOnce(&Metrics, &StackLabels)) {
        self.shared.watcher.count(&self.subject.key, &self.subject.stack, count);
    }

    fn context(&self) -> ProjectContext<'_> {
        ProjectContext {
            stack: &self.subject.stack,
            spec: &self.subject.spec,
            host: self.host,
            secrets: &self.shared.secrets,
            memory: &self.shared.memory,
            images: &self.shared.images,
        }
    }

    async fn run(&self) -> Result<(), Error> {
        let Self { subject: Subject { key, stack, spec, .. }, host, .. } = self;
        if host.connect().await? {
            self.count(|metrics, labels| metrics.connected(labels, spec.name.as_str()));
            let facts = host.facts().await?;
            tracing::info!(stack = %stack.key, host = %spec.name, engine = facts.engine, compose = facts.compose, "connected");
        }
        // What happens during a check wakes the next one.
        host.watch().await?;
        let evaluation = Box::pin(self.evaluate(self.occasion.depth, None)).await?;
        self.is_observed.store(true, Ordering::Relaxed);
        // What was approved just now was not known to the evaluation that showed it.
        let is_approved = self.shared.coordinator.is_newly_approved(stack, key, &evaluation);
        let is_asked = self.scope() == WriteScope::Full && !requests::pending(stack, &evaluation).is_empty();
        let is_due = evaluation.has_work() || is_approved || is_asked;
        if !is_due || self.may_write_nothing() || !self.occasion.acts {
            return Ok(());
        }
        self.refuse_conflicting_writer(None)?;
        let lock = host.lock(&self.shared.writer).await?;
        let written = host.write_project(&self.subject.project.folder);
        failpoint::reached("locked");
        let other = lock.before.as_deref().filter(|before| *before != self.shared.writer);
        let result = match self.refuse_conflicting_writer(other) {
            Ok(()) if self.is_still_wanted(other).await => Box::pin(self.under_lock(&lock)).await,
            refused => refused,
        };
        lock.release().await;
        drop(written);
        result
    }

    /// Nothing is written against another operator that writes on the host again and again; `met` had the lock before us.
    fn refuse_conflicting_writer(&self, met: Option<&str>) -> Result<(), Error> {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(met) = met {
            writers.record(met, Instant::now());
        }
        let persistent = writers.persistent(Instant::now(), self.subject.stack.spec.interval.duration());
        persistent.map_or(Ok(()), |writer| Err(Error::OtherWriter { writer }))
    }

    /// Where somebody else wrote since, it may be for another spec than we know: the source is read anew. What is not
    /// wanted any more is left to the next check, which has the new spec.
    async fn is_still_wanted(&self, other: Option<&str>) -> bool {
        let Self { shared, subject: Subject { stack, spec, .. }, .. } = self;
        if other.is_none() {
            return true;
        }
        let wanted = shared.source.is_current(stack).await;
        if !wanted {
            tracing::warn!(stack = %stack.key, host = %spec.name, "another operator wrote there, and the stack is another one by now: nothing is done");
        }
        wanted
    }

    /// What was found before the lock may be over: it is checked anew, and again when the work is done.
    async fn under_lock(&self, lock: &HostLock) -> Result<(), Error> {
        // It may have taken long to get it.
        if self.may_write_nothing() {
            return Ok(());
        }
        let before = Box::pin(self.evaluate(Depth::Whole, Some(lock))).await?;
        failpoint::reached("checked");
        if before.has_work() && self.may_recreate(&before).await && !self.may_write_nothing() {
            self.carry_out(lock, &before).await?;
        }
        let is_asked = !requests::pending(&self.subject.stack, &before).is_empty();
        if is_asked && self.scope() == WriteScope::Full {
            Box::pin(self.carry_out_requests(lock)).await?;
        }
        Box::pin(self.evaluate(Depth::Whole, Some(lock))).await?;
        Ok(())
    }

    /// Whether another operator acts.
    fn may_write_nothing(&self) -> bool {
        self.scope() == WriteScope::Nothing
    }

    fn scope(&self) -> WriteScope {
        self.shared.source.write_scope(&self.subject.key.stack)
    }

    /// What a person removed comes back only where the source, read anew, asks for it: its file may have gone before.
    async fn may_recreate(&self, evaluation: &Evaluation) -> bool {
        let ledger = evaluation.observed.ledger.as_ref();
        let was_removed = ledger.is_some_and(|ledger| ledger.current.is_none() && ledger.previous.is_some());
        !was_removed || self.shared.source.is_current(&self.subject.stack).await
    }

    /// Carries out what annotations ask for, where the host did not acknowledge it yet.
    async fn carry_out_requests(&self, lock: &HostLock) -> Result<(), Error> {
        let Self { shared, subject: Subject { key, stack, .. }, .. } = self;
        loop {
            let evaluation = Box::pin(self.evaluate(Depth::Whole, Some(lock))).await?;
            let Some(request) = requests::pending(stack, &evaluation).into_iter().next() else {
                return Ok(());
            };
            tracing::info!(stack = %stack.key, host = key.host, component = %key.component, "an annotation asks for it: {request:?}");
            let _permit = shared.coordinator.urgent_permit(stack, key, &evaluation)?;
            let context = self.context();
            let carried_out = Box::pin(context.carry_out_request(lock, &evaluation, &request, PERSON));
            if let Some(refused) = self.alive(carried_out).await? {
                tracing::error!(stack = %stack.key, host = key.host, component = %key.component, reason = refused.reason, "{}", refused.found);
                shared.watcher.refused_request(stack, &key.host, &refused);
            }
        }
    }

    async fn evaluate(&self, depth: Depth, lock: Option<&HostLock>) -> Result<Evaluation, Error> {
        let Self { shared, subject: Subject { key, stack, spec, project }, .. } = self;
        let started = Instant::now();
        let scope = self.scope();
        let read_only_reason = match &scope {
            WriteScope::HealOnly(why) => Some(why),
            WriteScope::Full | WriteScope::Nothing => None,
        };
        let options = CheckOptions {
            approval: Approval::Policy,
            depth,
            lock,
            coordinator: Some(&shared.coordinator),
            read_only_reason,
        };
        let context = self.context();
        let checked = context.check(project, options).await;
        let released = released(stack, key, &checked).filter(|_| read_only_reason.is_none());
        let evaluation = match released {
            Some(approval) => context.check(project, CheckOptions { approval, ..options }).await?,
            None => checked?,
        };
        let phase = if depth == Depth::Slow { "slow" } else { "check" };
        self.count(|metrics, labels| metrics.phase(labels, phase, started.elapsed().as_secs_f64()));
        if !evaluation.observed.busy {
            self.record(&evaluation).await;
            self.measure(&evaluation, depth).await;
            if let Some(applied) = &evaluation.observed.applied {
                shared.memory.record(stack, spec, applied, Some(&evaluation.observed));
            }
        }
        Ok(evaluation)
    }

    /// Asks what containers use: on the slow schedule, and when containers, their restarts or their health changed.
    async fn measure(&self, evaluation: &Evaluation, depth: Depth) {
        let Self { shared, host, subject: Subject { key, stack, .. }, .. } = self;
        let observed = &evaluation.observed;
        let sample = |container| {
            let mut sample = ContainerSample::new(container);
            sample.oom_kills = host.oom_kills(&evaluation.project.name, &sample.service, &sample.replica);
            sample
        };
        let mut samples: Vec<ContainerSample> = observed.containers.iter().map(sample).collect();
        let (labels, metrics) = (StackLabels::of(stack), shared.watcher.metrics());
        if depth < Depth::Slow && metrics.has_samples_of(&labels, key, &samples) {
            return;
        }
        for (sample, container) in samples.iter_mut().zip(&observed.containers) {
            if let Some(process) = container.details.as_ref().and_then(|details| details.process) {
                sample.usage = host.usage(&stack.key.name, process).await.unwrap_or_default();
            }
        }
        self.count(|metrics, labels| metrics.record_containers(labels, key, samples));
    }

    /// Tells coordinator and watcher what was found, and begins to pull what a change waits for.
    async fn record(&self, evaluation: &Evaluation) {
        let Self { shared, subject: Subject { key, stack, .. }, .. } = self;
        shared.coordinator.record(stack, key, evaluation);
        let mut report = evaluation.report(&key.host, now());
        if evaluation.has_work() {
            // What failed before is tried again now: the failure is over when that succeeds, not before.
            let before = shared.watcher.last(key);
            report.failure = before.and_then(|report| report.failure).filter(|failure| failure.reachable);
        }
        shared.watcher.publish(stack, report, now(), self.occasion.woken);
        if waits_for_images(evaluation) {
            drop(shared.images.fetch(&self.context(), &evaluation.observed.availability.missing).await);
        }
    }

    /// Does something that may take long, and reports all the while that the project is worked on.
    async fn alive<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(ALIVE);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => {
                    self.shared.watcher.alive(&self.subject.key, &self.subject.stack, now());
                }
            }
        }
    }

    async fn carry_out(&self, lock: &HostLock, evaluation: &Evaluation) -> Result<(), Error> {
        let Self { shared, subject: Subject { key, stack, spec, .. }, .. } = self;
        let component = key.component;
        if let Some(found) = &evaluation.plan.rollback_to_previous {
            let _permit = shared.coordinator.urgent_permit(stack, key, evaluation)?;
            tracing::warn!(stack = %stack.key, host = key.host, %component, "rolling back: what is in force failed on {found}");
            let context = self.context();
            self.alive(Box::pin(context.rollback_for_peer(lock, evaluation, found, OPERATOR))).await?;
            return Ok(());
        }
        let is_rollout = evaluation.plan.rollout.is_some();
        let is_disruptive = evaluation.project.is_serial() && evaluation.plan.takes_a_service_down();
        let _permit = match (is_rollout, is_disruptive) {
            (false, false) => None,
            (true, _) => match shared.coordinator.permit_rollout(stack, key, evaluation)? {
                // Another host may have been faster.
                None => return Ok(()),
                permit => permit,
            },
            (false, true) => {
                // A permit wakes every peer: behind a closed gate it would do so for nothing.
                let open = apply::open_part(self.host, &evaluation.plan, &evaluation.observed).await?;
                let is_disruptive = open.takes_a_service_down();
                let permit = || shared.coordinator.urgent_permit(stack, key, evaluation);
                is_disruptive.then(permit).transpose()?
            }
        };
        for repair in evaluation.plan.repairs_now() {
            tracing::info!(stack = %stack.key, host = key.host, %component, "repairing: {}", repair.action.words());
        }
        if let Some(change) = &evaluation.plan.rollout {
            shared.memory.begin(stack, spec, &evaluation.project);
            tracing::info!(stack = %stack.key, host = key.host, %component, from = change.from_revision, to = change.to_revision, "rolling out");
        }
        let started = Instant::now();
        let context = self.context();
        let outcome = self.alive(context.act(lock, evaluation, OPERATOR)).await;
        let seconds = started.elapsed().as_secs_f64();
        self.count(|metrics, labels| {
            metrics.phase(labels, "apply", seconds);
            if is_rollout {
                metrics.rollout(labels, outcome.is_ok(), seconds);
            }
        });
        if outcome.as_ref().is_err_and(apply::Error::is_told_by_host) {
            // Peers learn of the failure before the permit is free. What went wrong first is what is reported.
            let recorded = Box::pin(self.evaluate(Depth::Whole, Some(lock))).await;
            recorded.map_or_else(|error| tracing::debug!(%error, "the failure is not recorded"), drop);
        }
        if let Some(release) = outcome?.rolled_out {
            let revision = release.project.version();
            tracing::info!(stack = %stack.key, host = key.host, %component, release = release.id, revision, seconds, "rolled out");
        }
        Ok(())
    }
}

/// What a person has said through an annotation, where a check shows that exactly this is waited for.
fn released(stack: &Stack, key: &ProjectKey, checked: &Result<Evaluation, host::Error>) -> Option<Approval> {
    let waits = |reason: &str| {
        let waiting = checked.as_ref().ok().and_then(|evaluation| evaluation.plan.waiting.as_ref());
        waiting.is_some_and(|waiting| waiting.reason == reason)
    };
    let is_unclear =
        matches!(checked, Err(host::Error::NameConflict { .. } | host::Error::ReleaseDamaged { .. }));
    if stack.is_adopting(key.component) && (is_unclear || waits(reasons::LEDGER_MISSING)) {
        return Some(Approval::Adopting);
    }
    (stack.is_leaving_data(key.component) && waits(reasons::DATA_WOULD_BE_LEFT))
        .then_some(Approval::LeavingData)
}
