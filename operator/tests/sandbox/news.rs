//! What people are told of rollouts through a webhook, and a failed one that is left for them to look at.

use tasktracker_testbed::{Recorder, Taken};

use crate::{
    rollout::make_bad,
    stage::{Stage, wait_until},
};

/// The texts of what was taken.
fn texts(recorder: &Recorder) -> Vec<String> {
    recorder.taken().iter().map(|taken| taken.body["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn people_are_told_once_and_what_failed_is_left_where_they_want_it() {
    let stage = Stage::new("news");
    let webhook = Recorder::start().unwrap();
    stage.write_value(
        "webhook",
        "url",
        format!("http://{}/canary-of-the-webhook\n", webhook.address).as_bytes(),
    );
    stage.write_value("api", "TOKEN", b"canary-of-the-token");
    make_bad(&stage.host, "bad", r#"echo "<!channel>" no room for $(cat $TOKEN_FILE); exec sleep 600"#);
    let write = |revision: &str, policy: &str| {
        let more = format!(
            "  policy: {{rollout: {{soak: 1s, drainTimeout: 1s, healthTimeout: 4s, onFailure: Hold}}{policy}}}
  notifications: [{{slack: {{webhookSecret: webhook, channel: '#ops'}}, events: [Succeeded, RolledBack, ApprovalNeeded]}}]\n"
        );
        let text = stage.stack("staging", revision, &more);
        let app = "tasktracker, backend: {secretEnv: {TOKEN: {secret: api, key: TOKEN}}}}";
        stage.write_stack("staging.yaml", &text.replace("tasktracker}", app));
    };
    let told = |number: usize, what: &[&str]| {
        wait_until(format_args!("{what:?} is told: {:?}", texts(&webhook)), || {
            texts(&webhook).len() >= number
        });
        let texts = texts(&webhook);
        assert_eq!(texts.len(), number, "{texts:?}");
        assert!(what.iter().all(|words| texts[number - 1].contains(words)), "{what:?}: {texts:?}");
    };
    write("r1", "");
    let operator = stage.start_operator();
    told(1, &["default/staging: app r1 is in force on app-1"]);
    write("r2", ", upgrade: Approve");
    told(2, &["waits for approval", "app-1: app r1 to r2", "approve staging "]);
    // What was told once is not told again by the next operator.
    operator.stop();
    let operator = stage.start_operator();
    wait_until("it checked again", || operator.log().matches("a change waits").count() == 2);
    operator.wait_for_checks("staging", "app-1", 3);
    told(2, &["waits for approval"]);
    write("bad", "");
    told(3, &["app bad failed on app-1", "&lt;!channel&gt; no room for …"]);
    let status = || stage.json(&["status"]).1[0]["report"]["waiting"]["reason"].clone();
    assert_eq!(status(), "RolloutHeld");
    let names = "docker ps --filter label=com.docker.compose.service=backend --format '{{.Image}}'";
    let left = || stage.on_host(names).lines().count();
    assert_eq!(
        (left(), stage.http(3500, "GET /api/tasks").0),
        (2, 200),
        "the old one serves, the new one is left"
    );
    assert_eq!(stage.json(&["rollback", "staging"]).0, 0);
    assert_eq!((left(), stage.http(3500, "GET /api/tasks").0), (1, 200));
    write("r2", "");
    told(4, &["app r2 is in force"]);
    let kept = format!("{:?} {}", texts(&webhook), operator.log());
    assert!(!kept.contains("canary"), "{kept}");
    let is_whole = |taken: &Taken| taken.path == "/canary-of-the-webhook" && taken.body["channel"] == "#ops";
    assert!(webhook.taken().iter().all(is_whole));
    // The webhook has a message a moment before the operator has its answer.
    let sent = || operator.metric("tasktracker_notifications_total", &["result=\"sent\""]);
    wait_until("both are counted", || sent() == Some(2.0));
    operator.stop();
}
