//! Two components side by side: `app`, and `echo`, which exists for tests alone.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tasktracker_testbed::{DemoHost, SandboxHost};

use crate::{
    events::Events,
    stage::{Running, Stage, phase, succeeded, wait_until},
};

const POLICY: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 2s, healthTimeout: 40s}}\n";
const ECHO: &str = "tt-staging-echo-echo-1";
/// Prints the ID of the running container of the backend.
const BACKEND: &str = "docker ps -q --filter label=com.docker.compose.service=backend";
const PASSWORD: &str = "canary-password";
/// The folder of the project `echo` on a host.
const FOLDER: &str = "/opt/tasktracker/staging/echo";

/// Three hosts: `app` and `echo` on the first, `echo` on the others.
struct Fleet {
    stage: Stage,
    others: Vec<SandboxHost>,
}

impl Fleet {
    fn start(name: &str) -> Self {
        let stage = Stage::new(name);
        stage.load(&["echo-r1", "echo-r2"]);
        let others: Vec<SandboxHost> =
            (2..=3).map(|number| Stage::another_host(&format!("{name}-{number}"))).collect();
        for host in &others {
            crate::stage::load(host, &["echo-r1", "echo-r2"]);
        }
        stage.write_value("echo", "password", PASSWORD.as_bytes());
        Self { stage, others }
    }

    fn hosts(&self) -> Vec<&SandboxHost> {
        std::iter::once(&self.stage.host).chain(&self.others).collect()
    }

    /// Asks for a revision of the app and for `echo` with these settings, on its image of `r1` unless they say otherwise.
    fn write(&self, revision: &str, settings: &Value) {
        self.write_with(revision, settings, POLICY);
    }

    fn write_with(&self, revision: &str, settings: &Value, policy: &str) {
        let mut all = json!({ "image": "registry.example.com/tasktracker/echo:r1", "config": "one" });
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let annotations =
            format!("name: staging, annotations: {{tasktracker.dev/echo: {}}}", json!(all.to_string()));
        let hosts: String = self
            .others
            .iter()
            .zip(2..)
            .map(|(host, number)| {
                let (address, port, key) = (host.address(), host.port(), host.host_key());
                format!(
                    "    - {{name: app-{number}, address: {address}, port: {port}, roles: [monitoring], hostKeys: [\"{key}\"]}}\n"
                )
            })
            .collect();
        let text = self.stage.stack("staging", revision, policy).replace("name: staging", &annotations);
        self.stage.write_stack("staging.yaml", &text.replace("  ssh:", &format!("{hosts}  ssh:")));
    }

    /// What differs in `echo`, by host: kind and path.
    fn drift(&self) -> Vec<(String, String, String)> {
        let (_, status) = self.stage.json(&["status", "--component", "echo"]);
        let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let reports = status.as_array().unwrap().iter();
        reports
            .flat_map(|one| one["report"]["drift"].as_array().unwrap())
            .map(|item| (text(item, "host"), text(item, "kind"), text(item, "path")))
            .collect()
    }

    fn start_operator(&self) -> Running {
        let operator = self.stage.start_operator();
        operator.wait_until_ready("staging");
        operator
    }
}

fn on(host: &SandboxHost, script: &str) -> String {
    succeeded(&mut host.command_as_deploy(script))
}

/// An HTTP request of who is let in, as `printf` writes it.
fn request(method: &str, path: &str, body: &str) -> String {
    let user = "YWRtaW46Y2FuYXJ5LXBhc3N3b3Jk";
    format!(
        "{method} {path} HTTP/1.0\\r\\nAuthorization: Basic {user}\\r\\nContent-Type: application/json\\r\\nContent-Length: {}\\r\\n\\r\\n{body}",
        body.len()
    )
}

/// An HTTP request to the container of `echo` on a host, and the whole answer; nothing where it does not answer.
fn ask(host: &SandboxHost, method: &str, path: &str, body: &str) -> String {
    let request = request(method, path, body);
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    on(
        host,
        &format!(
            "exec 3<>/dev/tcp/$(docker inspect -f '{address}' {ECHO})/7000; printf '{request}' >&3 && cat <&3 || true"
        ),
    )
}

fn id(host: &SandboxHost, container: &str) -> String {
    on(host, &format!("docker inspect -f '{{{{.Id}}}}' {container}"))
}

