//! Command lines for a host's login shell: one quoting function, and programs that never contain data.

use base64::{Engine, prelude::BASE64_STANDARD};

/// Holds the host's lock.
const LOCK: &str = include_str!("programs/lock.sh");

/// A program's first line, on standard output and on standard error. What comes before it is not the program's: start-up
/// files of shells print, too.
const BEGINS: &str = "tasktracker-begins";

/// Quotes a text so that a POSIX shell takes it as one word, whatever is in it but NUL.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for character in text.chars() {
        match character {
            '\'' => quoted.push_str("'\\''"),
            _ => quoted.push(character),
        }
    }
    quoted.push('\'');
    quoted
}

/// A command line that runs a fixed program with arguments: data comes in as `$1`, `$2`, …, never as program text.
///
/// It is one line of plain characters, because login shells differ in how they quote: csh takes no line break in a
/// text, fish reads a backslash, and csh reads an exclamation mark.
pub fn command(program: &str, arguments: &[&str]) -> String {
    named("tasktracker", program, arguments)
}

/// As [`command`], with the name under which a list of processes shows the program.
pub(super) fn named(name: &str, program: &str, arguments: &[&str]) -> String {
    let words: Vec<String> = arguments.iter().map(|argument| quote(argument)).collect();
    let text = format!("echo {BEGINS}; echo {BEGINS} >&2\nset -- {}\n{program}", words.join(" "));
    format!("exec sh -c 'p=$(echo $1 | base64 -d) && eval \"$p\"' {name} {}", BASE64_STANDARD.encode(text))
}

/// What a program said after its first line; nothing where it did not begin.
pub(super) fn begun(said: &[u8]) -> Option<&[u8]> {
    let first = format!("{BEGINS}\n");
    let start = said.windows(first.len()).position(|window| window == first.as_bytes())?;
    Some(&said[start + first.len()..])
}

/// The text of a program in a command line, with its arguments.
#[doc(hidden)]
pub fn decoded(command: &str) -> Option<String> {
    let text = command.strip_prefix("exec sh -c ")?.rsplit(' ').next()?;
    String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok()
}

/// The command line that holds the host's lock for a writer.
pub(super) fn lock_command(directory: &str, writer: &str) -> String {
    named("tasktracker-lock", LOCK, &[directory, writer])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_inside_is_closed_escaped_and_opened() {
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("$(id)\n`id`\\"), "'$(id)\n`id`\\'");
    }

    proptest::proptest! {
        #[test]
        fn a_real_shell_reads_back_what_was_quoted(words in proptest::collection::vec("[^\u{0}]{0,40}", 0..6)) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let line = command("printf '%s\\0' \"$@\"", &words);
            let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
            let expected: String = if words.is_empty() {
                "\0".to_owned()
            } else {
                words.iter().map(|word| format!("{word}\0")).collect()
            };
            proptest::prop_assert_eq!(begun(&output.stdout).unwrap(), expected.as_bytes());
        }
    }

    #[test]
    fn a_command_line_has_no_character_that_a_shell_takes_for_its_own_within_quotes() {
        let line = command("if ! true; then\n  echo 'a\\b'\nfi", &["it's\n!"]);
        assert!(line.chars().all(|character| !"!\\\n".contains(character)), "{line}");
        assert_eq!(line.matches('\'').count(), 2, "{line}");
        assert!(decoded(&line).unwrap().ends_with("if ! true; then\n  echo 'a\\b'\nfi"));
    }

    #[test]
    fn what_start_up_files_print_is_no_part_of_an_answer() {
        assert_eq!(begun(b"Welcome\nx tasktracker-begins\nuser deploy\n"), Some(&b"user deploy\n"[..]));
        assert_eq!(begun(b"tasktracker-begins\n"), Some(&b""[..]));
        assert_eq!(
            [begun(b"This account is not available.\n"), begun(b"tasktracker-begins"), begun(b"")],
            [None; 3]
        );
    }
}
