//! Differences of files, for people to read: unified, bounded, and without values that may be secret.

use similar::TextDiff;

/// Lines of one difference that are shown at most.
const MOST_LINES: usize = 120;
/// Characters of one line that are shown at most.
const LONGEST_LINE: usize = 200;

/// What changes from one text to another; nothing where they are the same.
pub(super) fn unified(before: &str, after: &str, names: (&str, &str)) -> Vec<String> {
    let difference = TextDiff::from_lines(before, after);
    let text = difference.unified_diff().context_radius(2).header(names.0, names.1).to_string();
    let mut lines: Vec<String> = text.lines().map(|line| line.chars().take(LONGEST_LINE).collect()).collect();
    if lines.len() > MOST_LINES {
        let more = lines.len() - MOST_LINES;
        lines.truncate(MOST_LINES);
        lines.push(format!("… {more} more lines"));
    }
    lines
}

/// A Compose file in which the values of the environment are not shown, in either of the forms that Compose takes.
pub(super) fn without_environment(text: &str) -> String {
    let mut inside: Option<usize> = None;
    let mut shown = String::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let word = line.trim();
        if let Some(depth) = inside
            && !word.is_empty()
            && (indent < depth || (indent == depth && !word.starts_with('-')))
        {
            inside = None;
        }
        if word.starts_with("environment:") {
            inside = Some(indent);
            shown.push_str(&format!("{}environment:\n", &line[..indent]));
            continue;
        }
        let end = if word.starts_with('-') { '=' } else { ':' };
        match inside.map(|_| line.split_once(end)) {
            None => shown.push_str(line),
            Some(Some((name, _))) => shown.push_str(&format!("{name}{end} (not shown)")),
            Some(None) => shown.push_str(&format!("{}(not shown)", &line[..indent])),
        }
        shown.push('\n');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_bounded() {
        assert_eq!(unified("a\n", "a\n", ("x", "y")), Vec::<String>::new());
        assert_eq!(unified("a\n", "b\n", ("x", "y")), ["--- x", "+++ y", "@@ -1 +1 @@", "-a", "+b"]);
        let many = "x\n".repeat(1_000);
        assert_eq!(unified("", &many, ("x", "y")).len(), MOST_LINES + 1);
    }

    #[test]
    fn values_of_the_environment_are_not_shown() {
        for text in [
            "services:\n  a:\n    environment:\n      A: canary\n      B: |\n        canary\n    image: x\n",
            "services:\n  a:\n    environment:\n    - A=canary\n    - canary\n    image: x\n",
            "services:\n  a:\n    environment: {A: canary}\n    image: x\n",
        ] {
            let shown = without_environment(text);
            assert!(!shown.contains("canary") && shown.contains("image: x"), "{shown}");
        }
    }
}
