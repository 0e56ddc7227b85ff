//! Docker's events: a wake-up, never a fact. What happened is looked at afterwards.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::timeout;

/// What may change what the operator looks at; a stop or a restart is told by the death and the start within it.
/// Health checks run as `exec_*` every few seconds and are not asked for.
pub(super) const FILTERS: &str = r#"{"type":["container","network","volume"],"event":["create","start","die","pause","unpause","destroy","rename","update","oom","health_status","connect","disconnect","remove"]}"#;
/// The longest event that is kept, in bytes; of a longer one only that it came is known.
const LINE_LIMIT: usize = 64 << 10;
/// How long what else comes with an event is waited for.
const BURST: Duration = Duration::from_millis(2);
/// How much of it is taken at most before the look.
const BURST_FRAMES: usize = 100;

/// A stream of events.
pub(in crate::host) struct Events {
    body: Incoming,
    rest: BytesMut,
}

/// The part of an event that tells whether to look.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Event {
    #[serde(rename = "Action")]
    action: String,
}

impl Events {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, rest: BytesMut::new() }
    }

    /// Waits until something happened that is worth a look; `false` when the stream ended.
    pub(in crate::host) async fn next(&mut self) -> bool {
        loop {
            let Some(data) = self.read().await else { return false };
            let mut matters = self.take(&data);
            // A removal is a handful of events: one look serves them all.
            for _ in 0..BURST_FRAMES {
                match timeout(BURST, self.read()).await {
                    Ok(Some(more)) => matters |= self.take(&more),
                    Ok(None) => return matters,
                    Err(_) => break,
                }
            }
            if matters {
                return true;
            }
        }
    }

    async fn read(&mut self) -> Option<Bytes> {
        loop {
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }

    /// Takes up bytes, and tells whether an event that matters is complete with them.
    fn take(&mut self, data: &[u8]) -> bool {
        take_lines(&mut self.rest, data)
    }
}

fn take_lines(rest: &mut BytesMut, data: &[u8]) -> bool {
    rest.extend_from_slice(data);
    let mut matters = false;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        matters |= is_worth_a_look(&rest[..end]);
        rest.advance(end + 1);
    }
    if rest.len() > LINE_LIMIT {
        rest.clear();
        matters = true;
    }
    matters
}

/// Whatever cannot be read is looked at.
fn is_worth_a_look(line: &[u8]) -> bool {
    let Ok(event) = serde_json::from_slice::<Event>(line) else { return !line.trim_ascii().is_empty() };
    !event.action.starts_with("exec_")
}

/// For fuzzing: any bytes are taken, in pieces.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let mut rest = BytesMut::new();
    for piece in data.chunks(7) {
        take_lines(&mut rest, piece);
        assert!(rest.len() <= LINE_LIMIT + 7);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_health_checks_do_not_wake() {
        let mut rest = BytesMut::new();
        assert!(!take_lines(&mut rest, br#"{"Action":"di"#));
        assert!(take_lines(&mut rest, b"e\"}\n"));
        assert!(!take_lines(&mut rest, b"{\"Action\":\"exec_start: /x\"}\n\n"));
        assert!(take_lines(&mut rest, b"no JSON\n"));
        assert!(take_lines(&mut rest, &vec![b'x'; LINE_LIMIT + 1]), "an endless line is a reason to look");
        assert!(rest.is_empty());
    }
}
