//! What the operator's metrics say: values, and how many checks were completed.

/// The values of a metric in the lines that contain all of `labels`.
fn values(text: &str, name: &str, labels: &[&str]) -> impl Iterator<Item = f64> {
    let start = format!("{name}{{");
    let lines = text.lines().filter(move |line| line.starts_with(&start));
    let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok())
}

/// The first value of a metric.
pub(crate) fn value(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    values(text, name, labels).next()
}

/// The sum of the values of a metric.
pub(crate) fn total(text: &str, name: &str, labels: &[&str]) -> f64 {
    values(text, name, labels).sum()
}

/// Which results of a check count.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Results {
    /// Only success.
    Success,
    /// Failures, too.
    Any,
}

impl Results {
    /// A label of the counter, and the name of the timestamp.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Success => {
                ("result=\"success\"", "tasktracker_last_successful_reconcile_timestamp_seconds")
            }
            Self::Any => ("result=", "tasktracker_last_reconcile_timestamp_seconds"),
        }
    }
}

/// Counts the checks of one host, each from its begin to its end.
///
/// The counter counts whole checks, of all hosts of a stack together; the timestamp is of the one host, and moves at each
/// evaluation, of which a check that writes has several. So both have to move. The check that is under way at first began before:
/// one more than asked for has to end.
pub(crate) struct CheckCount {
    labels: [String; 2],
    results: Results,
    wanted: u32,
    first: Option<f64>,
    last: Option<f64>,
    moves: u32,
}

impl CheckCount {
    /// Nothing was observed yet.
    pub(crate) fn new(stack: &str, host: &str, wanted: u32, results: Results) -> Self {
        let labels = [format!("stack=\"{stack}\""), format!("host=\"{host}\"")];
        Self { labels, results, wanted, first: None, last: None, moves: 0 }
    }

    /// Takes the metrics as they are now: whether enough checks were completed since the first time.
    pub(crate) fn observe(&mut self, text: &str) -> bool {
        let [stack, host] = self.labels.each_ref().map(String::as_str);
        let (result, timestamp) = self.results.names();
        let ended = total(text, "tasktracker_reconcile_total", &[stack, result]);
        let moment = value(text, timestamp, &[stack, host]);
        let is_first = self.first.is_none();
        let first = *self.first.get_or_insert(ended);
        self.moves += u32::from(!is_first && moment != self.last);
        self.last = moment;
        self.moves > self.wanted && ended > first + f64::from(self.wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metrics after so many checks of two hosts that succeeded, and so many of the first that failed.
    fn text(one: u32, two: u32, failed: u32) -> String {
        let lines = [
            ("tasktracker_reconcile_total", "result=\"success\"", one + two),
            ("tasktracker_reconcile_total", "result=\"error\"", failed),
            ("tasktracker_last_successful_reconcile_timestamp_seconds", "host=\"app-1\"", one),
            ("tasktracker_last_successful_reconcile_timestamp_seconds", "host=\"app-2\"", two),
            ("tasktracker_last_reconcile_timestamp_seconds", "host=\"app-1\"", one + failed),
        ];
        let line = |(name, label, value): &(&str, &str, u32)| {
            format!("{name}{{{label},stack=\"staging\"}} {value}\n")
        };
        lines.iter().map(line).collect()
    }

    fn count(results: Results) -> CheckCount {
        CheckCount::new("staging", "app-1", 2, results)
    }

    #[test]
    fn checks_are_counted_from_begin_to_end() {
        let mut checks = count(Results::Success);
        let seen = [4, 5, 6, 6, 6, 7].map(|one| checks.observe(&text(one, 0, 0)));
        assert_eq!(seen, [false, false, false, false, false, true]);
    }

    #[test]
    fn an_operator_that_hangs_completes_nothing() {
        let mut checks = count(Results::Any);
        assert!((0..100).all(|_| !checks.observe(&text(4, 4, 4))));
    }

    #[test]
    fn checks_of_other_hosts_and_failures_do_not_count() {
        let mut checks = count(Results::Success);
        assert!((0..10).all(|other| !checks.observe(&text(1, other, other))));
        let mut checks = count(Results::Any);
        let seen = [0, 1, 2, 3].map(|failed| checks.observe(&text(1, 0, failed)));
        assert_eq!(seen, [false, false, false, true]);
    }
}
