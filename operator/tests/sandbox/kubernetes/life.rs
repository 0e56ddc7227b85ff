//! The whole life of a stack: applied, changed, approved, gone back, deleted.

use serde_json::Value;
use tasktracker_testbed::{ControlPlaneOptions, http, http_as};

use super::cluster::{ACCOUNT, Cluster};
use crate::stage::{Running, Stage, phase};

const POLICY: &str = "rollout: {soak: 1s}";

struct Scene {
    stage: Stage,
    cluster: Cluster,
    operator: Running,
}

impl Scene {
    fn new(name: &str) -> Self {
        let (stage, cluster) = (Stage::new(name), Cluster::with_chart(&ControlPlaneOptions::default(), &[]));
        cluster.add_key(&stage);
        let operator = cluster.start_as_chart(&[]);
        Self { stage, cluster, operator }
    }

    fn apply(&self, revision: &str, policy: &str) {
        let policy = format!("  policy: {{{POLICY}{policy}}}\n");
        self.cluster.apply(&self.stage.stack("staging", revision, &policy));
    }

    /// What `kubectl get tts` says of revision, readiness and sync.
    fn listed(&self) -> Vec<String> {
        let line = self.cluster.kubectl(&["get", "tts", "staging", "--no-headers"]);
        line.split_whitespace().skip(2).take(3).map(str::to_owned).collect()
    }

    fn ready(&self) {
        self.cluster.wait_until_ready("staging", &self.operator);
    }

    fn wait(&self, what: &str, is_so: impl FnMut() -> bool) {
        self.cluster.wait("staging", &self.operator, what, is_so);
    }

    fn containers(&self) -> usize {
        self.stage
            .on_host("docker ps -q --filter label=tasktracker.dev/stack=default/staging")
            .lines()
            .count()
    }

    fn volumes(&self) -> usize {
        self.stage
            .on_host("docker volume ls -q")
            .lines()
            .filter(|name| name.starts_with("tt-staging"))
            .count()
    }

    fn is_gone(&self) -> bool {
        self.cluster.kubectl(&["get", "tts", "staging", "--ignore-not-found", "-o", "name"]).is_empty()
    }
}

