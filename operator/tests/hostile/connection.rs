//! What ends a connection that several callers share, and what does not: refused sessions, late answers, locks.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tasktracker_operator::host::{Error, Exit, Host, Limits, shell};
use tasktracker_testbed::wait::wait_until_async;
use tokio::{sync::Notify, time::timeout};

use crate::{
    FakeSshd,
    fake_sshd::{Said, Script, Then},
    good::RELEASE,
    stage::{docker, host, program},
};

const STACK: &str = "staging";
/// How long something may take that is about to happen.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may take where one never comes: enough for those that do, on a busy machine.
const LATE: Duration = Duration::from_secs(2);

async fn connected(script: Script, answer: Duration) -> (FakeSshd, Arc<Host>) {
    // What a good host says is worked out before anybody waits for it.
    LazyLock::force(&RELEASE);
    let fake = FakeSshd::start(script).await;
    let host = Arc::new(host(fake.port, Limits { answer, program: PATIENCE, ..Limits::default() }));
    host.containers().await.unwrap();
    (fake, host)
}

/// Waits until a number is this one.
async fn becomes(number: &AtomicUsize, expected: usize) {
    let what = std::fmt::from_fn(|formatter| {
        write!(formatter, "{expected}, found {}", number.load(Ordering::SeqCst))
    });
    wait_until_async(what, async || number.load(Ordering::SeqCst) == expected).await;
}

fn connections(fake: &FakeSshd) -> usize {
    fake.seen.connections.load(Ordering::SeqCst)
}

/// A script in which nobody ever gets the host's lock.
fn locked() -> Script {
    program("lock", |_| Said::new("", Then::Hang))
}

/// A script in which Docker never answers when it is asked for a volume.
fn silent_about_volumes() -> Script {
    docker("/volumes/", |_| Said::new("", Then::Hang))
}

