//! What can be wrong with a host: one clear line each, nothing written, and other hosts go on.

use std::process::Command;

use serde_json::{Value, json};
use tasktracker_testbed::{DemoHost, hostile};

use crate::stage::{Stage, succeeded, wait_until};

/// A stack that differs from a good one in one place.
fn broken(stage: &Stage, name: &str, from: &str, to: &str) {
    let good = stage.stack(name, "r1", "");
    assert!(good.contains(from), "{from}");
    stage.write_stack(&format!("{name}.yaml"), &good.replace(from, to));
}

/// The failure that `status` tells of a stack: reason and message, which must be one line.
fn failure(status: &Value, stack: &str) -> (String, String) {
    let rows = status.as_array().unwrap();
    let row = rows.iter().find(|row| row["stack"] == format!("default/{stack}")).unwrap();
    let text = |key: &str| row["report"]["failure"][key].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("message").lines().count(), 1, "{stack}: {row:#}");
    (text("reason"), text("message"))
}

#[test]
fn what_is_wrong_with_ssh_is_one_line_and_the_other_host_goes_on() {
    let stage = Stage::new("safety-ssh");
    let (garbage, silent, closed) =
        (hostile::garbage().unwrap(), hostile::silent().unwrap(), hostile::closed_port().unwrap());
    let at = |port: u16| format!("address: 127.0.0.1, port: {port}");
    let here = format!("address: {}, port: {}", stage.host.address(), stage.host.port());
    let (other_host_key, _) = key_pair(&stage, "host");
    let (_, other_private_key) = key_pair(&stage, "user");
    stage.write_secret("other", &other_private_key);
    broken(&stage, "host-key", &stage.host.host_key(), &other_host_key);
    broken(&stage, "user-key", "[key]", "[other]");
    broken(&stage, "user", "user: deploy", "user: nobody-here");
    broken(&stage, "garbage", &here, &at(garbage.address().port()));
    broken(&stage, "silent", &here, &at(silent.address().port()));
    broken(&stage, "closed", &here, &at(closed.port()));
    broken(&stage, "secret", "[key]", "[missing]");

    let log_before = stage.as_root("cat /var/log/sshd.log");
    let (code, status) = stage.json(&["status", "host-key"]);
    assert_eq!((code, failure(&status, "host-key").0.as_str()), (1, "HostKeyChanged"));
    let log = || stage.as_root("cat /var/log/sshd.log").strip_prefix(&log_before).unwrap().to_owned();
    wait_until("sshd tells of the attempt", || log().contains("[preauth]"));
    let attempt = log();
    assert!(
        !attempt.contains("publickey") && !attempt.contains("authenticating user"),
        "something was sent: {attempt}"
    );

    stage.write_stack("good.yaml", &stage.stack("good", "r1", "  policy: {rollout: {soak: 1s}}\n"));
    let operator = stage.start_operator();
    operator.wait_until_ready("good");
    let log = operator.log();
    assert!(log.contains("reason=\"HostKeyChanged\""), "{log}");
    assert_eq!(operator.metric("tasktracker_stack_ready", &["stack=\"silent\""]), Some(0.0));
    operator.stop();

    let (code, status) = stage.json(&["status"]);
    assert_eq!(code, 1);
    let told: Vec<(String, String)> =
        ["host-key", "user-key", "user", "garbage", "silent", "closed", "secret"]
            .iter()
            .map(|stack| failure(&status, stack))
            .collect();
    let reasons: Vec<&str> = told.iter().map(|(reason, _)| reason.as_str()).collect();
    let expected = [
        "HostKeyChanged",
        "AuthenticationFailed",
        "AuthenticationFailed",
        "Unreachable",
        "Unreachable",
        "Unreachable",
        "SecretMissing",
    ];
    assert_eq!(reasons, expected, "{told:#?}");
    for (part, (_, message)) in [
        "hostKeys: expected",
        "ssh: expected",
        "ssh: expected",
        "something else",
        "silent for 10 s",
        "connection refused",
        "secret missing: expected",
    ]
    .iter()
    .zip(&told)
    {
        assert!(
            message.contains(part) && message.contains("expected") && message.contains("found"),
            "{message}"
        );
    }
    assert!(
        status
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["stack"] == "default/good" && row["report"]["failure"].is_null())
    );
    assert_eq!(
        stage.on_host("ls /opt/tasktracker"),
        "good\n",
        "something was written for a stack that failed"
    );
}

