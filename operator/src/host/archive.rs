//! Archives in the format of tar, by which Docker's API writes and reads files with their owners.

use std::io::Read;

use tar::{Archive, EntryType, Header};
use zeroize::Zeroizing;

use super::{Error, Host, OwnedFile};
use crate::{secret::Secret, text::printable};

/// Largest file that is read, in bytes.
const FILE_LIMIT: usize = 1 << 20;
/// Largest archive of one file: with headers, and with the padding at its end.
const ARCHIVE_LIMIT: usize = FILE_LIMIT + (16 << 10);
/// An archive is made of blocks of so many bytes.
const BLOCK: usize = 512;

/// One file as it is in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedFile {
    /// Its content.
    pub content: Secret,
    /// Permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Host {
    /// Reads a file of a container through Docker, which may read what the SSH user may not.
    ///
    /// The container, by its ID, need not run. A file in a mounted folder is the one that is there now, also where the
    /// container still has an older folder mounted. Nothing is returned where the container or the path is not there.
    ///
    /// # Errors
    /// When Docker cannot be asked, and when the path is anything else than a file of at most 1 MiB.
    pub async fn archived_file(&self, container: &str, path: &str) -> Result<Option<ArchivedFile>, Error> {
        let link = self.link().await?;
        let answer = link.docker.archive(&link.connection, container, path, ARCHIVE_LIMIT).await?;
        let Some(archive) = answer else { return Ok(None) };
        let name = path.rsplit('/').next().unwrap_or(path);
        let file = read(&archive, name).map_err(|found| Error::DockerApi {
            path: format!("/containers/{container}/archive"),
            found: format!("{}: {}", printable(path), printable(&found)),
        })?;
        Ok(Some(file))
    }
}

/// The one file of an archive, by its name.
fn read(archive: &[u8], name: &str) -> Result<ArchivedFile, String> {
    let unreadable = |error: std::io::Error| format!("an archive that cannot be read: {error}");
    let mut archive = Archive::new(archive);
    let mut entries = archive.entries().map_err(unreadable)?;
    let mut entry = entries.next().ok_or("an archive without a file")?.map_err(unreadable)?;
    if *entry.path_bytes() != *name.as_bytes() {
        return Err(format!(
            "expected the file {name}, found {}",
            String::from_utf8_lossy(&entry.path_bytes())
        ));
    }
    let header = entry.header();
    let found = header.entry_type();
    if !matches!(found, EntryType::Regular | EntryType::Continuous) {
        return Err(format!("expected a file, found {found:?}"));
    }
    let number = |number: u64| u32::try_from(number).map_err(|_| format!("owner {number} is out of range"));
    let (uid, gid) = (header.uid().map_err(unreadable)?, header.gid().map_err(unreadable)?);
    let (uid, gid) = (number(uid)?, number(gid)?);
    let mode = header.mode().map_err(unreadable)? & 0o7777;
    let size = usize::try_from(entry.size()).ok().filter(|size| *size <= FILE_LIMIT);
    let size = size.ok_or_else(|| format!("expected {FILE_LIMIT} bytes at most, found {}", entry.size()))?;
    let mut content = Zeroizing::new(vec![0; size]);
    entry.read_exact(&mut content).map_err(unreadable)?;
    match entries.next() {
        None => Ok(ArchivedFile { content: Secret::new(std::mem::take(&mut content)), mode, uid, gid }),
        Some(Ok(_)) => Err("an archive of more than one file".to_owned()),
        Some(Err(error)) => Err(unreadable(error)),
    }
}

