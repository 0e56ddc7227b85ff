//! Several hosts with one database server, behind a balancer.

use std::net::SocketAddr;

use serde_json::Value;
use tasktracker_testbed::{Balancer, DemoHost, HostOptions, PostgresServer, SandboxHost, Seen, Users, http};

use crate::{
    rollout::{assert_unnoticed, make_bad},
    stage::{Running, Stage, phase, succeeded, wait_until, wait_until_listening},
};

const POLICY: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 2s, healthTimeout: 15s}}\n";

/// For rollouts whose course is not what is looked at.
const QUICKLY: &str = "  policy: {rollout: {soak: 0s, drainTimeout: 0s, healthTimeout: 15s}}\n";

/// Three hosts and their database.
struct Fleet {
    stage: Stage,
    others: Vec<SandboxHost>,
    database: PostgresServer,
}

impl Fleet {
    fn start(name: &str) -> Self {
        Self::with(name, HostOptions::default())
    }

    /// Three hosts, of which the second one has options of its own.
    fn with(name: &str, second: HostOptions) -> Self {
        let stage = Stage::new(name);
        let others = vec![
            Stage::another_host_with(&format!("{name}-2"), second),
            Stage::another_host(&format!("{name}-3")),
        ];
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

    /// Nothing failed, and everything that was acknowledged is there; otherwise, what the operator, the containers and the
    /// database logged.
    fn assert_unnoticed(&self, operator: &Running, what: &str, seen: &Seen) {
        if !seen.failures.is_empty() {
            println!("{}", operator.log());
            let script = "for id in $(docker ps -aq); do docker inspect -f '{{.Name}} {{.State.StartedAt}} {{.RestartCount}}' $id; docker logs -t $id 2>&1 | grep -v '\"INFO\"'; done; true";
            for host in self.hosts() {
                println!("{}", succeeded(&mut host.command_as_deploy(script)));
            }
            println!("{}", self.database.log().unwrap());
        }
        assert_unnoticed(&self.stage.host, what, seen);
    }

    /// No host holds a fault against a release, or counts a repair that did not hold.
    fn assert_nobody_is_blamed(&self, what: &str) {
        for ledger in self.ledgers() {
            assert!(ledger["failed"].is_null() && ledger["attempts"].is_null(), "{what}: {ledger:#}");
            let results = ledger["history"].as_array().unwrap().iter().map(|entry| &entry["result"]);
            assert!(results.into_iter().all(|result| result == "Succeeded"), "{what}: {ledger:#}");
        }
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
    fleet.assert_unnoticed(&operator, "three hosts", &users.stop());
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
    fleet.assert_unnoticed(&operator, "a revision that is bad on the second host", &users.stop());
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
    fleet.assert_unnoticed(&operator, "a host is drained", &users.stop());
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
    fleet.assert_unnoticed(&operator, "nine bad revisions on three hosts", &users.stop());
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

/// What the operator does when it meets a fault of a host.
enum Work {
    Rollout,
    Repair,
}

/// A fault of one host, made for real: what meets it, how it begins, what is told of it, and how it ends.
struct HostFault {
    name: &'static str,
    met_by: Work,
    begins: fn(&SandboxHost),
    told: &'static str,
    ends: fn(&SandboxHost),
}

const EXHAUSTED: &str = "the host has no memory, processes or open files left";

fn as_root(host: &SandboxHost, script: &str) {
    succeeded(host.command("sh").args(["-c", script]));
}

const FAULTS: [HostFault; 6] = [
    HostFault {
        name: "no memory for another program",
        met_by: Work::Rollout,
        begins: |host| {
            as_root(
                host,
                r#"cp $(command -v runc) /tmp/runc.real
                group=/sys/fs/cgroup/memory; [ -d $group ] || group=/sys/fs/cgroup
                group=$group/$(hostname)-none; mkdir -p $group
                for limit in memory.limit_in_bytes memory.max; do [ ! -e $group/$limit ] || echo 2000000 >$group/$limit; done
                printf '#!/bin/sh\necho $$ >%s/cgroup.procs\nexec /tmp/runc.real "$@"\n' $group >/tmp/runc.none
                chmod 755 /tmp/runc.none; mount --bind /tmp/runc.none $(command -v runc)"#,
            );
        },
        told: EXHAUSTED,
        ends: |host| {
            as_root(
                host,
                "umount -l $(command -v runc); rmdir /sys/fs/cgroup/*/$(hostname)-none /sys/fs/cgroup/$(hostname)-none 2>/dev/null || true",
            );
        },
    },
    HostFault {
        name: "no open files left",
        met_by: Work::Rollout,
        begins: |host| as_root(host, "prlimit --pid $(pgrep -x containerd) --nofile=10:"),
        told: EXHAUSTED,
        ends: |host| {
            as_root(
                host,
                "of=$(pgrep -x containerd); most=$(prlimit --pid $of --nofile -o HARD --noheadings | tr -d ' '); prlimit --pid $of --nofile=$most:",
            );
        },
    },
    HostFault {
        name: "a full disk",
        met_by: Work::Rollout,
        begins: |host| {
            as_root(
                host,
                "cd /var/lib/docker; mount -t tmpfs -o size=16k none containers; dd if=/dev/zero of=containers/full bs=1k 2>/dev/null || true",
            );
        },
        told: "make room on that disk",
        ends: |host| as_root(host, "umount -l /var/lib/docker/containers"),
    },
    HostFault {
        name: "a runtime that starts nothing",
        met_by: Work::Repair,
        begins: |host| {
            as_root(
                host,
                r"of=$(docker inspect -f '{{.State.Pid}}' $(docker ps -qf label=com.docker.compose.service=frontend))
                printf '#!/bin/sh\nexit 127\n' >/tmp/runc; chmod 755 /tmp/runc; mount --bind /tmp/runc $(command -v runc)
                kill -KILL $of",
            );
        },
        told: "the OCI runtime of the host",
        ends: |host| as_root(host, "umount -l $(command -v runc)"),
    },
    HostFault {
        name: "chains of the packet filter are gone, and the edge with them",
        met_by: Work::Repair,
        begins: |host| {
            as_root(
                host,
                "iptables -w -t nat -S | sed -n 's/^-A \\(.*-j DOCKER\\)$/\\1/p' | while read -r rule; do iptables -w -t nat -D $rule; done; iptables -w -t nat -F DOCKER; iptables -w -t nat -X DOCKER; docker rm -f tt-staging-app-edge-1",
            );
        },
        told: "systemctl restart docker",
        ends: |host| {
            host.stop_docker().unwrap();
            host.start_docker().unwrap();
        },
    },
    HostFault {
        name: "a daemon that is away",
        met_by: Work::Repair,
        begins: |host| host.stop_docker().unwrap(),
        told: "DockerUnavailable",
        ends: |host| host.start_docker().unwrap(),
    },
];

#[test]
fn a_fault_of_one_host_is_its_own_and_the_others_go_on() {
    let dockerd_arguments = vec!["--default-address-pool=base=10.99.0.0/23,size=24".to_owned()];
    let fleet = Fleet::with("blame", HostOptions { dockerd_arguments, ..HostOptions::default() });
    let active = |revision: &str| fleet.write_with(revision, ["Active"; 3], "", QUICKLY);

    phase("no address pool at the first rollout");
    as_root(&fleet.others[0], "docker network create full");
    active("r1");
    let operator = fleet.stage.start_operator();
    wait_until(format_args!("it is told: {}", operator.said()), || {
        ["IPv4 address pool", "default-address-pools"].iter().all(|words| operator.log().contains(words))
    });
    operator.wait_for_ended_checks("staging", "app-2", 2);
    for number in [1, 3] {
        operator.wait_for_checks("staging", &format!("app-{number}"), 2);
    }
    assert_eq!(fleet.served()[0], "r1");
    assert!(!operator.log().contains("DataWouldBeLeft"), "{}", operator.log());
    as_root(&fleet.others[0], "docker network rm full");
    operator.wait_until_ready("staging");
    fleet.assert_nobody_is_blamed("no address pool");
    let mut revision = "r1";
    for HostFault { name, met_by, begins, told, ends } in FAULTS {
        phase(name);
        let (before, second) = (operator.log().len(), &fleet.others[0]);
        begins(second);
        if let Work::Rollout = met_by {
            revision = if revision == "r1" { "r2" } else { "r1" };
            active(revision);
        }
        wait_until(format_args!("{told} is told: {}", operator.said()), || {
            operator.log()[before..].contains(told)
        });
        for number in [1, 3] {
            operator.wait_for_checks("staging", &format!("app-{number}"), 2);
        }
        let others = [&fleet.stage.host, &fleet.others[1]].map(|host| {
            http(SocketAddr::new(host.address(), 3500), "GET /api/tasks?limit=1").unwrap_or_default().0
        });
        assert_eq!(others, [200; 2], "{name}");
        ends(second);
        wait_until(format_args!("{name}: all have {revision}: {}", operator.said()), || {
            fleet.served() == [revision; 3] && operator.is_ready("staging")
        });
        fleet.assert_nobody_is_blamed(name);
    }
    operator.stop();
}
