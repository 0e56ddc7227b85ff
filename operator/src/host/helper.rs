//! The long-lived, read-only program on a host that tells about files: one for each connection.
//!
//! Its text is constant; over its standard input go only requests, each a verb and a number. It never does anything
//! unasked, so that the end of its input ends it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::time::Instant;

use super::{Error, FileFact, Listing, Usage, session::Dialogue, shell, ssh::Connection};

const PROGRAM: &str = include_str!("programs/helper.sh");
/// Things in the folders of the stacks, at most: of more, nothing is known.
const MOST_FILES: usize = 4_000;

/// How long a sweep holds: while the host is watched, the next one comes before that, and wakes a check where it must.
const SWEEP_HOLDS: Duration = Duration::from_millis(1_500);

/// The program, and what it told last.
pub(super) struct Helper {
    dialogue: Dialogue,
    stacks: BTreeSet<String>,
    limit: Duration,
    last: Option<Arc<Listing>>,
    /// When files were last known to be as in the last listing.
    swept: Option<Instant>,
    mounts: Option<(MountsKey, AllMounts)>,
}

/// Processes and state of files.
type MountsKey = (Vec<u32>, u64);
/// What this session and each process see mounted.
type AllMounts = (Vec<Mounted>, Vec<Vec<Mounted>>);

/// Where something is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Device, as `MAJOR:MINOR`.
    pub device: String,
    /// The folder of that device; with `//deleted` behind it when it is gone.
    pub root: String,
    /// Where it is seen.
    pub place: String,
}

impl Helper {
    /// Starts the program for the folders of some stacks.
    pub(super) async fn start(
        connection: &Connection,
        directory: &str,
        stacks: BTreeSet<String>,
        limit: Duration,
    ) -> Result<Self, Error> {
        let words: Vec<&str> = [directory].into_iter().chain(stacks.iter().map(String::as_str)).collect();
        let dialogue = connection.converse(&shell::named("tasktracker-helper", PROGRAM, &words)).await?;
        Ok(Self { dialogue, stacks, limit, last: None, swept: None, mounts: None })
    }

    /// Whether it was started for this stack.
    pub(super) fn knows(&self, stack: &str) -> bool {
        self.stacks.contains(stack)
    }

    /// Whether no file changed since the last listing, by what `stat` tells.
    pub(super) async fn unchanged(&mut self) -> Result<bool, Error> {
        let Some(last) = self.last.clone() else { return Ok(false) };
        let (state, _) = self.ask("sweep", last.state).await?;
        self.swept = Some(Instant::now()).filter(|_| state == last.state);
        Ok(state == last.state)
    }

    /// The last listing, where it still holds; a new one otherwise.
    pub(super) async fn files(&mut self) -> Result<Arc<Listing>, Error> {
        let holds = self.swept.is_some_and(|swept| swept.elapsed() < SWEEP_HOLDS);
        if (holds || self.unchanged().await?)
            && let Some(last) = &self.last
        {
            return Ok(last.clone());
        }
        self.list().await
    }

    /// A new listing, with every content read anew.
    pub(super) async fn list(&mut self) -> Result<Arc<Listing>, Error> {
        let began = Instant::now();
        let (state, lines) = self.ask("list", 0).await?;
        let files = read_files(&lines).ok_or_else(|| unreadable("list"))?;
        if files.len() > MOST_FILES {
            let found = format!("more than {MOST_FILES}; take away what is not the operator's");
            return Err(Error::Failed {
                doing: "counting the files of the operator's folder".to_owned(),
                found,
            });
        }
        let hashes = |files: &BTreeMap<String, FileFact>| -> Vec<(String, Option<String>)> {
            let texts = files.iter().filter(|(path, _)| is_text(path));
            texts.map(|(path, fact)| (path.clone(), fact.sha256().map(str::to_owned))).collect()
        };
        let kept = self.last.take().filter(|last| hashes(&last.files) == hashes(&files));
        let texts = match kept {
            Some(last) => last.texts.clone(),
            None => read_texts(&self.ask("texts", 0).await?.1).ok_or_else(|| unreadable("texts"))?,
        };
        let listing = Arc::new(Listing { state, files, texts });
        self.last = Some(listing.clone());
        self.swept = Some(began);
        Ok(listing)
    }

