//! Answers that no good host gives, from a fake sshd and a fake Docker API: bounded memory and time, text that can be
//! printed, never a panic, and never anything but GET.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as expected")]

mod fake;
mod good;

use std::{
    fs,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use fake::{Behaviour, Fake, Reply, Said};
use good::{DIRECTORY, Good};
use serde_json::{Value, json};
use tasktracker_crds::{DriftItem, DriftKind};
use tasktracker_operator::{
    engine::{Look, Wish, look},
    host::{Error, Host, Identity, Limits, Target},
    observe::Depth,
    plan::Approval,
};
use tokio::time::{Instant, timeout};

/// Deadline of each answer and program.
const DEADLINE: Duration = Duration::from_millis(500);
/// Longest time of a look at a host, however it behaves.
const LONGEST: Duration = Duration::from_secs(8);
/// Largest growth of memory, in KiB.
const MEMORY_KIB: u64 = 64 << 10;

fn host_of(fake: &Fake) -> Host {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    let identity = IDENTITY.get_or_init(|| {
        let text = fake::key().to_openssh(russh::keys::ssh_key::LineEnding::LF).unwrap();
        Identity::read(&text).unwrap()
    });
    Host::new(Target {
        name: "app-1".to_owned(),
        address: "127.0.0.1".to_owned(),
        port: fake.address.port(),
        user: "deploy".to_owned(),
        host_keys: vec![fake.host_key.clone()],
        identities: vec![identity.clone()],
        directory: DIRECTORY.to_owned(),
        limits: Limits { answer: DEADLINE, program: DEADLINE },
    })
}

/// Memory of this process that is in use, in KiB.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// One look at a fake host.
async fn looked(behaviour: Behaviour) -> Result<Look, Error> {
    let good = Good::new();
    let fake = Fake::start(behaviour).await;
    let host = host_of(&fake);
    let before = memory();
    let wish = Wish { approval: Approval::Policy, depth: Depth::Whole, lock: None };
    let result = timeout(LONGEST, look(&good.stack, &good.stack.spec.hosts[0], &host, wish)).await;
    let grown = memory().saturating_sub(before);
    assert!(grown < MEMORY_KIB, "a look took {grown} KiB of memory");
    let requests = fake.requests.lock().unwrap().clone();
    assert!(
        !requests.is_empty() && requests.iter().all(|request| request.starts_with("GET ")),
        "{requests:?}"
    );
    let result = result.expect("a look has an end").map(|mut looks| looks.pop().unwrap());
    match &result {
        Ok(look) => look.drift.iter().for_each(assert_printable),
        Err(error) => {
            let told = error.to_string();
            assert!(told.len() < 2_000 && !told.contains(|c: char| c.is_control()), "{told:?}");
        }
    }
    result
}

fn assert_printable(item: &DriftItem) {
    for text in [&item.wanted, &item.found].into_iter().chain(&item.path).chain(&item.service) {
        assert!(!text.contains(char::is_control) && text.chars().count() < 3_100, "{text:?}");
    }
}

/// A good host whose Docker API says something else to the requests that begin with `prefix`.
fn docker(prefix: &'static str, reply: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> Behaviour {
    let good = Good::new();
    let usual = good.clone();
    let answer = move |path: &str| {
        let said = usual.docker(path);
        if path.starts_with(prefix) { reply(said) } else { said }
    };
    Behaviour { docker: Arc::new(answer), ..good.behaviour() }
}

/// A good host whose list of containers was changed.
fn list(change: impl Fn(&mut Vec<Value>) + Send + Sync + 'static) -> Behaviour {
    docker("/containers/json", move |said| {
        let Reply::Json(Value::Array(mut containers)) = said else { panic!("a list") };
        change(&mut containers);
        Reply::Json(containers.into())
    })
}

/// A good host whose helper says something else to one verb.
fn helper(verb: &'static str, said: impl Fn(Said) -> Said + Send + Sync + 'static) -> Behaviour {
    let good = Good::new();
    let usual = good.clone();
    let answer = move |question: &str| {
        let answer = usual.helper(question);
        if question.starts_with(verb) { said(answer) } else { answer }
    };
    Behaviour { helper: Arc::new(answer), ..good.behaviour() }
}

fn kinds(look: &Look) -> Vec<DriftKind> {
    look.drift.iter().map(|item| item.kind).collect()
}

#[tokio::test]
async fn a_good_fake_is_in_sync() {
    let look = looked(Good::new().behaviour()).await.unwrap();
    assert_eq!((look.drift, look.plan.is_empty()), (Vec::new(), true));
}

#[tokio::test]
async fn states_and_types_that_nobody_knows_are_no_error() {
    let odd = list(|containers| {
        containers[0]["State"] = json!("hibernating");
        containers[1]["Ports"] = json!([{"PublicPort": -5}, {"PublicPort": 1e99}, 3, null]);
        containers.extend([json!(null), json!(-1), json!([]), json!({"Id": 5, "Names": {}, "Labels": [1]})]);
    });
    assert_eq!(kinds(&looked(odd).await.unwrap()), Vec::new());
    for value in [json!(-1), json!("x"), json!([]), json!({}), json!(null), json!(1e300)] {
        for part in ["Config", "HostConfig", "Mounts", "NetworkSettings", "State", "RestartCount"] {
            let value = value.clone();
            let odd = docker("/containers/edge-id", move |said| {
                let Reply::Json(mut inspect) = said else { panic!("an inspect") };
                inspect[part] = value.clone();
                Reply::Json(inspect)
            });
            let kinds = kinds(&looked(odd).await.unwrap());
            assert!(kinds.iter().all(|kind| *kind == DriftKind::ConfigChanged), "{part}: {kinds:?}");
        }
        for path in ["/info", "/networks", "/volumes", "/images"] {
            let value = value.clone();
            let _ = looked(docker(path, move |_| Reply::Json(value.clone()))).await;
        }
    }
}

#[tokio::test]
async fn ten_thousand_containers_of_others_are_no_drift_and_as_many_of_ours_are_told() {
    let others = list(|containers| {
        for number in 0..10_000 {
            let labels = json!({"com.docker.compose.project": "other", "long": "x".repeat(300)});
            containers.push(json!({"Id": format!("o{number}"), "Names": [format!("/other-{number}")], "State": "running", "Labels": labels}));
        }
    });
    assert_eq!(kinds(&looked(others).await.unwrap()), Vec::new());
    let strangers = list(|containers| {
        for number in 0..10_000 {
            let ports = json!([{"PublicPort": 3500, "Type": "tcp"}]);
            containers.push(json!({"Id": format!("s{number}"), "Names": [format!("/s{number}")], "State": "running", "Ports": ports}));
        }
    });
    let look = looked(strangers).await.unwrap();
    assert_eq!(look.drift.len(), 10_000);
    assert!(kinds(&look).iter().all(|kind| *kind == DriftKind::Rogue));
}

#[tokio::test]
async fn names_that_a_terminal_would_obey_are_told_in_letters() {
    let odd = list(|containers| {
        let name = "/\u{1b}[2J\u{0}\n\u{9b}31mx";
        containers[0]["Names"] = json!([name]);
        containers[0]["State"] = json!("exited");
        containers[0]["Status"] = json!("Exited (\u{1b}[31m1) now");
        containers.push(json!({"Id": "r", "Names": [name], "State": "running", "NetworkSettings": {"Networks": {"tt-staging": {}}}}));
    });
    let look = looked(odd).await.unwrap();
    assert!(
        kinds(&look).contains(&DriftKind::Rogue) && kinds(&look).contains(&DriftKind::Stopped),
        "{:?}",
        look.drift
    );
    let failing = docker("/containers/json", |_| Reply::Status(500, "\u{1b}[31m\n".repeat(100_000)));
    assert!(looked(failing).await.is_err());
}

#[tokio::test]
async fn bodies_that_are_cut_endless_slow_or_rubbish_end_in_one_line() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: ";
    let deep = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", 2_000_000, "[".repeat(2_000_000));
    let replies = [
        Reply::Raw(format!("{head}1000\r\n\r\n[{{\"Id\":").into_bytes()),
        Reply::Raw(format!("{head}-7\r\n\r\n[]").into_bytes()),
        Reply::Raw(format!("{head}99999999999999999999999\r\n\r\n[]").into_bytes()),
        Reply::Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n[".to_vec()),
        Reply::Raw(b"\x00\xff no HTTP at all\r\n\r\n".to_vec()),
        Reply::Raw(vec![b'h'; 3_000_000]),
        Reply::Raw(deep.into_bytes()),
        Reply::Raw(Vec::new()),
        Reply::Json(json!({"message": "no list"})),
        Reply::Endless,
        Reply::Drip,
        Reply::Silence,
    ];
    for path in ["/containers/json", "/containers/edge-id", "/networks"] {
        for (number, reply) in replies.iter().enumerate() {
            // An object is a fine answer where one is asked for.
            if number == 8 && path != "/containers/json" {
                continue;
            }
            let reply = reply.clone();
            let result = looked(docker(path, move |_| reply.clone())).await;
            assert!(result.is_err(), "{path}: reply {number} was taken");
        }
    }
}

#[tokio::test]
async fn a_helper_that_says_anything_is_not_believed() {
    let hash = "0".repeat(64);
    let answers = [
        Said::Lines("rubbish\nEND 1\n".to_owned()),
        Said::Lines("END\n".repeat(10)),
        Said::Lines("END -1\n".to_owned()),
        Said::Lines(format!("{hash}  ../../etc/passwd\nS x zz 3 y\nEND 1\n")),
        Said::Lines("O !!! 81a4 1 x\nEND 1\n".to_owned()),
        Said::Endless,
        Said::Silence,
        Said::Gone,
    ];
    for (number, answer) in answers.iter().enumerate() {
        let answer = answer.clone();
        let result = looked(helper("list", move |_| answer.clone())).await;
        assert!(result.is_err(), "answer {number} was taken: {:?}", result.map(|look| look.drift));
    }
    for text in ["T x", "T staging/app/ledger.json !!!", "T staging/app/ledger.json e30="] {
        let answer = Said::Lines(format!("{text}\nEND 1\n"));
        assert!(looked(helper("texts", move |_| answer.clone())).await.is_err(), "{text}");
    }
    let many: String = (0..5_000).map(|number| format!("S staging/app/x{number} 81a4 1 x\n")).collect();
    let told =
        looked(helper("list", move |_| Said::Lines(format!("{many}END 1\n")))).await.unwrap_err().to_string();
    assert!(told.contains("more than 4000"), "{told}");
}

#[tokio::test]
async fn a_stream_of_events_that_ends_or_rages_does_not_make_the_operator_spin() {
    let cases: [(Reply, std::ops::RangeInclusive<usize>); 3] = [
        (Reply::Raw(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()), 0..=4),
        (
            Reply::Raw(
                [b"HTTP/1.1 200 OK\r\n\r\n", "{\"Action\":\"exec_start: x\"}\n".repeat(50_000).as_bytes()]
                    .concat(),
            ),
            0..=4,
        ),
        (Reply::Raw([b"HTTP/1.1 200 OK\r\n\r\n", "no JSON\n".repeat(50_000).as_bytes()].concat()), 1..=400),
    ];
    for (number, (reply, wakes)) in cases.into_iter().enumerate() {
        let fake = Fake::start(docker("/events", move |_| reply.clone())).await;
        let host = Arc::new(host_of(&fake));
        let mut hints = host.hints();
        let seen = Arc::new(Mutex::new(0));
        let end = Instant::now() + Duration::from_millis(2_500);
        while let Ok(Ok(())) = tokio::time::timeout_at(end, async {
            host.watch().await.unwrap();
            hints.changed().await
        })
        .await
        {
            *seen.lock().unwrap() += 1;
        }
        let seen = *seen.lock().unwrap();
        assert!(wakes.contains(&seen), "case {number}: woken {seen} times in 2.5 s");
    }
}