/// Places in a log: where each host's rollout of a component began and ended, in order.
fn rollouts(log: &str, component: &str) -> Vec<(bool, String)> {
    let of_component = format!("component={component} ");
    log.lines()
        .filter(|line| line.contains(&of_component))
        .filter_map(|line| {
            let begins = line.contains("INFO rolling out");
            let host = line.split("host=\"").nth(1)?.split('"').next()?.to_owned();
            (begins || line.contains("INFO rolled out")).then_some((begins, host))
        })
        .collect()
}

/// Whether the log has the end of an apply of a component.
fn ended(log: &str, component: &str) -> bool {
    let of_component = format!("\"component\":\"{component}\"");
    log.lines().any(|line| {
        line.contains("audit:") && line.contains(&of_component) && !line.contains("\"result\":\"Began\"")
    })
}

#[test]
fn two_components_go_their_own_ways_on_three_hosts() {
    let fleet = Fleet::start("components");
    let (first, settings) = (&fleet.stage.host, json!({ "perHost": true }));
    fleet.write("r1", &settings);
    let operator = fleet.start_operator();
    let one_after_the_other: Vec<(bool, String)> =
        (1..=3).flat_map(|number| [true, false].map(|begins| (begins, format!("app-{number}")))).collect();
    assert_eq!(rollouts(&operator.log(), "echo"), one_after_the_other);

    phase("a rollout of one component, while a drift of the other is healed on another host");
    let before = operator.log().len();
    fleet.write_with("r2", &settings, &POLICY.replace("soak: 1s", "soak: 20s"));
    wait_until("the app is rolled out", || rollouts(&operator.log()[before..], "app").len() == 1);
    let second = fleet.hosts()[1];
    on(second, &format!("docker rm -f {ECHO}"));
    wait_until("echo is back", || ask(second, "GET", "/ready", "").starts_with("HTTP/1.0 200"));
    assert!(!ended(&operator.log()[before..], "app"), "the rollout of the app has ended");
    fleet.write("r2", &settings);
    operator.wait_until_ready("staging");

    phase("a rollout of one component, while a drift of the other is seen on the same host");
    let before = operator.log().len();
    let failing = json!({ "perHost": true, "environment": { "FAIL": "never-ready" } });
    fleet.write("r2", &failing);
    wait_until("echo is rolled out", || rollouts(&operator.log()[before..], "echo").len() == 1);
    on(first, &format!("docker rm -f $({BACKEND})"));
    wait_until(format_args!("the drift is reported: {}", operator.said()), || {
        let of_app = ["stack=\"staging\"", "host=\"app-1\"", "component=\"app\"", "layer=\"containers\""];
        operator.metric("tasktracker_drift_items", &of_app).is_some_and(|items| items > 0.0)
    });
    assert!(!ended(&operator.log()[before..], "echo"), "the rollout of echo has ended");
    wait_until("the backend is back", || {
        on(first, &format!("docker inspect -f '{{{{.State.Health.Status}}}}' $({BACKEND}) || true"))
            == "healthy\n"
    });

    phase("the one that fails goes back alone");
    let backend = on(first, BACKEND);
    wait_until("the failure is told", || {
        let (_, status) = fleet.stage.json(&["status"]);
        status.to_string().contains("echo: expected ready, found")
    });
    wait_until("echo serves again", || ask(first, "GET", "/ready", "").starts_with("HTTP/1.0 200"));
    assert_eq!(on(first, BACKEND), backend, "the app is left alone");
    let tried: Vec<(bool, String)> = rollouts(&operator.log()[before..], "echo");
    assert!(tried.iter().all(|(_, host)| host == "app-1"), "{tried:?}");
    fleet.write("r2", &settings);
    operator.wait_until_ready("staging");

    phase("checks do not wake each other");
    let count = || operator.total("tasktracker_reconcile_total", &["stack=\"staging\""]).unwrap();
    let before = count();
    operator.wait_for_checks("staging", "app-1", 20);
    // Four projects, each checked as often as another one.
    let checks = count() - before;
    assert!((20.0..4.0 * 21.0 * 3.0).contains(&checks), "{checks} checks");

    phase("a network that both use");
    let network = "tt-staging";
    on(
        first,
        &format!(
            "for one in $(docker network inspect -f '{{{{range $id, $_ := .Containers}}}}{{{{$id}}}} {{{{end}}}}' {network})
             do docker network disconnect -f {network} $one; done
             docker network rm {network}; docker network create --label mine=1 {network}"
        ),
    );
    wait_until("both are in a new network", || {
        let labels =
            on(first, &format!("docker network inspect -f '{{{{json .Labels}}}}' {network} || true"));
        let inside =
            on(first, &format!("docker network inspect -f '{{{{len .Containers}}}}' {network} || true"));
        !labels.contains("mine") && inside == "4\n" && fleet.stage.json(&["status"]).0 == 0
    });
    operator.wait_until_ready("staging");
    operator.stop();
}

