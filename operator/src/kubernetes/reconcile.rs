//! One object of the API server: it is given to the engine as it is now, and its status is what the engine knows of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Client,
    api::DynamicObject,
    runtime::{controller::Action, watcher::ExponentialBackoff},
};
use tasktracker_crds::{TaskTrackerStackStatus, conditions::reasons, validation::Mistake};
use tokio::time::{Instant, timeout};

use super::{
    ApiError,
    api::{self, key_of},
    backoff, deletion,
    events::Events,
    generations::Generations,
    lease::Leadership,
    plans,
    specs::Specs,
    status::Written,
    triggers::Triggers,
};
use crate::{
    engine::{Stacks, now},
    metrics::{Controller, Metrics},
    report,
    source::{self, Stack, StackKey},
};

/// How long one reconciliation may take: nothing in it waits for a host.
const LIMIT: Duration = Duration::from_mins(1);
/// How often an object is checked though nothing says that it changed.
const RESYNC: Duration = Duration::from_mins(5);
/// How soon a deletion that is under way is checked again.
const SOON: Duration = Duration::from_secs(1);

/// What every reconciliation uses.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) events: Arc<Events>,
    pub(super) leadership: Arc<Leadership>,
    pub(super) generations: Arc<Generations>,
    /// How long a host that cannot be reached keeps a deleted stack.
    pub(super) deletion_limit: Duration,
    pub(super) specs: Specs,
    pub(super) written: Written,
    pub(super) metrics: Arc<Controller>,
    /// Metrics of the stacks.
    of_stacks: Arc<Metrics>,
    stacks: Mutex<Stacks>,
    /// Pauses of the stacks whose last reconciliation failed.
    pauses: Mutex<BTreeMap<StackKey, ExponentialBackoff>>,
    /// Objects whose newest spec is refused.
    refused: Mutex<BTreeSet<StackKey>>,
    pub(super) triggers: Arc<Triggers>,
    deleted: Mutex<BTreeMap<StackKey, Instant>>,
}

/// When an object is checked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// When it is another one, or after a while.
    WaitForChange,
    /// Something is under way.
    Soon,
}

impl Context {
    pub(super) fn new(
        client: Client,
        stacks: Stacks,
        (events, leadership, generations): (Arc<Events>, Arc<Leadership>, Arc<Generations>),
        triggers: Arc<Triggers>,
        (metrics, of_stacks): (Arc<Controller>, Arc<Metrics>),
        (roots, deletion_limit): (Vec<PathBuf>, Duration),
    ) -> Self {
        Self {
            client,
            events,
            leadership,
            generations,
            deletion_limit,
            specs: Specs::new(roots),
            metrics,
            of_stacks,
            written: Written::default(),
            stacks: Mutex::new(stacks),
            pauses: Mutex::default(),
            refused: Mutex::default(),
            triggers,
            deleted: Mutex::default(),
        }
    }

    pub(super) fn stacks(&self) -> MutexGuard<'_, Stacks> {
        self.stacks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a deletion was first heard of.
    pub(super) fn deleted_since(&self, key: &StackKey) -> Instant {
        let mut deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        *deleted.entry(key.clone()).or_insert_with(Instant::now)
    }

