//! The main job on a real host: from nothing to Ready, used in a browser, broken by hand, put right.

use fantoccini::Locator;
use serde_json::{Value, json};
use tasktracker_testbed::http;

use crate::{
    browser::Browser,
    stage::{Stage, wait_until},
};

/// One difference made by hand.
struct Case {
    kind: &'static str,
    service: Option<&'static str>,
    path: Option<&'static str>,
    found: &'static str,
    repair: &'static str,
    by_hand: &'static str,
}

const PROJECT: &str = "/opt/tasktracker/staging/app";

const CASES: [Case; 5] = [
    Case {
        kind: "Missing",
        service: Some("backend"),
        path: None,
        found: "nothing",
        repair: "create",
        by_hand: "docker rm -f tt-staging-app-backend-1",
    },
    Case {
        kind: "Stopped",
        service: Some("frontend"),
        path: Some("tt-staging-app-frontend-1"),
        found: "exited (0)",
        repair: "start",
        by_hand: "docker stop tt-staging-app-frontend-1",
    },
    Case {
        kind: "ImageChanged",
        service: Some("frontend"),
        path: Some("tt-staging-app-frontend-1"),
        found: "sha256:",
        repair: "recreate",
        by_hand: "
            cd /opt/tasktracker/staging/app
            old=$(docker image inspect --format '{{.Id}}' registry.example.com/tasktracker/frontend:r1)
            new=$(docker image inspect --format '{{.Id}}' registry.example.com/tasktracker/frontend:r2)
            sed \"s/$old/$new/\" compose.yaml >/tmp/other.yaml
            docker compose -p tt-staging-app -f /tmp/other.yaml --project-directory . up -d --no-deps frontend",
    },
    Case {
        kind: "FileMissing",
        service: Some("edge"),
        path: Some("files/edge/Caddyfile"),
        found: "nothing",
        repair: "writeFile",
        by_hand: "rm /opt/tasktracker/staging/app/files/edge/Caddyfile",
    },
    Case {
        kind: "FileChanged",
        service: None,
        path: Some("compose.yaml"),
        found: "sha256:",
        repair: "writeFile",
        by_hand: "echo '# mine' >> /opt/tasktracker/staging/app/compose.yaml",
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_ready_and_every_kind_is_healed() {
    let stage = Stage::new("main-job");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", "  policy: {rollout: {soak: 1s}}\n"));
    let (code, plan) = stage.json(&["plan"]);
    assert_eq!((code, &plan[0]["plan"]["rollout"]["toRevision"]), (2, &json!("r1")));
    assert_eq!(stage.on_host("ls -A /opt/tasktracker; docker ps -aq"), "", "planning wrote something");

    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(http(operator.metrics, &format!("GET {path}")).unwrap().0, 200, "{path}");
    }
    operator.stop();
    the_ledger_tells_what_happened(&stage);
    answers_through_the_edge(&stage);
    a_task_made_on_the_page_is_in_the_api(&stage).await;
    assert_eq!(stage.json(&["status"]).0, 0);
    let before = stage.snapshot();
    for case in &CASES {
        is_seen_and_healed(&stage, case, &before);
    }
    a_healed_configuration_is_taken_up(&stage);
}

/// The edge runs a configuration made by hand; healing the file alone would leave it so.
fn a_healed_configuration_is_taken_up(stage: &Stage) {
    stage.on_host(&format!("cd {PROJECT}/files/edge && sed -i 's/respond @metrics 404/respond 418/' Caddyfile && docker restart tt-staging-app-edge-1"));
    wait_until("the edge obeys the edited file", || stage.http(3500, "GET /").0 == 418);
    stage.apply();
    assert_eq!(stage.http(3500, "GET /").0, 200);
}

fn the_ledger_tells_what_happened(stage: &Stage) {
    let ledger: Value = serde_json::from_str(&stage.on_host(&format!("cat {PROJECT}/ledger.json"))).unwrap();
    let (_, status) = stage.json(&["status"]);
    assert_eq!(ledger["current"], status[0]["report"]["release"]);
    assert_eq!((&ledger["who"], &ledger["why"]), (&json!("tasktracker-operator"), &json!("revision r1")));
    let release = format!("{PROJECT}/releases/{}", ledger["current"].as_str().unwrap());
    assert_eq!(
        stage.on_host(&format!("cd {release} && find . -type f | sed -E 's/-[0-9a-f]{{16}}$/-HASH/' | sort")),
        "./compose.yaml\n./files/edge/Caddyfile\n./files/edge/upstreams/backend/backend-HASH\n\
         ./files/edge/upstreams/frontend/frontend-HASH\n./manifest.json\n"
    );
    stage.on_host(&format!("cmp {release}/compose.yaml {PROJECT}/compose.yaml"));
}

fn answers_through_the_edge(stage: &Stage) {
    let (status, health) = stage.http(3500, "GET /api/health");
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!((status, &health["revision"]), (200, &json!("r1")));
    assert_eq!(stage.http(8000, "GET /docs").0, 200);
    assert_eq!(stage.http(3500, "GET /api/docs").0, 200);
    for (port, path) in [(8000, "/metrics"), (3500, "/metrics"), (3500, "/api/metrics")] {
        assert_eq!(stage.http(port, &format!("GET {path}")).0, 404, "{path} is public on {port}");
    }
    let ids = stage.on_host("docker ps -q | xargs docker inspect --format '{{.Config.User}}'");
    assert!(
        ids.lines().all(|user| !user.is_empty() && !user.starts_with('0')),
        "a container runs as root: {ids}"
    );
}

async fn a_task_made_on_the_page_is_in_the_api(stage: &Stage) {
    use tasktracker_testbed::DemoHost;

    let browser = Browser::start().await.unwrap();
    let client = &browser.client;
    client.goto(&format!("http://{}:3500/", stage.host.address())).await.unwrap();
    let input = client.wait().for_element(Locator::Css("[data-testid=task-title-input]")).await.unwrap();
    input.send_keys("Made in a browser").await.unwrap();
    client.find(Locator::Css("[data-testid=task-add]")).await.unwrap().click().await.unwrap();
    client.wait().for_element(Locator::Css("[data-testid=task-item]")).await.unwrap();
    let (status, tasks) = stage.http(8000, "GET /tasks");
    let tasks: Value = serde_json::from_str(&tasks).unwrap();
    assert_eq!((status, &tasks["items"][0]["title"]), (200, &json!("Made in a browser")));
    browser.stop().await.unwrap();
}

fn is_seen_and_healed(stage: &Stage, case: &Case, before: &str) {
    stage.on_host(case.by_hand);
    let (code, plan) = stage.json(&["plan"]);
    let item = &plan[0]["drift"][0];
    let told = format!("{}: {plan:#}", case.kind);
    assert_eq!(code, 2, "{told}");
    assert_eq!(plan[0]["drift"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(item["kind"], case.kind, "{told}");
    assert_eq!(
        (&item["host"], &item["component"], &item["answer"]),
        (&json!("app-1"), &json!("app"), &json!("Heal")),
        "{told}"
    );
    assert_eq!(item["service"], json!(case.service), "{told}");
    assert_eq!(item["path"], json!(case.path), "{told}");
    assert!(item["found"].as_str().unwrap().starts_with(case.found), "{told}");
    assert!(!item["wanted"].as_str().unwrap().is_empty() && item["wanted"] != item["found"], "{told}");
    assert_eq!(plan[0]["plan"]["repairs"][0]["action"], case.repair, "{told}");
    assert_eq!(plan[0]["plan"]["rollout"], Value::Null, "{told}");

    let operator = stage.start_operator();
    wait_until(case.kind, || {
        let label = format!("kind=\"{}\"", case.kind);
        operator.metric("tasktracker_drift_healed_total", &[&label]) == Some(1.0)
            && operator.is_ready("staging")
    });
    operator.stop();
    assert_eq!(stage.json(&["plan"]).0, 0);
    assert_eq!(stage.snapshot(), before, "{} left something behind", case.kind);
    let (status, tasks) = stage.http(3500, "GET /api/tasks");
    assert!(status == 200 && tasks.contains("Made in a browser"), "{}: the task is gone: {tasks}", case.kind);
    assert_eq!(
        stage.on_host(&format!("ls -A {PROJECT} | grep staging || true")),
        "",
        "a staging folder was left"
    );
}