/// A new key pair: public and private key.
fn key_pair(stage: &Stage, name: &str) -> (String, String) {
    let path = stage.path(name);
    succeeded(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&path));
    let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    (public.trim().to_owned(), std::fs::read_to_string(path).unwrap())
}

#[test]
fn what_is_wrong_with_docker_or_the_folder_is_one_line_and_nothing_is_written() {
    let stage = Stage::without_images("safety-docker");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", ""));
    let cases = [
        (
            "mount --bind /dev/null /usr/bin/docker",
            "umount /usr/bin/docker",
            "DockerUnavailable",
            "no program `docker`",
        ),
        (
            "mount -t tmpfs none /usr/libexec/docker/cli-plugins",
            "umount /usr/libexec/docker/cli-plugins",
            "ComposeMissing",
            "docker compose",
        ),
        (
            "chmod 600 /run/docker.sock; chown root:root /run/docker.sock",
            "chown root:docker /run/docker.sock; chmod 660 /run/docker.sock",
            "SocketDenied",
            "group docker",
        ),
        (
            "chown root:root /opt/tasktracker; chmod 755 /opt/tasktracker",
            "chown deploy:deploy /opt/tasktracker",
            "FolderNotWritable",
            "install -d",
        ),
        (
            "mv /opt/tasktracker /opt/real; ln -s /opt/real /opt/tasktracker; chown -h deploy:deploy /opt/tasktracker",
            "rm /opt/tasktracker; mv /opt/real /opt/tasktracker",
            "FolderNotWritable",
            "symbolic link",
        ),
    ];
    for (breaks, mends, reason, part) in cases {
        stage.as_root(breaks);
        let (code, status) = stage.json(&["status"]);
        let (plan_code, plan) = stage.json(&["plan"]);
        let applied = stage.command(&["apply"]);
        stage.as_root(mends);
        let (told, message) = failure(&status, "staging");
        assert_eq!((code, plan_code, told.as_str()), (1, 1, reason), "{message}");
        assert_eq!(plan[0]["reason"], reason);
        assert_eq!(applied.status.code(), Some(1));
        assert!(message.contains(part) && message.contains("expected"), "{message}");
        assert!(String::from_utf8_lossy(&applied.stderr).contains("app-1"), "the host is not named");
    }
    assert_eq!(
        stage.as_root("ls -A /opt/tasktracker; docker ps -aq; docker volume ls -q"),
        "",
        "something was written"
    );
    let (code, plan) = stage.json(&["plan"]);
    assert_eq!(
        (code, &plan[0]["plan"]["waiting"]["change"]["toRevision"]),
        (2, &json!("r1")),
        "a mended host is managed again"
    );
}

#[test]
fn a_missing_image_is_told_before_anything_is_deployed() {
    let stage = Stage::without_images("safety-image");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", ""));
    let applied = stage.command(&["apply"]);
    let said = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert_eq!(applied.status.code(), Some(1));
    assert!(
        said.contains(
            "image registry.example.com/tasktracker/backend:r1: expected an answer of its registry, found: "
        ),
        "{said}"
    );
    let left = stage.on_host("ls -A /opt/tasktracker; docker ps -aq; docker volume ls -q; docker network ls -q --filter type=custom");
    assert_eq!(left, "");
}

#[test]
fn hostkey_prints_what_can_be_pinned() {
    let stage = Stage::without_images("safety-hostkey");
    let address = format!("{}:{}", stage.host.address(), stage.host.port());
    let output = Command::new(env!("CARGO_BIN_EXE_tasktracker-operator"))
        .args(["hostkey", &address])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).lines().any(|line| line == stage.host.host_key()));
}

#[test]
fn a_host_that_goes_away_is_told_and_taken_up_again() {
    let stage = Stage::new("safety-link");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", "  policy: {rollout: {soak: 1s}}\n"));
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    stage.host.set_link(false).unwrap();
    wait_until("the host is told to be unreachable", || {
        operator.metric("tasktracker_host_reachable", &["host=\"app-1\""]) == Some(0.0)
    });
    assert_eq!(operator.metric("tasktracker_stack_in_sync", &[]), Some(0.0), "unknown counts as in sync");
    stage.host.set_link(true).unwrap();
    stage.on_host("docker rm -f tt-staging-app-backend-1");
    operator.wait_until_ready("staging");
    wait_until("the drift of the meantime is healed", || {
        operator.metric("tasktracker_drift_healed_total", &["kind=\"Missing\""]) == Some(1.0)
    });
    operator.stop();
}
