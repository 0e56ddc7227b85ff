//! Reconciles one project of one stack: a check, then waiting until the next one is due or something happens.

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Hosts, Images, Memory, RolloutCoordinator,
    check::{self, Checked, End, Occasion, Subject, check},
    watcher::Watcher,
    writers::ConflictingWriters,
};
use crate::{
    component,
    host::Host,
    model::sha256,
    observe::Depth,
    source::{ProjectKey, RECONCILE_ANNOTATION, Secrets, Source, Stack},
};

/// Longest wait after failures.
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);
/// Shortest wait between checks of everything, whatever the interval.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
/// Shortest time from one check to the next that an event or a changed file asks for.
const SHORTEST_WAKE: Duration = Duration::from_millis(50);
/// Checks that events may ask for at once; after those, one in each [`WAKE_REFILL`].
const WAKES_AT_ONCE: u32 = 5;
/// Time after which events may ask for one more check.
const WAKE_REFILL: Duration = Duration::from_secs(1);
/// How often the host itself is checked: engine, disks, clock, versions.
const SLOW_INTERVAL: Duration = Duration::from_mins(1);

/// What a worker shares with the others.
pub(super) struct Shared {
    pub(super) watcher: Watcher,
    pub(super) hosts: Hosts,
    pub(super) secrets: Secrets,
    pub(super) memory: Arc<Memory>,
    pub(super) images: Arc<Images>,
    pub(super) coordinator: RolloutCoordinator,
    /// Where the stacks come from, asked anew.
    pub(super) source: Arc<dyn Source>,
    /// Whether the source could be relied on when it was last read: only then is anything taken away.
    pub(super) is_reliable: AtomicBool,
    /// Who writes: another for each operator.
    pub(super) writer: String,
}

/// When what is due.
struct Schedule {
    whole: Instant,
    slow: Instant,
    /// Until then nothing is done, because something failed.
    pause: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

impl Schedule {
    fn depth(&self, now: Instant) -> Depth {
        if now >= self.slow {
            Depth::Slow
        } else if now >= self.whole {
            Depth::Whole
        } else {
            Depth::Woken
        }
    }

    /// A check that begins at `now`; within a pause it tells what is new, and does nothing.
    fn occasion(&self, now: Instant, woken: Option<Instant>) -> Occasion {
        let acts = self.pause.is_none_or(|until| until <= now);
        let depth = if acts { self.depth(now) } else { Depth::Woken };
        Occasion { depth, woken, acts }
    }

    /// After a check that began at `now` and failed; when something is tried again.
    fn failed(&mut self, now: Instant, key: &str) -> Instant {
        // The host itself may be the cause: it is checked next.
        (self.whole, self.slow) = (now, now);
        self.failures = self.failures.saturating_add(1);
        let until = Instant::now() + spread(backoff(self.failures), key);
        self.pause = Some(until);
        until
    }

    /// After a good check that began at `now`; when the next one is due.
    fn done(&mut self, depth: Depth, now: Instant, interval: Duration, key: &str) -> Instant {
        (self.pause, self.failures) = (None, 0);
        if depth >= Depth::Whole {
            self.whole = now + spread(interval.max(SHORTEST_PAUSE), key);
        }
        if depth == Depth::Slow {
            self.slow = now + spread(SLOW_INTERVAL, key);
        }
        self.whole.min(self.slow)
    }
}

/// A token bucket for checks that events ask for: a host on which others start containers all the time costs no more
/// than one check a second.
struct WakeBudget {
    tokens: u32,
    since: Instant,
}

impl WakeBudget {
    fn new(now: Instant) -> Self {
        Self { tokens: WAKES_AT_ONCE, since: now }
    }