    pub(super) fn forget_deleted(&self, key: &StackKey) {
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Forgets what is known of objects that are there no longer: nothing more is done about them.
    pub(super) fn retain(&self, there: &BTreeSet<StackKey>) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).retain(|key| {
            let is_there = there.contains(key);
            if !is_there {
                self.of_stacks.end(key);
            }
            is_there
        });
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| there.contains(key));
        self.metrics.retain(there);
        self.generations.retain(there);
        let deleted: Vec<StackKey> =
            self.deleted.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        // Somebody took the finalizer away: what it was to wait for is not wanted any more.
        for key in deleted.iter().filter(|key| !there.contains(key)) {
            self.stacks().forget(key);
            self.forget_deleted(key);
        }
    }

    fn set_refused(&self, key: &StackKey, refused: bool) {
        let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused {
            all.insert(key.clone())
        } else {
            all.remove(key)
        };
    }

    /// How long a stack that failed waits for the next try.
    fn failed(&self, key: &StackKey) -> Duration {
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        let next = pauses.entry(key.clone()).or_insert_with(backoff::of_reconciliations).next();
        next.unwrap_or(RESYNC)
    }

    fn succeeded(&self, key: &StackKey) {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Reconciles one object. A defect in it, or an API server that does not answer, ends neither the others nor the operator.
pub(super) async fn reconcile(object: Arc<DynamicObject>, context: Arc<Context>) -> Result<Action, ApiError> {
    let key = key_of(&object);
    let running = context.metrics.begin(&key);
    let reconciled = Box::pin(reconcile_object(&object, &context));
    let limited = timeout(LIMIT, std::panic::AssertUnwindSafe(reconciled).catch_unwind());
    let result = match limited.await {
        Err(_) => {
            context.metrics.timed_out();
            Err(ApiError::Late)
        }
        Ok(Err(_)) => {
            context.metrics.panicked();
            tracing::error!(stack = %key, "a reconciliation ended in a defect: the others go on");
            Err(ApiError::Defect)
        }
        Ok(Ok(result)) => result,
    };
    let result = result.map(|next| match next {
        Next::WaitForChange => Action::requeue(spread(RESYNC)),
        Next::Soon => Action::requeue(SOON),
    });
    if result.is_ok() {
        context.succeeded(&key);
    }
    running.end(result.is_ok());
    result
}

/// What follows a failure: another try, later and later.
pub(super) fn retry(object: &DynamicObject, error: &ApiError, context: &Context) -> Action {
    let key = key_of(object);
    let pause = context.failed(&key);
    tracing::warn!(stack = %key, %error, pause_seconds = pause.as_secs_f64(), "a reconciliation failed; it is tried again");
    context.metrics.retried();
    Action::requeue(pause)
}

/// Up to a tenth more.
fn spread(pause: Duration) -> Duration {
    pause + pause.mul_f64(share() / 10.0)
}

/// Anything from 0 to 1.
fn share() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness, all wait alike.
    let _: Result<(), getrandom::Error> = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

async fn reconcile_object(object: &DynamicObject, context: &Context) -> Result<Next, ApiError> {
    crate::failpoint::defect(object.metadata.name.as_deref().unwrap_or_default());
    if object.metadata.deletion_timestamp.is_some() {
        return deletion::delete(context, object).await;
    }
    let key = key_of(object);
    let known = context.written.known(object);
    let valid = valid(object, context);
    if let Ok(stack) = &valid {
        deletion::add_finalizer(context, object, stack).await?;
    }
    let followed = valid.and_then(|stack| follow(&stack, object, context).map(|()| stack));
    context.set_refused(&key, followed.is_err());
    let stack = match followed {
        Ok(stack) => stack,
        Err(message) => {
            refuse(object, &message, &known, context).await?;
            return Ok(Next::WaitForChange);
        }
    };
    deletion::remove_finalizer(context, object, &stack).await?;
    let status = context.stacks().status(&key);
    tell(object, &stack, status.unwrap_or_default(), &known, context).await?;
    Ok(Next::WaitForChange)
}

/// Reports why the newest spec of an object is refused, in the log and in its status.
async fn refuse(
    object: &DynamicObject,
    message: &str,
    known: &TaskTrackerStackStatus,
    context: &Context,
) -> Result<(), ApiError> {
    let key = key_of(object);
    tracing::error!(stack = %key, reason = reasons::INVALID_SPEC, "{message}");
    let status = {
        let stacks = context.stacks();
        stacks.set_refused(&key, true);
        stacks.status(&key)
    };
    if status.is_none() {
        let environment = object.data["spec"]["environment"].as_str().unwrap_or_default();
        context.of_stacks.refused(&key, environment);
    }
    let (generation, now) = (object.metadata.generation, Time(now()));
    let refused = report::refused(status.as_ref(), known, message, generation, &now);
    context.written.write(context.client.clone(), object, refused).await.map(drop)
}

/// When an object was made; of those that were made at the same time, one comes first all the same.
fn age(stack: &Stack) -> (Option<Time>, StackKey) {
    (stack.resource.metadata.creation_timestamp.clone(), stack.key.clone())
}

/// The stack of an object, where no rule forbids it. What takes long is done without the lock on all stacks.
fn valid(object: &DynamicObject, context: &Context) -> Result<Stack, String> {
    let stack = context.specs.read(object).map_err(|mistakes| listed(&mistakes))?;
    let conflicts = conflicts(&stack, &context.stacks());
    if conflicts.is_empty() { Ok(stack) } else { Err(listed(&conflicts)) }
}

/// Why a stack cannot be there together with others. Of two such stacks the one that was made first is followed, whatever
/// the order in which they are read.
fn conflicts(stack: &Stack, stacks: &Stacks) -> Vec<Mistake> {
    let older = stacks.in_force().filter(|other| age(other) <= age(stack));
    source::rivals(stack, older.map(AsRef::as_ref))
}

/// Gives a stack to the engine, which follows it from now on; or says why it does not.
fn follow(stack: &Stack, object: &DynamicObject, context: &Context) -> Result<(), String> {
    let mut stacks = context.stacks();
    // Others were followed since this was asked last.
    let conflicts = conflicts(stack, &stacks);
    if !conflicts.is_empty() {
        return Err(listed(&conflicts));
    }
    let newer: Vec<Arc<Stack>> = stacks.in_force().filter(|other| age(other) > age(stack)).cloned().collect();
    for rival in newer.iter().filter(|newer| !source::rivals(newer, [stack]).is_empty()) {
        stacks.unfollow(&rival.key.to_string());
        context.triggers.add(&rival.key);
    }
    let uid = |stack: &Stack| stack.resource.metadata.uid.clone();
    if stacks.get(&stack.key).is_some_and(|before| uid(before) != uid(stack)) {
        stacks.unfollow(&stack.key.to_string());
    }
    context.generations.saw(stack);
    stacks.upsert(stack.clone(), Some(api::status_of(object)))
}

fn listed(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Writes what is known of a stack, with the plan that waits beside it.
async fn tell(
    object: &DynamicObject,
    stack: &Stack,
    mut status: TaskTrackerStackStatus,
    known: &TaskTrackerStackStatus,
    context: &Context,
) -> Result<(), ApiError> {
    let is_new = known.waiting_plan != status.waiting_plan;
    let mut kept = Ok(());
    if let Some(hash) =
        status.waiting_plan.as_ref().filter(|_| is_new || known.waiting_plan_config_map.is_none())
    {
        let plan = context.stacks().waiting_plan(&stack.key).unwrap_or_default();
        kept = plans::keep(context.client.clone(), stack, hash, &plan).await;
    }
    // What cannot be shown in full is told all the same.
    let shown = status.waiting_plan.as_ref().filter(|_| kept.is_ok());
    status.waiting_plan_config_map = shown.map(|hash| plans::name(stack, hash));
    let written = context.written.write(context.client.clone(), object, status).await;
    context.metrics.wrote_status(written.as_ref().ok().copied());
    written?;
    // By the hash: whoever may write a status could name any ConfigMap of the namespace in it.
    if let Some(hash) = known.waiting_plan.as_ref().filter(|_| is_new) {
        plans::remove(context.client.clone(), stack, hash).await?;
    }
    kept
}

#[cfg(test)]
mod tests;
