//! When changes may be rolled out by themselves: repairs always may.

use croner::Cron;
use jiff::{Timestamp, Zoned, tz::TimeZone};
use tasktracker_crds::WindowSpec;

/// Why no change may be rolled out now, where there are windows and none of them is open: when the next one opens.
pub fn closed(windows: &[WindowSpec], now: Timestamp) -> Option<String> {
    if windows.is_empty() || windows.iter().any(|window| is_open(window, now)) {
        return None;
    }
    let next = windows.iter().filter_map(|window| opening(window, now, Cron::find_next_occurrence)).min();
    let next = next.map_or_else(
        || "none of them ever opens: look at cron and timezone".to_owned(),
        |next| format!("the next one opens at {next}"),
    );
    Some(format!("policy.windows: expected one that is open, found that {next}; `apply` does not wait"))
}

/// Whether a window opened so lately that it is open still, by the clock on the wall of its time zone.
fn is_open(window: &WindowSpec, now: Timestamp) -> bool {
    let opened = opening(window, now, Cron::find_previous_occurrence);
    opened.is_some_and(|opened| now.duration_since(opened).unsigned_abs() < window.duration.duration())
}

type Find = fn(&Cron, &Zoned, bool) -> Result<Zoned, croner::errors::CronError>;

/// The opening before or after a moment; none where cron or time zone are not what they should be.
fn opening(window: &WindowSpec, now: Timestamp, find: Find) -> Option<Timestamp> {
    let zone = TimeZone::get(window.timezone.as_str()).ok()?;
    let cron: Cron = window.cron.as_str().parse().ok()?;
    Some(find(&cron, &now.to_zoned(zone), true).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(cron: &str, duration: &str, timezone: &str) -> WindowSpec {
        WindowSpec {
            cron: cron.parse().unwrap(),
            duration: duration.parse().unwrap(),
            timezone: timezone.parse().unwrap(),
        }
    }

    fn open(windows: &[WindowSpec], now: &str) -> bool {
        closed(windows, now.parse().unwrap()).is_none()
    }

    #[test]
    fn a_window_is_open_from_its_opening_for_as_long_as_it_says() {
        assert!(open(&[], "2026-01-05T12:00:00Z"));
        let night = [window("0 3 * * 1-5", "1h", "UTC")];
        for (now, is_open) in [
            ("2026-01-05T02:59:59Z", false),
            ("2026-01-05T03:00:00Z", true),
            ("2026-01-05T03:59:59.9Z", true),
            ("2026-01-05T04:00:00Z", false),
            ("2026-01-04T03:30:00Z", false), // a Sunday
        ] {
            assert_eq!(open(&night, now), is_open, "{now}");
        }
        let two = [night[0].clone(), window("0 23 * * 0", "3h", "UTC")];
        assert!(open(&two, "2026-01-05T01:30:00Z"), "it opened the day before");
    }

    #[test]
    fn the_clock_on_the_wall_counts_in_summer_and_in_winter() {
        let night = [window("30 2 * * *", "45m", "Europe/Berlin")];
        assert!(open(&night, "2026-01-05T01:30:00Z") && !open(&night, "2026-01-05T00:30:00Z"));
        assert!(open(&night, "2026-07-05T00:30:00Z") && !open(&night, "2026-07-05T01:30:00Z"));
        // Half past two does not exist that night: it is half past three.
        assert!(open(&night, "2026-03-29T01:30:00Z"));
    }

    #[test]
    fn what_is_closed_says_until_when() {
        let told = |windows: &[WindowSpec]| closed(windows, "2026-01-05T04:00:00Z".parse().unwrap()).unwrap();
        let both = [window("0 3 * * *", "1h", "UTC"), window("0 5 * * *", "1h", "Asia/Tokyo")];
        assert!(told(&both).contains("opens at 2026-01-05T20:00:00Z"), "{}", told(&both));
        for never in [window("0 3 30 2 *", "1h", "UTC"), window("0 3 * * *", "1h", "Europe/Nowhere")] {
            assert!(told(&[never]).contains("none of them ever opens"));
        }
    }
}