#[test]
fn a_stack_lives_from_apply_to_delete() {
    let scene = Scene::new("kube-life");
    let Scene { stage, cluster, .. } = &scene;
    phase("the first rollout");
    scene.apply("r1", "");
    scene.ready();
    assert_eq!(scene.listed(), ["r1", "True", "True"]);
    let status = cluster.object("tts/staging")["status"].clone();
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["revision"], "r1");
    assert_eq!(status["history"][0]["result"], "Succeeded", "{status}");
    assert_eq!(status["hosts"][0]["components"][0]["release"], status["history"][0]["release"]);

    phase("drift");
    // Drift is healed, and told: twice, it is one event with a count.
    stage.on_host("docker rm -f tt-staging-app-backend-1");
    scene.wait("it is there again", || {
        stage.on_host("docker ps -q --filter name=tt-staging-app-backend-1").lines().count() == 1
    });
    scene.ready();
    stage.on_host("docker rm -f tt-staging-app-backend-1");
    let told = |reason: &str| {
        cluster
            .events("staging")
            .into_iter()
            .filter(|(known, ..)| known == reason)
            .map(|(_, note, times)| (note, times))
            .collect::<Vec<_>>()
    };
    let twice = [("app-1: Missing backend".to_owned(), 2)];
    scene.wait("the drift is told", || told("DriftHealed") == twice);
    assert_eq!(told("DriftDetected"), twice);
    scene.ready();

    phase("approval");
    // A new revision waits for approval: the plan is in a ConfigMap, and goes when it waits no longer.
    scene.apply("r2", ", upgrade: Approve");
    scene.wait("a plan waits", || cluster.condition("staging", "Approved") == "False/ApprovalNeeded");
    assert_eq!(scene.listed(), ["r2", "False", "False"]);
    assert_eq!(cluster.condition("staging", "Stalled"), "False/Succeeded");
    scene.wait("the plan is named", || {
        !cluster.get("tts/staging", "{.status.waitingPlanConfigMap}").is_empty()
    });
    let name = cluster.get("tts/staging", "{.status.waitingPlanConfigMap}");
    let hash = cluster.get("tts/staging", "{.status.waitingPlan}");
    let plan: Value =
        serde_json::from_str(&cluster.get(&format!("configmap/{name}"), "{.data.plan\\.json}")).unwrap();
    assert_eq!(plan[0]["plan"]["waiting"]["change"]["toRevision"], "r2", "{plan}");
    let printed = cluster.command_ends(2, &["plan", "staging"]);
    assert!(printed.contains(&hash) && printed.contains("app-1 app: revision r1 to r2"), "{printed}");
    assert!(cluster.command_ends(2, &["status", "staging"]).contains("Approved=False ApprovalNeeded"));
    let wrong = cluster.command(&["approve", "staging", "0123456789abcdef"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains(&format!("found {hash}")));
    cluster.command_ends(0, &["approve", "staging", &hash]);
    scene.ready();
    assert_eq!(scene.listed(), ["r2", "True", "True"]);
    scene.wait("the plan goes", || {
        cluster.kubectl(&["get", "configmap", &name, "--ignore-not-found"]).is_empty()
    });
    assert!(cluster.get("tts/staging", "{.status.history[0].revision}").contains("r2"));

    phase("rollback");
    // Back to the release before, and it is held; the same wish is not heard twice.
    cluster.command_ends(0, &["rollback", "staging"]);
    scene.wait("r1 is back", || cluster.get("tts/staging", "{.status.revision}") == "r1");
    scene.wait("it is held", || cluster.condition("staging", "InSync") == "False/Held");
    let history = cluster.command_ends(0, &["history", "staging"]);
    assert!(history.lines().nth(1).unwrap().contains("r1"), "{history}");
    cluster.command_ends(0, &["reconcile", "staging"]);
    scene.wait("it was checked", || {
        let asked = cluster.get("tts/staging", "{.metadata.annotations.tasktracker\\.dev/reconcile}");
        cluster.get("tts/staging", "{.status.lastHandledReconcile}") == asked
    });
    assert_eq!(cluster.get("tts/staging", "{.status.revision}"), "r1");
    let told: Vec<String> =
        cluster.events("staging").into_iter().map(|(reason, note, _)| format!("{reason} {note}")).collect();
    for wanted in [
        "RolloutStarted app-1: revision nothing to r1",
        "RolloutStarted app-1: revision r1 to r2",
        "ApprovalNeeded plan",
    ] {
        assert!(told.iter().any(|event| event.starts_with(wanted)), "{wanted}: {told:#?}");
    }

    phase("deletion with Retain");
    // Deleted with Retain, it goes at once, and what runs goes on. Made again, it is another one: a person says that it
    // may have what is there.
    cluster.kubectl(&["delete", "tts", "staging", "--timeout=10s"]);
    assert_eq!(scene.containers(), 3);
    scene.apply("r1", "");
    scene.wait("it is another one", || cluster.condition("staging", "Stalled") == "True/NameConflict");
    assert_eq!(scene.containers(), 3);
    cluster.command_ends(0, &["adopt", "staging"]);
    scene.ready();

    phase("deletion with Down");
    // Deleted with Down, containers go and volumes stay.
    scene.apply("r1", ", deletion: Down");
    scene.wait("it has a finalizer", || {
        cluster.get("tts/staging", "{.metadata.finalizers[0]}") == "tasktracker.dev/hosts"
    });
    let volumes = scene.volumes();
    cluster.kubectl(&["delete", "tts", "staging", "--timeout=60s"]);
    assert_eq!((scene.containers(), scene.volumes()), (0, volumes), "{}", scene.operator.log());
    assert!(scene.is_gone());

    phase("deletion with DownAndVolumes");
    // Only who says so loses data.
    scene.apply("r1", ", deletion: DownAndVolumes");
    scene.wait("it is another one again", || cluster.condition("staging", "Stalled") == "True/NameConflict");
    cluster.command_ends(0, &["adopt", "staging"]);
    scene.ready();
    assert!(scene.volumes() > 0);
    cluster.kubectl(&["delete", "tts", "staging", "--timeout=60s"]);
    assert_eq!((scene.containers(), scene.volumes()), (0, 0), "{}", scene.operator.log());

    phase("deletion before a rollout");
    // What was never taken over does not go, whatever the policy says: nothing was rolled out, and it is not ours.
    stage.on_host("docker volume create old_tasks");
    let adopting = stage.stack("staging", "r1", "  policy: {upgrade: Approve, deletion: DownAndVolumes}\n");
    let adopting = adopting
        .replace("tasktracker}", "tasktracker, adopt: {project: by-hand, volumes: {data: old_tasks}}}");
    cluster.apply(&adopting);
    scene.wait("it waits", || cluster.condition("staging", "Approved") == "False/ApprovalNeeded");
    cluster.kubectl(&["delete", "tts", "staging", "--timeout=60s"]);
    assert_eq!(
        stage.on_host("docker volume ls -q --filter name=old_tasks").trim(),
        "old_tasks",
        "{}",
        scene.operator.log()
    );

    phase("metrics");
    // Metrics are for whom the API server lets read them.
    let metrics = scene.operator.metrics;
    assert_eq!(http(metrics, "GET /metrics").unwrap().0, 401);
    assert_eq!(http_as(metrics, "Bearer nobody", "GET /metrics").unwrap().0, 401);
    cluster.kubectl(&["create", "serviceaccount", "prometheus"]);
    let token = cluster.kubectl(&["create", "token", "prometheus"]);
    assert_eq!(http_as(metrics, &format!("Bearer {}", token.trim()), "GET /metrics").unwrap().0, 403);
    let role = "--clusterrole=tasktracker-operator-metrics-reader";
    cluster.kubectl(&["create", "clusterrolebinding", "metrics", role, "--serviceaccount=default:reader"]);
    cluster.kubectl(&["create", "serviceaccount", "reader"]);
    let token = cluster.kubectl(&["create", "token", "reader"]);
    let (status, text) = http_as(metrics, &format!("Bearer {}", token.trim()), "GET /metrics").unwrap();
    assert_eq!(status, 200);
    assert!(text.contains("leader_election_master_status{name=\"tasktracker-operator\"} 1"), "{text}");
    for path in ["/livez", "/readyz"] {
        assert_eq!(http(metrics, &format!("GET {path}")).unwrap().0, 200, "{path}");
    }

    phase("rights");
    // All of that was done with what the chart grants: no right was missing, and none is there that was not used.
    let (done, granted) = (cluster.plane.audited(ACCOUNT).unwrap(), cluster.granted());
    let unused: Vec<_> = granted.difference(&done).collect();
    let missing: Vec<_> = done.difference(&granted).collect();
    assert_eq!((unused, missing), (Vec::new(), Vec::new()));
}