    /// Takes a token; when the check may begin.
    fn take(&mut self, now: Instant) -> Instant {
        while self.tokens < WAKES_AT_ONCE && now >= self.since + WAKE_REFILL {
            self.tokens += 1;
            self.since += WAKE_REFILL;
        }
        if self.tokens == WAKES_AT_ONCE {
            self.since = now;
        }
        if self.tokens > 0 {
            self.tokens -= 1;
            return now;
        }
        self.since += WAKE_REFILL;
        self.since
    }
}

/// One check, in a task of its own, so that a panic in one project cannot end the others.
async fn checked(
    shared: &Arc<Shared>,
    subject: &Subject,
    kept: Option<Arc<Host>>,
    occasion: Occasion,
    writers: &Arc<Mutex<ConflictingWriters>>,
) -> Checked {
    let task = tokio::spawn(check(shared.clone(), subject.clone(), kept, occasion, writers.clone()));
    task.await.unwrap_or_else(|error| {
        let ProjectKey { stack, host, component } = &subject.key;
        tracing::error!(%stack, host, %component, %error, "a check ended in a defect: the others go on");
        check::panicked(shared, subject);
        Checked { end: End::Failed, is_observed: false, host: None, hints: None }
    })
}

/// Works on one project until the stack goes. While the spec does not ask for it, it waits: a worker that ended just when
/// the spec asked again would be missed.
pub(super) async fn work(
    shared: Arc<Shared>,
    key: ProjectKey,
    mut stacks: watch::Receiver<Option<Arc<Stack>>>,
) {
    let place = key.to_string();
    let mut kept: Option<Arc<Host>> = None;
    let mut schedule = Schedule { whole: Instant::now(), slow: Instant::now(), pause: None, failures: 0 };
    let mut budget = WakeBudget::new(Instant::now());
    let mut woken = None;
    let writers = Arc::new(Mutex::new(ConflictingWriters::default()));
    let mut peers = shared.coordinator.peer_changes(&key);
    let mut requested = None;
    let mut subject: Option<Subject> = None;
    loop {
        let Some(stack) = stacks.borrow_and_update().clone() else { return };
        if subject.as_ref().is_none_or(|subject| !Arc::ptr_eq(&subject.stack, &stack)) {
            subject = rendered(&key, stack);
        }
        let Some(current) = subject.clone() else {
            kept = None;
            if stacks.changed().await.is_err() {
                return;
            }
            continue;
        };
        let stack = current.stack.clone();
        peers.catch_up();
        let began = Instant::now();
        let reconcile = stack.annotation_for(RECONCILE_ANNOTATION, key.component).map(str::to_owned);
        if reconcile != requested {
            (requested, schedule.slow) = (reconcile, began);
        }
        let occasion = schedule.occasion(began, woken);
        let Checked { end, is_observed, host, hints } =
            checked(&shared, &current, kept, occasion, &writers).await;
        kept = host;
        let good = end != End::Failed;
        let next = match schedule.pause.filter(|_| good && !occasion.acts) {
            Some(until) => until,
            None if good => schedule.done(occasion.depth, began, stack.spec.interval.duration(), &place),
            None => schedule.failed(began, &place),
        };
        // What happens on a host that can be observed is told also while nothing is done about it.
        let is_woken = good || is_observed;
        tokio::select! {
            () = sleep_until(next) => woken = None,
            _ = stacks.changed() => {
                woken = None;
                (schedule.whole, schedule.pause) = (began, None);
            }
            // A peer stands otherwise than before: this project may be next.
            () = peers.changed(), if good => {
                woken = None;
                sleep_until(budget.take(began + SHORTEST_WAKE)).await;
            }
            when = hint(hints.filter(|_| is_woken)) => {
                woken = Some(when);
                sleep_until(budget.take(began + SHORTEST_WAKE)).await;
            }
        }
    }
}

/// The project of a key as the stack asks for it, rendered once for each spec.
fn rendered(key: &ProjectKey, stack: Arc<Stack>) -> Option<Subject> {
    let spec = stack.spec.hosts.iter().find(|host| host.name.as_str() == key.host)?.clone();
    let project = Arc::new(component::project(&stack, &spec, key.component)?);
    Some(Subject { key: key.clone(), stack, spec, project })
}

/// Waits until something happened on the host since its last check began.
async fn hint(hints: Option<watch::Receiver<Instant>>) -> Instant {
    if let Some(mut hints) = hints
        && hints.changed().await.is_ok()
    {
        return *hints.borrow();
    }
    std::future::pending().await
}

/// After failures 1 s, 2 s, 4 s, … up to a minute.
fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1 << (failures.max(1) - 1).min(6)).min(LONGEST_BACKOFF)
}

/// Up to a tenth more, by the key of the project, so that projects which began together do not stay together.
fn spread(pause: Duration, key: &str) -> Duration {
    let digest = sha256(key.as_bytes());
    let share = u32::from_str_radix(&digest[..4], 16).unwrap_or_default();
    pause + pause * share / (10 * 0x10000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_wait_longer_and_longer() {
        let waits: Vec<u64> = (1..9).map(|failures| backoff(failures).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn hosts_are_spread_over_a_tenth_of_the_pause() {
        let pauses: Vec<Duration> =
            ["a", "b", "c"].iter().map(|host| spread(Duration::from_secs(10), host)).collect();
        assert!(pauses.iter().all(|pause| (10.0..11.0).contains(&pause.as_secs_f64())), "{pauses:?}");
        assert!(pauses[0] != pauses[1] && pauses[1] != pauses[2]);
    }

    #[test]
    fn each_depth_has_a_time_of_its_own() {
        let start = Instant::now();
        let mut schedule = Schedule { whole: start, slow: start, pause: None, failures: 0 };
        assert_eq!(schedule.depth(start), Depth::Slow);
        schedule.done(Depth::Slow, start, Duration::from_secs(10), "a");
        assert_eq!(schedule.depth(start + Duration::from_secs(5)), Depth::Woken);
        let later = start + Duration::from_secs(12);
        assert_eq!(schedule.depth(later), Depth::Whole);
        schedule.done(Depth::Whole, later, Duration::from_secs(10), "a");
        assert_eq!(schedule.depth(later), Depth::Woken);
        assert_eq!(schedule.depth(start + Duration::from_secs(70)), Depth::Slow);
    }

    #[test]
    fn within_the_pause_after_a_failure_nothing_is_done_and_everything_told() {
        let start = Instant::now();
        let mut schedule = Schedule { whole: start, slow: start, pause: None, failures: 5 };
        let until = schedule.failed(start, "a");
        let occasion = |schedule: &Schedule, at: Instant| {
            let Occasion { depth, acts, .. } = schedule.occasion(at, None);
            (depth, acts)
        };
        assert_eq!(occasion(&schedule, start + Duration::from_secs(1)), (Depth::Woken, false));
        assert_eq!(occasion(&schedule, until), (Depth::Slow, true));
        schedule.done(Depth::Slow, until, Duration::from_secs(10), "a");
        assert_eq!(occasion(&schedule, until), (Depth::Woken, true));
    }

    #[test]
    fn events_ask_for_five_checks_at_once_and_then_for_one_a_second() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut budget = WakeBudget::new(start);
        let begins: Vec<Instant> = (0..5).map(|_| budget.take(start)).collect();
        assert_eq!(begins, [start; 5]);
        assert_eq!([budget.take(start), budget.take(at(1)), budget.take(at(2))], [at(1), at(2), at(3)]);
        assert_eq!(budget.take(at(60)), at(60), "a quiet while fills it again");
        let after: Vec<Instant> = (0..5).map(|_| budget.take(at(60))).collect();
        assert_eq!(after, [at(60), at(60), at(60), at(60), at(61)]);
    }
}
