//! Docker's events: those of ours wake at once, foreign ones once a second, and nothing spins.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tasktracker_operator::{
    host::{Host, Limits},
    project::compose::COMPOSE_PROJECT,
};
use tasktracker_testbed::wait::wait_until_async;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use crate::{
    FakeSshd,
    fake_docker::{answer, chunk, endless_head},
    fake_sshd::{Said, Then},
    stage::{LIMIT, docker, host},
};

/// How long nothing may come: many times what a wake takes.
const QUIET: Duration = Duration::from_secs(2);

/// A host whose stream of events is this.
async fn watched(bytes: Vec<u8>, then: Then) -> (FakeSshd, Arc<Host>) {
    watched_within(LIMIT, bytes, then).await
}

/// The same, with another limit for each answer.
async fn watched_within(answer: Duration, bytes: Vec<u8>, then: Then) -> (FakeSshd, Arc<Host>) {
    let script = docker("/events", move |_| Said::new(bytes.clone(), then.clone()));
    let fake = FakeSshd::start(script).await;
    let host = host(fake.port, Limits { answer, program: answer, ..Limits::default() });
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

/// An event of a container of a Compose project.
fn of_project(name: &str) -> String {
    format!(
        "{{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{{\"ID\":\"c\",\"Attributes\":{{\"{COMPOSE_PROJECT}\":\"{name}\",\"name\":\"n\"}}}}}}\n"
    )
}

/// How long after it began to watch a host wakes; nothing where it does not within `limit`.
async fn first_wake(texts: &[&str], limit: Duration) -> Option<Duration> {
    let (_fake, host) = watched_within(LIMIT * 20, stream(texts), Then::Hang).await;
    // What is asked about is the operator's own.
    assert_eq!(host.inspected("tt-staging-app"), [""; 0]);
    host.keep_inspected("tt-staging-app", vec!["c0ffee".to_owned()]);
    host.network("tt-staging", true).await.unwrap();
    host.volume("tt-staging-app-data", true).await.unwrap();
    let mut hints = host.hints();
    hints.mark_unchanged();
    let begun = Instant::now();
    host.watch().await.unwrap();
    timeout(limit, hints.changed()).await.ok()?.unwrap();
    Some(begun.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_are_cached_while_events_are_received() {
    let ends = Arc::new(Notify::new());
    let (fake, host) = watched(stream(&[]), Then::CloseOn(ends.clone())).await;
    let ask = async |anew| requests_for_the_network(&fake, &host, anew).await;
    assert_eq!([ask(false).await, ask(false).await], [1, 2], "no events are received yet");
    host.watch().await.unwrap();
    assert_eq!([ask(false).await, ask(false).await, ask(true).await, ask(false).await], [3, 3, 4, 4]);
    let mut hints = host.hints();
    hints.mark_unchanged();
    ends.notify_one();
    hints.changed().await.unwrap();
    assert_eq!([ask(false).await, ask(false).await], [5, 6], "events are received no longer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_an_event_names_is_asked_for_again() {
    for (name, is_asked_for) in [("tt-staging", true), ("other", false)] {
        let event = format!(
            "{{\"Type\":\"network\",\"Action\":\"disconnect\",\"Actor\":{{\"Attributes\":{{\"name\":\"{name}\"}}}}}}\n"
        );
        let (fake, host) = watched(stream(&[]), Then::Drip(chunk(&event))).await;
        host.watch().await.unwrap();
        let ask = async || requests_for_the_network(&fake, &host, false).await;
        // An answer is not cached when an event came meanwhile.
        let cached = loop {
            let (one, next) = (ask().await, ask().await);
            if one == next {
                break next;
            }
        };
        let mut hints = host.hints();
        for _ in 0..2 {
            // Each wake has an event before it.
            hints.mark_unchanged();
            hints.changed().await.unwrap();
        }
        assert_eq!(ask().await > cached, is_asked_for, "{name}");
    }
}

/// Asks for the network of the stack; how many requests for it the host has received.
async fn requests_for_the_network(fake: &FakeSshd, host: &Host, anew: bool) -> usize {
    assert!(host.network("tt-staging", anew).await.unwrap().is_some());
    fake.seen.requests.lock().unwrap().iter().filter(|request| request.contains("/networks/")).count()
}

/// When a host wakes.
#[derive(Clone, Copy, Debug)]
enum Wakes {
    AtOnce,
    AfterASecond,
    Never,
}

impl Wakes {
    async fn check(self, name: &str, texts: &[&str]) {
        let (second, patience) = (Duration::from_secs(1), Duration::from_secs(20));
        match self {
            Self::Never => assert_eq!(first_wake(texts, second * 3 / 2).await, None, "{name}"),
            Self::AfterASecond => {
                let woken = first_wake(texts, patience).await;
                assert!(woken.is_some_and(|after| after >= second), "{name}: {woken:?}");
            }
            Self::AtOnce => {
                // A busy machine may be late, but nothing that is collected is ever early.
                let mut woken = None;
                for _ in 0..5 {
                    woken = first_wake(texts, patience).await;
                    if woken.is_some_and(|after| after < second) {
                        return;
                    }
                }
                panic!("{name}: {woken:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_ours_wake_at_once_and_foreign_ones_after_a_second() {
    use Wakes::{AfterASecond, AtOnce, Never};
    let (ours, other) = (of_project("tt-staging-app"), of_project("other"));
    let network = "{\"Type\":\"network\",\"Action\":\"disconnect\",\"Actor\":{\"Attributes\":{\"name\":\"tt-staging\"}}}\n";
    let joined = |container: &str| {
        format!(
            "{{\"Type\":\"network\",\"Action\":\"connect\",\"Actor\":{{\"Attributes\":{{\"container\":\"{container}\",\"name\":\"bridge\"}}}}}}\n"
        )
    };
    let (our_container, other_container) = (joined("c0ffee"), joined("bad"));
    let volume = "{\"Type\":\"volume\",\"Action\":\"destroy\",\"Actor\":{\"ID\":\"tt-staging-app-data\"}}\n";
    let many = other.repeat(1_000);
    let prune =
        "{\"Type\":\"volume\",\"Action\":\"prune\",\"Actor\":{\"Attributes\":{\"reclaimed\":\"7\"}}}\n";
    let table: [(&str, &[&str], Wakes); 16] = [
        ("nothing", &[], Never),
        ("of ours", &[&ours], AtOnce),
        ("of our network", &[network], AtOnce),
        ("of our container in another network", &[&our_container], AtOnce),
        ("of another container in another network", &[&other_container], AfterASecond),
        ("of our volume", &[volume], AtOnce),
        ("of volumes that were pruned", &[prune], AfterASecond),
        ("of ours among many others", &[&many, &ours, &many], AtOnce),
        ("of another project", &[&other], AfterASecond),
        ("of no project", &["{\"Type\":\"container\",\"Action\":\"die\"}\n"], AfterASecond),
        ("a health check", &["{\"Action\":\"exec_start: /x\"}\n"], Never),
        ("half an event", &["{\"Action\":\"die\""], Never),
        ("an event in halves", &["{\"Action\":", "\"die\"}\n"], AfterASecond),
        ("an event of ours in halves", &[&ours[..30], &ours[30..]], AtOnce),
        ("rubbish", &["\u{1b}[2J rubbish\n"], AfterASecond),
        ("empty lines", &["\n\n\r\n", "\n"], Never),
    ];
    join_all(table.iter().map(|(name, texts, wakes)| wakes.check(name, texts))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_events_without_end_wake_once_a_second() {
    let (_fake, host) = watched(stream(&[]), Then::Drip(chunk(&of_project("other")))).await;
    let mut hints = host.hints();
    hints.mark_unchanged();
    let begun = Instant::now();
    host.watch().await.unwrap();
    for _ in 0..3 {
        timeout(LIMIT * 40, hints.changed()).await.unwrap().unwrap();
    }
    assert!(begun.elapsed() >= Duration::from_secs(3), "three times in {:?}", begun.elapsed());
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
        let patient = Duration::from_secs(5);
        let (_fake, host) = watched_within(patient, stream(&[]), Then::Repeat(chunk(&piece))).await;
        let woken = wakes(&host, Duration::from_millis(1_500)).await;
        assert!((1..200).contains(&woken), "{woken} times");
        // The connection serves other questions meanwhile.
        host.containers().await.unwrap();
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
        assert!(timeout(QUIET, hints.changed()).await.is_err(), "{name}");
        hints.mark_unchanged();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_under_a_watch_wakes_or_leaves_quietly() {
    let (fake, host) = watched(stream(&[]), Then::Cut).await;
    let _: Result<(), _> = host.watch().await;
    // The next check connects anew, as soon as the end of the connection is known.
    let connections = || fake.seen.connections.load(std::sync::atomic::Ordering::Relaxed);
    wait_until_async("the host is connected anew", async || {
        assert!(host.connect().await.is_ok());
        connections() == 2
    })
    .await;
}
