//! Docker's events: whatever comes wakes or does not, and nothing spins.

use std::{sync::Arc, time::Duration};

use tasktracker_operator::host::{Host, Limits};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    FakeSshd,
    fake_docker::{answer, chunk, endless_head},
    fake_sshd::{Said, Then},
    stage::{LIMIT, docker, host},
};

/// A host whose stream of events is this.
async fn watched(bytes: Vec<u8>, then: Then) -> (FakeSshd, Arc<Host>) {
    let script = docker("/events", move |_| Said::new(bytes.clone(), then.clone()));
    let fake = FakeSshd::start(script).await;
    let host = host(fake.port, Limits { answer: LIMIT, program: LIMIT, ..Limits::default() });
    (fake, Arc::new(host))
}

/// How often a host wakes within some time, while whoever is woken watches again.
async fn wakes(host: &Arc<Host>, time: Duration) -> usize {
    let mut hints = host.hints();
    hints.mark_unchanged();
    host.watch().await.unwrap();
    let end = Instant::now() + time;
    let mut count = 0;
    while timeout(end.saturating_duration_since(Instant::now()), hints.changed()).await.is_ok() {
        count += 1;
        host.watch().await.unwrap();
    }
    count
}

fn stream(texts: &[&str]) -> Vec<u8> {
    let chunks: Vec<u8> = texts.iter().flat_map(|text| chunk(text)).collect();
    [endless_head().as_bytes(), &chunks].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wake_and_what_is_none_does_not() {
    let table: [(&str, &[&str], bool); 7] = [
        ("nothing", &[], false),
        (
            "of another project",
            &[
                "{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{\"Attributes\":{\"name\":\"other\"}}}\n",
            ],
            true,
        ),
        ("a health check", &["{\"Action\":\"exec_start: /x\"}\n"], false),
        ("half an event", &["{\"Action\":\"die\""], false),
        ("an event in halves", &["{\"Action\":", "\"die\"}\n"], true),
        ("rubbish is looked at", &["\u{1b}[2J rubbish\n"], true),
        ("empty lines", &["\n\n\r\n", "\n"], false),
    ];
    for (name, texts, wanted) in table {
        let (_fake, host) = watched(stream(texts), Then::Hang).await;
        assert_eq!(wakes(&host, Duration::from_millis(300)).await > 0, wanted, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_at_once_is_asked_for_once_a_second() {
    for (name, bytes, then) in [
        ("ends at once", answer("200 OK", b"").bytes, Then::Close),
        ("is cut", stream(&[]), Then::Close),
        ("breaks", stream(&["x"]).into_iter().chain(*b"zz\r\n").collect(), Then::Hang),
    ] {
        let (fake, host) = watched(bytes, then).await;
        let woken = wakes(&host, Duration::from_millis(2_500)).await;
        let requests = fake.seen.requests.lock().unwrap().clone();
        assert!((1..=3).contains(&woken), "{name}: {woken} times");
        assert!((2..=4).contains(&requests.len()), "{name}: {} requests", requests.len());
        assert!(requests.iter().all(|request| request.starts_with("GET /v1.41/events")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_events_is_taken_and_kept_nowhere() {
    for piece in ["x".repeat(30_000), "{\"Action\":\"die\"}\n".repeat(1_000)] {
        let (_fake, host) = watched(stream(&[]), Then::Repeat(chunk(&piece))).await;
        let woken = wakes(&host, Duration::from_millis(1_500)).await;
        assert!((1..200).contains(&woken), "{woken} times");
        // The connection serves other questions meanwhile.
        timeout(Duration::from_secs(5), host.containers()).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_refused_or_never_begins_is_told() {
    for (name, said, wanted) in [
        ("refused", answer("500 Internal Server Error", "x".repeat(100_000).as_bytes()), "found status 500"),
        ("silent", Said::new("", Then::Hang), "expected an end within"),
        ("not HTTP", Said::new("hello\r\n\r\n", Then::Close), "docker API /events"),
    ] {
        let (_fake, host) = watched(said.bytes, said.then).await;
        let error = timeout(Duration::from_secs(5), host.watch()).await.unwrap().unwrap_err().to_string();
        assert!(error.contains(wanted) && error.len() < 600, "{name}: {error}");
        // A failure does not wake: whoever asked knows.
        let mut hints = host.hints();
        sleep(Duration::from_millis(100)).await;
        assert!(!hints.has_changed().unwrap(), "{name}");
        hints.mark_unchanged();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_under_a_watch_wakes_or_leaves_quietly() {
    let (fake, host) = watched(stream(&[]), Then::Cut).await;
    let _: Result<(), _> = host.watch().await;
    sleep(Duration::from_millis(300)).await;
    // Whoever looks next connects anew.
    assert!(host.connect().await.is_ok());
    assert_eq!(fake.seen.connections.load(std::sync::atomic::Ordering::Relaxed), 2);
}
