//! Pauses after failures: each twice as long as the one before, with as much jitter, so that what failed together does not
//! come back together.

use std::time::Duration;

use backon::ExponentialBuilder;
use kube::runtime::watcher::ExponentialBackoff;

/// First pause, without its jitter.
const FIRST: Duration = Duration::from_millis(500);
/// Longest pause of a watch, without its jitter: a server that comes back after minutes is watched again within seconds.
const LONGEST_OF_WATCHES: Duration = Duration::from_secs(4);
/// Longest pause of a reconciliation, without its jitter.
const LONGEST_OF_RECONCILIATIONS: Duration = Duration::from_secs(30);

/// Pauses of a watch that fails: 0.5 to 1 s at first, 4 to 8 s at most.
pub(super) fn of_watches() -> ExponentialBackoff {
    exponential(LONGEST_OF_WATCHES)
}

/// Pauses of a reconciliation that fails: 0.5 to 1 s at first, 30 s to a minute at most.
pub(super) fn of_reconciliations() -> ExponentialBackoff {
    exponential(LONGEST_OF_RECONCILIATIONS)
}

fn exponential(longest: Duration) -> ExponentialBackoff {
    let builder = ExponentialBuilder::new().with_min_delay(FIRST).with_max_delay(longest);
    builder.with_factor(2.0).with_jitter().without_max_times().into()
}

#[cfg(test)]
mod tests {
    use kube::runtime::utils::Backoff;

    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_differ() {
        let runs: Vec<Vec<Duration>> = (0..50).map(|_| of_reconciliations().take(100).collect()).collect();
        for (number, least) in [(0, 500), (1, 1000), (4, 8000), (6, 30_000), (99, 30_000)] {
            let least = Duration::from_millis(least);
            let pauses: Vec<Duration> = runs.iter().map(|run| run[number]).collect();
            assert!(pauses.iter().all(|pause| *pause >= least && *pause <= least * 2), "{pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{pauses:?}");
        }
        assert!(of_watches().nth(50).unwrap() <= Duration::from_secs(8));
    }

    #[test]
    fn pauses_begin_anew_after_a_success() {
        let mut pauses = of_watches();
        assert!(pauses.nth(10).unwrap() >= Duration::from_secs(4));
        pauses.reset();
        assert!(pauses.next().unwrap() <= Duration::from_secs(1));
    }
}
