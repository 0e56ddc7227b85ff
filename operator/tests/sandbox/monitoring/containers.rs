//! What containers use, as the operator reads it on their host, beside what Docker says of them.

use std::collections::BTreeSet;

use serde_json::Value;
use tasktracker_testbed::Users;

use super::POLICY;
use crate::{
    metrics::total,
    stage::{Running, Stage, phase, wait_until},
};

/// Requests of users before anything is compared.
const LOAD: usize = 200;
/// How often everything is read to know what that costs.
const ROUNDS: u32 = 50;
/// How often memory is compared at most: the kernel counts it for each processor in batches of 32 pages, which is more than
/// 2 % of a small container's from one moment to the next.
const TRIES: usize = 20;

/// What Docker's engine says of a container, at once.
fn stats(stage: &Stage, container: &str) -> Value {
    let script = format!(
        r#"perl -MIO::Socket::UNIX -e '
            my $s = IO::Socket::UNIX->new("/var/run/docker.sock") or die $!;
            print $s "GET /v1.41/containers/{container}/stats?stream=false&one-shot=true HTTP/1.0\r\n\r\n";
            my $all = join "", <$s>; $all =~ s/^.*?\r\n\r\n//s; print $all;'"#
    );
    serde_json::from_str(&stage.as_root(&script)).unwrap()
}

