//! One object of the API server: it is given to the engine as it is now, and its status is what the engine knows of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Client, api::DynamicObject, runtime::controller::Action};
use tasktracker_crds::{TaskTrackerStackStatus, validation::Mistake};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    ApiError,
    api::{self, key_of},
    deletion,
    events::Events,
    generations::Generations,
    lease::Leadership,
    plans,
    status::Written,
};
use crate::{
    engine::{Stacks, now},
    metrics::{Controller, Metrics},
    report,
    source::{self, Stack, StackKey},
};

/// How long one reconciliation may take: nothing in it waits for a host.
const LIMIT: Duration = Duration::from_mins(1);
/// How often an object is looked at though nothing says that it changed.
const RESYNC: Duration = Duration::from_mins(5);
/// How soon a deletion that is under way is looked at again.
const SOON: Duration = Duration::from_secs(1);
/// Longest wait after failures.
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);

/// What every reconciliation uses.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) events: Arc<Events>,
    pub(super) leadership: Arc<Leadership>,
    pub(super) generations: Arc<Generations>,
    /// How long a host that cannot be reached keeps a deleted stack.
    pub(super) deletion_limit: Duration,
    pub(super) roots: Vec<PathBuf>,
    pub(super) written: Written,
    pub(super) metrics: Arc<Controller>,
    /// Metrics of the stacks.
    of_stacks: Arc<Metrics>,
    stacks: Mutex<Stacks>,
    failures: Mutex<BTreeMap<StackKey, u32>>,
    /// Objects whose newest spec is refused.
    refused: Mutex<BTreeSet<StackKey>>,
    /// What is to be looked at again.
    triggers: mpsc::UnboundedSender<StackKey>,
    deleted: Mutex<BTreeMap<StackKey, Instant>>,
}

