//! The log: one JSON object per line on standard output, or lines for people.

use std::io;

use axum::http::HeaderMap;
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

/// The ID that a proxy gave a request: by it, the lines about the request are found in every service. None where it gave
/// none, or a caller something that is no ID.
pub fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    (!id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_graphic())).then_some(id)
}

/// Longest ID of a request, in bytes.
const LONGEST_ID: usize = 128;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_from_whoever_gives_one_and_nothing_else_is() {
        let of = |value: &[u8]| {
            let value = axum::http::HeaderValue::from_bytes(value).unwrap();
            request_id(&HeaderMap::from_iter([("x-request-id".parse().unwrap(), value)])).map(str::to_owned)
        };
        assert_eq!(of(b"4f9c-1"), Some("4f9c-1".to_owned()));
        assert_eq!(of(&[b'a'; LONGEST_ID]).map(|id| id.len()), Some(LONGEST_ID));
        for wrong in [&b""[..], b"two words", "\u{e4}".as_bytes(), &[b'a'; LONGEST_ID + 1]] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
        assert_eq!(request_id(&HeaderMap::new()), None);
    }
}
