//! Settings: every flag is also an environment variable `NAME`, and the value may stand in a file named by
//! `NAME_FILE`.

mod sources;

pub use sources::{Error, NotAccepted, Origin, parse};

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use tracing::level_filters::LevelFilter;

use crate::log::LogFormat;

/// The settings of the log.
#[derive(Debug, Clone, Copy, Args)]
pub struct LogSettings {
    /// The least important messages to log: trace, debug, info, warn, error or off.
    #[arg(long, env = "LOG_LEVEL", default_value = "info", global = true, value_name = "LEVEL",
          value_parser = level)]
    pub log_level: LevelFilter,

    /// How log lines look.
    #[arg(long, env = "LOG_FORMAT", default_value = "json", global = true, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// Reads an address and port to listen on.
pub fn address(written: &str) -> Result<SocketAddr, String> {
    written.parse().map_err(|_| "an IP address and a port, such as 0.0.0.0:8000".to_owned())
}

/// Reads a number of seconds, 1 to 3600.
pub fn seconds(written: &str) -> Result<Duration, String> {
    let seconds = written.parse().ok().filter(|seconds| (1..=3600).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| "a whole number of seconds from 1 to 3600".to_owned())
}

fn level(written: &str) -> Result<LevelFilter, String> {
    let known = ["trace", "debug", "info", "warn", "error", "off"];
    let level =
        known.contains(&written.to_ascii_lowercase().as_str()).then(|| written.parse().ok()).flatten();
    level.ok_or_else(|| format!("one of {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_levels_have_bounds() {
        assert_eq!(seconds("3600"), Ok(Duration::from_hours(1)));
        assert!(["0", "3601", "-1", "1.5", "", "ten"].iter().all(|wrong| seconds(wrong).is_err()));
        assert_eq!(level("WARN"), Ok(LevelFilter::WARN));
        assert!(["", "3", "verbose"].iter().all(|wrong| level(wrong).is_err()));
    }
}