/// Memory as `docker stats` shows it: without files that can be dropped at once.
fn memory(stats: &Value) -> f64 {
    let of = &stats["memory_stats"];
    let droppable = of["stats"]["total_inactive_file"].as_f64().or(of["stats"]["inactive_file"].as_f64());
    of["usage"].as_f64().unwrap() - droppable.unwrap()
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a container")]
fn float(count: u64) -> f64 {
    count as f64
}

fn moved(stats: &Value, operation: &str) -> u64 {
    let entries = stats["blkio_stats"]["io_service_bytes_recursive"].as_array().cloned().unwrap_or_default();
    let is_it = |entry: &&Value| entry["op"].as_str().is_some_and(|op| op.eq_ignore_ascii_case(operation));
    entries.iter().filter(is_it).filter_map(|entry| entry["value"].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_containers_use_is_what_docker_says_of_them() {
    let stage = Stage::new("usage");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", POLICY));
    stage.apply();
    let users = Users::start(stage.page(), "usage");
    users.wait_for_requests(LOAD);
    let (stack, host) = stage.managed();
    host.files(&stack.key.name, true).await.unwrap();
    let mut processes = Vec::new();
    for container in ["tt-staging-app-backend-1", "tt-staging-app-frontend-1", "tt-staging-app-edge-1"] {
        let process = stage.on_host(&format!("docker inspect -f '{{{{.State.Pid}}}}' {container}"));
        let process: u32 = process.trim().parse().unwrap();
        let mut tries = 0;
        let (before, usage, after) = loop {
            let before = stats(&stage, container);
            let usage = host.usage(&stack.key.name, process).await.unwrap().unwrap();
            let after = stats(&stage, container);
            let (least, most) =
                (memory(&before).min(memory(&after)) * 0.98, memory(&before).max(memory(&after)) * 1.02);
            if (least..=most).contains(&float(usage.memory)) {
                break (before, usage, after);
            }
            tries += 1;
            assert!(tries < TRIES, "{container}: {usage:?} {before:#}");
        };
        assert_eq!(usage.memory_limit, before["memory_stats"]["limit"].as_u64(), "{container}");
        let cpu = |stats: &Value| stats["cpu_stats"]["cpu_usage"]["total_usage"].as_f64().unwrap() / 1e9;
        assert!((cpu(&before)..=cpu(&after)).contains(&usage.cpu), "{container}: {usage:?} {before:#}");
        let throttling =
            |stats: &Value, of: &str| stats["cpu_stats"]["throttling_data"][of].as_u64().unwrap();
        let periods = throttling(&before, "periods")..=throttling(&after, "periods");
        assert!(periods.contains(&usage.periods) && usage.periods > 0, "{container}: {usage:?}");
        let throttled = throttling(&before, "throttled_periods")..=throttling(&after, "throttled_periods");
        assert!(throttled.contains(&usage.throttled_periods), "{container}: {usage:?}");
        let count = |stats: &Value| stats["pids_stats"]["current"].as_u64().unwrap();
        let few = count(&before).min(count(&after)).saturating_sub(1);
        assert!((few..=count(&before).max(count(&after)) + 1).contains(&usage.processes), "{usage:?}");
        for (ours, operation) in [(usage.read, "read"), (usage.written, "write")] {
            let between = moved(&before, operation)..=moved(&after, operation);
            assert!(between.contains(&ours), "{container}: {operation} {usage:?} {before:#}");
        }
        processes.push(process);
    }
    assert_eq!(users.stop().failures, [""; 0]);

    phase("a group that a container made for itself");
    // As a container does that has systemd or Docker in it.
    let process = processes[0];
    let at = format!("/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' /proc/{process}/cgroup)");
    let before = host.usage(&stack.key.name, process).await.unwrap().unwrap();
    stage.as_root(&format!("at={at}; mkdir $at/init && echo {process} >$at/init/cgroup.procs"));
    let within = host.usage(&stack.key.name, process).await.unwrap().unwrap();
    assert_eq!((within.memory_limit, before.memory_limit.is_some()), (before.memory_limit, true));
    stage.as_root(&format!("at={at}; at=${{at%/init}}; echo {process} >$at/cgroup.procs && rmdir $at/init"));

    phase("what that costs");
    let spent = || -> f64 {
        let script = "cat /proc/$(pgrep -f tasktracker-helper | head -n 1)/stat; getconf CLK_TCK";
        let shown = stage.as_root(script);
        let words: Vec<&str> = shown.split_whitespace().collect();
        let ticks = |at: usize| words[at].parse::<f64>().unwrap();
        // Of itself and of what it started, in user and kernel mode.
        (13..17).map(ticks).sum::<f64>() / words.last().unwrap().parse::<f64>().unwrap()
    };
    let before = spent();
    for _ in 0..ROUNDS {
        for process in &processes {
            host.usage(&stack.key.name, *process).await.unwrap().unwrap();
        }
    }
    let of_one = (spent() - before) / f64::from(ROUNDS);
    println!(
        "{} containers: {:.1} ms of a core each time, once a minute: {:.4} % of a core",
        processes.len(),
        of_one * 1e3,
        of_one / 60.0 * 100.0
    );
}

/// Service and number of each container that the operator tells of.
fn told(operator: &Running) -> BTreeSet<String> {
    let text = operator.metrics_text().unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with("tasktracker_container_healthy{"));
    let label = |line: &str, name: &str| {
        let value = line.split_once(&format!("{name}=\"")).unwrap().1;
        value.split_once('"').unwrap().0.to_owned()
    };
    lines.map(|line| format!("{} {}", label(line, "service"), label(line, "replica"))).collect()
}

/// Runs a program in the control group of a service's container that takes all of its memory.
pub(super) fn out_of_memory(service: &str) -> String {
    format!(
        r"pid=$(docker inspect -f '{{{{.State.Pid}}}}' $(docker ps -qf label=com.docker.compose.service={service} | head -n 1))
        group=$(sed -n 's/^[0-9]*:memory:/memory/p; s/^0::/unified/p' /proc/$pid/cgroup | head -n 1)
        case $group in memory*) at=/sys/fs/cgroup/memory${{group#memory}} ;; *) at=/sys/fs/cgroup${{group#unified}} ;; esac
        sh -c 'echo $$ >'$at'/cgroup.procs; exec tail /dev/zero' || true"
    )
}

#[test]
fn series_of_containers_have_their_names_and_tell_of_restarts_and_want_of_memory() {
    let stage = Stage::new("container-series");
    let write = |revision: &str, backend: &str| {
        let text = stage.stack("staging", revision, POLICY);
        let app = format!("tasktracker, backend: {{{backend}}}}}");
        stage.write_stack("staging.yaml", &text.replace("tasktracker}", &app));
    };
    write("r1", "replicas: 1");
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    let there = || {
        let script = r#"docker ps --format '{{.Label "com.docker.compose.service"}} {{.Label "com.docker.compose.container-number"}}'"#;
        stage.on_host(script).lines().map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let of = |metric: &str, service: &str| {
        let text = operator.metrics_text().unwrap_or_default();
        total(&text, &format!("tasktracker_container_{metric}"), &[&format!("service=\"{service}\"")])
    };
    wait_until("each is told of", || told(&operator) == there());
    assert!(of("memory_bytes", "backend") > 1e6 && of("memory_limit_bytes", "backend") > 1e6);
    assert!(of("healthy", "edge") > 0.5 && of("oom_kills_total", "backend") < 0.5);

    phase("another revision, and more of it");
    write("r2", "replicas: 2");
    wait_until(format_args!("two serve: {}", operator.said()), || {
        operator.is_ready("staging") && stage.http(3500, "GET /api/health").1.contains("r2")
    });
    wait_until(format_args!("{:?} are told of, {:?} there", told(&operator), there()), || {
        told(&operator) == there() && there().len() == 4
    });

    phase("no memory left");
    stage.as_root(&out_of_memory("backend"));
    wait_until(format_args!("it is counted: {}", operator.said()), || {
        of("oom_kills_total", "backend") >= 1.0
    });
    assert!(of("oom_kills_total", "frontend") < 0.5);

    phase("one that ends, and that Docker starts again");
    stage.as_root("kill -KILL $(docker inspect -f '{{.State.Pid}}' $(docker ps -qf label=com.docker.compose.service=frontend))");
    wait_until(format_args!("it is counted: {}", operator.said()), || {
        of("restarts_total", "frontend") >= 1.0
    });
    assert!(of("restarts_total", "edge") < 0.5);
    operator.stop();
}
