//! Secrets: they arrive byte by byte, they are seen nowhere else, and what happens to them is repaired or told.

use std::fs;

use base64::{Engine, prelude::BASE64_STANDARD};
use proptest::{
    collection::vec,
    prelude::any,
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use serde_json::Value;
use tasktracker_testbed::{DemoHost, http};

use crate::{
    events::Events,
    rollout::make_bad,
    stage::{Stage, wait_until},
};

const SOAK: &str = "  policy: {rollout: {soak: 1s}}\n";
/// Where containers see their secrets, as root of the host does.
const INSIDE: &str = "/proc/$(docker inspect --format '{{.State.Pid}}' $(docker ps -aqf label=com.docker.compose.service=backend))/root/run/secrets";

/// A stack whose backend has these secrets, each a key of the secret `api`.
fn with_secrets(stage: &Stage, names: &[&str], more: &str) -> String {
    let pairs: Vec<String> =
        names.iter().map(|name| format!("{name}: {{secret: api, key: {name}}}")).collect();
    let app = format!("tasktracker, backend: {{secretEnv: {{{}}}}}}}", pairs.join(", "));
    stage.stack("staging", "r1", more).replace("tasktracker}", &app)
}

fn containers(stage: &Stage) -> Vec<String> {
    let script = "docker ps -aq --no-trunc --format '{{.Names}} {{.ID}}' | sort";
    stage.on_host(script).lines().map(str::to_owned).collect()
}

fn kinds(report: &Value) -> Vec<String> {
    let items = report[0]["drift"].as_array().unwrap();
    items
        .iter()
        .map(|item| format!("{} {}", item["kind"].as_str().unwrap(), item["path"].as_str().unwrap_or("")))
        .collect()
}

fn actions(report: &Value) -> Vec<String> {
    let repairs = report[0]["plan"]["repairs"].as_array().unwrap();
    repairs
        .iter()
        .map(|repair| {
            format!("{} {}", repair["action"].as_str().unwrap(), repair["path"].as_str().unwrap_or(""))
        })
        .collect()
}

/// Looks for texts on the host all the while: in what every process was started with, and in every file that another
/// user than the operator's may read.
struct Spy {
    child: std::process::Child,
}

impl Spy {
    /// `pattern` must not match itself: it is in this program's own arguments.
    fn start(stage: &Stage, pattern: &str) -> Self {
        let script = format!(
            "rm -f /tmp/leaks /tmp/looked
             while :; do
                 cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -a '{pattern}' >>/tmp/leaks
                 su -s /bin/sh nobody -c \"find /opt /tmp /home /run /etc -type f -readable -exec grep -laE '{pattern}' {{}} + 2>/dev/null\" >>/tmp/leaks
                 echo x >>/tmp/looked
             done"
        );
        let child = stage.host.command("sh").args(["-c", &script]).spawn().unwrap();
        Self { child }
    }

    fn stop(mut self, stage: &Stage) -> String {
        let looked = || stage.as_root("cat /tmp/looked 2>/dev/null | wc -l").trim().parse::<u32>().unwrap();
        let before = looked();
        wait_until("it was looked once more", || looked() > before + 1);
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        assert!(looked() > 3, "it was hardly looked");
        stage.as_root("cat /tmp/leaks")
    }
}

#[test]
fn a_secret_is_seen_by_its_service_and_nowhere_else() {
    let stage = Stage::new("secret-canary");
    let canary = "canary-5b1d90e7";
    stage.write_value("api", "TOKEN", format!("one {canary}").as_bytes());
    stage.write_value("api", "OTHER", format!("{canary} two\n").as_bytes());
    let spy = Spy::start(&stage, "canary-5b1d90[e]7");
    let events = Events::follow(&stage.host, &[], "{{json .}}");
    stage.write_stack("staging.yaml", &with_secrets(&stage, &["TOKEN", "OTHER"], SOAK));
    let mut said = Vec::new();
    let mut say = |arguments: &[&str]| {
        let output = stage.command(arguments);
        said.extend(output.stdout.into_iter().chain(output.stderr));
    };
    say(&["plan"]);
    say(&["plan", "--output", "json"]);
    say(&["apply", "--output", "json"]);
    let seen = stage.as_root(&format!("cat {INSIDE}/TOKEN {INSIDE}/OTHER"));
    assert_eq!(seen, format!("one {canary}{canary} two\n"), "the service does not see its secrets");
    let variables =
        stage.on_host("docker inspect --format '{{join .Config.Env \" \"}}' $(docker ps -aqf label=com.docker.compose.service=backend)");
    assert!(variables.contains("TOKEN_FILE=/run/secrets/TOKEN"), "{variables}");
    // Everything that happens to a secret, before the eyes of a talkative operator.
    stage.on_host("printf x >/tmp/x; mv -f /tmp/x /opt/tasktracker/staging/app/secrets/backend/TOKEN");
    for arguments in [
        &["plan"][..],
        &["plan", "--output", "json"],
        &["status", "--output", "json"],
        &["render"],
        &["history"],
    ] {
        say(arguments);
    }
    let talkative = [("TASKTRACKER_LOG_LEVEL", "trace,russh=debug"), ("TASKTRACKER_LOG_FORMAT", "json")];
    let operator = stage.run_with("trace.log", &talkative);
    operator.wait_until_ready("staging");
    stage.write_value("api", "OTHER", format!("three {canary}").as_bytes());
    let changed = || stage.as_root(&format!("cat {INSIDE}/OTHER")).starts_with("three");
    wait_until("the changed secret arrives", || operator.is_ready("staging") && changed());
    let metrics = http(operator.metrics, "GET /metrics").unwrap().1;
    said.extend(metrics.bytes().chain(operator.log().bytes()));
    operator.stop();
    said.extend(fs::read(stage.path("state").join("first-seen.json")).unwrap_or_default());
    let leaks = spy.stop(&stage);
    assert_eq!(leaks, "", "the host shows it");
    let docker = stage.on_host(
        "for kind in container network volume image; do docker $kind ls -q | xargs -r docker $kind inspect; done
         for name in $(docker ps -aq); do docker logs $name 2>&1; done",
    );
    let events = events.lines();
    assert!(events.iter().any(|event| event.contains("exec_create")), "no event was received: {events:?}");
    said.extend(docker.bytes().chain(events.iter().flat_map(|event| event.bytes())));
    let said = String::from_utf8_lossy(&said);
    let key = fs::read_to_string(stage.host.identity_file()).unwrap();
    let key_line = key.lines().nth(2).unwrap().to_owned();
    let encoded = |text: &str| BASE64_STANDARD.encode(text).trim_end_matches('=').to_owned();
    for text in [canary.to_owned(), key_line.clone(), encoded(&format!("one {canary}")), encoded(canary)] {
        assert!(!said.contains(&text), "{text} was shown");
    }
    assert!(
        said.contains("secrets/backend/TOKEN") && said.contains("FileChanged"),
        "nothing was said at all"
    );
    let files = stage.as_root(&format!(
        "grep -rlaF {canary} /opt /etc /home /var /tmp --exclude=leaks 2>/dev/null | sort"
    ));
    let own = "/opt/tasktracker/staging/app/secrets/backend/OTHER\n/opt/tasktracker/staging/app/secrets/backend/TOKEN\n";
    assert_eq!(files, own, "it is kept elsewhere, too");
    let state = stage.path("state");
    let kept = std::process::Command::new("grep").arg("-rlF").arg(canary).arg(&state).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&kept.stdout), "", "the state folder has it");
}

