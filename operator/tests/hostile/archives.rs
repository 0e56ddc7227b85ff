//! Archives of a container's file that are none, too large, or of another file.

use tar::{Builder, EntryType, Header};
use tasktracker_operator::host::{ArchivedFile, Error, Limits};

use crate::{
    FakeSshd,
    fake_docker::{answer, endless_head},
    fake_sshd::{Said, Then},
    stage::{docker, host},
};

const CONTAINER: &str = "c0ffee";
const PATH: &str = "/run/secrets/pw d";

/// What comes of reading the file when Docker says this, and the requests that it took.
async fn asked(container: &str, said: Said) -> (Result<Option<ArchivedFile>, Error>, Vec<String>) {
    let script = docker("/containers/c0ffee/archive", move |_| said.clone());
    let fake = FakeSshd::start(script).await;
    let host = host(fake.port, Limits::default());
    let found = host.archived_file(container, PATH).await;
    let requests = fake.seen.requests.lock().unwrap().clone();
    (found, requests)
}

/// An archive of one entry.
fn archive(name: &str, kind: EntryType, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o400);
    header.set_uid(1000);
    header.set_gid(7);
    header.set_cksum();
    let mut archive = Builder::new(Vec::new());
    archive.append(&header, content).unwrap();
    archive.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_archive_is_the_file() {
    let good = archive("pw d", EntryType::Regular, b"value");
    let (found, requests) = asked(CONTAINER, answer("200 OK", &good)).await;
    let file = found.unwrap().unwrap();
    assert_eq!((file.content.reveal(), file.mode, file.uid, file.gid), (&b"value"[..], 0o400, 1000, 7));
    assert_eq!(requests, ["GET /v1.41/containers/c0ffee/archive?path=/run/secrets/pw%20d HTTP/1.1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_nothing() {
    let (found, _) = asked(CONTAINER, answer("404 Not Found", b"{\"message\":\"no\"}")).await;
    assert_eq!(found, Ok(None));
    let (found, requests) = asked("../../images/x", answer("200 OK", b"")).await;
    assert_eq!((found, requests.len()), (Ok(None), 0), "only an ID becomes part of a path");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_the_file_is_told_without_its_content() {
    let tar = |name, kind, content: &[u8]| answer("200 OK", &archive(name, kind, content));
    let whole = archive("pw d", EntryType::Regular, b"canary");
    let (tail, large) = ("docker API /containers/c0ffee/archive", vec![b'x'; (1 << 20) + 1]);
    let table = [
        ("no archive", answer("200 OK", b"<html>canary</html>"), "an archive that cannot be read"),
        ("nothing", answer("200 OK", b""), "an archive without a file"),
        ("half a header", answer("200 OK", &whole[..300]), "an archive that cannot be read"),
        ("half a content", answer("200 OK", &whole[..515]), "an archive that cannot be read"),
        ("a path upwards", tar("../../pw d", EntryType::Regular, b"canary"), "found ../../pw d"),
        ("an absolute path", tar("/etc/shadow", EntryType::Regular, b"canary"), "found /etc/shadow"),
        ("an escape sequence", tar("\x1b[2J", EntryType::Regular, b"canary"), "found \\u{1b}[2J"),
        ("a link", tar("pw d", EntryType::Symlink, b""), "expected a file, found Symlink"),
        ("a folder", tar("pw d", EntryType::Directory, b""), "expected a file, found Directory"),
        ("a large file", tar("pw d", EntryType::Regular, &large), "expected 1048576 bytes at most"),
        ("a very large file", tar("pw d", EntryType::Regular, &large.repeat(3)), "length limit exceeded"),
        ("an endless body", Said::new(endless_head(), Then::Repeat(b"5\r\nxxxxx\r\n".repeat(9_000))), tail),
        ("a refusal", answer("500 Internal Server Error", b"canary"), "found status 500"),
        ("nothing in time", Said::new("", Then::Hang), "expected an end within"),
        ("a body without end", Said::new(endless_head(), Then::Hang), "expected an end within"),
    ];
    for (name, said, wanted) in table {
        let (found, _) = asked(CONTAINER, said).await;
        let message = found.unwrap_err().to_string();
        assert!(message.contains(wanted) && message.contains(tail), "{name}: {message}");
        assert!(!message.contains("canary") && !message.chars().any(char::is_control), "{name}: {message:?}");
    }
}
