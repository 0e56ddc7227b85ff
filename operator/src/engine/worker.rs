//! Keeps one host of one stack equal to it: a check, then waiting until the next one is due or something happens.

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Hosts, Images, Memory, Turns,
    check::{self, Checked, Occasion, check},
    rivals::Rivals,
    watcher::Watcher,
};
use crate::{
    desired::sha256,
    host::Host,
    observe::Depth,
    source::{RECONCILE_ANNOTATION, Secrets, Source, Stack},
};

/// Longest wait after failures.
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);
/// Shortest wait between checks of everything, whatever the interval.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
/// Shortest time from one check to the next that an event or a changed file asks for.
const SHORTEST_WAKE: Duration = Duration::from_millis(50);
/// How often the host itself is looked at: engine, disks, clock, versions.
const SLOW_ROTA: Duration = Duration::from_mins(1);

/// What a worker shares with the others.
pub(super) struct Shared {
    pub(super) watcher: Watcher,
    pub(super) hosts: Hosts,
    pub(super) secrets: Secrets,
    pub(super) memory: Arc<Memory>,
    pub(super) images: Arc<Images>,
    pub(super) turns: Turns,
    /// Where the stacks come from, asked anew.
    pub(super) source: Arc<dyn Source>,
    /// Whether the source could be relied on when it was last read: only then is anything taken away.
    pub(super) is_reliable: AtomicBool,
    /// Who writes: another for each operator.
    pub(super) writer: String,
}

/// When what is due.
struct Rota {
    whole: Instant,
    slow: Instant,
}

impl Rota {
    fn depth(&self, now: Instant) -> Depth {
        if now >= self.slow {
            Depth::Slow
        } else if now >= self.whole {
            Depth::Whole
        } else {
            Depth::Woken
        }
    }

    /// After a good check that began at `now`.
    fn done(&mut self, depth: Depth, now: Instant, interval: Duration, host: &str) {
        if depth >= Depth::Whole {
            self.whole = now + spread(interval.max(SHORTEST_PAUSE), host);
        }
        if depth == Depth::Slow {
            self.slow = now + spread(SLOW_ROTA, host);
        }
    }
}

/// Works on one host until the stack goes.
pub(super) async fn work(
    shared: Arc<Shared>,
    host_name: String,
    mut stacks: watch::Receiver<Option<Arc<Stack>>>,
) {
    let mut failures: u32 = 0;
    let mut kept: Option<Arc<Host>> = None;
    let mut rota = Rota { whole: Instant::now(), slow: Instant::now() };
    let mut woken = None;
    let rivals = Arc::new(Mutex::new(Rivals::default()));
    let mut news = None;
    let mut asked = None;
    loop {
        let Some(stack) = stacks.borrow_and_update().clone() else {
            return;
        };
        let Some(spec) = stack.app_hosts().find(|host| host.name.as_str() == host_name).cloned() else {
            return;
        };
        let news = news.get_or_insert_with(|| shared.turns.news(&stack.key, &host_name));
        news.catch_up();
        let began = Instant::now();
        let reconcile = stack.annotation(RECONCILE_ANNOTATION).map(str::to_owned);
        if reconcile != asked {
            (asked, rota.slow) = (reconcile, began);
        }
        let occasion = Occasion { depth: rota.depth(began), woken };
        // A check runs in a task of its own, so that a defect in one stack cannot end the others.
        let task =
            tokio::spawn(check(shared.clone(), stack.clone(), spec, kept.clone(), occasion, rivals.clone()));
        let Checked { good, host, hints } = task.await.unwrap_or_else(|error| {
            tracing::error!(stack = %stack.key, host = %host_name, %error, "a check ended in a defect: the others go on");
            check::ended_in_a_defect(&shared, &stack, &host_name);
            Checked { good: false, host: None, hints: None }
        });
        kept = host;
        let next = if good {
            failures = 0;
            rota.done(occasion.depth, began, stack.spec.interval.duration(), &host_name);
            rota.whole.min(rota.slow)
        } else {
            failures = failures.saturating_add(1);
            // The host itself may be the cause: it is looked at next.
            (rota.whole, rota.slow) = (began, began);
            Instant::now() + spread(backoff(failures), &host_name)
        };
        tokio::select! {
            () = sleep_until(next) => woken = None,
            _ = stacks.changed() => {
                woken = None;
                rota.whole = began;
            }
            // Another host stands otherwise than before: it may be this one's turn.
            () = news.changed(), if good => {
                woken = None;
                sleep_until(began + SHORTEST_WAKE).await;
            }
            when = hint(hints.filter(|_| good)) => {
                woken = Some(when);
                sleep_until(began + SHORTEST_WAKE).await;
            }
        }
    }
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

/// Up to a tenth more, by the name of the host, so that hosts which began together do not stay together.
fn spread(pause: Duration, host: &str) -> Duration {
    let digest = sha256(host.as_bytes());
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
        let mut rota = Rota { whole: start, slow: start };
        assert_eq!(rota.depth(start), Depth::Slow);
        rota.done(Depth::Slow, start, Duration::from_secs(10), "a");
        assert_eq!(rota.depth(start + Duration::from_secs(5)), Depth::Woken);
        let later = start + Duration::from_secs(12);
        assert_eq!(rota.depth(later), Depth::Whole);
        rota.done(Depth::Whole, later, Duration::from_secs(10), "a");
        assert_eq!(rota.depth(later), Depth::Woken);
        assert_eq!(rota.depth(start + Duration::from_secs(70)), Depth::Slow);
    }
}
