//! Files of the operator's folder: what is there.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::shell;

const CONTENT: &str = include_str!("programs/content.sh");

/// What the folders of the stacks hold, by path from the operator's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Number of this state of files: another number, other files.
    pub state: u64,
    /// Everything that is there but releases; of these, their manifests.
    pub files: BTreeMap<String, FileFact>,
    /// Content of ledgers, of the manifests that they name, of `HOLD` files and of seal keys.
    pub texts: BTreeMap<String, Vec<u8>>,
}

/// One thing in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileFact {
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Size in bytes.
        size: u64,
        /// SHA-256 of the content, in hexadecimal digits; none where it cannot be read or is larger than 1 MiB.
        sha256: Option<String>,
    },
    /// A folder.
    Folder {
        /// Permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// A symbolic link.
    Link,
    /// Something else: a socket, a device, a pipe.
    Other,
}

impl FileFact {
    /// Hash of the content, where it is a file that could be read.
    pub fn sha256(&self) -> Option<&str> {
        if let Self::File { sha256, .. } = self { sha256.as_deref() } else { None }
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        matches!(self, Self::Folder { .. })
    }

    /// From the mode as `stat` prints it, with the type in its upper bits.
    pub(super) fn of(mode: u32, (uid, gid): (u32, u32), size: u64, sha256: Option<String>) -> Self {
        match mode & 0o17_0000 {
            0o10_0000 => Self::File { mode: mode & 0o7777, uid, gid, size, sha256 },
            0o4_0000 => Self::Folder { mode: mode & 0o7777, uid, gid },
            0o12_0000 => Self::Link,
            _ => Self::Other,
        }
    }
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