/// When an object is looked at next.
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
        triggers: mpsc::UnboundedSender<StackKey>,
        (metrics, of_stacks): (Arc<Controller>, Arc<Metrics>),
        (roots, deletion_limit): (Vec<PathBuf>, Duration),
    ) -> Self {
        Self {
            client,
            events,
            leadership,
            generations,
            deletion_limit,
            roots,
            metrics,
            of_stacks,
            written: Written::default(),
            stacks: Mutex::new(stacks),
            failures: Mutex::default(),
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
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| there.contains(key));
        self.generations.retain(there);
        let deleted: Vec<StackKey> =
            self.deleted.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        // Somebody took the finalizer away: what it was to wait for is not wanted any more.
        for key in deleted.iter().filter(|key| !there.contains(key)) {
            self.stacks().give_up(key);
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

    /// An object is to be looked at again.
    fn again(&self, key: &StackKey) {
        let _ = self.triggers.send(key.clone());
    }

    /// How often in a row a stack failed, with this time.
    fn failed(&self, key: &StackKey) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    fn succeeded(&self, key: &StackKey) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Looks at one object. A defect in it, or an API server that does not answer, ends neither the others nor the operator.
pub(super) async fn reconcile(object: Arc<DynamicObject>, context: Arc<Context>) -> Result<Action, ApiError> {
    let key = key_of(&object);
    let running = context.metrics.begin(&key);
    let limited = timeout(LIMIT, std::panic::AssertUnwindSafe(look(&object, &context)).catch_unwind());
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
    let failures = context.failed(&key);
    let pause = backoff(failures);
    tracing::warn!(stack = %key, %error, failures, "a reconciliation failed; it is tried again");
    context.metrics.retried();
    Action::requeue(pause)
}

/// 1 s, 2 s, 4 s, … up to a minute, each up to a half less, so that what failed together does not come together.
pub(super) fn backoff(failures: u32) -> Duration {
    let longest = Duration::from_secs(1 << (failures.max(1) - 1).min(6)).min(LONGEST_BACKOFF);
    longest / 2 + longest.mul_f64(share() / 2.0)
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

async fn look(object: &DynamicObject, context: &Context) -> Result<Next, ApiError> {
    crate::failpoint::defect(object.metadata.name.as_deref().unwrap_or_default());
    if object.metadata.deletion_timestamp.is_some() {
        return deletion::delete(context, object).await;
    }
    let key = key_of(object);
    let known = context.written.known(object);
    let stack = match accepted(object, context) {
        Ok(stack) => stack,
        Err(message) => {
            let status = context.stacks().status(&key);
            if status.is_none() {
                let environment = object.data["spec"]["environment"].as_str().unwrap_or_default();
                context.of_stacks.refused(&key, environment);
            }
            let (generation, now) = (object.metadata.generation, Time(now()));
            let refused = report::refused(status.as_ref(), &known, &message, generation, &now);
            context.written.write(context.client.clone(), object, refused).await?;
            return Ok(Next::WaitForChange);
        }
    };
    deletion::keep_finalizer(context, object, &stack).await?;
    let status = context.stacks().status(&key);
    tell(object, &stack, status.unwrap_or_default(), &known, context).await?;
    Ok(Next::WaitForChange)
}

/// Programs that a stack would have run beside the operator: whoever may write a stack is not whoever runs the operator.
fn commands(stack: &Stack) -> Option<Mistake> {
    let auth = &stack.spec.app.as_ref()?.registry_auth;
    let _: &Vec<_> = auth.as_ref()?.command.as_ref()?;
    let message = "expected secret or hostHelper, found a command, which would run with the rights of the operator's pod";
    let path = "spec.app.registryAuth.command".to_owned();
    Some(Mistake { line: 0, column: 0, path, message: message.to_owned() })
}

/// When an object was made; of those that were made at the same time, one comes first all the same.
fn age(stack: &Stack) -> (Option<Time>, StackKey) {
    (stack.resource.metadata.creation_timestamp.clone(), stack.key.clone())
}

/// The stack of an object, which the engine follows from now on; or why it does not.
fn accepted(object: &DynamicObject, context: &Context) -> Result<Stack, String> {
    let key = key_of(object);
    let listed =
        |mistakes: Vec<Mistake>| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let mut stacks = context.stacks();
    let read = api::read(object).map_err(listed).and_then(|stack| {
        let mut mistakes = source::mistakes(&stack, &context.roots);
        mistakes.extend(commands(&stack));
        // Of two that cannot be there together, the one that was made first is: whatever the order in which they are read.
        let (older, newer): (Vec<Arc<Stack>>, _) =
            stacks.in_force().cloned().partition(|other| age(other) <= age(&stack));
        mistakes.extend(source::rivals(&stack, older.iter().map(AsRef::as_ref)));
        if mistakes.is_empty() {
            for rival in newer.iter().filter(|newer| !source::rivals(newer, [&stack]).is_empty()) {
                stacks.let_go(&rival.key.to_string());
                context.again(&rival.key);
            }
        }
        if mistakes.is_empty() { Ok(stack) } else { Err(listed(mistakes)) }
    });
    let taken_up = read.and_then(|stack| {
        let uid = |stack: &Stack| stack.resource.metadata.uid.clone();
        if stacks.get(&key).is_some_and(|before| uid(before) != uid(&stack)) {
            stacks.let_go(&key.to_string());
        }
        context.generations.saw(&stack);
        stacks.take_up(stack.clone(), Some(api::status_of(object))).map(|()| stack)
    });
    context.set_refused(&key, taken_up.is_err());
    if let Err(message) = &taken_up {
        tracing::error!(stack = %key, reason = tasktracker_crds::conditions::reasons::INVALID_SPEC, "{message}");
        stacks.set_refused(&key, true);
    }
    taken_up
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
mod tests {
    use super::*;

    #[test]
    fn failures_wait_longer_and_longer_and_not_all_alike() {
        for (failures, longest) in [(1, 1), (2, 2), (5, 16), (7, 60), (1000, 60)] {
            let waits: Vec<Duration> = (0..50).map(|_| backoff(failures)).collect();
            let longest = Duration::from_secs(longest);
            assert!(waits.iter().all(|wait| *wait >= longest / 2 && *wait <= longest), "{waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
        }
    }
}
