//! A change is not drift: it waits where a person must release it, while drift is healed towards the old release.

use serde_json::{Value, json};

use crate::stage::{Running, Stage, wait_until};

const APPROVE: &str = "  policy: {upgrade: Approve, rollout: {soak: 1s}}\n";

fn healed(operator: &Running, kind: &str) -> bool {
    operator.metric("tasktracker_drift_healed_total", &[&format!("kind=\"{kind}\"")]) == Some(1.0)
}

fn revision(stage: &Stage) -> Value {
    let (_, health) = stage.http(3500, "GET /api/health");
    serde_json::from_str::<Value>(&health).map(|health| health["revision"].clone()).unwrap_or_default()
}

#[test]
fn a_waiting_change_is_never_smuggled_in_by_healing() {
    let stage = Stage::new("change");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", APPROVE));
    stage.apply();
    assert_eq!(revision(&stage), "r1");
    let before = stage.snapshot();

    stage.write_stack("staging.yaml", &stage.stack("staging", "r2", APPROVE));
    let operator = stage.start_operator();
    wait_until("the change waits", || operator.log().contains("a change waits"));
    let (code, status) = stage.json(&["status"]);
    assert_eq!((code, &status[0]["report"]["waiting"]["reason"]), (2, &json!("ApprovalNeeded")));
    assert_eq!(status[0]["report"]["drift"], json!([]));

    stage.on_host("docker rm -f $(docker ps -aqf label=com.docker.compose.service=backend)");
    wait_until("the container is back", || healed(&operator, "Missing"));
    operator.stop();
    assert_eq!(revision(&stage), "r1");

    stage.on_host(
        "echo '# mine' >> /opt/tasktracker/staging/app/compose.yaml; docker rm -f $(docker ps -aqf label=com.docker.compose.service=frontend)",
    );
    let operator = stage.start_operator();
    wait_until("both are healed after a restart of the operator", || {
        healed(&operator, "FileChanged") && healed(&operator, "Missing")
    });
    assert_eq!(stage.snapshot(), before, "healing did not lead back to the applied release");
    assert_eq!(
        operator.metric("tasktracker_stack_in_sync", &[]),
        Some(0.0),
        "a waiting change counts as in sync"
    );

    let (_, plan) = stage.json(&["plan"]);
    let shown = plan[0]["hash"].as_str().unwrap();
    let refused = stage.command(&["apply", "--plan", "0123456789abcdef"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains(&format!("found {shown}")), "{said}");
    assert_eq!(revision(&stage), "r1");
    // Drift that comes and is healed meanwhile makes no other plan of a change.
    stage.on_host("docker rm -f $(docker ps -aqf label=com.docker.compose.service=frontend)");
    assert!(stage.command(&["apply", "--plan", shown]).status.success());
    operator.wait_until_ready("staging");
    assert_eq!(revision(&stage), "r2");
    assert_eq!(stage.json(&["status"]).0, 0);
    operator.stop();
}

#[test]
fn what_is_approved_is_carried_out_and_nothing_else() {
    let stage = Stage::new("approve");
    stage.on_host("for part in backend frontend; do docker tag registry.example.com/tasktracker/$part:r2 registry.example.com/tasktracker/$part:r3; done");
    let closed =
        "  policy: {upgrade: Approve, rollout: {soak: 1s}, windows: [{cron: '0 0 29 2 *', duration: 1m}]}\n";
    let write = |revision: &str, more: &str| {
        stage.write_stack("staging.yaml", &stage.stack("staging", revision, more));
    };
    let waiting = |reason: &str| {
        let mut report = Value::Null;
        wait_until(format_args!("a change waits: {reason}"), || {
            report = stage.json(&["status"]).1[0]["report"].clone();
            report["waiting"]["reason"] == reason
        });
        report["waiting"]["message"].as_str().unwrap().to_owned()
    };
    let plan = || stage.json(&["plan"]).1[0]["hash"].as_str().unwrap().to_owned();
    let approve = |hash: &str| {
        let output = stage.command(&["approve", "staging", hash]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    write("r1", APPROVE);
    let operator = stage.start_operator();
    wait_until("the change waits", || operator.log().contains("a change waits"));
    let (code, said) = approve("0123456789abcdef");
    assert!(code == Some(1) && said.contains(&format!("found {}", plan())), "{said}");
    assert_eq!(approve(&plan()).0, Some(0));
    operator.wait_until_ready("staging");
    assert_eq!(revision(&stage), "r1");
    let (code, said) = approve(&plan());
    assert!(code == Some(1) && said.contains("expected a change that waits"), "{said}");

    // What was approved waits for its window; what is healed meanwhile makes it no other plan, another spec does.
    write("r2", closed);
    waiting("ApprovalNeeded");
    let approved = plan();
    let suspend = "  suspend: {until: '2999-01-01T00:00:00Z', reason: fair}\n";
    write("r2", &format!("{closed}{suspend}"));
    let (code, said) = approve(&approved);
    assert!(code == Some(1) && said.contains("nothing is written"), "{said}");
    write("r2", closed);
    assert_eq!(approve(&approved), (Some(0), String::new()));
    waiting("WindowClosed");
    stage.on_host("docker rm -f $(docker ps -aqf label=com.docker.compose.service=backend)");
    wait_until("the container is back", || healed(&operator, "Missing"));
    waiting("WindowClosed");
    assert_eq!(plan(), approved);
    write("r3", closed);
    let told = waiting("ApprovalNeeded");
    assert!(told.contains("what is asked for or what is in force changed since"), "{told}");
    assert_eq!(approve(&approved).0, Some(1), "another plan than was shown");
    write("r2", closed);
    waiting("WindowClosed");
    assert_eq!(revision(&stage), "r1");
    // The operator may be ready still, for what was asked for before.
    let serves = |wanted: &str| {
        wait_until(format_args!("{wanted} serves: {}", operator.said()), || {
            revision(&stage) == wanted && operator.is_ready("staging")
        });
    };
    write("r2", APPROVE);
    serves("r2");
    let done = "\"what\":[\"roll out revision r2 after r1\"],\"plan\":\"";
    assert_eq!(operator.log().matches(done).count(), 2, "began and succeeded, once: {}", operator.log());

    // By the spec, as a commit does it.
    write("r1", &format!("{APPROVE}  approvedPlan: '00'\n"));
    assert!(waiting("ApprovalNeeded").contains("found spec.approvedPlan 00"));
    write("r1", &format!("{APPROVE}  approvedPlan: '{}'\n", plan()));
    serves("r1");
    let (_, history) = stage.json(&["history"]);
    let by = |at: usize| history[at]["rollout"]["approved"].as_str().unwrap_or_default().to_owned();
    assert!(by(0).starts_with("spec.approvedPlan ") && by(1) == by(2) && !by(1).is_empty(), "{history:#}");
    operator.stop();
}

#[test]
fn a_release_that_does_not_serve_is_not_tried_again_and_the_old_one_comes_back() {
    let stage = Stage::new("failing");
    let limits = "  policy: {rollout: {soak: 1s, healthTimeout: 5s}}\n";
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", limits));
    stage.apply();
    stage.on_host("docker tag caddy:2.6.2 registry.example.com/tasktracker/backend:broken");
    stage.on_host("docker tag registry.example.com/tasktracker/frontend:r1 registry.example.com/tasktracker/frontend:broken");
    stage.write_stack("staging.yaml", &stage.stack("staging", "broken", limits));
    let operator = stage.start_operator();
    wait_until("the rollout failed", || {
        operator.metric("tasktracker_rollout_total", &["result=\"error\""]) == Some(1.0)
    });
    wait_until("the old release serves again", || {
        revision(&stage) == "r1" && operator.log().contains("was tried and failed")
    });
    operator.wait_for_checks("staging", "app-1", 3);
    assert_eq!(
        operator.metric("tasktracker_rollout_total", &["result=\"error\""]),
        Some(1.0),
        "it was tried again"
    );
    operator.stop();
    let (code, history) = stage.json(&["history"]);
    let told: Vec<(&str, &str, bool)> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |key: &str| row["rollout"][key].as_str().unwrap();
            (text("revision"), text("result"), row["kept"].as_bool().unwrap())
        })
        .collect();
    assert_eq!((code, told), (0, vec![("broken", "Unhealthy", false), ("r1", "Succeeded", true)]));
    assert_eq!(stage.on_host("ls /opt/tasktracker/staging/app/releases").lines().count(), 1);
    // A person who has mended the image asks for the same once more.
    stage.on_host("docker tag registry.example.com/tasktracker/backend:r2 registry.example.com/tasktracker/backend:broken");
    assert_eq!(stage.json(&["retry", "staging"]).1[0]["retry"], json!(true));
    assert_eq!(stage.json(&["retry", "staging"]).1[0]["retry"], json!(false), "nothing failed any more");
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    operator.stop();
    assert_eq!(revision(&stage), "broken");
}

#[test]
fn a_connection_cut_during_a_rollout_is_no_failed_release() {
    let stage = Stage::new("cut");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", "  policy: {rollout: {soak: 1s}}\n"));
    let operator = stage.start_operator();
    wait_until("Compose is at work", || {
        stage.host.command("pgrep").args(["-f", "compose.* up -d"]).output().unwrap().status.success()
    });
    stage.as_root("pkill -KILL -f '^sshd: deploy'");
    operator.wait_until_ready("staging");
    let ledger: Value =
        serde_json::from_str(&stage.on_host("cat /opt/tasktracker/staging/app/ledger.json")).unwrap();
    assert_eq!(ledger["failed"], Value::Null);
    assert!(
        operator.metric("tasktracker_ssh_reconnects_total", &[]).unwrap() > 1.0,
        "the connection was not cut"
    );
    operator.stop();
}

#[test]
fn what_another_writer_is_about_is_neither_drift_nor_change() {
    let stage = Stage::new("busy");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", "  policy: {rollout: {soak: 1s}}\n"));
    stage.apply();
    for lock in [".lock", ".writing"] {
        let mut holder = stage
            .host
            .command_as_deploy(&format!("exec flock /opt/tasktracker/{lock} sleep 600"))
            .spawn()
            .unwrap();
        stage.on_host("docker rm -f $(docker ps -aqf label=com.docker.compose.service=frontend)");
        let mut plan = json!([]);
        wait_until("the lock is seen", || {
            plan = stage.json(&["plan"]).1;
            plan[0]["busy"] == true
        });
        assert_eq!((&plan[0]["drift"], &plan[0]["plan"]["repairs"]), (&json!([]), &json!([])), "{lock}");
        assert_eq!(stage.json(&["status"]).0, 2, "a host that is being written to counts as in sync");
        stage.as_root("pkill -f 'slee[p] 600'");
        holder.wait().unwrap();
        let (_, plan) = stage.json(&["plan"]);
        assert_eq!(plan[0]["drift"][0]["kind"], "Missing", "{lock}");
        stage.apply();
    }
}

/// Ways to damage what the operator keeps in a project's folder, and as what each is told.
const DAMAGES: [(&str, &str); 8] = [
    ("echo x >$(echo releases/*/manifest.json)", "FileChanged"),
    // It reads well and asks for something else.
    ("sed -i s/134217728/134217729/g releases/*/manifest.json", "FileChanged"),
    ("rm releases/*/manifest.json", "FileMissing"),
    ("rm -r releases", "FileMissing"),
    ("echo x >ledger.json", "FileChanged"),
    ("rm ledger.json", "FileMissing"),
    ("rm ../.key", "FileMissing"),
    ("echo x >../.key", "FileChanged"),
];

#[test]
fn what_the_operator_keeps_on_a_host_is_drift_and_put_back_and_nothing_is_rolled_out() {
    let stage = Stage::new("kept");
    stage.write_value("api", "TOKEN", b"canary");
    let secret = "tasktracker, backend: {secretEnv: {TOKEN: {secret: api, key: TOKEN}}}}";
    let stack =
        stage.stack("staging", "r1", "  policy: {rollout: {soak: 1s}}\n").replace("tasktracker}", secret);
    stage.write_stack("staging.yaml", &stack);
    stage.apply();
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    let state = || {
        (
            stage.snapshot(),
            stage.on_host("cd /opt/tasktracker/staging; cat .key app/releases/*/manifest.json"),
        )
    };
    let before = state();
    let healed =
        |kind: &str| operator.metric("tasktracker_drift_healed_total", &[&format!("kind=\"{kind}\"")]);
    for (damage, kind) in DAMAGES {
        let counted = healed(kind);
        stage.on_host(&format!("cd /opt/tasktracker/staging/app; {damage}"));
        wait_until(format_args!("{damage}: {}", operator.said()), || healed(kind) > counted);
        operator.wait_for_ended_checks("staging", "app-1", 1);
        assert_eq!(state(), before, "{damage}");
        let rollouts = operator.total("tasktracker_rollout_total", &[]);
        assert_eq!(rollouts, Some(0.0), "{damage}");
    }
    assert!(operator.is_ready("staging"));
}

#[test]
fn a_damaged_release_comes_back_from_the_spec_where_that_is_the_same_and_waits_otherwise() {
    let stage = Stage::new("damaged");
    let write = |revision: &str| {
        let policy = "  policy: {upgrade: Approve, rollout: {soak: 1s}}\n";
        stage.write_stack("staging.yaml", &stage.stack("staging", revision, policy));
    };
    write("r1");
    stage.apply();
    stage.start_operator().wait_until_ready("staging");
    let manifest = || stage.on_host("cat /opt/tasktracker/staging/app/releases/*/manifest.json | sha256sum");
    let before = manifest();
    // Unreadable, or a manifest that reads well and asks for something else: to an operator that has not seen it before.
    for damage in ["echo x >", "sed -i s/134217728/134217729/g "] {
        stage.on_host(&format!("{damage}/opt/tasktracker/staging/app/releases/*/manifest.json"));
        let operator = stage.start_operator();
        wait_until("the manifest is as it was", || manifest() == before);
        wait_until("and told so", || operator.is_ready("staging"));
        let told = operator.metric("tasktracker_drift_detected_total", &["kind=\"FileChanged\""]);
        assert_eq!(told, Some(1.0), "{damage}");
    }
    write("r2");
    stage.on_host("echo x >/opt/tasktracker/staging/app/releases/*/manifest.json");
    let (code, plan) = stage.json(&["plan"]);
    assert_eq!((code, &plan[0]["reason"]), (1, &json!("ReleaseDamaged")));
    stage.apply();
    assert_eq!(stage.json(&["status"]).0, 0);
}

#[test]
fn a_person_goes_back_to_a_kept_release_until_the_spec_changes_and_everything_is_in_the_audit_log() {
    let stage = Stage::new("rollback");
    let write = |revision: &str, more: &str| {
        let stack = stage.stack("staging", revision, "  policy: {rollout: {soak: 1s}}\n");
        stage.write_stack("staging.yaml", &stack.replace("tasktracker}", &format!("tasktracker{more}}}")));
    };
    let version = || stage.http(3500, "GET /api/health").1;
    write("r1", "");
    stage.apply();
    let edge = stage.on_host("docker inspect --format '{{.Id}}' tt-staging-app-edge-1");
    write("r2", "");
    stage.apply();
    assert!(version().contains("r2"), "{}", version());
    let unknown = stage.command(&["rollback", "staging", "00ff00ff00ff"]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(unknown.status.code() == Some(1) && said.contains("see `history`"), "{said}");
    let (code, done) = stage.json(&["rollback", "staging"]);
    assert_eq!((code, &done[0]["revision"]), (0, &json!("r1")));
    assert!(version().contains("r1"), "{}", version());
    assert_eq!(stage.on_host("docker inspect --format '{{.Id}}' tt-staging-app-edge-1"), edge);
    let operator = stage.start_operator();
    wait_until("it is told", || operator.log().contains("Held"));
    operator.wait_for_checks("staging", "app-1", 3);
    let (code, status) = stage.json(&["status"]);
    let report = &status[0]["report"];
    assert_eq!((code, &report["revision"], &report["waiting"]["reason"]), (2, &json!("r1"), &json!("Held")));
    // Healing goes on, towards the release that is held.
    stage.on_host("docker rm -f $(docker ps -aqf label=com.docker.compose.service=backend)");
    wait_until("r1 is healed", || version().contains("r1"));
    write("r2", ", backend: {env: {A: b}}");
    wait_until("the next change goes on", || operator.is_ready("staging") && version().contains("r2"));
    operator.stop();
    let lines = std::fs::read_to_string(stage.path("state/audit.jsonl")).unwrap();
    let all: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (began, entries): (Vec<_>, Vec<_>) = all.iter().partition(|entry| entry["result"] == "Began");
    let same = |key: &str| began.iter().map(|entry| &entry[key]).eq(entries.iter().map(|entry| &entry[key]));
    assert!(same("when") && same("plan") && same("before"), "{lines}");
    let told = |entry: &&serde_json::Value| {
        let revision = |key: &str| entry[key]["revision"].as_str().unwrap_or("-").to_owned();
        format!(
            "{} {}>{} {}",
            entry["result"].as_str().unwrap(),
            revision("before"),
            revision("after"),
            entry["what"][0].as_str().unwrap()
        )
    };
    let all: Vec<String> = entries.iter().map(told).collect();
    let expected = [
        "Succeeded ->r1 roll out revision r1 after nothing",
        "Succeeded r1>r2 roll out revision r2 after r1",
        "Succeeded r2>r1 roll out revision r1 after r2",
        "Succeeded r1>r1 create backend",
        "Succeeded r1>r2 roll out revision r2 after r1",
    ];
    assert_eq!(all, expected);
    for entry in &entries {
        let texts = ["when", "who", "why", "stack", "host", "component", "plan"];
        assert!(texts.iter().all(|key| entry[key].as_str().is_some_and(|text| !text.is_empty())), "{entry}");
        assert!(entry["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{entry}");
    }
    assert_eq!(
        (&entries[3]["who"], &entries[3]["why"]),
        (&json!("tasktracker-operator"), &json!("Missing backend"))
    );
}

#[test]
fn a_project_of_another_stack_or_environment_is_not_touched() {
    let stage = Stage::new("conflict");
    let good = stage.stack("staging", "r1", "  policy: {rollout: {soak: 1s}}\n");
    stage.write_stack("staging.yaml", &good);
    stage.apply();
    let before = stage.snapshot();
    stage.write_stack("staging.yaml", &good.replace("environment: test", "environment: production"));
    let applied = stage.command(&["apply"]);
    let said = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(applied.status.code() == Some(1) && said.contains("environment cannot be changed"), "{said}");
    stage.write_stack("staging.yaml", &good.replace("{name: staging}", "{name: staging, namespace: other}"));
    assert_eq!(stage.command(&["apply"]).status.code(), Some(1));
    let (code, status) = stage.json(&["status"]);
    assert_eq!((code, &status[0]["report"]["failure"]["reason"]), (1, &json!("NameConflict")));
    assert_eq!(stage.snapshot(), before);
}
