//! An operator that is ended at any step, and two of them: the end is that of an undisturbed run, and nothing is
//! replaced beyond the plan.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::Value;
use tasktracker_operator::host::Step;
use tasktracker_testbed::{DemoHost, Users, titles};

use crate::{
    events::{Events, now},
    rollout::assert_unnoticed,
    stage::{Running, Stage, elapse, wait_until},
};

/// Places at which the operator ends itself, in the order in which an apply reaches them.
const REPAIR: [&str; 6] = ["locked", "checked", "applying", "applied", "proved", "concluded"];
const ROLLOUT: [&str; 9] =
    ["locked", "checked", "prepared", "applying", "beside", "moved", "applied", "proved", "concluded"];
const SOAK: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 1s}}\n";

/// ID of each container, by name.
fn containers(stage: &Stage) -> BTreeMap<String, String> {
    let listed = stage.on_host("docker ps -a --no-trunc --format '{{.Names}} {{.ID}}'");
    listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, id)| (name.into(), id.into()))
        .collect()
}

fn ledger(stage: &Stage) -> Value {
    serde_json::from_str(&stage.on_host("cat /opt/tasktracker/staging/app/ledger.json")).unwrap()
}

/// How many containers were made for each service.
fn made(events: &Events) -> BTreeMap<String, usize> {
    let mut made = BTreeMap::new();
    for event in events.received().into_iter().filter(|event| event.action == "create") {
        *made.entry(event.service).or_default() += 1;
    }
    made
}

/// What the edge's containers saw as their configuration all the while, through their own mounts.
struct Reader {
    child: std::process::Child,
}

impl Reader {
    fn start(stage: &Stage) -> Self {
        let script = "rm -f /tmp/seen
            while :; do
                process=$(docker inspect --format '{{.State.Pid}}' tt-staging-app-edge-1 2>/dev/null)
                for i in 1 2 3 4 5 6 7 8 9; do sha256sum /proc/$process/root/etc/caddy/Caddyfile 2>/dev/null; done
            done >>/tmp/seen";
        Self { child: stage.host.command("sh").args(["-c", script]).spawn().unwrap() }
    }

    fn stop(mut self, stage: &Stage) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let seen = stage.as_root("grep -Eo '^[0-9a-f]{64} ' /tmp/seen | sort -u");
        seen.lines().map(|hash| hash.trim().to_owned()).collect()
    }
}

/// Ends the operator at a place, lets another one go on, and compares the end with an undisturbed run's.
fn cut_at(stage: &Stage, place: &str, disturb: impl Fn(), back: impl Fn(), expected: &Expected) {
    let events = Events::of_containers(&stage.host);
    let before = containers(stage);
    disturb();
    let (ended, log) = stage.operator_ends_at(place);
    assert!(ended, "{place} was not reached: {log}");
    let operator = stage.start_operator();
    wait_until(format_args!("all is well after {place}: {}", operator.said()), || {
        operator.is_ready("staging") && ledger(stage)["intent"].is_null() && stage.json(&["status"]).0 == 0
    });
    operator.stop();
    assert_eq!(stage.snapshot(), expected.snapshot, "{place}: another end than undisturbed");
    assert_eq!(made(&events), expected.made, "{place}: more containers than planned");
    let kept = containers(stage).into_iter().filter(|(name, id)| before.get(name) == Some(id)).count();
    assert_eq!(kept, expected.kept, "{place}: other containers than planned were replaced");
    let left = stage.on_host("find /opt/tasktracker -name '.staging*' -o -name '*.new'");
    assert_eq!(left, "", "{place}: something was left behind");
    back();
}

/// The end of an undisturbed run.
struct Expected {
    snapshot: String,
    made: BTreeMap<String, usize>,
    kept: usize,
}

fn undisturbed(stage: &Stage, disturb: impl Fn(), back: impl Fn()) -> Expected {
    let events = Events::of_containers(&stage.host);
    let before = containers(stage);
    disturb();
    stage.apply();
    wait_until("what was made is received", || !made(&events).is_empty());
    let made = made(&events);
    let kept = containers(stage).into_iter().filter(|(name, id)| before.get(name) == Some(id)).count();
    let expected = Expected { snapshot: stage.snapshot(), made, kept };
    back();
    expected
}

