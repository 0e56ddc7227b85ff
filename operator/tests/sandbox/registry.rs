//! Images from a real registry with passwords that cease to be accepted: what tags mean is settled once, and whatever
//! keeps an image from being had, the release before serves.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use tasktracker_operator::host::Step;
use tasktracker_testbed::{DemoHost, HostOptions, RegistryServer};
use tokio::runtime::Runtime;

use crate::stage::{Running, Stage, wait_until};

/// What the backend's containers run: asked in one call, as one of them may be on its way out.
const LABEL: &str = "docker ps --filter label=com.docker.compose.service=backend --format '{{.Label \"tasktracker.dev/image\"}}'";

pub(crate) struct Scene {
    pub(crate) stage: Stage,
    pub(crate) registry: RegistryServer,
}

impl Scene {
    fn new(name: &str) -> Self {
        Self::with(name, HostOptions::default())
    }

    /// With another engine.
    pub(crate) fn with(name: &str, options: HostOptions) -> Self {
        let dockerd_arguments = vec!["--insecure-registry=10.213.0.0/16".to_owned()];
        let stage = Stage::with(name, HostOptions { dockerd_arguments, ..options });
        // What an earlier run pulled, from a registry that was at another port.
        stage.as_root("docker images --digests --format '{{.Repository}}@{{.Digest}} {{.Repository}}:{{.Tag}}' | tr ' ' '\\n' | grep '^10.213' | grep -v '<none>' | sort -u | xargs -rn 1 docker rmi -f || true");
        let registry = RegistryServer::start_at(stage.host.gateway()).unwrap();
        stage.write_value("registry", "username", RegistryServer::user().as_bytes());
        stage.write_value("registry", "password", RegistryServer::password(1).as_bytes());
        Self { stage, registry }
    }

    fn push(&self, image: &str, name: &str) -> String {
        let image = format!("registry.example.com/tasktracker/{image}");
        self.registry.push(&self.stage.host, &image, &format!("tasktracker/{name}")).unwrap()
    }

    pub(crate) fn push_revision(&self, image: &str, revision: &str) -> String {
        self.push(&format!("frontend:{image}"), &format!("frontend:{revision}"));
        self.push(&format!("backend:{image}"), &format!("backend:{revision}"))
    }

    pub(crate) fn write(&self, revision: &str, auth: &str, policy: &str) {
        let more = format!("  policy: {{rollout: {{soak: 1s}}, tags: {{interval: 1s{policy}}}}}\n");
        let text = self.stage.stack("staging", revision, &more);
        let app = format!("registry: {}/tasktracker, registryAuth: {{{auth}}}", self.registry.address());
        self.stage
            .write_stack("staging.yaml", &text.replace("registry: registry.example.com/tasktracker", &app));
    }

    pub(crate) fn image(&self) -> String {
        self.stage.on_host(LABEL).trim().to_owned()
    }

    /// What `status` says a change waits for: reason and message.
    fn waits(&self) -> (String, String) {
        let (_, status) = self.stage.json(&["status"]);
        let waiting = &status[0]["report"]["waiting"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&waiting["reason"]), text(&waiting["message"]))
    }

    /// The operator says what is wrong, and what serves goes on.
    fn is_told(&self, operator: &Running, reason: &str) {
        wait_until(format_args!("{reason} is told; log:\n{}", operator.said()), || {
            operator.log().contains(&format!("reason=\"{reason}\""))
        });
        assert_eq!(self.stage.http(3500, "GET /api/tasks").0, 200, "{reason}: what serves goes on");
    }
}

