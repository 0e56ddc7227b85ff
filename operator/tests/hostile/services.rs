//! Services in the network of a host that answer HTTP badly, late or without end.

use std::{net::SocketAddr, sync::Arc, sync::atomic::Ordering};

use russh::{ChannelStream, server::Msg};
use tasktracker_operator::{
    host::{BasicAuth, Error, Host, HttpAnswer, Limits},
    secret::Secret,
};
use tokio::time::Instant;

use crate::{
    FakeSshd,
    fake_docker::{answer, chunk, endless_head, read_head},
    fake_sshd::{Goes, Said, Script, Seen, Then, Twist, say},
    stage::{LIMIT, host},
};

/// Answers one request in a channel; what is said by default is good.
pub(crate) async fn serve(mut stream: ChannelStream<Msg>, twist: Twist, seen: &Seen) -> Goes {
    let Some(head) = read_head(&mut stream).await else { return Goes::Ended };
    seen.requests.lock().unwrap().push(head.clone());
    let good: &[u8] = if head.starts_with("GET /_cluster") { b"good" } else { b"{}" };
    say(&mut stream, twist(&head, answer("200 OK", good))).await
}

fn endpoint() -> SocketAddr {
    "172.18.0.2:9200".parse().unwrap()
}

fn host_of(fake: &FakeSshd) -> Host {
    host(fake.port, Limits { answer: LIMIT, program: LIMIT, service: LIMIT })
}

async fn get(host: &Host) -> Result<HttpAnswer, Error> {
    let credentials =
        BasicAuth { user: "elastic".to_owned(), password: Secret::new(b"canary-password".to_vec()) };
    host.http_get(endpoint(), "/_cluster/health?local=true", Some(&credentials)).await
}

/// What comes of a request to a service that says this, and how many connections of SSH it took.
async fn asked(said: Said) -> (Result<HttpAnswer, Error>, usize) {
    let services: Twist = Arc::new(move |_, _| said.clone());
    let fake = FakeSshd::start(Script { services, ..Script::default() }).await;
    let host = host_of(&fake);
    host.connect().await.unwrap();
    let begun = Instant::now();
    let found = get(&host).await;
    assert!(begun.elapsed() < 4 * LIMIT, "{found:?}");
    assert_eq!(fake.seen.requests.lock().unwrap().len(), 1, "one request, whatever the answer");
    // The connection under it is as it was.
    host.facts().await.unwrap();
    (found, fake.seen.connections.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_service_is_asked_as_the_host_reaches_it() {
    let fake = FakeSshd::start(Script::default()).await;
    let host = host_of(&fake);
    let found = get(&host).await.unwrap();
    assert_eq!(found, HttpAnswer::Answered { status: 200, body: b"good".to_vec() });
    assert_eq!(*fake.seen.endpoints.lock().unwrap(), ["172.18.0.2 9200"]);
    let requests = fake.seen.requests.lock().unwrap();
    assert!(requests[0].starts_with("GET /_cluster/health?local=true HTTP/1.1\r\n"), "{requests:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_an_answer_and_not_followed() {
    let moved = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    let (found, _) = asked(Said::new(moved, Then::Listen)).await;
    assert_eq!(found, Ok(HttpAnswer::Answered { status: 302, body: Vec::new() }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_answer_is_no_answer_in_time() {
    let head = "HTTP/1.1 200 OK\r\n";
    let sized = |length: &str, then| Said::new(format!("{head}Content-Length: {length}\r\n\r\nhalf"), then);
    let late = "172.18.0.2:9200: no answer within 0.5 s";
    let large = "expected a body of 1048576 bytes at most";
    let too_large = answer("200 OK", &vec![b'x'; (1 << 20) + 1]);
    let table = [
        ("nothing", Said::new("", Then::Hang), late),
        ("half a head", Said::new(head, Then::Hang), late),
        ("half a body", sized("9", Then::Hang), late),
        ("a slow head", Said::new(head, Then::Drip(b"X: y\r\n".to_vec())), late),
        ("a slow body", Said::new(endless_head(), Then::Drip(chunk("x"))), late),
        ("endless interim answers", Said::new("", Then::Repeat(b"HTTP/1.1 103 E\r\n\r\n".to_vec())), late),
        ("an endless head", Said::new(head, Then::Repeat(b"X: y\r\n".repeat(500))), "172.18.0.2:9200: "),
        ("an endless line", Said::new(format!("{head}X: "), Then::Repeat(vec![b'x'; 8_000])), "9200: "),
        ("an endless body", Said::new(endless_head(), Then::Repeat(chunk(&"x".repeat(8_000)))), large),
        ("a body that is too large", too_large, large),
        ("a length beyond all numbers", sized("99999999999999999999999", Then::Hang), "9200: "),
        ("a closed channel", Said::new("", Then::Close), "9200: "),
        ("a body that is cut", sized("9", Then::Close), "9200: "),
        ("not HTTP", Said::new("\x1b[31m SSH-2.0\r\n\r\n", Then::Hang), "9200: "),
    ];
    for (name, said, wanted) in table {
        let (found, connections) = asked(said).await;
        let Ok(HttpAnswer::NoAnswer(reason)) = found else { panic!("{name}: {found:?}") };
        assert!(reason.contains(wanted), "{name}: {reason}");
        assert!(!reason.contains("canary") && !reason.chars().any(char::is_control), "{name}: {reason:?}");
        assert_eq!(connections, 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_connection_is_no_answer_of_the_service() {
    let (found, connections) = asked(Said::new("HTTP/1.1 200 OK\r\n", Then::Cut)).await;
    assert_eq!((found, connections), (Err(Error::ConnectionLost), 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_channel_is_a_closed_port_or_forbidden() {
    for (refused, wanted) in [
        (["service"].as_slice(), HttpAnswer::NoAnswer("172.18.0.2:9200: connection refused".to_owned())),
        (&["forwarding"], HttpAnswer::Forbidden),
    ] {
        let fake = FakeSshd::start(Script { refused, ..Script::default() }).await;
        assert_eq!(get(&host_of(&fake)).await.unwrap(), wanted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_opens_too_late_is_closed() {
    let fake = FakeSshd::start(Script { slow_services: true, ..Script::default() }).await;
    let host = host_of(&fake);
    let late = "172.18.0.2:9200: no connection within 0.5 s".to_owned();
    assert_eq!(get(&host).await.unwrap(), HttpAnswer::NoAnswer(late));
    let ended = tokio::time::timeout(10 * LIMIT, fake.seen.ended_services.acquire()).await;
    assert!(ended.is_ok(), "the channel stays open");
    assert_eq!(*fake.seen.requests.lock().unwrap(), [""; 0]);
}