/// When the container of `echo` went and came on a host, in nanoseconds: each gap from its end to the next start, and
/// whether it is there.
fn gaps(events: &Events) -> (Vec<(u128, u128)>, bool) {
    let (mut gaps, mut went) = (Vec::new(), None);
    for event in events.received().into_iter().filter(|event| event.container == ECHO) {
        match (event.action.as_str(), went) {
            ("die", None) => went = Some(event.when),
            ("start", Some(since)) => {
                gaps.push((since, event.when));
                went = None;
            }
            _ => {}
        }
    }
    (gaps, went.is_none())
}

/// The events of each host of a fleet from now on.
fn follow(fleet: &Fleet) -> Vec<Events> {
    fleet.hosts().into_iter().map(Events::of_containers).collect()
}

/// On each host it was down, and on no two of them at once.
fn assert_never_two(hosts: &[Events]) {
    wait_until("each end and start is received", || {
        hosts.iter().all(|events| matches!(gaps(events), (gaps, true) if !gaps.is_empty()))
    });
    let all: Vec<(u128, u128)> = hosts.iter().flat_map(|events| gaps(events).0).collect();
    for (index, one) in all.iter().enumerate() {
        for other in &all[index + 1..] {
            assert!(one.1 < other.0 || other.1 < one.0, "two were down at once: {all:?}");
        }
    }
}