#[test]
fn a_tag_is_settled_once_and_whatever_the_registry_does_the_release_before_serves() {
    let mut scene = Scene::new("registry");
    let first = scene.push_revision("r1", "one");
    scene.write("one", "secret: registry", "");
    let operator = scene.stage.start_operator();
    operator.wait_until_ready("staging");
    let named = format!("{}/tasktracker/backend:one", scene.registry.address());
    assert_eq!(scene.image(), format!("{named}@{first}"));
    let left = format!("grep -rlF '{}' /opt/tasktracker \"$HOME\" || true", RegistryServer::password(1));
    assert_eq!(scene.stage.on_host(&left), "", "the login stays nowhere on the host");

    // The tag moves: what was rolled out stays, until the policy says otherwise.
    let second = scene.push("backend:r2", "backend:one");
    assert_ne!(first, second);
    let moved =
        || operator.metric("tasktracker_drift_detected_total", &["kind=\"ImageTagMoved\""]) >= Some(1.0);
    wait_until("a moved tag is told", moved);
    assert_eq!(scene.image(), format!("{named}@{first}"));
    scene.write("one", "secret: registry", ", moved: Follow");
    wait_until("a moved tag is followed", || scene.image() == format!("{named}@{second}"));
    operator.wait_until_ready("staging");

    // The password is not accepted any more; a command that mints another one is.
    scene.push_revision("r1", "two");
    scene.registry.accept(2).unwrap();
    scene.write("two", "secret: registry", "");
    scene.is_told(&operator, "RegistryDenied");
    let said = format!("{:?} {}", scene.waits(), operator.log());
    assert!(!said.contains("canary-of-the-registry"), "{said}");
    let minted = scene.stage.path("minted");
    std::fs::write(&minted, RegistryServer::password(2)).unwrap();
    let auth = format!("command: [cat, {}], username: {}", minted.display(), RegistryServer::user());
    scene.write("two", &auth, "");
    wait_until("another login is used", || scene.image().contains("backend:two@"));
    operator.wait_until_ready("staging");

    // It is not there, and then there without the image.
    scene.registry.stop().unwrap();
    scene.write("three", &auth, "");
    scene.is_told(&operator, "RegistryUnavailable");
    scene.registry.go_on().unwrap();
    scene.is_told(&operator, "ImageMissing");
    operator.stop();
}

