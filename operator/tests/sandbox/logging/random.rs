//! Lines that nobody expects: any JSON, half of it, and texts of any bytes, as Docker keeps them.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::shipper::pieces;

/// A generator of numbers that are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// Characters of every kind.
    fn text(&mut self, longest: usize) -> String {
        let kinds = [
            "a",
            " ",
            "\"",
            "\\",
            "\n",
            "\r",
            "\t",
            "\0",
            "\u{7f}",
            "\u{1b}[1m",
            "é",
            "漢",
            "😀",
            "\u{fffd}",
            "{",
            "=",
            "/",
            "%",
            "\u{2028}",
        ];
        (0..self.below(longest)).map(|_| self.one(&kinds)).collect()
    }

    fn name(&mut self) -> String {
        let known = [
            "@timestamp",
            "message",
            "msg",
            "level",
            "status",
            "duration",
            "latency_ms",
            "request_id",
            "trace.id",
            "trace",
            "log.level",
            "log",
            "http",
            "http.request.id",
            "event.duration",
            "user.id",
            "user",
            "fields",
            "id",
            "_id",
            "index",
            "host",
            "host.name",
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "time",
            "path",
            "url.path",
            "method",
            "stack",
            "stream",
            "attrs",
        ];
        match self.below(8) {
            0..4 => self.one(&known).to_owned(),
            4 => self.text(12),
            5 if self.below(40) == 0 => "k".repeat(self.below(70_000)),
            _ => format!("key_{}", self.below(10_000)),
        }
    }

    fn value(&mut self, depth: usize) -> Value {
        let dates = [
            "2026-01-31T12:00:00Z",
            "2026-01-31",
            "31/Jan/2026:12:00:00 +0000",
            "1796102453.13",
            "0000-00-00",
            "9999999-01-01T00:00:00Z",
            "Sat Jan 31 12:00:00 2026",
            "2026-13-45T99:99:99Z",
            "now",
        ];
        let numbers =
            ["0", "-1", "1e400", "-1e-400", "99999999999999999999999", "0.1", "1E5", "-0", "3.4028235e39"];
        match self.below(if depth < 12 { 12 } else { 8 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.next()),
            // Any number, also such as no program of ours would keep.
            3 => Value::String(format!("\u{1}{}", self.one(&numbers))),
            4 => json!(self.one(&dates)),
            5 => json!(self.text(60)),
            6 => json!(["NaN", "inf", "nan(x)", "0x1p-3", "-Infinity", "1_000"][self.below(6)]),
            7 => json!(self.one(&[
                "\u{1}\"\\ud800\"",
                "\u{1}\"\\u0000\\udfff\"",
                "true",
                "error",
                "GET",
                "200"
            ])),
            8 | 9 => (0..self.below(6)).map(|_| self.value(depth + 1)).collect(),
            _ => self.object(depth + 1).into(),
        }
    }

    fn object(&mut self, depth: usize) -> Map<String, Value> {
        (0..self.below(7)).map(|_| (self.name(), self.value(depth))).collect()
    }

    /// A line with a word in it that no other one has.
    fn line(&mut self, number: usize) -> String {
        let word = word(number);
        match self.below(20) {
            0 => format!("{} {word}", self.text(300)),
            1 => format!("level={} {}={word} msg=\"{}\"", self.text(5), self.name(), self.text(40)),
            2 => format!("{word}{}", "\r".repeat(self.below(3000))),
            kind => {
                let mut object = self.object(0);
                // What is beyond the longest text that is kept is not found: it comes early.
                object.insert("0word".to_owned(), word.into());
                if number.is_multiple_of(2000) {
                    object.insert(self.name(), "x".repeat(1 << 20).into());
                }
                if number.is_multiple_of(1000) {
                    object.extend((0..3000).map(|key| (format!("many_{key}"), json!(key))));
                }
                let text = unquoted(&Value::from(object).to_string());
                if kind == 3 {
                    let end = (0..=text.len() - self.below(text.len().min(20)))
                        .rev()
                        .find(|end| text.is_char_boundary(*end));
                    // Half of it, and its word.
                    format!("{} {}", &text[..end.unwrap()], self::word(number))
                } else {
                    text
                }
            }
        }
    }
}

/// The word of a line.
pub(super) fn word(number: usize) -> String {
    format!("unique{number}word")
}

/// A text with what is marked as it stands, instead of as a string.
fn unquoted(text: &str) -> String {
    let mut parts = text.split("\"\\u0001");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // Up to the quote that ends it, which is the first that is not escaped.
        let mut ends = None;
        let mut is_escaped = false;
        for (at, character) in part.char_indices() {
            if character == '"' && !is_escaped {
                ends = Some(at);
                break;
            }
            is_escaped = character == '\\' && !is_escaped;
        }
        let (inside, rest) = part.split_at(ends.unwrap_or(part.len()));
        whole.push_str(&inside.replace("\\\"", "\"").replace("\\\\", "\\"));
        whole.push_str(rest.strip_prefix('"').unwrap_or(rest));
    }
    whole
}

/// So many lines, as Docker keeps those of a container of the service `random`.
pub(super) fn records(count: usize) -> String {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut text = String::new();
    for number in 0..count {
        let line = random.line(number).replace('\n', " ");
        for piece in pieces(&format!("{line}\n")) {
            let record = json!({
                "log": piece,
                "stream": "stdout",
                "attrs": {
                    "com.docker.compose.service": "random",
                    "tag": "tt-staging-app-random-1",
                    "tasktracker.dev/component": "app",
                    "tasktracker.dev/stack": "default/staging",
                },
                "time": format!("2026-01-31T12:{:02}:{:02}.{:09}Z", number / 60 % 60, number % 60, number),
            });
            // Writing to a string does not fail.
            let _: std::fmt::Result = writeln!(text, "{record}");
        }
    }
    text
}
