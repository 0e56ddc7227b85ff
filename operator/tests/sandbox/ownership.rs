//! Whose is what: what is taken over, what is left, what is taken away, and that no data is lost on the way.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tasktracker_testbed::{DemoHost, http};

use crate::stage::{Running, Stage, phase, wait_until};

const SOAK: &str = "  policy: {rollout: {soak: 1s}}\n";
const CONTAINERS: &str = "docker ps -a --no-trunc --format '{{.Names}} {{.ID}} {{.State}}' | sort";

/// Adds a task through the page's own origin.
fn add_task(stage: &Stage, title: &str) {
    let page = stage.page();
    let added = http(page, &format!("POST /api/tasks\n{{\"title\": \"{title}\"}}"));
    assert_eq!(added.map(|(status, _)| status), Some(201), "{title}");
}

fn has_task(stage: &Stage, title: &str) -> bool {
    http(stage.page(), "GET /api/tasks").is_some_and(|(_, body)| body.contains(title))
}

fn reason(stage: &Stage, operator: &Running, reason: &str) {
    wait_until(format_args!("{reason} is told: {}", operator.said()), || operator.log().contains(reason));
    let _ = stage;
}

/// The report of a host in `status`.
fn report<'a>(status: &'a Value, host: &str) -> &'a Value {
    let rows = status.as_array().unwrap().iter();
    rows.map(|row| &row["report"]).find(|report| report["host"] == host).unwrap_or(&Value::Null)
}

