//! Docker's events: whatever comes wakes or does not, and nothing spins.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tasktracker_operator::host::{Host, Limits};
use tasktracker_testbed::wait::wait_until_async;
use tokio::time::{Instant, timeout};

use crate::{
    FakeSshd,
    fake_docker::{answer, chunk, endless_head},
    fake_sshd::{Said, Then},
    stage::{LIMIT, docker, host},
};

/// How long what must come may take, on whatever machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long nothing may come: many times what a wake takes.
const QUIET: Duration = Duration::from_secs(3);

/// A host whose stream of events is this.
async fn watched(bytes: Vec<u8>, then: Then) -> (FakeSshd, Arc<Host>) {
    let script = docker("/events", move |_| Said::new(bytes.clone(), then.clone()));
    let fake = FakeSshd::start(script).await;
    let host = host(fake.port, Limits { answer: 10 * LIMIT, program: 10 * LIMIT });
    (fake, Arc::new(host))
}

/// Waits until a host has woken so often, while whoever is woken watches again.
async fn wait_for_wakes(host: &Arc<Host>, count: usize) {
    let mut hints = host.hints();
    hints.mark_unchanged();
    host.watch().await.unwrap();
    for number in 0..count {
        timeout(PATIENCE, hints.changed())
            .await
            .unwrap_or_else(|_| panic!("it woke {number} times"))
            .unwrap();
        host.watch().await.unwrap();
    }
}

/// Whether a host wakes within [`QUIET`].
async fn wakes(host: &Arc<Host>) -> bool {
    let mut hints = host.hints();
    hints.mark_unchanged();
    host.watch().await.unwrap();
    timeout(QUIET, hints.changed()).await.is_ok()
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
    join_all(table.map(async |(name, texts, wanted)| {
        let (_fake, host) = watched(stream(texts), Then::Hang).await;
        assert_eq!(wakes(&host).await, wanted, "{name}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_at_once_is_asked_for_once_a_second() {
    for (name, bytes, then) in [
        ("ends at once", answer("200 OK", b"").bytes, Then::Close),
        ("is cut", stream(&[]), Then::Close),
        ("breaks", stream(&["x"]).into_iter().chain(*b"zz\r\n").collect(), Then::Hang),
    ] {
        let (fake, host) = watched(bytes, then).await;
        let started = Instant::now();
        wait_for_wakes(&host, 3).await;
        let took = started.elapsed();
        let requests = fake.seen.requests.lock().unwrap().clone();
        // A slow machine takes longer, none is faster.
        assert!(took >= Duration::from_millis(2_900), "{name}: 3 times within {took:?}");
        assert_eq!(requests.len(), 4, "{name}");
        assert!(requests.iter().all(|request| request.starts_with("GET /v1.41/events")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_events_is_taken_and_kept_nowhere() {
    for piece in ["x".repeat(30_000), "{\"Action\":\"die\"}\n".repeat(1_000)] {
        let (_fake, host) = watched(stream(&[]), Then::Repeat(chunk(&piece))).await;
        wait_for_wakes(&host, 10).await;
        // The connection serves other questions meanwhile.
        timeout(PATIENCE, host.containers()).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_refused_or_never_begins_is_told() {
    let table = [
        ("refused", answer("500 Internal Server Error", "x".repeat(100_000).as_bytes()), "found status 500"),
        ("silent", Said::new("", Then::Hang), "expected an end within"),
        ("not HTTP", Said::new("hello\r\n\r\n", Then::Close), "docker API /events"),
    ];
    join_all(table.map(async |(name, said, wanted)| {
        let (_fake, host) = watched(said.bytes, said.then).await;
        let error = timeout(PATIENCE, host.watch()).await.unwrap().unwrap_err().to_string();
        assert!(error.contains(wanted) && error.len() < 600, "{name}: {error}");
        // A failure does not wake: whoever asked knows.
        let mut hints = host.hints();
        assert!(timeout(QUIET, hints.changed()).await.is_err(), "{name}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_under_a_watch_wakes_or_leaves_quietly() {
    let (fake, host) = watched(stream(&[]), Then::Cut).await;
    let _: Result<(), _> = host.watch().await;
    // Whoever looks next connects anew, once the end of the connection is known.
    wait_until_async("another connection", async || {
        host.connect().await.unwrap();
        fake.seen.connections.load(std::sync::atomic::Ordering::Relaxed) == 2
    })
    .await;
}
