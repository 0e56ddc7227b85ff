//! The log: one JSON object per line on standard output, or lines for people.

use clap::ValueEnum;
use tracing::{dispatcher::SetGlobalDefaultError, subscriber::set_global_default};

use crate::settings::LogSettings;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Lines for people.
    Human,
}

/// Installs the log for the whole process. Fails when one is installed already.
pub fn install(settings: LogSettings) -> Result<(), SetGlobalDefaultError> {
    let LogSettings { log_level, log_format } = settings;
    let lines = tracing_subscriber::fmt().with_max_level(log_level);
    match log_format {
        LogFormat::Json => set_global_default(
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).finish(),
        ),
        LogFormat::Human => set_global_default(lines.finish()),
    }
}