async fn ask_in_vain(host: &Host) {
    let late = host.volume("data", true).await.unwrap_err();
    assert!(matches!(late, Error::TimedOut { .. }), "{late}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sshd_that_opens_few_sessions_is_worked_with_over_more_connections() {
    for max_sessions in 1..4 {
        let (fake, host) = connected(Script { max_sessions, ..locked() }, PATIENCE).await;
        host.files(STACK, false).await.unwrap();
        let waiting = tokio::spawn({
            let host = host.clone();
            async move { host.lock("writer").await }
        });
        becomes(&fake.seen.locks, 1).await;
        let programs = (0..4).map(|_| {
            let host = host.clone();
            async move { host.run(&shell::command("true", &[]), Vec::new(), PATIENCE).await.unwrap() }
        });
        futures::future::join_all(programs).await;
        for _ in 0..3 {
            host.containers().await.unwrap();
            assert!(!host.locked(STACK).await.unwrap());
        }
        let opened = connections(&fake);
        assert!((2..=7).contains(&opened) || max_sessions == 3, "{opened} with {max_sessions} sessions each");
        assert!(fake.seen.locks.load(Ordering::SeqCst) == 1 && opened <= 7, "{opened}");
        waiting.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sshd_that_opens_no_session_is_told_and_not_asked_for_ever() {
    let fake = FakeSshd::start(Script { max_sessions: 0, ..Script::default() }).await;
    let host = host(fake.port, Limits::default());
    let refused = host.containers().await.unwrap_err();
    assert!(matches!(refused, Error::ChannelRefused { .. }), "{refused}");
    assert_eq!(connections(&fake), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_lock_of_a_process_waits_on_a_host() {
    let (fake, host) = connected(locked(), PATIENCE).await;
    let waiting: Vec<_> = (0..12)
        .map(|_| {
            let host = host.clone();
            tokio::spawn(async move { host.lock("writer").await })
        })
        .collect();
    becomes(&fake.seen.locks, 1).await;
    for _ in 0..20 {
        let output = host.run(&shell::command("true", &[]), Vec::new(), PATIENCE).await.unwrap();
        assert_eq!(output.exit, Exit::Exited(127));
        host.files(STACK, true).await.unwrap();
    }
    assert_eq!((connections(&fake), fake.seen.most_locks.load(Ordering::SeqCst)), (1, 1));
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_waiting_for_the_lock_leaves_no_program_behind() {
    let (fake, host) = connected(locked(), PATIENCE).await;
    let waiting = tokio::spawn({
        let host = host.clone();
        async move { host.lock("writer").await }
    });
    becomes(&fake.seen.locks, 1).await;
    waiting.abort();
    becomes(&fake.seen.locks, 0).await;
    assert_eq!(connections(&fake), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_held_until_it_is_released() {
    let (fake, host) = connected(Script::default(), PATIENCE).await;
    let first = host.lock("writer").await.unwrap();
    let second = host.lock("writer").await.unwrap();
    assert_eq!((first.epoch, fake.seen.locks.load(Ordering::SeqCst)), (1, 2));
    assert_eq!(first.check(), Ok(()));
    first.release().await;
    drop(second);
    becomes(&fake.seen.locks, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_closes_its_own_channel_alone() {
    let (fake, host) = connected(silent_about_volumes(), LATE).await;
    ask_in_vain(&host).await;
    becomes(&fake.seen.sockets, 0).await;
    host.containers().await.unwrap();
    assert_eq!(connections(&fake), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_late_answers_in_a_row_end_the_connection_and_wake() {
    let (fake, host) = connected(silent_about_volumes(), LATE).await;
    host.watch().await.unwrap();
    let mut hints = host.hints();
    for _ in 0..2 {
        ask_in_vain(&host).await;
        ask_in_vain(&host).await;
        host.containers().await.unwrap();
    }
    assert_eq!((connections(&fake), hints.has_changed().unwrap()), (1, false));
    for _ in 0..3 {
        ask_in_vain(&host).await;
    }
    timeout(PATIENCE, hints.changed()).await.unwrap().unwrap();
    host.containers().await.unwrap();
    assert_eq!(connections(&fake), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_late_answer_ends_a_connection_over_which_nothing_came_meanwhile() {
    let frozen = docker("/volumes/", |_| Said::new("", Then::Freeze));
    let connections = [frozen, silent_about_volumes()].map(async |script| {
        let (fake, host) = connected(script, Duration::from_secs(15)).await;
        ask_in_vain(&host).await;
        host.containers().await.unwrap();
        connections(&fake)
    });
    assert_eq!(futures::future::join_all(connections).await, [2, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_late_at_once_count_as_one() {
    let (fake, host) = connected(silent_about_volumes(), LATE).await;
    let (one, other, third) = (ask_in_vain(&host), ask_in_vain(&host), ask_in_vain(&host));
    futures::join!(one, other, third);
    host.image("sha256:0").await.unwrap();
    assert_eq!(connections(&fake), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_on_an_old_connection_leaves_the_new_one() {
    let (asked, ends, lists) = (Arc::new(Notify::new()), Arc::new(Notify::new()), AtomicUsize::new(0));
    let (was_asked, end) = (asked.clone(), ends.clone());
    let first_list_is_cut = program("list", move |good| {
        if lists.fetch_add(1, Ordering::SeqCst) > 0 {
            return good;
        }
        was_asked.notify_one();
        Said::new("", Then::CloseOn(end.clone()))
    });
    let script = Script { docker: silent_about_volumes().docker, ..first_list_is_cut };
    let (fake, host) = connected(script, LATE).await;
    let old = tokio::spawn({
        let host = host.clone();
        async move { host.files(STACK, false).await }
    });
    timeout(PATIENCE, asked.notified()).await.unwrap();
    for _ in 0..3 {
        ask_in_vain(&host).await;
    }
    host.watch().await.unwrap();
    assert_eq!(connections(&fake), 2);
    let hints = host.hints();
    ends.notify_one();
    let failed = timeout(PATIENCE, old).await.unwrap().unwrap();
    assert_eq!(failed, Err(Error::ConnectionLost));
    host.files(STACK, false).await.unwrap();
    host.watch().await.unwrap();
    assert_eq!((connections(&fake), hints.has_changed().unwrap()), (2, false));
    let requests = fake.seen.requests.lock().unwrap();
    assert_eq!(requests.iter().filter(|request| request.contains("/events")).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_is_woken_when_another_caller_finds_the_connection_closed() {
    let script = docker("/info", |_| Said::new("", Then::Cut));
    let (fake, host) = connected(script, LATE).await;
    host.watch().await.unwrap();
    let mut hints = host.hints();
    assert!(host.engine().await.is_err());
    // The task that follows the events wakes a second later, unless its connection was replaced by then.
    let connecting = async { while !host.connect().await.unwrap() {} };
    timeout(PATIENCE, connecting).await.unwrap();
    timeout(PATIENCE, hints.changed()).await.unwrap().unwrap();
    assert_eq!(connections(&fake), 2);
}
