//! `HOLD`: a file that a person puts into a project's folder, and nothing is written there while it lasts.
//!
//! It holds a reason and, on a line of its own, a moment in RFC 3339 at which it ends, with or without `until:`.

use jiff::Timestamp;

/// Longest reason that is told, in characters.
const LONGEST_REASON: usize = 200;

/// A person's wish that nothing be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Why, in the person's words.
    pub reason: String,
    /// When it ends; never by itself where there is none.
    pub until: Option<Timestamp>,
}

impl Hold {
    /// Reads a `HOLD` file. Whatever it contains, it holds.
    pub fn read(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let mut until = None;
        let mut reason = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let moment = line.strip_prefix("until:").unwrap_or(line).trim();
            match moment.parse() {
                Ok(moment) => until = Some(moment),
                Err(_) => reason.push(line),
            }
        }
        let reason: String = reason
            .join(" ")
            .chars()
            .filter(|character| !character.is_control())
            .take(LONGEST_REASON)
            .collect();
        Self { reason: if reason.is_empty() { "no reason given".to_owned() } else { reason }, until }
    }

    /// Whether it still holds.
    pub fn lasts(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_and_end_are_read_and_whatever_is_there_holds() {
        let hold = Hold::read(b"incident 42\nuntil: 2026-01-31T18:00:00Z\n");
        assert_eq!((hold.reason.as_str(), hold.until), ("incident 42", "2026-01-31T18:00:00Z".parse().ok()));
        assert!(hold.lasts("2026-01-31T17:59:59Z".parse().unwrap()));
        assert!(!hold.lasts("2026-01-31T18:00:00Z".parse().unwrap()));
        for text in [&b""[..], b"until: tomorrow", b"\xff\x00\x1b"] {
            assert!(Hold::read(text).lasts(Timestamp::MAX), "{text:?}");
        }
    }
}
