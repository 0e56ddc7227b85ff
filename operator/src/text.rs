//! Texts that come from a host, as people may be told of them.

/// The longest text that is told, in characters; the rest is cut.
const LONGEST: usize = 300;

/// A text on one line, without anything that a terminal or a log would obey, and of bounded length.
pub fn printable(text: &str) -> String {
    let shown = text.chars().take(LONGEST).map(|character| {
        if character.is_control() { character.escape_default().to_string() } else { character.to_string() }
    });
    let cut = if text.chars().nth(LONGEST).is_some() { "…" } else { "" };
    shown.collect::<String>() + cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_one_line_of_bounded_length() {
        assert_eq!(printable("a\n\u{1b}[31mü\u{9b}"), "a\\n\\u{1b}[31mü\\u{9b}");
        assert_eq!(printable(&"é".repeat(301)), "é".repeat(300) + "…");
    }
}
