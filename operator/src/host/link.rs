//! What lives as long as one SSH connection, and what ends it.

use std::{
    sync::{Mutex as Lock, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use tokio::{sync::Mutex, task::AbortHandle, time::Instant};

use super::{
    Engine, Error, Facts,
    cache::Cache,
    docker::DockerReader,
    helper::Helper,
    ssh::{Connection, SILENCE_LIMIT},
};

/// Late answers in a row after which a connection counts as stuck.
const LATE_ANSWERS: u32 = 3;

/// One connection and what was learned over it.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) docker: DockerReader,
    slow: Lock<Slow>,
    pub(super) helper: Mutex<Option<Helper>>,
    pub(super) watched: AtomicBool,
    cache: Lock<Cache>,
    tasks: Lock<Vec<AbortHandle>>,
    late: Lock<LateAnswers>,
}

/// What changes so seldom that it is asked for on a slower schedule.
#[derive(Clone, Debug)]
pub(super) struct Slow {
    pub(super) facts: Facts,
    pub(super) engine: Option<Engine>,
}

/// Answers that did not come in time, since the last one that did.
#[derive(Default)]
struct LateAnswers {
    count: u32,
    last: Option<Instant>,
}

impl LateAnswers {
    /// Counts one. Of several that were asked for at once, only the first counts: one slow moment is one.
    fn add(&mut self, limit: Duration, now: Instant) {
        if self.last.is_none_or(|last| now.saturating_duration_since(last) >= limit) {
            *self = Self { count: self.count + 1, last: Some(now) };
        }
    }
}

impl Link {
    pub(super) fn new(connection: Connection, docker: DockerReader, facts: Facts) -> Self {
        Self {
            connection,
            docker,
            slow: Lock::new(Slow { facts, engine: None }),
            helper: Mutex::new(None),
            watched: AtomicBool::new(false),
            cache: Lock::default(),
            tasks: Lock::default(),
            late: Lock::default(),
        }
    }

    pub(super) fn keep(&self, tasks: impl IntoIterator<Item = AbortHandle>) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
    }

    pub(super) fn end_tasks(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|task| task.abort());
    }

    pub(super) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn slow(&self) -> Slow {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn keep_slow(&self, slow: Slow) {
        *self.slow.lock().unwrap_or_else(PoisonError::into_inner) = slow;
    }

    pub(super) fn keep_engine(&self, engine: Engine) {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner).engine = Some(engine);
    }

    /// Whether a new connection is needed after a result. A late answer closes its own channel and no more, where the
    /// host says anything else; the connection is stuck after several in a row without a good answer in between.
    pub(super) fn is_broken_by<T>(&self, result: &Result<T, Error>, silence: Duration) -> bool {
        match result {
            Ok(_) => {
                *self.late() = LateAnswers::default();
                false
            }
            Err(Error::TimedOut { limit, .. }) => {
                let mut late = self.late();
                late.add(*limit, Instant::now());
                late.count >= LATE_ANSWERS || silence >= SILENCE_LIMIT
            }
            Err(error) => error.is_of_connection(),
        }
    }

    fn late(&self) -> MutexGuard<'_, LateAnswers> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end_tasks();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_answers_that_were_asked_for_at_once_count_as_one() {
        let begin = Instant::now();
        let limit = Duration::from_secs(15);
        let mut late = LateAnswers::default();
        for (seconds, count) in [(15, 1), (16, 1), (29, 1), (30, 2), (44, 2), (46, 3)] {
            late.add(limit, begin + Duration::from_secs(seconds));
            assert_eq!(late.count, count, "after {seconds} s");
        }
    }
}
