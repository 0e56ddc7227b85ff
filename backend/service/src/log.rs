//! The log: one JSON object per line on standard output, or lines for people.

use std::io;

use clap::ValueEnum;
use tracing::{dispatcher::SetGlobalDefaultError, subscriber::set_global_default};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

use crate::settings::LogSettings;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Lines for people.
    Human,
}

/// Lines that wait for whoever reads the log; those beyond it are lost.
const WAITING_LINES: usize = 10_000;

/// Installs the log for the whole process, until what is returned is dropped. No request waits for whoever reads the log:
/// a Docker daemon that is away does not.
///
/// # Errors
/// When a log is installed already.
pub fn install(settings: LogSettings) -> Result<WorkerGuard, SetGlobalDefaultError> {
    let LogSettings { log_level, log_format } = settings;
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).finish(io::stdout());
    let lines = tracing_subscriber::fmt().with_max_level(log_level).with_writer(writer);
    match log_format {
        LogFormat::Json => set_global_default(
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).finish(),
        )?,
        LogFormat::Human => set_global_default(lines.finish())?,
    }
    Ok(guard)
}
