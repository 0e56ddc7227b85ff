//! Several hosts with one database server, behind a balancer.

use std::net::SocketAddr;

use serde_json::Value;
use tasktracker_testbed::{Balancer, DemoHost, PostgresServer, SandboxHost, Seen, Users, http};

use crate::{
    rollout::{assert_unnoticed, make_bad},
    stage::{Running, Stage, phase, succeeded, wait_until, wait_until_listening},
};

const POLICY: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 2s, healthTimeout: 15s}}\n";

/// Prints the IDs of the backends.
const BACKENDS: &str = "docker ps -aq --filter label=com.docker.compose.service=backend";

/// Three hosts and their database.
struct Fleet {
    stage: Stage,
    others: Vec<SandboxHost>,
    database: PostgresServer,
}

impl Fleet {
    fn start(name: &str) -> Self {
        let stage = Stage::new(name);
        let others = (2..=3).map(|number| Stage::another_host(&format!("{name}-{number}"))).collect();
        let database = PostgresServer::start_at(stage.host.gateway()).unwrap();
        stage.write_value("tasks", "url", database.database().unwrap().as_bytes());
        Self { stage, others, database }
    }

    fn hosts(&self) -> impl Iterator<Item = &SandboxHost> {
        std::iter::once(&self.stage.host).chain(&self.others)
    }

    /// Asks for a revision on all three; `states` has the state of each host.
    fn write(&self, revision: &str, states: [&str; 3]) {
        self.write_with(revision, states, "", POLICY);
    }

    /// The same with more in the spec of the app, and at the end of the whole.
    fn write_with(&self, revision: &str, states: [&str; 3], app: &str, more: &str) {
        let host = |(number, host, state): (usize, &SandboxHost, &str)| {
            format!(
                "    - {{name: app-{number}, address: {}, port: {}, roles: [app], hostKeys: [\"{}\"], state: {state}}}\n",
                host.address(),
                host.port(),
                host.host_key()
            )
        };
        let hosts: String = self
            .hosts()
            .zip(states)
            .enumerate()
            .map(|(at, (one, state))| host((at + 1, one, state)))
            .collect();
        let text = self.stage.stack("staging", revision, more);
        let app = format!("tasktracker, database: {{postgres: {{urlSecret: tasks}}}}{app}}}");
        let text: String =
            text.lines().filter(|line| !line.contains("name: app-1")).fold(String::new(), |all, line| {
                let line = line.replace("tasktracker}", &app);
                let more = if line == "  hosts:" { hosts.as_str() } else { "" };
                format!("{all}{line}\n{more}")
            });
        self.stage.write_stack("staging.yaml", &text);
    }

    fn active(&self, revision: &str) {
        self.write(revision, ["Active"; 3]);
    }

    /// Waits until so many checks of each host succeeded.
    fn wait_for_checks(&self, operator: &Running, count: u32) {
        for (number, _) in self.hosts().enumerate() {
            operator.wait_for_checks("staging", &format!("app-{}", number + 1), count);
        }
    }

    /// The ledger of each host.
    fn ledgers(&self) -> Vec<Value> {
        let text = |host: &SandboxHost| {
            succeeded(&mut host.command_as_deploy("cat /opt/tasktracker/staging/app/ledger.json"))
        };
        self.hosts().map(|host| serde_json::from_str(&text(host)).unwrap()).collect()
    }

    /// Nothing failed, and everything that was acknowledged is there; otherwise, what backends and database logged.
    fn assert_unnoticed(&self, what: &str, seen: &Seen) {
        if !seen.failures.is_empty() {
            let script =
                format!("for id in $({BACKENDS}); do docker logs $id 2>&1 | grep -v '\"INFO\"'; done; true");
            for host in self.hosts() {
                println!("{}", succeeded(&mut host.command_as_deploy(&script)));
            }
            println!("{}", self.database.log().unwrap());
        }
        assert_unnoticed(&self.stage.host, what, seen);
    }

    /// The revision that each host serves.
    fn served(&self) -> Vec<String> {
        let health = |host: &SandboxHost| http(SocketAddr::new(host.address(), 3500), "GET /api/health");
        let revision = |body: String| {
            let health: Value = serde_json::from_str(&body).unwrap_or_default();
            health["revision"].as_str().unwrap_or_default().to_owned()
        };
        self.hosts().map(|host| health(host).map(|(_, body)| revision(body)).unwrap_or_default()).collect()
    }
}

