//! Below HTTP and programs: channels that are refused, connections that are cut, and what is no SSH server.

use std::time::Duration;

use tasktracker_operator::host::Limits;
use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    time::{Instant, timeout},
};

use crate::{
    fake_sshd::{Said, Script, Then},
    stage::{Expected, LIMIT, docker, expect, host},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_channels_are_told() {
    let refused = |kinds| Script { refused: kinds, ..Script::default() };
    let table = [
        (
            "no sessions",
            refused(&["session"]),
            "ssh: expected sshd to open a session, found: refused (ResourceShortage)",
        ),
        (
            "no sockets",
            refused(&["socket"]),
            "docker socket: expected sshd to open /var/run/docker.sock, found: refused (ConnectFailed)",
        ),
        ("cut at the first answer", docker("/info", |_| Said::new("", Then::Cut)), ""),
        ("cut in an answer", docker("/volumes", |_| Said::new("HTTP/1.1 200 OK\r\n", Then::Cut)), ""),
    ];
    for (name, script, wanted) in table {
        expect(name, script, &Expected::Failure(wanted)).await;
    }
}

/// Connects to something that says `first`, and then `more` again and again.
async fn told_of(first: &'static [u8], more: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let other = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _: std::io::Result<()> = stream.write_all(first).await;
        while !more.is_empty() && stream.write_all(more).await.is_ok() {}
        if first.is_empty() {
            std::future::pending::<()>().await;
        }
    });
    let host = host(port, Limits { answer: LIMIT, program: LIMIT, ..Limits::default() });
    let begun = Instant::now();
    let error = timeout(Duration::from_secs(15), host.connect()).await.unwrap().unwrap_err().to_string();
    assert!(begun.elapsed() < Duration::from_secs(12), "{error}");
    other.abort();
    assert!(!error.chars().any(char::is_control) && error.len() < 600, "{error:?}");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_no_ssh_server_is_told() {
    let all = futures::join!(
        told_of(b"", b""),
        told_of(b"HTTP/1.1 400 Bad Request\r\n\r\n", b""),
        told_of(b"SSH-2.0-Fake\r\n", b"\xff\xff\xff\xff rubbish \x1b[31m\r\n"),
        told_of(b"hello\r\n", b"a banner without end\r\n"),
        told_of(b"x", b"a line without end "),
    );
    assert!(all.0.contains("a connection that stayed silent"), "{}", all.0);
    for error in [all.1, all.2, all.3, all.4] {
        assert!(error.contains("expected an SSH server"), "{error}");
    }
}