#[test]
fn what_is_not_what_its_digest_says_or_comes_slowly_costs_nobody_anything() {
    let scene = Scene::new("pulls");
    let helper = "#!/bin/sh\nread -r registry\nprintf '{\"ServerURL\":\"%s\",\"Username\":\"canary-user\",\"Secret\":\"canary-of-the-registry-1\"}' \"$registry\"\n";
    let program = "/usr/local/bin/docker-credential-canary";
    scene.stage.host.write_file(program, helper).unwrap();
    scene.stage.as_root(&format!("chmod 755 {program}"));
    let first = scene.push_revision("r1", "one");
    let repository = format!("{}/tasktracker/backend", scene.registry.address());
    let auth = "hostHelper: canary";
    scene.write("one", auth, "");
    let operator = scene.stage.start_operator();
    operator.wait_until_ready("staging");

    let damaged = scene.push_revision("r2", "two");
    scene.registry.damage(&damaged).unwrap();
    let digests = format!("{auth}}}, digests: {{backend: \"{damaged}\"");
    scene.write("one", &digests, "");
    scene.is_told(&operator, "DigestMismatch");
    assert!(scene.waits().1.contains(&damaged), "{:?}", scene.waits());

    // A registry that does not answer for a while: what differs on the host is repaired meanwhile, and then it goes on.
    let tagged = "registry.example.com/tasktracker/backend";
    let labelled = format!(
        "docker create --name labelled {tagged}:r1 && docker commit --change 'LABEL a=b' labelled {tagged}:labelled && docker rm labelled"
    );
    scene.stage.on_host(&labelled);
    let other = scene.push("backend:labelled", "backend:three");
    scene.stage.on_host(&format!("docker rmi {tagged}:labelled"));
    assert_ne!(first, other);
    let before = scene.image();
    scene.registry.signal("STOP").unwrap();
    scene.write("one", &format!("{auth}}}, backend: {{env: {{A: b}}}}, digests: {{backend: \"{other}\""), "");
    wait_until("it waits for the image", || scene.waits().0 == "PullingImages");
    scene.stage.on_host("docker rm -f tt-staging-app-frontend-1");
    wait_until("it is repaired meanwhile", || {
        scene.stage.on_host("docker ps --filter name=frontend --format '{{.Status}}'").contains("healthy")
    });
    assert_eq!((scene.image(), scene.stage.http(3500, "GET /api/tasks").0), (before, 200));
    scene.registry.signal("CONT").unwrap();
    wait_until(format_args!("it goes on; log:\n{}", operator.said()), || scene.image().ends_with(&other));
    operator.wait_until_ready("staging");
    operator.stop();

    // What no stored release names any more is removed, and nothing else.
    let (named, used) = (format!("{repository}@{first}"), format!("{repository}@{other}"));
    let forget = |references: [&String; 2]| {
        let (_, host) = scene.stage.managed();
        let references = references.map(Clone::clone).to_vec();
        Runtime::new().unwrap().block_on(async {
            let lock = host.lock("0000000000000000").await.unwrap();
            host.carry_out(&lock, "staging/app", &[Step::ForgetImages { references }]).await.unwrap();
            lock.release().await;
        });
    };
    let there = |image: &str| scene.stage.host.docker(&["image", "inspect", image]).is_ok();
    // A person goes back to a release whose image is not there any more: it is pulled.
    scene.stage.on_host(&format!("docker rmi {named} {tagged}:r1"));
    assert!(!there(&named));
    for wanted in [&first, &other] {
        let output = scene.stage.command(&["rollback", "staging"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(scene.image().ends_with(wanted), "{wanted}: {}", scene.image());
    }
    forget([&named, &used]);
    assert!(there(&named) && there(&used));
    scene.stage.on_host(&format!(
        "cd /opt/tasktracker/staging/app/releases && rm -r $(grep -l {first} */manifest.json | cut -d / -f 1)"
    ));
    forget([&named, &used]);
    assert!(!there(&named) && there(&used));
}

/// A fake registry, for what no real one can be made to say: it limits requests, and counts them. It ends with the test.
fn limiting(address: SocketAddr) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(address).unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    std::thread::spawn(move || {
        let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
        let answer = format!(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 300\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0; 4_096];
            if stream.read(&mut head).is_ok_and(|length| length > 0) {
                count.fetch_add(1, Ordering::SeqCst);
                let _: std::io::Result<()> = stream.write_all(answer.as_bytes());
            }
        }
    });
    requests
}

#[test]
fn a_refused_login_is_used_once_and_a_registry_that_limits_requests_is_left_alone() {
    let mut scene = Scene::new("logins");
    scene.push_revision("r1", "one");
    scene.registry.accept(2).unwrap();
    scene.write("one", "secret: registry", "");
    let operator = scene.stage.start_operator();
    let told = |reason: &str| {
        wait_until(format_args!("{reason} is told: {}", operator.said()), || {
            operator.log().contains(&format!("reason=\"{reason}\""))
        });
    };
    told("RegistryDenied");
    let refusals = scene.registry.refusals();
    // Docker asks twice with one login: for the head of a manifest, and for the whole of it.
    assert!((1..=2).contains(&refusals), "{refusals} requests with a wrong password");
    operator.wait_for_ended_checks("staging", "app-1", 40);
    assert_eq!(scene.registry.refusals(), refusals);
    scene.stage.write_value("registry", "password", RegistryServer::password(2).as_bytes());
    operator.wait_until_ready("staging");

    scene.registry.stop().unwrap();
    let requests = limiting(scene.registry.address());
    scene.write("two", "secret: registry", "");
    told("RegistryUnavailable");
    assert!(operator.log().contains("registries limit who is not known"), "{}", operator.log());
    // Both images were asked for; the questions that were under way end.
    operator.wait_for_ended_checks("staging", "app-1", 5);
    let asked = requests.load(Ordering::SeqCst);
    operator.wait_for_ended_checks("staging", "app-1", 40);
    assert_eq!(requests.load(Ordering::SeqCst), asked);
    println!("{refusals} requests with a wrong password; {asked} to a registry that limits them");
    operator.stop();
}