#[test]
fn one_host_goes_first_and_nobody_notices_and_what_fails_on_one_comes_back_on_all() {
    let fleet = Fleet::start("fleet");
    fleet.active("r1");
    let operator = fleet.stage.start_operator();
    operator.wait_until_ready("staging");
    assert_eq!(fleet.served(), ["r1"; 3]);
    let balancer =
        Balancer::start(fleet.hosts().map(|host| SocketAddr::new(host.address(), 3500)).collect()).unwrap();

    phase("an approved rollout");
    // What is approved is the plan of all three, though it is another one as soon as the first is done.
    let users = Users::start(balancer.address(), "fleet");
    let approve = POLICY.replace("{rollout", "{upgrade: Approve, rollout");
    fleet.write_with("r2", ["Active"; 3], "", &approve);
    wait_until("all wait", || operator.log().matches("reason=\"ApprovalNeeded\"").count() == 3);
    assert_eq!(fleet.served(), ["r1"; 3]);
    let (_, plan) = fleet.stage.json(&["plan"]);
    let by_spec = format!("{approve}  approvedPlan: {}\n", plan[0]["hash"]);
    fleet.write_with("r2", ["Active"; 3], "", &by_spec);
    wait_until(format_args!("all have r2: {}", operator.said()), || {
        fleet.served() == ["r2"; 3] && operator.is_ready("staging")
    });
    fleet.assert_unnoticed("three hosts", &users.stop());
    let ended: Vec<String> =
        fleet.ledgers().iter().map(|ledger| ledger["when"].as_str().unwrap().to_owned()).collect();
    let approved: Vec<Value> =
        fleet.ledgers().iter().map(|ledger| ledger["history"][0]["approved"].clone()).collect();
    assert_eq!(approved, vec![format!("spec.approvedPlan {}", plan[0]["hash"].as_str().unwrap()); 3]);
    let began: Vec<String> = fleet
        .ledgers()
        .iter()
        .map(|ledger| ledger["history"][0]["when"].as_str().unwrap().to_owned())
        .collect();
    println!("began {began:?}, last written {ended:?}");
    let mut one_by_one = began.clone();
    one_by_one.sort();
    assert_eq!(began[0], one_by_one[0], "the first one of the spec comes first");

    phase("a revision that is bad on the second host");
    // A revision that is good on the first host and bad on the second.
    for (number, host) in fleet.hosts().enumerate() {
        let bad = if number == 1 { "exit 3" } else { "exec /real \"$@\"" };
        make_bad(host, "r3", bad);
    }
    let users = Users::start(balancer.address(), "bad");
    fleet.active("r3");
    wait_until(format_args!("all have gone back: {}", operator.said()), || {
        let failed = |at: usize| fleet.ledgers()[at]["failed"]["revision"] == "r3";
        failed(0) && failed(1) && fleet.served() == ["r2"; 3]
    });
    fleet.wait_for_checks(&operator, 3);
    fleet.assert_unnoticed("a revision that is bad on the second host", &users.stop());
    let ledgers = fleet.ledgers();
    let tried: Vec<Vec<&str>> = ledgers
        .iter()
        .map(|ledger| {
            ledger["history"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| entry["revision"].as_str().unwrap())
                .collect()
        })
        .collect();
    assert_eq!(
        tried,
        [vec!["r2", "r3", "r2", "r1"], vec!["r3", "r2", "r1"], vec!["r2", "r1"]],
        "{}",
        operator.log()
    );
    let (code, status) = fleet.stage.json(&["status"]);
    assert_eq!(code, 2, "{status:#}");

    phase("a host is drained");
    // A host that is drained serves whoever comes, and tells the balancer to send nobody.
    let third = SocketAddr::new(fleet.others[1].address(), 3500);
    let health = || http(third, "GET /api/health/ready").unwrap_or_default().0;
    let users = Users::start(balancer.address(), "drain");
    fleet.write("r2", ["Active", "Active", "Drained"]);
    wait_until("the third host is drained", || health() == 503);
    assert_eq!(http(third, "GET /api/tasks?limit=1").unwrap_or_default().0, 200);
    wait_until(format_args!("all is well: {}", operator.said()), || operator.is_ready("staging"));
    let (code, status) = fleet.stage.json(&["status"]);
    assert_eq!((code, &status[2]["report"]["drained"]), (0, &Value::Bool(true)), "{status:#}");
    fleet.active("r2");
    wait_until("it serves again", || health() == 200 && operator.is_ready("staging"));
    fleet.assert_unnoticed("a host is drained", &users.stop());
    operator.stop();
}

