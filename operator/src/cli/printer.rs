//! Prints: tables and colour on a terminal, plain text in a pipe, JSON where asked.
#![expect(clippy::unused_self, reason = "whoever prints has a printer, whatever it prints")]

use std::io::{IsTerminal, Write};

use super::{Color, OutputFormat};

/// Where output goes, and how.
pub(super) struct Printer {
    format: OutputFormat,
    colored: bool,
}

/// What a text means, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Attention,
    Bad,
    Dim,
}

impl Printer {
    pub(super) fn new(format: OutputFormat, color: Color) -> Self {
        let colored = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        Self { format, colored }
    }

    /// Whether JSON was asked for.
    pub(super) fn is_json(&self) -> bool {
        self.format == OutputFormat::Json
    }

    /// A text in the colour of its tone.
    pub(super) fn toned(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Attention => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Plain => return text.to_owned(),
        };
        if self.colored { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// One line.
    pub(super) fn line(&self, tone: Tone, text: &str) {
        put(&mut std::io::stdout(), &format!("{}\n", self.toned(tone, &visible(text))));
    }

    /// Text as it is.
    pub(super) fn text(&self, text: &str) {
        put(&mut std::io::stdout(), text);
    }

    /// A value as JSON.
    pub(super) fn json(&self, value: &impl serde::Serialize) {
        put(&mut std::io::stdout(), &format!("{}\n", crate::json::to_string_pretty(value)));
    }

    /// A failure, to standard error.
    pub(super) fn error(&self, text: &str) {
        let colored = self.colored && std::io::stderr().is_terminal();
        let label = if colored { "\u{1b}[31merror:\u{1b}[0m" } else { "error:" };
        put(&mut std::io::stderr(), &format!("{label} {}\n", visible(text)));
    }

    /// A remark, to standard error.
    pub(super) fn error_note(&self, text: &str) {
        put(&mut std::io::stderr(), &format!("{}\n", visible(text)));
    }

    /// An empty screen, where there is one.
    pub(super) fn clear(&self) {
        if std::io::stdout().is_terminal() {
            put(&mut std::io::stdout(), "\u{1b}[H\u{1b}[2J");
        }
    }
}

/// Rows under a head, in columns as wide as they have to be. The tone is that of the row.
pub(super) fn table(head: &[&str], rows: &[(Tone, Vec<String>)]) -> Vec<(Tone, String)> {
    let width = |column: usize| {
        let cells = rows.iter().map(|(_, row)| row.get(column).map_or(0, |cell| cell.chars().count()));
        cells.max().unwrap_or(0).max(head[column].chars().count())
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let joined = |cells: &[String]| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows = rows.iter().map(|(tone, row)| (*tone, joined(row)));
    std::iter::once((Tone::Dim, joined(&head))).chain(rows).collect()
}

/// Writes a text; nobody reads on where the other end of a pipe is closed, and that is no failure of ours.
fn put(stream: &mut dyn Write, text: &str) {
    let _: std::io::Result<()> = stream.write_all(text.as_bytes());
}

/// A text without anything that a terminal would obey: names from files and hosts may hold whatever they like.
fn visible(text: &str) -> String {
    let shown = |character: char| {
        let obeyed = character.is_control() && !['\n', '\t'].contains(&character);
        if obeyed { character.escape_default().to_string() } else { character.to_string() }
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn a_terminal_is_told_nothing() {
        assert_eq!(visible("a\u{1b}]0;title\u{7}\nb\u{9b}"), "a\\u{1b}]0;title\\u{7}\nb\\u{9b}");
    }
}
