//! Other operators that write on the same host: met once, one of the two has taken over; met again and again, they undo
//! each other's work.

use std::time::Duration;

use tokio::time::Instant;

/// How many intervals count.
const INTERVALS: u32 = 10;
/// How often the same one must have come in between.
const TIMES: usize = 2;

/// Other writers that had a host's lock between our own tenures.
#[derive(Debug, Default)]
pub(super) struct ConflictingWriters(Vec<(Instant, String)>);

impl ConflictingWriters {
    /// Another writer had the lock before us.
    pub(super) fn record(&mut self, writer: &str, now: Instant) {
        self.0.push((now, writer.to_owned()));
    }

    /// The one that came again and again within ten intervals.
    pub(super) fn persistent(&mut self, now: Instant, interval: Duration) -> Option<String> {
        self.0.retain(|(when, _)| now.duration_since(*when) < interval * INTERVALS);
        let times = |writer: &String| self.0.iter().filter(|(_, other)| other == writer).count();
        self.0.iter().map(|(_, writer)| writer).find(|writer| times(writer) >= TIMES).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_same_one_within_ten_intervals_is_too_often() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let interval = Duration::from_secs(30);
        let mut writers = ConflictingWriters::default();
        writers.record("a", at(0));
        writers.record("b", at(10));
        assert_eq!(writers.persistent(at(10), interval), None, "each came once");
        writers.record("a", at(299));
        assert_eq!(writers.persistent(at(299), interval), Some("a".to_owned()));
        assert_eq!(writers.persistent(at(301), interval), None, "the first time is long ago");
    }
}