/// Gives the images of r1 the tag of another revision, too.
fn tag(host: &SandboxHost, revision: &str) {
    for image in ["backend", "frontend"] {
        let name = format!("registry.example.com/tasktracker/{image}");
        succeeded(&mut host.command_as_deploy(&format!("docker tag {name}:r1 {name}:{revision}")));
    }
}

#[test]
fn whatever_is_wrong_with_a_revision_three_hosts_serve_the_one_before() {
    let fleet = Fleet::start("fleet-bad");
    let stage = &fleet.stage;
    let limits = POLICY.replace("15s", "4s").replace("soak: 1s", "soak: 2s");
    let write = |revision: &str, app: &str, more: &str| {
        fleet.write_with(revision, ["Active"; 3], app, &format!("{limits}{more}"));
    };
    write("r1", "", "");
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    let containers = || -> Vec<String> {
        let script = "docker ps -a --format '{{.ID}} {{.Names}} {{.State}}' | sort";
        fleet.hosts().map(|host| succeeded(&mut host.command_as_deploy(script))).collect()
    };
    let before = containers();
    let address = "$(tail -n 1 /etc/hosts | cut -f 1)";
    let answers =
        format!("LISTEN=127.0.0.1:8000 /real & exec caddy respond --listen {address}:8000 --status 500");
    let bad = [
        ("never-healthy", "exec sleep 600"),
        ("ends-at-once", "exit 3"),
        ("out-of-memory", "exec tail /dev/zero"),
        ("ends-in-the-soak", "/real & sleep 2; kill $!; exit 1"),
        ("green-but-500", &answers),
        ("green-but-deaf", "LISTEN=127.0.0.1:8000 exec /real"),
        ("hook", "exec /real \"$@\""),
    ];
    for (revision, script) in bad {
        // On the others it would be good: nobody finds out.
        make_bad(&stage.host, revision, script);
        fleet.others.iter().for_each(|host| tag(host, revision));
    }
    let balancer =
        Balancer::start(fleet.hosts().map(|host| SocketAddr::new(host.address(), 3500)).collect()).unwrap();
    let users = Users::start(balancer.address(), "bad");
    for (revision, _) in bad {
        let hook = ", hooks: {postRollout: {command: [sh, -c, 'exit 4']}}";
        write(revision, if revision == "hook" { hook } else { "" }, "");
        wait_until(format_args!("{revision} was tried: {}", operator.said()), || {
            fleet.ledgers()[0]["failed"]["revision"] == revision
        });
    }
    // What one of them lacks keeps all of them from beginning.
    let listener = "perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Listen => 1, LocalPort => 3600, ReuseAddr => 1) or die; sleep 120' >/dev/null 2>&1 &";
    succeeded(fleet.others[1].command("sh").args(["-c", listener]));
    wait_until_listening(&fleet.others[1], 3600);
    let lacking = |reason: &str| {
        let is_told = || operator.log().contains(&format!("host=app-3 component=app reason=\"{reason}\""));
        wait_until(format_args!("{reason} is told: {}", operator.said()), is_told);
        // A person's own wish begins nothing, either.
        let refused = stage.command(&["apply"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && said.contains("nothing is begun: app-3"), "{said}");
        fleet.wait_for_checks(&operator, 3);
    };
    write("r1", "", "  ports: {page: 3600}\n");
    lacking("PreflightFailed");
    for host in [&stage.host, &fleet.others[0]] {
        tag(host, "on-two");
    }
    write("on-two", "", "");
    lacking("RegistryUnavailable");
    assert_unnoticed(&stage.host, "nine bad revisions on three hosts", &users.stop());
    assert_eq!((containers(), fleet.served()), (before, vec!["r1".to_owned(); 3]), "{}", operator.log());
    write("r1", "", "");
    wait_until(format_args!("all is well: {}", operator.said()), || operator.is_ready("staging"));
    let tried: Vec<Vec<String>> = fleet
        .ledgers()
        .iter()
        .map(|ledger| {
            let history = ledger["history"].as_array().unwrap().iter();
            history.map(|entry| entry["revision"].as_str().unwrap().to_owned()).collect()
        })
        .collect();
    let all = bad.iter().rev().map(|(revision, _)| *revision).chain(["r1"]).collect::<Vec<_>>();
    assert_eq!(tried, [all, vec!["r1"], vec!["r1"]], "each once, on the first alone");
    operator.stop();
}