#[test]
fn data_is_never_left_and_never_replaced_by_emptiness_unasked() {
    let stage = Stage::new("ownership-data");
    let other = Stage::new("ownership-elsewhere");
    let here = stage.stack("staging", "r1", SOAK);
    let place = |stage: &Stage| format!("address: {}, port: {}", stage.host.address(), stage.host.port());
    let there = here
        .replace("name: app-1", "name: app-2")
        .replace(&place(&stage), &place(&other))
        .replace(&stage.host.host_key(), &other.host.host_key())
        .replace("[key]", "[key, other]");
    stage.write_secret("other", &fs::read_to_string(other.host.identity_file()).unwrap());
    stage.write_stack("staging.yaml", &here);
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    add_task(&stage, "kept");
    let before = stage.on_host(CONTAINERS);

    phase("another host would begin without the data");
    // The database is a file on the one host: another host would begin without it.
    stage.write_stack("staging.yaml", &there);
    reason(&stage, &operator, "DataWouldBeLeft");
    let (_, status) = stage.json(&["status"]);
    assert_eq!(report(&status, "app-2")["waiting"]["reason"], "DataWouldBeLeft");
    let retained = report(&status, "app-1")["retained"].as_str().unwrap().to_owned();
    assert!(retained.contains("asks for app on this host no longer"), "{retained}");
    assert_eq!(other.on_host("docker ps -aq; docker volume ls -q; ls /opt/tasktracker 2>/dev/null"), "");
    assert_eq!(stage.on_host(CONTAINERS), before, "what is left was touched");
    let refused = stage.command(&["apply"]);
    assert_eq!(refused.status.code(), Some(1), "data was left without a word");

    phase("coming back means older data");
    // Once it was in force there, coming back means older data, though all of it is as asked for here.
    let leave = || {
        let asked = stage.command(&["apply", "--leave-data"]);
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    };
    leave();
    operator.wait_until_ready("staging");
    stage.write_stack("staging.yaml", &here);
    wait_until("coming back waits", || {
        let (_, status) = stage.json(&["status"]);
        let message = report(&status, "app-1")["waiting"]["message"].as_str().unwrap_or_default().to_owned();
        message.contains("expected it to stay on the host app-2 (volume tt-staging-app-data)")
    });
    wait_until("the operator waits, too", || !operator.is_ready("staging"));
    leave();
    operator.wait_until_ready("staging");
    assert_eq!(stage.on_host(CONTAINERS), before);

    phase("a host is forgotten");
    // A host that is there no longer can only be forgotten.
    other.host.kill_sshd().unwrap();
    let forget = ["delete", "staging", "--host", "app-2", "--forget"];
    let asked_for = stage.command(&["delete", "staging", "--host", "app-1", "--forget"]);
    assert_eq!(asked_for.status.code(), Some(1), "a host that is asked for was forgotten");
    assert_eq!(stage.command(&forget[..4]).status.code(), Some(1), "it cannot be reached");
    assert!(stage.command(&forget).status.success());
    assert_eq!(report(&stage.json(&["status"]).1, "app-2"), &Value::Null);

    phase("down and up by hand");
    // `down -v` and `up` by hand: volumes and network are not Compose's to make or remove. The operator may be the first
    // to make the containers again.
    stage.on_host(
        "cd /opt/tasktracker/staging/app && docker compose -p tt-staging-app down -v 2>&1; docker compose -p tt-staging-app up -d 2>&1 || true",
    );
    wait_until(format_args!("all is well again: {}", operator.said()), || {
        operator.is_ready("staging") && has_task(&stage, "kept")
    });

    phase("an operator without its state");
    // A new operator that knows nothing finds the ledger, and writes nothing.
    let before = (stage.snapshot(), stage.on_host("cat /opt/tasktracker/.epoch"));
    operator.stop();
    let empty = stage.path("empty-state");
    let operator = stage.run_with("new.log", &[("TASKTRACKER_STATE_DIR", empty.to_str().unwrap())]);
    operator.wait_until_ready("staging");
    operator.wait_for_checks("staging", "app-1", 3);
    assert_eq!((stage.snapshot(), stage.on_host("cat /opt/tasktracker/.epoch")), before);

    phase("the ledger is gone");
    // Everything that the operator keeps is gone, what it made is there: that is no fresh start.
    let before = stage.on_host(CONTAINERS);
    stage.on_host("rm -rf /opt/tasktracker/staging");
    reason(&stage, &operator, "LedgerMissing");
    operator.wait_for_checks("staging", "app-1", 3);
    operator.stop();
    assert_eq!(
        (stage.on_host(CONTAINERS), stage.on_host("ls /opt/tasktracker")),
        (before.clone(), String::new())
    );
    let (_, plan) = stage.json(&["plan"]);
    let message = plan[0]["plan"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("tt-staging-app-backend-1") && message.contains("tt-staging-app-data"),
        "{message}"
    );
    let adopted = stage.command(&["adopt", "staging"]);
    assert!(adopted.status.success(), "{}", String::from_utf8_lossy(&adopted.stderr));
    assert_eq!(stage.on_host(CONTAINERS), before, "what was as asked for was made anew");
    assert!(has_task(&stage, "kept") && stage.json(&["status"]).0 == 0);

    phase("the data is gone, too");
    // The same, and the data is gone, too: only a person who says so begins without it.
    stage.on_host("docker rm -f $(docker ps -aq) && docker volume rm tt-staging-app-data && rm -rf /opt/tasktracker/staging");
    let refused = stage.command(&["apply"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && said.contains("expected the volume tt-staging-app-data"),
        "{said}"
    );
    assert_eq!(stage.on_host("docker volume ls -q"), "");
    assert!(stage.command(&["apply", "--leave-data"]).status.success());
    assert!(!has_task(&stage, "kept") && stage.json(&["status"]).0 == 0);
}

#[test]
fn a_stack_that_is_gone_is_taken_away_as_its_policy_says_and_never_its_data() {
    let stage = Stage::new("ownership-gone");
    let down = "  policy: {deletion: DownAndVolumes, rollout: {soak: 1s}}\n";
    let other_ports = "  ports: {page: 3600, api: 8100}\n";
    stage.write_value("api", "TOKEN", b"canary");
    let secret = "tasktracker, backend: {secretEnv: {TOKEN: {secret: api, key: TOKEN}}}}";
    let gone = stage.stack("staging", "r1", down).replace("tasktracker}", secret);
    let retained = stage.stack("second", "r1", &format!("{SOAK}{other_ports}"));
    let stays = stage.stack("third", "r1", SOAK).replace(
        "revision: r1",
        "revision: r1\n  suspend: {until: 2099-01-01T00:00:00Z, reason: only to be there}",
    );
    stage.write_stack("staging.yaml", &gone);
    stage.write_stack("second.yaml", &retained);
    let stays = stays.replace("interval: 300ms", "ports: {page: 3700, api: 8200}\n  interval: 300ms");
    stage.write_stack("third.yaml", &stays);
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    operator.wait_until_ready("second");
    add_task(&stage, "kept");
    let volumes = || stage.on_host("docker volume ls -q | sort");
    let containers = |project: &str| {
        let filter = format!("docker ps -q --filter label=com.docker.compose.project=tt-{project}-app");
        stage.on_host(&filter).lines().count()
    };
    let (all, before) = (volumes(), stage.on_host(CONTAINERS));

    phase("a file that comes back");
    // A file that comes back, as while a repository is checked out, is no deletion.
    let refused = stage.command(&["delete", "staging"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && said.contains("staging.yaml: take it from there first"),
        "{said}"
    );
    fs::remove_file(stage.path("stacks/staging.yaml")).unwrap();
    // A change of another file shows that the folder was read: three times without the first, then with it.
    for (number, revision) in (1..).zip(["r2", "r1", "r2", "r1"]) {
        if number == 4 {
            stage.write_stack("staging.yaml", &gone);
        }
        stage.write_stack("third.yaml", &stays.replace("revision: r1", &format!("revision: {revision}")));
        wait_until(format_args!("the folder is read anew: {}", operator.said()), || {
            let log = operator.log();
            log.lines().filter(|line| line.contains("the spec changed") && line.contains("third")).count()
                == number
        });
    }
    operator.wait_until_ready("staging");
    phase("a file that stays away");
    fs::remove_file(stage.path("stacks/staging.yaml")).unwrap();
    fs::remove_file(stage.path("stacks/second.yaml")).unwrap();
    let removed = Instant::now();
    wait_until(format_args!("a deletion begins: {}", operator.said()), || {
        stage.on_host(CONTAINERS) != before
    });
    // The operator may have read the folder up to a second later, never earlier.
    assert!(removed.elapsed() > Duration::from_secs(57), "a deletion after {:?}", removed.elapsed());
    wait_until("what is gone is taken away", || containers("staging") == 0);
    wait_until("and it is told", || operator.log().contains("removed, volumes stay"));
    assert_eq!((containers("second"), volumes()), (3, all.clone()), "{}", operator.log());
    let networks = stage.on_host("docker network ls --format '{{.Name}}'");
    assert!(!networks.contains("tt-staging") && networks.contains("tt-second"), "{networks}");
    assert!(operator.log().contains("volumes stay though policy.deletion is DownAndVolumes"));

    phase("a stack that comes back");
    // What comes back finds its data again.
    stage.write_stack("staging.yaml", &gone);
    operator.wait_until_ready("staging");
    assert!(has_task(&stage, "kept"));
    phase("delete with volumes");
    // The running operator may have the file in mind still: what a person takes away does not come back.
    fs::remove_file(stage.path("stacks/staging.yaml")).unwrap();
    let (code, done) = stage.json(&["delete", "staging", "--volumes"]);
    let done = done[0]["done"].as_array().unwrap();
    assert_eq!((code, &done[0]), (0, &json!("remove secrets/backend/TOKEN")), "{done:?}");
    assert!(done.contains(&json!("remove volume tt-staging-app-data")), "{done:?}");
    operator.wait_for_checks("staging", "app-1", 3);
    operator.stop();
    let left = || (containers("staging"), containers("second"), volumes());
    assert_eq!(left(), (0, 3, "tt-second-app-data\n".to_owned()));

    phase("delete of a project that a person holds");
    // Whoever works on a project by hand is not taken by surprise, not even by a person.
    stage.on_host("echo 'me: a backup' >/opt/tasktracker/second/app/HOLD");
    let held = stage.command(&["delete", "second"]);
    let said = String::from_utf8_lossy(&held.stderr).into_owned();
    assert!(held.status.code() == Some(1) && said.contains("nothing is written"), "{said}");
    assert_eq!(left().1, 3);
    stage.on_host("rm /opt/tasktracker/second/app/HOLD");
    assert!(stage.command(&["delete", "second"]).status.success());
    assert_eq!(left(), (0, 0, "tt-second-app-data\n".to_owned()));
    let again = stage.command(&["delete", "staging"]);
    assert_eq!(again.status.code(), Some(1), "it is known no longer");
}

#[test]
fn two_operators_that_want_different_things_stop_and_say_so() {
    let stage = Stage::new("ownership-rivals");
    fs::create_dir(stage.path("other-stacks")).unwrap();
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", SOAK));
    stage.apply();
    let other = stage.path("other-state");
    fs::write(stage.path("other-stacks/staging.yaml"), stage.stack("staging", "r2", SOAK)).unwrap();
    // The intervals are long enough for the rollouts that count.
    for folder in ["stacks", "other-stacks"] {
        let path = stage.path(folder).join("staging.yaml");
        let text = fs::read_to_string(&path).unwrap().replace("interval: 300ms", "interval: 5s");
        fs::write(path, text).unwrap();
    }
    let one = stage.start_operator();
    let two =
        stage.run_on("other-stacks", "other.log", &[("TASKTRACKER_STATE_DIR", other.to_str().unwrap())]);
    wait_until("one of them gives up", || {
        one.log().contains("OtherWriter") || two.log().contains("OtherWriter")
    });
    wait_until("the other one has what it wants, or gives up, too", || {
        one.log().contains("OtherWriter") && two.log().contains("OtherWriter")
            || one.is_ready("staging") != two.is_ready("staging")
    });
    let epoch = || stage.on_host("cut -d' ' -f1 /opt/tasktracker/.epoch").trim().parse::<u64>().unwrap();
    let settled = epoch();
    one.wait_for_ended_checks("staging", "app-1", 1);
    two.wait_for_ended_checks("staging", "app-1", 1);
    assert!(epoch() <= settled + 1, "they go on: {} {}", one.log(), two.log());
    let told = if one.log().contains("OtherWriter") { one.log() } else { two.log() };
    assert!(told.contains("end one of the two"), "{told}");
}

#[test]
fn a_stack_that_was_made_anew_is_adopted_by_a_person() {
    let stage = Stage::new("ownership-adopt");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", SOAK));
    stage.apply();
    add_task(&stage, "kept");
    // As if another resource of the same name had deployed it: another owner in the ledger and on what Docker has.
    stage.on_host(
        "cd /opt/tasktracker/staging/app && sed -i 's/\"owner\": \"[0-9a-f]*\"/\"owner\": \"00ff\"/' ledger.json releases/*/manifest.json
         sed -i 's/\"desiredHash\": \"[0-9a-f]*\"/\"desiredHash\": \"00ff\"/' releases/*/manifest.json
         sed -i 's/tasktracker.dev.owner\\(.*\\): .*/tasktracker.dev\\/owner\\1: \"00ff\"/' compose.yaml",
    );
    let before = stage.on_host(CONTAINERS);
    let (code, plan) = stage.json(&["plan"]);
    assert_eq!((code, &plan[0]["reason"]), (1, &json!("NameConflict")));
    let operator = stage.start_operator();
    reason(&stage, &operator, "NameConflict");
    operator.stop();
    assert_eq!(stage.command(&["apply"]).status.code(), Some(1));
    assert_eq!(stage.on_host(CONTAINERS), before, "something was touched");
    let adopted = stage.command(&["adopt", "staging"]);
    assert!(adopted.status.success(), "{}", String::from_utf8_lossy(&adopted.stderr));
    let (code, status) = stage.json(&["status"]);
    assert_eq!((code, &status[0]["report"]["drift"]), (0, &json!([])), "{status:#}");
    assert!(has_task(&stage, "kept"));
}
