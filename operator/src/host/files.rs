//! Files of a project's folder: listing them and putting them there.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{Error, Exit, Output, shell};

const READ: &str = include_str!("programs/read.sh");
const WRITE: &str = include_str!("programs/write.sh");

/// What a project's folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Whether a writer holds the host's lock.
    pub locked: bool,
    /// Content of `ledger.json`.
    pub ledger: Option<Vec<u8>>,
    /// Content of each `releases/ID/manifest.json`.
    pub manifests: BTreeMap<String, Vec<u8>>,
    /// `compose.yaml` and everything below `files`, by path from the project's folder.
    pub files: BTreeMap<String, FileFact>,
}

/// One thing in the place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileFact {
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// Size in bytes.
        size: u64,
        /// SHA-256 of the content, in hexadecimal digits.
        sha256: String,
    },
    /// Something else: a symbolic link, a socket, a device.
    Other,
}

/// One file to put into a project's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Path from the project's folder.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// SHA-256 of the content, in hexadecimal digits.
    pub sha256: String,
    /// Where the content comes from.
    pub source: Source,
}

/// Where the content of a file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From here.
    Inline(Vec<u8>),
    /// From a copy on the host, by its path from the project's folder.
    Copy(String),
}

pub(super) fn read_command(project_directory: &str, directory: &str) -> String {
    shell::command(READ, &[project_directory, directory])
}

pub(super) fn write_command(directory: &str, project: &str) -> String {
    shell::command(WRITE, &[directory, project])
}

/// The instructions of the writing program: a line for each file, then END.
pub(super) fn write_input(placements: &[Placement]) -> Vec<u8> {
    let encoded = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    let mut input = String::new();
    for placement in placements {
        let (verb, data) = match &placement.source {
            Source::Inline(content) => ('F', encoded(content)),
            Source::Copy(path) => ('C', encoded(path.as_bytes())),
        };
        let path = encoded(placement.path.as_bytes());
        input.push_str(&format!("{verb} {path} {:o} {} {data}\n", placement.mode, placement.sha256));
    }
    input.push_str("END\n");
    input.into_bytes()
}

/// Reads what the listing program said; an answer without its end is no answer.
pub(super) fn listing(answer: &[u8]) -> Result<Listing, Error> {
    let text = String::from_utf8_lossy(answer);
    let broken = || Error::Failed {
        doing: "listing the project's folder".to_owned(),
        found: "an answer that cannot be read".to_owned(),
    };
    let mut listing = Listing::default();
    for line in text.lines() {
        if line == "END" {
            return Ok(listing);
        }
        add_line(&mut listing, line).ok_or_else(broken)?;
    }
    Err(broken())
}

fn add_line(listing: &mut Listing, line: &str) -> Option<()> {
    let decoded = |word: &str| BASE64_STANDARD.decode(word).ok();
    let name = |word: &str| Some(String::from_utf8_lossy(&decoded(word)?).into_owned());
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["B"] => listing.locked = true,
        ["L", content] => listing.ledger = Some(decoded(content)?),
        ["M", id, content] => {
            listing.manifests.insert(name(id)?, decoded(content)?);
        }
        ["F", mode, size, sha256, path] => {
            let fact = FileFact::File {
                mode: u32::from_str_radix(mode, 8).ok()?,
                size: size.parse().ok()?,
                sha256: (*sha256).to_owned(),
            };
            listing.files.insert(name(path)?, fact);
        }
        ["N", _, path] => {
            listing.files.insert(name(path)?, FileFact::Other);
        }
        _ => return None,
    }
    Some(())
}

/// What an exit status of the programs in `programs/` means.
pub(super) fn failure(output: &Output, doing: &str) -> Error {
    let words = output.last_words();
    match output.exit {
        Exit::Exited(75) => Error::Locked,
        Exit::Exited(74) => {
            let (path, found) = words.split_once(": ").unwrap_or(("a file", &words));
            Error::ReleaseDamaged { path: path.to_owned(), found: found.to_owned() }
        }
        Exit::Exited(124 | 137) => {
            Error::Failed { doing: doing.to_owned(), found: format!("ended by its time limit: {words}") }
        }
        Exit::Exited(code) => {
            Error::Failed { doing: doing.to_owned(), found: format!("exit status {code}: {words}") }
        }
        Exit::Signalled | Exit::Lost => {
            Error::Failed { doing: doing.to_owned(), found: format!("ended by a signal: {words}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_its_end_is_refused() {
        assert!(listing(b"").is_err());
        assert!(listing(b"L e30=\n").is_err());
        assert!(listing(b"X\nEND\n").is_err());
        assert_eq!(listing(b"END\n").unwrap(), Listing::default());
    }

    #[test]
    fn lines_become_facts() {
        let listing =
            listing(b"B\nL e30=\nM YTE= e30=\nF 644 3 abc Y29tcG9zZS55YW1s\nN a1ff ZmlsZXMveA==\nEND\n")
                .unwrap();
        assert!(listing.locked);
        assert_eq!(listing.ledger.as_deref(), Some(b"{}".as_slice()));
        assert_eq!(listing.manifests["a1"], b"{}");
        assert_eq!(
            listing.files["compose.yaml"],
            FileFact::File { mode: 0o644, size: 3, sha256: "abc".to_owned() }
        );
        assert_eq!(listing.files["files/x"], FileFact::Other);
    }
}
