//! Time as a value that is handed in, so that tests decide what time it is.

use std::{fmt, sync::Arc};

use jiff::Timestamp;

/// A source of the current time. Cloning is cheap.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that asks `read` each time.
    pub fn new(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// A clock that stands still at `time`.
    pub fn fixed(time: Timestamp) -> Self {
        Self::new(move || time)
    }

    /// The current time, cut to microseconds: what every database we store it in can keep.
    pub fn now(&self) -> Timestamp {
        let read = (self.0)();
        Timestamp::from_microsecond(read.as_microsecond()).unwrap_or(read)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_microseconds_and_drops_what_is_finer() {
        let clock = Clock::fixed("2025-03-04T05:06:07.123456789Z".parse().unwrap());
        assert_eq!(clock.now().to_string(), "2025-03-04T05:06:07.123456Z");
    }
}