#[test]
fn a_repair_that_is_cut_anywhere_ends_as_if_it_was_not() {
    let stage = Stage::new("crash-repair");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", SOAK));
    stage.apply();
    let disturb = || {
        stage.on_host("docker rm -f $(docker ps -aqf label=com.docker.compose.service=backend); echo '# mine' >>/opt/tasktracker/staging/app/files/edge/Caddyfile");
    };
    let reader = Reader::start(&stage);
    let expected = undisturbed(&stage, disturb, || {});
    assert_eq!((expected.made.get("backend"), expected.made.len(), expected.kept), (Some(&1), 1, 2));
    for place in REPAIR {
        cut_at(&stage, place, disturb, || {}, &expected);
    }
    let seen = reader.stop(&stage);
    let whole = stage.on_host(
        "cd /opt/tasktracker/staging/app/files/edge && sha256sum <Caddyfile && (cat Caddyfile; echo '# mine') | sha256sum",
    );
    assert_eq!(seen.len(), 2, "not both contents were seen: {seen:?}");
    assert!(seen.iter().all(|hash| whole.contains(hash.as_str())), "half-written: {seen:?}, {whole}");
}

#[test]
fn a_rollout_that_is_cut_anywhere_ends_as_if_it_was_not() {
    let stage = Stage::new("crash-rollout");
    let write = |revision: &str| stage.write_stack("staging.yaml", &stage.stack("staging", revision, SOAK));
    write("r1");
    stage.apply();
    write("r2");
    stage.apply();
    write("r1");
    stage.apply();
    let back = || {
        write("r1");
        stage.apply();
        stage.on_host("sed -i '/\"history\": \\[/,/^  \\]/d' /opt/tasktracker/staging/app/ledger.json");
    };
    back();
    let expected = undisturbed(&stage, || write("r2"), back);
    for place in ROLLOUT {
        cut_at(&stage, place, || write("r2"), back, &expected);
    }
}

#[test]
fn a_cut_rollout_that_is_no_longer_wanted_is_taken_back() {
    let stage = Stage::new("crash-back");
    let policy = "  policy: {upgrade: Approve, rollout: {soak: 1s}}\n";
    let write = |revision: &str| stage.write_stack("staging.yaml", &stage.stack("staging", revision, policy));
    write("r1");
    stage.apply();
    let before = stage.snapshot();
    write("r2");
    assert!(stage.ends_at("applied", &["apply"]), "`apply` was not ended");
    assert!(ledger(&stage)["intent"]["desiredHash"].is_string(), "no intent is open");
    let (_, status) = stage.json(&["status"]);
    assert_eq!(
        status[0]["report"]["drift"],
        serde_json::json!([]),
        "what a cut rollout left is told as drift"
    );
    // Whoever asked for r2 asks for r1 again: what is there of r2 goes.
    write("r1");
    let (code, status) = stage.json(&["status"]);
    assert!(code != 0 && status[0]["report"]["interrupted"] == true, "it is told as in sync: {status}");
    let operator = stage.start_operator();
    wait_until("r1 serves again", || {
        ledger(&stage)["intent"].is_null() && operator.is_ready("staging") && stage.json(&["status"]).0 == 0
    });
    operator.stop();
    assert_eq!(stage.snapshot(), before);
}

#[test]
fn an_operator_that_stood_still_in_an_apply_does_not_write_over_another_ones_work() {
    let stage = Stage::new("two-writers");
    // Long enough to be met in the middle of it, however busy the machine is.
    let soak = SOAK.replace("soak: 1s", "soak: 4s");
    let write = |revision: &str| stage.write_stack("staging.yaml", &stage.stack("staging", revision, &soak));
    write("r1");
    stage.apply();
    let first = stage.start_operator_apart();
    first.wait_until_ready("staging");
    write("r2");
    wait_until("the first one is in the middle of an apply", || {
        ledger(&stage)["intent"]["desiredHash"].is_string()
    });
    let epoch = || -> u64 {
        let line = stage.on_host("cat /opt/tasktracker/.epoch");
        line.split(' ').next().unwrap().parse().unwrap()
    };
    first.signal("STOP");
    let its = epoch();
    assert!(ledger(&stage)["intent"]["desiredHash"].is_string(), "it was over before it stood still");
    let stopped = Instant::now();
    let second = stage.start_other_operator();
    second.wait_until_ready("staging");
    assert!(first.stands_still(), "it was continued: {}", first.log());
    assert!(epoch() > its, "the second one did not take the lock over: {}\n{}", first.log(), second.log());
    assert_eq!(ledger(&stage)["history"][0]["result"], "Succeeded");
    // Its connection is older by then than what the host waits for a sign of life.
    elapse(Duration::from_secs(30).saturating_sub(stopped.elapsed()));
    // What the first one knew of the stacks is old, too: it must not go back to r2.
    write("r1");
    wait_until("the second one went back to r1", || {
        ledger(&stage)["history"][0]["revision"] == "r1" && second.is_ready("staging")
    });
    let after = stage.snapshot();
    assert!(first.stands_still(), "it was continued: {}", first.log());
    first.signal("CONT");
    first.wait_until_ready("staging");
    first.wait_for_checks("staging", "app-1", 3);
    assert_eq!(stage.snapshot(), after, "the late one wrote over the other one's work");
    let overlap = stage.on_host("cat /opt/tasktracker/staging/app/ledger.json");
    assert!(!overlap.contains("\"failed\""), "{overlap}");
    first.stop();
    second.stop();
}

