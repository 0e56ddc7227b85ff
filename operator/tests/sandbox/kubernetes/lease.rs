//! One of several operators acts: another takes over when it is gone or stands still, and never do two write at once.

use std::time::{Duration, Instant};

use tasktracker_testbed::{packages, wait};

use super::cluster::Cluster;
use crate::stage::{Running, Stage, wait_until};

const POLICY: &str = "  policy: {rollout: {soak: 3s}}\n";
/// How soon another one has taken over.
const TAKEN_OVER: Duration = Duration::from_secs(20);

fn acts(operator: &Running) -> bool {
    operator.log().contains("this operator acts")
}

/// Waits until a standby acts, since it could.
fn takes_over(standby: &Running, since: Instant, what: &str) {
    wait_until(format_args!("{what}: {}", standby.said()), || acts(standby));
    let took = since.elapsed();
    println!("{what}: taken over after {} ms", took.as_millis());
    assert!(took < TAKEN_OVER, "{what}: after {took:?}");
}

/// Waits until an operator ended by itself, because another one holds the lease: nothing can be written by it any more.
fn ends_as_another_one_holds_the_lease(operator: &mut Running) {
    let ended = operator.wait_for_end(wait::LIMIT);
    let log = operator.log();
    assert!(ended.is_some() && log.contains("another operator holds the lease"), "{ended:?}: {log}");
}

/// What an operator began to write, and when: from its audit log.
fn begun(operator: &Running) -> usize {
    operator
        .log()
        .lines()
        .filter(|line| line.contains("audit:") && line.contains("\"result\":\"Began\""))
        .count()
}

/// Two operators whose clocks are two hours apart take turns: the one that acts is killed, stopped and continued again and
/// again. Whatever they say of the time, never do two write at once, and each takes over in time.
#[test]
#[ignore = "clocks that are wrong: `cargo xtask soak kubernetes`"]
fn soak_of_operators_whose_clocks_are_hours_apart() {
    let (stage, cluster) = (Stage::new("kube-clocks"), Cluster::start());
    cluster.add_key(&stage);
    let library = packages::kubernetes::faketime(&mut |_| {}).unwrap().display().to_string();
    let start = |number: usize| {
        let shift = if number.is_multiple_of(2) { "+1h" } else { "-1h" };
        let environment =
            [("LD_PRELOAD", library.as_str()), ("FAKETIME", shift), ("DONT_FAKE_MONOTONIC", "1")];
        cluster.operator_apart(&format!("operator-{number}.log"), &environment)
    };
    let mut active = start(0);
    wait_until("the first one acts", || acts(&active));
    let policy = POLICY.replace("soak: 3s", "soak: 1s");
    cluster.apply(&stage.stack("staging", "r1", &policy));
    // A host whose time is another one than the operator's is told as that, and so nothing is Ready.
    let is_deployed = |operator: &Running, revision: &str| {
        cluster.wait("staging", operator, "it is rolled out and serves", || {
            cluster.get("tts/staging", "{.status.revision}") == revision
                && cluster.condition("staging", "Healthy") == "True/Succeeded"
                && cluster.condition("staging", "Reconciling") == "False/Succeeded"
        });
        assert_eq!(cluster.get("tts/staging", "{.status.hosts[*].components[*].drift[*].kind}"), "ClockSkew");
    };
    is_deployed(&active, "r1");
    let epoch = || stage.on_host("cut -d' ' -f1 /opt/tasktracker/.epoch").trim().parse::<u64>().unwrap();
    let mut before = epoch();
    for number in 1..=8 {
        let standby = start(number);
        wait_until("it waits", || standby.log().contains("waiting for the lease"));
        let revision = if number.is_multiple_of(2) { "r1" } else { "r2" };
        cluster.apply(&stage.stack("staging", revision, &policy));
        wait_until("a rollout is under way", || active.log().contains(&format!("to=\"{revision}\"")));
        let since = Instant::now();
        let is_killed = number.is_multiple_of(3);
        active.signal(if is_killed { "KILL" } else { "STOP" });
        takes_over(&standby, since, if is_killed { "SIGKILL" } else { "SIGSTOP" });
        is_deployed(&standby, revision);
        if !is_killed {
            let (written, tenure) = (begun(&active), epoch());
            active.signal("CONT");
            ends_as_another_one_holds_the_lease(&mut active);
            assert_eq!((begun(&active), epoch()), (written, tenure), "it wrote: {}", active.log());
        }
        assert!(epoch() > before, "epochs grow");
        before = epoch();
        active = standby;
    }
}

#[test]
fn another_operator_takes_over_from_one_that_is_gone_or_stands_still() {
    let (stage, cluster) = (Stage::new("kube-lease"), Cluster::start());
    cluster.add_key(&stage);
    let first = cluster.operator_apart("first.log", &[]);
    wait_until("the first one acts", || acts(&first));
    let mut second = cluster.operator_apart("second.log", &[]);
    cluster.apply(&stage.stack("staging", "r1", POLICY));
    cluster.wait_until_ready("staging", &first);
    assert!(!acts(&second));
    let (status, said) = tasktracker_testbed::http(second.metrics, "GET /readyz").unwrap();
    assert_eq!(status, 200, "a standby is ready to take over: {said}");
    assert_eq!(second.metric("leader_election_master_status", &[]), Some(0.0));

    // Killed.
    let since = Instant::now();
    first.kill();
    takes_over(&second, since, "SIGKILL");
    stage.on_host("docker rm -f tt-staging-app-frontend-1");
    wait_until("the second one repairs", || second.log().contains("healed: frontend"));

    // Stopped in the middle of a rollout. Whoever takes over finishes it; the other one has nothing to say any more.
    let third = cluster.operator_apart("third.log", &[]);
    cluster.apply(&stage.stack("staging", "r2", POLICY));
    wait_until("it is rolled out", || second.log().contains("to=\"r2\""));
    wait_until("an apply is under way", || {
        let ledger = stage.on_host("cat /opt/tasktracker/staging/app/ledger.json");
        let ledger: serde_json::Value = serde_json::from_str(&ledger).unwrap();
        ledger["intent"]["desiredHash"].is_string()
    });
    let since = Instant::now();
    second.signal("STOP");
    takes_over(&third, since, "SIGSTOP");
    cluster.wait_until_ready("staging", &third);
    assert_eq!(cluster.get("tts/staging", "{.status.revision}"), "r2");
    let (written, epoch) = (begun(&second), stage.on_host("cat /opt/tasktracker/.epoch"));
    second.signal("CONT");
    ends_as_another_one_holds_the_lease(&mut second);
    assert_eq!(begun(&second), written, "it began something: {}", second.log());
    assert_eq!(stage.on_host("cat /opt/tasktracker/.epoch"), epoch, "somebody wrote");
    cluster.wait_until_ready("staging", &third);

    // One that is told to end gives the lease up: nobody has to wait for it to be over.
    let fourth = cluster.operator_apart("fourth.log", &[]);
    wait_until("it waits", || fourth.log().contains("waiting for the lease"));
    let since = Instant::now();
    third.stop();
    takes_over(&fourth, since, "SIGTERM");
    assert!(since.elapsed() < Duration::from_secs(8), "it waited for a lease that was given up");
}