#[test]
fn any_bytes_arrive_as_they_are() {
    let stage = Stage::new("secret-bytes");
    let names: Vec<String> = (0..12).map(|number| format!("S{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    stage.write_stack("staging.yaml", &with_secrets(&stage, &names, SOAK));
    let mut runner = TestRunner::default();
    let strategy = vec(vec(any::<u8>(), 0..2_000), names.len());
    for round in 0..3 {
        let mut values = strategy.new_tree(&mut runner).unwrap().current();
        values[0] = Vec::new();
        values[1] = b"$HOME `id` \\n 'x' \"y\" ${A}\n\n".to_vec();
        values[2] = (0..1 << 20).map(|index: u32| (index % 251) as u8 + round).collect();
        for (name, value) in names.iter().zip(&values) {
            stage.write_value("api", name, value);
        }
        stage.apply();
        for (name, value) in names.iter().zip(&values) {
            let seen = stage.as_root(&format!("base64 -w0 {INSIDE}/{name}"));
            assert!(BASE64_STANDARD.decode(seen).unwrap() == *value, "{name} in round {round}: {value:?}");
        }
        assert_eq!(stage.json(&["plan"]).0, 0);
    }
}

/// Every file of secrets on the host, with what is in it.
fn on_disk(stage: &Stage) -> String {
    stage.as_root("cd /opt/tasktracker/staging/app/secrets && find . -type f | sort | xargs -I{} sh -c 'echo {} $(cat {})'")
}

#[test]
fn a_value_with_which_nothing_serves_goes_back_with_its_release() {
    let stage = Stage::new("secret-back");
    make_bad(&stage.host, "picky", "grep -q bad $TOKEN_FILE && exit 3; exec /real \"$@\"");
    let limits = "  policy: {rollout: {soak: 1s, drainTimeout: 2s, healthTimeout: 5s}}\n";
    let stack = with_secrets(&stage, &["TOKEN"], limits).replace("revision: r1", "revision: picky");
    stage.write_value("api", "TOKEN", b"good");
    // The data belongs to the user of the real image.
    stage.write_stack("staging.yaml", &stack.replace("picky", "r1"));
    stage.apply();
    stage.write_stack("staging.yaml", &stack);
    stage.apply();
    let good = "./backend/TOKEN good\n";
    let before = containers(&stage);
    let is_as_before = || {
        assert_eq!((on_disk(&stage).as_str(), containers(&stage)), (good, before.clone()));
        let (_, status) = stage.json(&["status"]);
        assert_eq!(kinds(&serde_json::json!([status[0]["report"]])), Vec::<String>::new(), "{status:#}");
    };
    // Its source has the value no longer: the host does, for as long as it may be needed.
    stage.write_value("api", "TOKEN", b"bad");
    let refused = stage.command(&["apply"]);
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    is_as_before();
    stage.on_host("docker restart $(docker ps -qf label=com.docker.compose.service=backend)");
    wait_until("it serves again", || stage.http(3500, "GET /api/health/ready").0 == 200);

    // The same when it is cut in the middle, by whoever comes next.
    stage.write_value("api", "TOKEN", b"also bad");
    assert!(stage.ends_at("applying", &["apply"]));
    assert_eq!(on_disk(&stage), "./.before/backend/TOKEN good\n./backend/TOKEN also bad\n");
    let operator = stage.start_operator();
    wait_until(format_args!("it is taken back: {}", operator.said()), || operator.log().contains("ERROR"));
    operator.stop();
    is_as_before();

    // And where the value is wanted no longer by then.
    stage.write_value("api", "TOKEN", b"bad again");
    assert!(stage.ends_at("applying", &["apply"]));
    stage.write_value("api", "TOKEN", b"good");
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    wait_until("nothing is left", || on_disk(&stage) == good);
    operator.stop();
    is_as_before();

    // What serves needs no other value to be kept.
    stage.write_value("api", "TOKEN", b"better");
    stage.apply();
    assert_eq!(on_disk(&stage), "./backend/TOKEN better\n");
}

#[test]
fn what_happens_to_secrets_is_repaired_or_told() {
    let stage = Stage::new("secret-drift");
    let write =
        |names: &[&str], more: &str| stage.write_stack("staging.yaml", &with_secrets(&stage, names, more));
    stage.write_value("api", "TOKEN", b"first");
    stage.write_value("api", "OTHER", b"other");
    write(&["TOKEN", "OTHER"], SOAK);
    stage.apply();
    let before = (containers(&stage), stage.snapshot());
    let cases = [
        ("chmod 755 secrets", "FileMode secrets", "setMode secrets"),
        ("chmod 777 secrets/backend", "FileMode secrets/backend", "setMode secrets/backend"),
        (
            "chmod 640 secrets/backend/TOKEN",
            "FileMode secrets/backend/TOKEN",
            "writeSecret secrets/backend/TOKEN",
        ),
        ("chmod 644 ../.key", "FileMode ../.key", "setMode ../.key"),
        (
            "chmod u+w secrets/backend/TOKEN; echo x >>secrets/backend/TOKEN; chmod 444 secrets/backend/TOKEN",
            "FileChanged secrets/backend/TOKEN",
            "writeSecret secrets/backend/TOKEN",
        ),
        (
            "rm -f secrets/backend/OTHER",
            "FileMissing secrets/backend/OTHER",
            "writeSecret secrets/backend/OTHER",
        ),
    ];
    for (damage, kind, action) in cases {
        stage.on_host(&format!("cd /opt/tasktracker/staging/app && {damage}"));
        let (code, plan) = stage.json(&["plan"]);
        assert_eq!(
            (code, kinds(&plan), actions(&plan)),
            (2, vec![kind.to_owned()], vec![action.to_owned()]),
            "{damage}"
        );
        stage.apply();
        assert_eq!((containers(&stage), stage.snapshot()), before, "{damage}: another end than before");
    }
    stage.on_host("echo mine >/opt/tasktracker/staging/app/secrets/backend/notes");
    assert_eq!(kinds(&stage.json(&["plan"]).1), ["FileExtra secrets/backend/notes"]);
    stage.on_host("rm /opt/tasktracker/staging/app/secrets/backend/notes");

    // A link in the place of the folder is not followed, and what it leads to stays as it is.
    stage.on_host("mkdir /tmp/elsewhere && cd /opt/tasktracker/staging/app && rm -rf secrets && ln -s /tmp/elsewhere secrets");
    assert_eq!(kinds(&stage.json(&["plan"]).1)[0], "NotAFile secrets");
    stage.apply();
    assert_eq!(stage.on_host("ls /tmp/elsewhere"), "");
    assert_eq!(stage.as_root(&format!("cat {INSIDE}/TOKEN")), "first");
    stage.on_host("rm /opt/tasktracker/staging/app/*.moved-*");
    assert_eq!(stage.snapshot(), before.1);

    // Another value is a change, and costs only the service that uses it its container.
    let others = |stage: &Stage| {
        containers(stage).into_iter().filter(|line| !line.contains("backend")).collect::<Vec<_>>()
    };
    let unconcerned = others(&stage);
    stage.write_value("api", "TOKEN", b"second");
    let (_, plan) = stage.json(&["plan"]);
    let change = &plan[0]["plan"]["rollout"]["items"];
    assert_eq!(change[0]["path"], "secrets/backend/TOKEN", "{change}");
    assert_eq!((change.as_array().unwrap().len(), change[0]["to"].as_str()), (1, Some("another value")));
    stage.apply();
    assert_eq!(stage.as_root(&format!("cat {INSIDE}/TOKEN")), "second");
    assert_eq!(others(&stage), unconcerned, "a service was replaced that does not use the secret");
    assert_ne!(containers(&stage), before.0);

    moved_on(&stage, &write);
}

/// Values that cannot be put back any more are told, and nothing is written until a person or a change brings new ones.
fn moved_on(stage: &Stage, write: &dyn Fn(&[&str], &str)) {
    write(&["TOKEN", "OTHER"], "  policy: {upgrade: Approve, rollout: {soak: 1s}}\n");
    stage.write_value("api", "TOKEN", b"third");
    stage.on_host("rm -f /opt/tasktracker/staging/app/secrets/backend/TOKEN");
    let operator = stage.start_operator();
    wait_until("it is told", || {
        operator.log().contains("SecretMoved") && operator.log().contains("ApprovalNeeded")
    });
    operator.stop();
    let (_, plan) = stage.json(&["plan"]);
    assert_eq!(
        (kinds(&plan), actions(&plan)),
        (vec!["SecretMoved secrets/backend/TOKEN".to_owned()], Vec::new())
    );
    let count = stage.on_host("ls /opt/tasktracker/staging/app/secrets/backend");
    assert_eq!(count, "OTHER\n", "something was written");
    stage.apply();
    assert_eq!(stage.as_root(&format!("cat {INSIDE}/TOKEN")), "third");
    // A secret that is gone from its source is missing; what runs with it goes on.
    fs::remove_file(stage.path("secrets/api/OTHER")).unwrap();
    let (code, plan) = stage.json(&["plan"]);
    assert_eq!((code, kinds(&plan)), (2, vec!["SecretMissing secrets/backend/OTHER".to_owned()]));
    assert!(plan[0]["plan"]["rollout"].is_null() && plan[0]["plan"]["waiting"].is_null(), "{plan:#}");
    stage.write_value("api", "TOKEN", b"fourth");
    assert_eq!(stage.json(&["plan"]).1[0]["plan"]["waiting"]["reason"], "SecretMissing");
    let refused = stage.command(&["apply"]);
    assert_eq!(refused.status.code(), Some(1), "a rollout without all of its secrets");
    // What nothing asks for any more does not stay.
    write(&["TOKEN"], SOAK);
    stage.apply();
    assert_eq!(stage.on_host("ls /opt/tasktracker/staging/app/secrets/backend"), "TOKEN\n");
    // With the key, everything that was remembered is gone: a new release, with a new key.
    stage.on_host("rm /opt/tasktracker/staging/.key");
    let (_, plan) = stage.json(&["plan"]);
    assert_eq!(plan[0]["plan"]["rollout"]["items"][0]["path"], "secrets/backend/TOKEN", "{plan:#}");
    stage.apply();
    assert_eq!(
        (stage.json(&["plan"]).0, stage.on_host("stat -c %a /opt/tasktracker/staging/.key")),
        (0, "600\n".to_owned())
    );
    by_program(stage);
}

/// The same from a program that knows the secrets.
fn by_program(stage: &Stage) {
    let program = stage.path("program");
    let folder = stage.path("secrets");
    fs::write(&program, format!("cat \"{}/$1/$2\"", folder.display())).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tasktracker-operator"));
    command.args(["plan", "--stacks"]).arg(stage.path("stacks"));
    command.arg("--secret-command").arg(format!("sh {}", program.display()));
    let output = command.env("TASKTRACKER_STATE_DIR", stage.path("state")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