#[test]
fn no_host_is_rolled_out_onto_empty_data_unasked() {
    let stage = Stage::new("data");
    let write = |revision: &str| stage.write_stack("staging.yaml", &stage.stack("staging", revision, SOAK));
    write("r1");
    stage.apply();
    stage.on_host("docker rm -f $(docker ps -aqf label=com.docker.compose.service=backend) && docker volume rm tt-staging-app-data");
    write("r2");
    let refused = stage.command(&["apply"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("data data: expected the volume"), "{said}");
    let (_, plan) = stage.json(&["plan"]);
    assert_eq!(plan[0]["plan"]["waiting"]["reason"], "DataWouldBeLeft");
    assert_eq!(stage.on_host("docker volume ls -q"), "", "a volume was made");
    let operator = stage.start_operator();
    wait_until("the change waits", || operator.log().contains("DataWouldBeLeft"));
    operator.wait_for_checks("staging", "app-1", 3);
    operator.stop();
    assert_eq!(stage.on_host("docker volume ls -q"), "", "a volume was made unasked");
    let asked = stage.command(&["apply", "--leave-data"]);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    assert_eq!(stage.json(&["status"]).0, 0);
}

#[test]
fn a_writer_that_was_overtaken_is_refused_by_the_host_and_a_lost_epoch_goes_on_from_the_ledgers() {
    let stage = Stage::new("epoch");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", SOAK));
    stage.apply();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_, host) = stage.managed();
    let last = ledger(&stage)["epoch"].as_u64().unwrap();
    stage.on_host("rm /opt/tasktracker/.epoch");
    let lock = runtime.block_on(host.lock("one")).unwrap();
    assert_eq!((lock.epoch, &lock.before), (last + 1, &None));
    let steps = [Step::docker(&["rm", "-f", "tt-staging-app-frontend-1"], Duration::from_secs(20))];
    // What another writer leaves, while this one still believes to have the lock.
    stage.on_host("cp /opt/tasktracker/.epoch /tmp/mine; echo '99 other' >/opt/tasktracker/.epoch");
    let refused = runtime.block_on(host.carry_out(&lock, "staging/app", &steps)).unwrap_err();
    assert!(refused.to_string().contains("99 other"), "{refused}");
    assert!(containers(&stage).contains_key("tt-staging-app-frontend-1"), "an overtaken writer wrote");
    stage.on_host("cp /tmp/mine /opt/tasktracker/.epoch");
    runtime.block_on(host.carry_out(&lock, "staging/app", &steps)).unwrap();
    assert!(!containers(&stage).contains_key("tt-staging-app-frontend-1"));
    runtime.block_on(lock.release());
    let next = runtime.block_on(host.lock("two")).unwrap();
    assert_eq!((next.epoch, next.before.as_deref()), (last + 2, Some("one")));
    runtime.block_on(next.release());
}

/// How an apply is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cut {
    /// The operator is killed.
    Operator,
    /// Every SSH session ends.
    Connection,
    /// The host's network goes for two seconds.
    Link,
    /// The Docker daemon is killed.
    Docker,
    /// The host loses its power.
    Power,
}

impl Cut {
    /// Cuts, and puts right again what an operator cannot.
    fn strike(self, stage: &Stage, operator: &mut Option<Running>) {
        match self {
            Self::Operator => {
                operator.take().unwrap().kill();
                *operator = Some(stage.start_operator());
            }
            Self::Connection => {
                stage.host.kill_sshd().unwrap();
                stage.host.start_sshd().unwrap();
            }
            Self::Link => {
                stage.host.set_link(false).unwrap();
                elapse(Duration::from_secs(2));
                stage.host.set_link(true).unwrap();
            }
            Self::Docker => {
                stage.host.kill_docker().unwrap();
                stage.host.start_docker().unwrap();
            }
            Self::Power => {
                stage.host.power_off().unwrap();
                stage.host.start_docker().unwrap();
                stage.host.start_sshd().unwrap();
            }
        }
    }
}

