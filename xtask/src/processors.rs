//! How much of the processors' time is idle.

use std::{
    fs,
    time::{Duration, Instant},
};

/// The time over which idleness is measured.
const WINDOW: Duration = Duration::from_secs(5);
/// Share of idle time from which on there is room for another process.
const ROOM: f64 = 0.2;

/// Times of all processors together since the machine started, in ticks.
#[derive(Clone, Copy)]
struct Times {
    idle: u64,
    total: u64,
}

/// Measures idle time, one window after the other.
pub(crate) struct Processors {
    began: Instant,
    before: Option<Times>,
    has_room: bool,
}

impl Processors {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), before: now(), has_room: false }
    }

    /// Whether the processors were idle enough in the last window for another process; once for each window.
    pub(crate) fn take_room(&mut self) -> bool {
        if self.began.elapsed() >= WINDOW {
            let after = now();
            self.has_room = self.before.zip(after).is_some_and(|(before, after)| idle(before, after) >= ROOM);
            (self.began, self.before) = (Instant::now(), after);
        }
        std::mem::take(&mut self.has_room)
    }
}

fn now() -> Option<Times> {
    read(&fs::read_to_string("/proc/stat").ok()?)
}

/// The first line of `/proc/stat`: user, nice, system, idle and waiting for disks, then others.
fn read(text: &str) -> Option<Times> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    Some(Times { idle: ticks.get(3)? + ticks.get(4)?, total: ticks.iter().sum() })
}

/// The share of idle time between two moments, from 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "ticks of seconds")]
fn idle(before: Times, after: Times) -> f64 {
    let total = after.total.saturating_sub(before.total).max(1);
    after.idle.saturating_sub(before.idle) as f64 / total as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_told_from_busy_time() {
        let before = read("cpu  100 0 100 700 100 0 0 0\ncpu0 1 2 3 4\n").unwrap();
        let after = read("cpu  160 0 120 710 110 0 0 0\n").unwrap();
        assert!((idle(before, after) - 0.2).abs() < 1e-9);
        assert!(idle(after, after).abs() < 1e-9);
        assert!(read("cpu  1 2\n").is_none() && read("").is_none());
    }
}