    /// Whether a writer is at work on the host.
    pub(super) async fn locked(&mut self) -> Result<bool, Error> {
        Ok(self.ask("locks", 0).await?.1.contains("B\n"))
    }

    /// Addresses and TCP ports on which something listens.
    pub(super) async fn ports(&mut self) -> Result<BTreeSet<SocketAddr>, Error> {
        let (_, lines) = self.ask("ports", 0).await?;
        Ok(lines.lines().filter_map(read_listener).collect())
    }

    /// What this session and each of some processes see mounted; asked again for other processes, or in another state
    /// of files.
    pub(super) async fn mounts(&mut self, processes: &[u32], state: u64) -> Result<AllMounts, Error> {
        let key = (processes.to_vec(), state);
        if let Some((_, known)) = self.mounts.as_ref().filter(|(known, _)| *known == key) {
            return Ok(known.clone());
        }
        let own = self.mounts_of(0).await?;
        let mut all = Vec::new();
        for process in processes {
            all.push(self.mounts_of(*process).await?);
        }
        self.mounts = Some((key, (own.clone(), all.clone())));
        Ok((own, all))
    }

    /// What the control groups of a process use; nothing where it is gone, or nobody may look at them.
    pub(super) async fn usage(&mut self, process: u32) -> Result<Option<Usage>, Error> {
        Ok(Usage::read(&self.ask("usage", process.into()).await?.1))
    }

    async fn mounts_of(&mut self, process: u32) -> Result<Vec<Mounted>, Error> {
        let (_, lines) = self.ask("mounts", process.into()).await?;
        Ok(lines.lines().filter_map(read_mount).collect())
    }

    async fn ask(&mut self, verb: &str, number: u64) -> Result<(u64, String), Error> {
        let mut answer = self.dialogue.ask(&format!("{verb} {number}"), self.limit).await?;
        let (lines, state) = split_end(&answer).ok_or_else(|| unreadable(verb))?;
        answer.truncate(lines);
        Ok((state, answer))
    }
}

/// Where the last line begins, and the number in it.
fn split_end(answer: &str) -> Option<(usize, u64)> {
    let lines = answer.strip_suffix('\n')?;
    let start = lines.rfind('\n').map_or(0, |end| end + 1);
    Some((start, lines[start..].strip_prefix("END ")?.parse().ok()?))
}

fn unreadable(verb: &str) -> Error {
    let found = "an answer that cannot be read".to_owned();
    Error::Failed { doing: format!("asking the host for its {verb}"), found }
}

/// Whether a file's content is wanted, not only its hash.
fn is_text(path: &str) -> bool {
    ["HOLD", "ledger.json", "manifest.json", ".key"].iter().any(|name| path.ends_with(&format!("/{name}")))
}

/// Lines of `stat` and of `sha256sum`, put together.
fn read_files(lines: &str) -> Option<BTreeMap<String, FileFact>> {
    let mut hashes = BTreeMap::new();
    let mut found = Vec::new();
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["S", path, mode, size, uid, gid, ..] => {
                found.push(((*path).to_owned(), [*mode, *size, *uid, *gid]));
            }
            ["O", path, mode, size, uid, gid, ..] => {
                let path = BASE64_STANDARD.decode(path).ok()?;
                found.push((String::from_utf8_lossy(&path).into_owned(), [*mode, *size, *uid, *gid]));
            }
            [hash, "", path] if hash.len() == 64 => {
                hashes.insert((*path).to_owned(), (*hash).to_owned());
            }
            _ => return None,
        }
    }
    let fact = |(path, [mode, size, uid, gid]): (String, [&str; 4])| {
        let mode = u32::from_str_radix(mode, 16).ok()?;
        let owner = (uid.parse().ok()?, gid.parse().ok()?);
        let fact = FileFact::of(mode, owner, size.parse().ok()?, hashes.remove(&path));
        Some((path, fact))
    };
    found.into_iter().map(fact).collect()
}