/// The same numbers in the same order from the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// How often each container was started.
fn starts(events: &Events) -> BTreeMap<String, u32> {
    let mut starts = BTreeMap::new();
    for event in events.received().into_iter().filter(|event| event.action == "start") {
        *starts.entry(event.container).or_default() += 1;
    }
    starts
}

/// Cuts rollouts while users are there: who ends with the operator or the connection, users do not notice; where their
/// containers end, too, nothing that was acknowledged is lost. In the end the wanted release is there, whole.
fn cut_rollouts(stage: &Stage, cuts: usize, seed: u64) {
    let write = |revision: &str| stage.write_stack("staging.yaml", &stage.stack("staging", revision, SOAK));
    write("r1");
    stage.apply();
    let mut operator = Some(stage.start_operator());
    operator.as_ref().unwrap().wait_until_ready("staging");
    let mut dice = Dice(seed);
    let mut silences: BTreeMap<Cut, Duration> = BTreeMap::new();
    // What the same costs users while nothing is rolled out: more than that, a rollout must not.
    for cut in [Cut::Docker, Cut::Power] {
        let users = Users::start(stage.page(), &format!("calm-{cut:?}"));
        users.wait_for_requests(200);
        cut.strike(stage, &mut operator);
        wait_until("it serves again", || stage.http(3500, "GET /api/health/ready").0 == 200);
        users.wait_for_requests(200);
        let silence = users.stop().longest_silence();
        println!("{cut:?} without a rollout: nobody was answered for {} ms", silence.as_millis());
        wait_until("all is well", || operator.as_ref().is_some_and(|one| one.is_ready("staging")));
    }
    for number in 0..cuts {
        let cut = [Cut::Docker, Cut::Operator, Cut::Power, Cut::Connection][number % 4];
        let revision = if number % 2 == 0 { "r2" } else { "r1" };
        let users = Users::start(stage.page(), &format!("cut-{number}"));
        write(revision);
        wait_until("an apply is under way", || ledger(stage)["intent"]["desiredHash"].is_string());
        elapse(Duration::from_millis(dice.below(4_000)));
        let struck = now(&stage.host);
        cut.strike(stage, &mut operator);
        let events = Events::of_containers_since(&struck, &stage.host);
        let operator = operator.as_ref().unwrap();
        wait_until(format_args!("cut {number}, {cut:?}: {revision} serves: {}", operator.said()), || {
            operator.is_ready("staging")
                && stage.http(3500, "GET /api/health").1.contains(revision)
                && ledger(stage)["intent"].is_null()
        });
        users.wait_for_requests(100);
        let seen = users.stop();
        let longest = silences.entry(cut).or_default();
        *longest = (*longest).max(seen.longest_silence());
        let what = format!("cut {number}, {cut:?}");
        let (failed, written) = (&ledger(stage)["failed"], stage.json(&["status"]));
        assert!(failed.is_null() && written.0 == 0, "{what}: {failed:#} {:#}", written.1);
        if matches!(cut, Cut::Operator | Cut::Connection) {
            assert_unnoticed(&stage.host, &what, &seen);
        } else {
            let there = titles(SocketAddr::new(stage.host.address(), 8000)).unwrap();
            let lost: Vec<&String> = seen.created.difference(&there).collect();
            assert!(lost.is_empty() && !seen.created.is_empty(), "{what}: lost {lost:?}");
            // Who ended with the host or the daemon came back once: nothing of ours ended it again.
            let started = starts(&events);
            let again: Vec<_> = started.iter().filter(|(_, times)| **times > 1).collect();
            println!("{what}: nobody was answered for {} ms", seen.longest_silence().as_millis());
            assert!(started.contains_key("tt-staging-app-edge-1") && again.is_empty(), "{what}: {started:?}");
        }
        let left =
            stage.on_host("find /opt/tasktracker -name '.staging*' -o -name '*.new'; docker ps -aq | wc -l");
        assert_eq!(left, "3\n", "{what}: something was left behind");
    }
    operator.unwrap().stop();
    for (cut, silence) in silences {
        println!("{cut:?}: nobody was answered for {} ms at most", silence.as_millis());
    }
}

#[test]
fn a_rollout_that_is_cut_ends_with_the_wanted_release_and_loses_nothing() {
    cut_rollouts(&Stage::new("cut"), 5, 11);
}

#[test]
#[ignore = "a hundred cuts: `cargo xtask soak crash`"]
fn soak_of_rollouts_that_are_cut_under_the_eyes_of_users() {
    cut_rollouts(&Stage::new("cut-soak"), cuts(100), 5);
}

