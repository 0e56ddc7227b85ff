//! Files of the operator's folder: what is there, and putting them there.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{Error, Exit, Output, shell};

const WRITE: &str = include_str!("programs/write.sh");
const CONTENT: &str = include_str!("programs/content.sh");

/// What the folders of the stacks hold, by path from the operator's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Number of this state of files: another number, other files.
    pub state: u64,
    /// Everything that is there but releases; of these, their manifests.
    pub files: BTreeMap<String, FileFact>,
    /// Content of ledgers, of the manifests that they name, and of `HOLD` files.
    pub texts: BTreeMap<String, Vec<u8>>,
}

/// One thing in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileFact {
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// Size in bytes.
        size: u64,
        /// SHA-256 of the content, in hexadecimal digits; none where it cannot be read or is larger than 1 MiB.
        sha256: Option<String>,
    },
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// Something else: a socket, a device, a pipe.
    Other,
}

impl FileFact {
    /// From the mode as `stat` tells it, with the type in its upper bits.
    pub(super) fn of(mode: u32, size: u64, sha256: Option<String>) -> Self {
        match mode & 0o17_0000 {
            0o10_0000 => Self::File { mode: mode & 0o7777, size, sha256 },
            0o4_0000 => Self::Folder,
            0o12_0000 => Self::Link,
            _ => Self::Other,
        }
    }
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

/// The command line that prints the beginning of some files.
pub(super) fn content_command(directory: &str, paths: &[String]) -> String {
    let all: Vec<&str> = [directory].into_iter().chain(paths.iter().map(String::as_str)).collect();
    shell::command(CONTENT, &all)
}

/// What that command printed: a line for each file, empty where there is none.
pub(super) fn contents(answer: &[u8], paths: &[String]) -> BTreeMap<String, Vec<u8>> {
    let text = String::from_utf8_lossy(answer);
    let decoded = text.lines().map(|line| BASE64_STANDARD.decode(line).unwrap_or_default());
    paths.iter().cloned().zip(decoded).collect()
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
