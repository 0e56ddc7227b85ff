//! Command lines for a host's login shell: one quoting function, and programs that never contain data.

/// Holds the host's lock.
const LOCK: &str = include_str!("programs/lock.sh");

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
pub fn command(program: &str, arguments: &[&str]) -> String {
    let mut line = format!("exec sh -c {} tasktracker", quote(program));
    for argument in arguments {
        line.push(' ');
        line.push_str(&quote(argument));
    }
    line
}

/// The command line that holds the host's lock for a writer.
pub(super) fn lock_command(directory: &str, writer: &str) -> String {
    command(LOCK, &[directory, writer])
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
            proptest::prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        }
    }
}