/// How many cuts a soak makes.
fn cuts(usual: usize) -> usize {
    std::env::var("TASKTRACKER_CUTS").map_or(usual, |text| text.parse().unwrap())
}

#[test]
#[ignore = "hundreds of cuts: `cargo xtask soak crash`"]
fn soak_of_repairs_and_rollouts_that_are_cut_at_random() {
    let cuts = cuts(300);
    let stage = Stage::new("crash-soak");
    let write = |revision: &str| stage.write_stack("staging.yaml", &stage.stack("staging", revision, SOAK));
    let settled = |stage: &Stage| {
        let history = "sed -i '/\"history\": \\[/,/^  \\]/d; /\"previous\"/d; /\"releases\": \\[/,/^  \\]/d'";
        stage.on_host(&format!("cp /opt/tasktracker/staging/app/ledger.json /tmp/ledger.json; {history} /opt/tasktracker/staging/app/ledger.json"));
        let snapshot = stage.snapshot();
        stage.on_host("cp /tmp/ledger.json /opt/tasktracker/staging/app/ledger.json");
        snapshot
    };
    let mut expected = BTreeMap::new();
    for revision in ["r1", "r2", "r1"] {
        write(revision);
        stage.apply();
        expected.insert(revision, settled(&stage));
    }
    let disturb = "docker rm -f $(docker ps -aqf label=com.docker.compose.service=backend) >/dev/null; echo '# mine' >>/opt/tasktracker/staging/app/files/edge/Caddyfile";
    let reader = Reader::start(&stage);
    let mut dice = Dice(7);
    let mut revision = "r1";
    let mut figures: BTreeMap<Cut, (usize, usize)> = BTreeMap::new();
    let mut operator = Some(stage.start_operator());
    operator.as_ref().unwrap().wait_until_ready("staging");
    for number in 0..cuts {
        let cut = [Cut::Operator, Cut::Connection, Cut::Link, Cut::Docker][number % 4];
        let is_rollout = number / 4 % 2 == 1;
        let events = Events::of_containers(&stage.host);
        if is_rollout {
            revision = if revision == "r1" { "r2" } else { "r1" };
            write(revision);
        } else {
            stage.on_host(disturb);
        }
        elapse(Duration::from_millis(dice.below(if is_rollout { 4_000 } else { 1_500 })));
        cut.strike(&stage, &mut operator);
        let operator = operator.as_ref().unwrap();
        let processes = std::fmt::from_fn(|formatter| {
            formatter
                .write_str(&stage.as_root("ps axf -o pid,etimes,args | cut -c1-300; timeout 5 docker ps -a"))
        });
        let told = format_args!("cut {number}, {cut:?}: all is well again: {}{processes}", operator.said());
        wait_until(told, || {
            ledger(&stage)["intent"].is_null()
                && ledger(&stage)["failed"].is_null()
                && operator.is_ready("staging")
                && stage.json(&["status"]).0 == 0
        });
        assert!(
            settled(&stage) == expected[revision],
            "cut {number}, {cut:?}: another end than undisturbed: {}",
            settled(&stage)
        );
        let left = stage.on_host("find /opt/tasktracker -name '.staging*' -o -name '*.new'");
        assert_eq!(left, "", "cut {number}, {cut:?}: something was left behind");
        let planned = if is_rollout { 2 } else { 1 };
        let made_for = made(&events);
        let made: usize = made_for.values().sum();
        let (count, beyond) = figures.entry(cut).or_default();
        *count += 1;
        *beyond += made.saturating_sub(planned);
        // While its daemon is gone, nobody knows whether Docker made a container, or heard that it did. What a killed
        // daemon left unstarted keeps its address, of which Docker knows nothing: who gets it, too, is not reached, and
        // another one is made instead.
        let left = stage.as_root("pgrep -fx 'runc init' || true");
        let is_free = cut == Cut::Docker || !left.is_empty();
        assert!(made >= 1 && made <= planned || is_free, "cut {number}, {cut:?}: {made_for:?}");
    }
    operator.unwrap().stop();
    let seen = reader.stop(&stage);
    let whole = stage.on_host(
        "cd /opt/tasktracker/staging/app/files/edge && sha256sum <Caddyfile && (cat Caddyfile; echo '# mine') | sha256sum",
    );
    assert!(seen.iter().all(|hash| whole.contains(hash.as_str())), "half-written: {seen:?}, {whole}");
    for (cut, (count, beyond)) in figures {
        println!(
            "{cut:?}: {count} cuts, each to the end of an undisturbed run; {beyond} containers made beyond the plan"
        );
    }
}