/// An archive of files with their owners.
pub(super) fn of_files(files: &[OwnedFile]) -> Secret {
    let blocks = |file: &OwnedFile| 1 + file.content.reveal().len().div_ceil(BLOCK);
    // With its whole size from the beginning, the buffer leaves no copy of a content behind.
    let mut archive = Vec::with_capacity((files.iter().map(blocks).sum::<usize>() + 2) * BLOCK);
    for file in files {
        let content = file.content.reveal();
        let header = header(&file.name, EntryType::Regular, content.len(), (file.mode, file.uid, file.gid));
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Secret::new(archive)
}

/// An archive of a folder, without anything in it.
pub(super) fn of_folder(name: &str, mode: u32, uid: u32, gid: u32) -> Secret {
    let header = header(&format!("{name}/"), EntryType::Directory, 0, (mode, uid, gid));
    Secret::new([&header.as_bytes()[..], &[0; 2 * BLOCK]].concat())
}

/// A header. A name that is too long is cut: the host does not find the file that it expects, and refuses.
fn header(name: &str, kind: EntryType, size: usize, (mode, uid, gid): (u32, u32, u32)) -> Header {
    let mut header = Header::new_gnu();
    for (place, byte) in header.as_old_mut().name.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header.set_mtime(0);
    header.set_cksum();
    header
}

/// For fuzzing: any bytes as any archive.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let _ = read(data, "pw");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(name: &str, content: &[u8]) -> OwnedFile {
        OwnedFile {
            name: name.to_owned(),
            content: Secret::new(content.to_vec()),
            mode: 0o400,
            uid: 1000,
            gid: 3_000_000_000,
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_packed() {
        for content in [&b""[..], b"value", &[7; BLOCK], &vec![7; FILE_LIMIT]] {
            let archive = of_files(&[owned("pw", content)]);
            let file = read(archive.reveal(), "pw").unwrap();
            assert_eq!(file.content.reveal(), content);
            assert_eq!((file.mode, file.uid, file.gid), (0o400, 1000, 3_000_000_000));
            assert_eq!(archive.reveal().len() % BLOCK, 0);
        }
    }

    #[test]
    fn what_is_not_the_one_file_is_refused() {
        let good = of_files(&[owned("pw", b"canary")]).reveal().to_vec();
        let two = of_files(&[owned("pw", b"1"), owned("other", b"2")]);
        let link = header("pw", EntryType::Symlink, 0, (0o777, 0, 0));
        let huge = header("pw", EntryType::Regular, FILE_LIMIT + 1, (0o400, 0, 0));
        let traversal = of_files(&[owned("../../etc/pw", b"canary")]);
        let table = [
            (&b""[..], "without a file"),
            (&[0; 2 * BLOCK], "without a file"),
            (b"<html>no archive</html>", "cannot be read"),
            (&good[..100], "cannot be read"),
            (&good[..BLOCK + 3], "cannot be read"),
            (two.reveal(), "more than one file"),
            (of_folder("pw", 0o700, 0, 0).reveal(), "expected the file pw, found pw/"),
            (link.as_bytes(), "expected a file, found Symlink"),
            (huge.as_bytes(), "expected 1048576 bytes at most, found 1048577"),
            (traversal.reveal(), "expected the file pw, found ../../etc/pw"),
            (of_files(&[owned("PW", b"canary")]).reveal(), "expected the file pw, found PW"),
        ]
        .map(|(archive, wanted)| (archive.to_vec(), wanted));
        for (archive, wanted) in table {
            let found = read(&archive, "pw").unwrap_err();
            assert!(found.contains(wanted) && !found.contains("canary"), "{wanted}: {found}");
        }
    }

    #[test]
    fn a_folder_is_packed_with_its_owner() {
        let archive = of_folder("volume", 0o750, 1000, 7);
        let mut archive = Archive::new(archive.reveal());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        let header = entry.header();
        assert_eq!((&*entry.path_bytes(), header.entry_type()), (&b"volume/"[..], EntryType::Directory));
        assert_eq!((header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0o750, 1000, 7));
    }

    #[test]
    fn debug_does_not_show_the_content() {
        let file = read(of_files(&[owned("pw", b"canary")]).reveal(), "pw").unwrap();
        let shown = format!("{file:?}");
        assert!(!shown.contains("canary") && !shown.contains("99, 97"), "{shown}");
    }
}