fn read_texts(lines: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let text = |line: &str| {
        let (path, content) = line.strip_prefix("T ")?.split_once(' ')?;
        Some((path.to_owned(), BASE64_STANDARD.decode(content).ok()?))
    };
    lines.lines().map(text).collect()
}

/// `P ADDRESS:PORT` in the digits of `/proc/net/tcp`: the address as words of 32 bits in the kernel's byte order, which
/// is little-endian on every platform that the operator supports.
fn read_listener(line: &str) -> Option<SocketAddr> {
    let (address, port) = line.strip_prefix("P ")?.split_once(':')?;
    let word = |start: usize| {
        let digits = address.get(start..start + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_le_bytes)
    };
    let address = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(index * 8)?);
            }
            IpAddr::from(bytes)
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

fn read_mount(line: &str) -> Option<Mounted> {
    let words: Vec<&str> = line.split(' ').collect();
    let ["M", device, root, place] = words.as_slice() else { return None };
    Some(Mounted { device: (*device).to_owned(), root: (*root).to_owned(), place: (*place).to_owned() })
}

/// For fuzzing: any bytes as any answer.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = (split_end(&text), read_files(&text), read_texts(&text));
    let _ = text.lines().filter_map(read_mount).count();
    let _ = text.lines().filter_map(read_listener).count();
    let _ = Usage::read(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read_with_their_addresses() {
        for (line, expected) in [
            ("P 0100007F:1F90", Some("127.0.0.1:8080")),
            ("P 00000000:0016", Some("0.0.0.0:22")),
            ("P 00000000000000000000000000000000:0016", Some("[::]:22")),
            ("P 0000000000000000FFFF00000500000A:0050", Some("[::ffff:10.0.0.5]:80")),
            ("P 000000FD000000000000000005000000:0050", Some("[fd00::5]:80")),
            ("P 0016", None),
            ("P 000000:0016", None),
            ("P 0000000g:0016", None),
            ("P 00000000:10000", None),
        ] {
            assert_eq!(read_listener(line), expected.map(|text| text.parse().unwrap()), "{line}");
        }
    }

    #[test]
    fn lines_become_facts() {
        let hash = "a".repeat(64);
        let lines = format!(
            "S a/app/compose.yaml 81a4 3 1500 1501 77 2026-01-01 10:00:00.0 +0000\nS a/app 41ed 4096 0 7 1 x\nO YS9hcHAvw7w= a1ff 9 1 1 x\n{hash}  a/app/compose.yaml\nS a/app/pw 8100 6 1000 0 78 x\n"
        );
        let files = read_files(&lines).unwrap();
        let file = FileFact::File { mode: 0o644, uid: 1500, gid: 1501, size: 3, sha256: Some(hash) };
        assert_eq!(files["a/app/compose.yaml"], file);
        let unreadable = FileFact::File { mode: 0o400, uid: 1000, gid: 0, size: 6, sha256: None };
        assert_eq!(files["a/app/pw"], unreadable);
        assert_eq!(
            (&files["a/app"], &files["a/app/ü"]),
            (&FileFact::Folder { mode: 0o755, uid: 0, gid: 7 }, &FileFact::Link)
        );
        for lines in ["rubbish\n", "S a 81a4 3 -1 0 1\n", "S a 81a4 3 0 root 1\n", "S a 81a4 3 0\n"] {
            assert!(read_files(lines).is_none(), "{lines}");
        }
    }

    #[test]
    fn an_answer_without_its_end_is_none() {
        assert_eq!(split_end("x\nEND 7\n"), Some((2, 7)));
        assert_eq!(split_end("END 0\n"), Some((0, 0)));
        assert_eq!((split_end("END 7"), split_end("x\n"), split_end("END x\n")), (None, None, None));
    }
}
