//! Several hosts with one database server, behind a balancer.

use std::{net::SocketAddr, thread, time::Duration};

use serde_json::Value;
use tasktracker_testbed::{Balancer, DemoHost, PostgresServer, SandboxHost, Users, http};

use crate::{
    rollout::{assert_unnoticed, make_bad},
    stage::{Stage, succeeded, wait_until},
};

const POLICY: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 2s, healthTimeout: 15s}}\n";

/// Three hosts and their database.
struct Fleet {
    stage: Stage,
    others: Vec<SandboxHost>,
    _database: PostgresServer,
}

impl Fleet {
    fn start(name: &str) -> Self {
        let stage = Stage::new(name);
        let others = (2..=3).map(|number| Stage::another_host(&format!("{name}-{number}"))).collect();
        let database = PostgresServer::start_at(stage.host.gateway()).unwrap();
        stage.write_value("tasks", "url", database.database().unwrap().as_bytes());
        Self { stage, others, _database: database }
    }

    fn hosts(&self) -> impl Iterator<Item = &SandboxHost> {
        std::iter::once(&self.stage.host).chain(&self.others)
    }

    /// Asks for a revision on all three; `states` has the state of each host.
    fn write(&self, revision: &str, states: [&str; 3]) {
        self.write_with(revision, states, POLICY);
    }

    fn write_with(&self, revision: &str, states: [&str; 3], more: &str) {
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
        let text: String =
            text.lines().filter(|line| !line.contains("name: app-1")).fold(String::new(), |all, line| {
                let line =
                    line.replace("tasktracker}", "tasktracker, database: {postgres: {urlSecret: tasks}}}");
                let more = if line == "  hosts:" { hosts.as_str() } else { "" };
                format!("{all}{line}\n{more}")
            });
        self.stage.write_stack("staging.yaml", &text);
    }

    fn active(&self, revision: &str) {
        self.write(revision, ["Active"; 3]);
    }

    /// The ledger of each host.
    fn ledgers(&self) -> Vec<Value> {
        let text = |host: &SandboxHost| {
            succeeded(&mut host.command_as_deploy("cat /opt/tasktracker/staging/app/ledger.json"))
        };
        self.hosts().map(|host| serde_json::from_str(&text(host)).unwrap()).collect()
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

    // What is approved is the plan of all three, though it is another one as soon as the first is done.
    let users = Users::start(balancer.address(), "fleet");
    let approve = POLICY.replace("{rollout", "{upgrade: Approve, rollout");
    fleet.write_with("r2", ["Active"; 3], &approve);
    wait_until("all wait", || operator.log().matches("reason=\"ApprovalNeeded\"").count() == 3);
    assert_eq!(fleet.served(), ["r1"; 3]);
    let (_, plan) = fleet.stage.json(&["plan"]);
    let by_spec = format!("{approve}  approvedPlan: {}\n", plan[0]["hash"]);
    fleet.write_with("r2", ["Active"; 3], &by_spec);
    wait_until(format_args!("all have r2: {}", operator.said()), || {
        fleet.served() == ["r2"; 3] && operator.is_ready("staging")
    });
    assert_unnoticed(&fleet.stage.host, "three hosts", &users.stop());
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
    thread::sleep(Duration::from_secs(3));
    assert_unnoticed(&fleet.stage.host, "a revision that is bad on the second host", &users.stop());
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
    assert_unnoticed(&fleet.stage.host, "a host is drained", &users.stop());
    operator.stop();
}