#[test]
fn of_a_serial_service_no_two_instances_are_down_and_what_it_has_loaded_is_proved() {
    let fleet = Fleet::start("serial");
    let r2 = "registry.example.com/tasktracker/echo:r2";
    fleet.write("r1", &json!({ "serial": true }));
    let operator = fleet.start_operator();

    phase("a rollout");
    let events = follow(&fleet);
    fleet.write("r1", &json!({ "serial": true, "image": r2 }));
    wait_until("all run r2", || {
        fleet.hosts().into_iter().all(|host| ask(host, "GET", "/", "").contains("\"r2\""))
            && operator.is_ready("staging")
    });
    assert_never_two(&events);

    phase("the same drift on all at once");
    let events = follow(&fleet);
    let updates: Vec<_> = fleet
        .hosts()
        .into_iter()
        .map(|host| {
            let mut command = host.command_as_deploy(&format!("docker update --cpu-shares 512 {ECHO}"));
            command.stdout(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut update in updates {
        assert!(update.wait().unwrap().success());
    }
    wait_until("all are as they should be", || {
        fleet.hosts().into_iter().all(|host| {
            on(host, &format!("docker inspect -f '{{{{.HostConfig.CpuShares}}}}' {ECHO} || true")) == "0\n"
        }) && operator.is_ready("staging")
    });
    assert_never_two(&events);

    phase("an instance that cannot be spared");
    let last = fleet.hosts()[2];
    assert!(ask(last, "PUT", "/health", "red").starts_with("HTTP/1.0 204"));
    let (before, log) = (id(last, ECHO), operator.log().len());
    on(last, &format!("docker update --cpu-shares 512 {ECHO}"));
    wait_until("it waits", || operator.log()[log..].contains("waiting for the gate"));
    // More often than a repair is tried that does not hold.
    operator.wait_for_ended_checks("staging", "app-3", 8);
    assert_eq!(id(last, ECHO), before, "it was taken down nevertheless");
    let compose = "/opt/tasktracker/staging/echo/compose.yaml";
    on(last, &format!("echo '# mine' >>{compose}"));
    wait_until("the gate holds no other repair back", || {
        on(last, &format!("grep -c mine {compose} || true")) == "0\n"
    });
    assert_eq!(id(last, ECHO), before, "it was taken down with the other repair");
    assert!(ask(last, "PUT", "/health", "green").starts_with("HTTP/1.0 204"));
    wait_until(format_args!("it is made anew{}", operator.said()), || {
        id(last, ECHO) != before && operator.is_ready("staging")
    });
    operator.stop();

    phase("an object that was changed by hand");
    let (first, object) = (fleet.hosts()[0], "/objects/greeting");
    assert!(ask(first, "PUT", object, "{\"greeting\": \"bye\"}").starts_with("HTTP/1.0 20"));
    let not_loaded = |path: &str| [("app-1".to_owned(), "ConfigNotLoaded".to_owned(), path.to_owned())];
    assert_eq!(fleet.drift(), not_loaded(object));
    fleet.stage.apply();
    assert!(ask(first, "GET", object, "").ends_with("{\"greeting\":\"hello\"}"));
    assert_eq!(fleet.drift(), []);

    phase("a file that was changed, loaded and put back");
    let (file, before) = (format!("{FOLDER}/files/echo/config.txt"), id(first, ECHO));
    on(first, &format!("cp -p {file} /tmp/config && echo two >{file}"));
    assert!(ask(first, "POST", "/-/reload", "").starts_with("HTTP/1.0 200"));
    on(first, &format!("cat /tmp/config >{file}"));
    assert_eq!(fleet.drift(), not_loaded(&format!("{ECHO}/files/echo/config.txt")));
    fleet.stage.apply();
    assert!(ask(first, "GET", "/config", "").ends_with("{\"text\":\"one\"}"));
    assert_eq!(id(first, ECHO), before, "a reload is enough");

    phase("another file is taken up while it goes on");
    fleet.write("r1", &json!({ "serial": true, "image": r2, "config": "three" }));
    fleet.stage.apply();
    for host in fleet.hosts() {
        assert!(ask(host, "GET", "/config", "").ends_with("{\"text\":\"three\"}"));
    }
    assert_eq!(id(first, ECHO), before, "a reload is enough");

    phase("a file that its service refuses");
    let seen = |host: &SandboxHost| on(host, &format!("stat -c '%i %Y' {file}; cat {file}"));
    let was: Vec<String> = fleet.hosts().into_iter().map(seen).collect();
    fleet.write("r1", &json!({ "serial": true, "image": r2, "config": "this is refused" }));
    let output = fleet.stage.command(&["apply"]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        !output.status.success() && said.contains("expected it to accept the new configuration"),
        "{said}"
    );
    assert!(said.contains("/etc/echo/config.txt:1"), "{said}");
    let is: Vec<String> = fleet.hosts().into_iter().map(seen).collect();
    assert_eq!(is, was, "it was in place");
    assert_eq!(id(first, ECHO), before);
    let ledger: Value = serde_json::from_str(&on(first, &format!("cat {FOLDER}/ledger.json"))).unwrap();
    assert_eq!(ledger["failed"]["reason"], "PreflightFailed", "{ledger}");

    phase("another image and another password, with a gate that needs the one in force");
    fleet.stage.write_value("echo", "password", b"second-canary");
    fleet.write("r1", &json!({ "serial": true }));
    let events = follow(&fleet);
    fleet.stage.apply();
    assert_never_two(&events);
    assert_eq!(fleet.drift(), []);
    assert!(ask(first, "GET", "/objects/greeting", "").starts_with("HTTP/1.0 401"), "the old one is valid");
}

#[test]
fn a_secret_belongs_to_whom_its_service_insists_on() {
    let stage = Stage::without_images("secret-owner");
    stage.load(&["echo-r1"]);
    let fleet = Fleet { stage, others: Vec::new() };
    let write = |value: &str| fleet.stage.write_value("echo", "password", value.as_bytes());
    let host = &fleet.stage.host;
    write(PASSWORD);
    let settings = json!({ "image": "registry.example.com/tasktracker/echo:r1", "config": "one" });
    let annotations =
        format!("name: staging, annotations: {{tasktracker.dev/echo: {}}}", json!(settings.to_string()));
    let text = fleet.stage.stack("staging", "r1", POLICY).replace("name: staging", &annotations);
    let text = text.replace("roles: [app]", "roles: [monitoring]");
    let text: String = text
        .lines()
        .filter(|line| !line.starts_with("  app:"))
        .fold(String::new(), |all, line| all + line + "\n");
    fleet.stage.write_stack("staging.yaml", &text);
    fleet.stage.apply();

    let file = format!("{FOLDER}/secrets/echo/password");
    let seen = || {
        let answer = ask(host, "GET", "/secret", "");
        let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        ["uid", "gid", "mode"].map(|key| body[key].clone())
    };
    let (right, as_wanted) = ("1000 1000 400\n", [json!(1000), json!(1000), json!("0400")]);
    let on_disk = || fleet.stage.as_root(&format!("stat -c '%u %g %a' {file}"));
    assert_eq!((on_disk().as_str(), seen()), (right, as_wanted.clone()));
    assert_eq!(fleet.drift(), []);
    on(host, &format!("! cat {file} 2>/dev/null"));

    let expected: BTreeMap<&str, (&str, String)> = BTreeMap::from([
        ("another value", ("FileChanged", format!("printf other >{file}"))),
        ("a large file", ("FileChanged", format!("head -c 3000000 /dev/zero >{file}"))),
        ("another mode", ("FileMode", format!("chmod 0444 {file}"))),
        ("another owner", ("FileMode", format!("chown 1001:1000 {file}"))),
        ("nothing", ("FileMissing", format!("rm {file}"))),
    ]);
    for (name, (kind, script)) in expected {
        phase(name);
        fleet.stage.as_root(&script);
        let path = "secrets/echo/password".to_owned();
        // Who cannot read its password refuses everybody else, too.
        let mut drift = fleet.drift();
        drift.retain(|(_, _, other)| *other == path);
        assert_eq!(drift, [("app-1".to_owned(), kind.to_owned(), path)]);
        fleet.stage.apply();
        assert_eq!((on_disk().as_str(), seen()), (right, as_wanted.clone()));
        assert_eq!(fleet.stage.as_root(&format!("cat {file}")), PASSWORD);
        assert_eq!(fleet.drift(), []);
    }

    phase("an object that somebody changes while it is put");
    let other = json!({ "image": "registry.example.com/tasktracker/echo:r1", "config": "two" });
    let with = |settings: &Value| json!(settings.to_string()).to_string();
    fleet.stage.write_stack("staging.yaml", &text.replace(&with(&settings), &with(&other)));
    let request = request("PUT", "/objects/greeting", "{\"greeting\": \"bye\"}");
    on(
        host,
        &format!(
            "address=$(docker inspect -f '{{{{range .NetworkSettings.Networks}}}}{{{{.IPAddress}}}}{{{{end}}}}' {ECHO}); end=$(($(date +%s) + 8)); \
            (while [ $(date +%s) -lt $end ]; do exec 3<>/dev/tcp/$address/7000 && printf '{request}' >&3 && cat <&3; done) >/dev/null 2>&1 </dev/null &"
        ),
    );
    fleet.stage.apply();
    assert!(ask(host, "GET", "/objects/greeting", "").ends_with("{\"greeting\":\"hello\"}"));
    assert_eq!(fleet.drift(), []);

    phase("another value from its source, with a release that does not serve");
    write("second-canary");
    let bad = settings.as_object().unwrap().clone().into_iter();
    let bad: Value = bad.chain([("environment".to_owned(), json!({ "FAIL": "never-ready" }))]).collect();
    let policy = POLICY.replace("healthTimeout: 40s", "healthTimeout: 10s");
    fleet.stage.write_stack(
        "staging.yaml",
        &text
            .replace(&json!(settings.to_string()).to_string(), &json!(bad.to_string()).to_string())
            .replace(POLICY, &policy),
    );
    assert!(!fleet.stage.command(&["apply"]).status.success());
    assert_eq!(
        fleet.stage.as_root(&format!("cat {file}")),
        PASSWORD,
        "the value of the release in force is back"
    );
    assert_eq!(on_disk(), right);

    phase("another value from its source");
    fleet.stage.write_stack("staging.yaml", &text);
    fleet.stage.apply();
    assert_eq!(fleet.stage.as_root(&format!("cat {file}")), "second-canary");
    assert_eq!((on_disk().as_str(), seen()), (right, as_wanted));
}
