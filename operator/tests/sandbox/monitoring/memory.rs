//! A Prometheus that the kernel ends for its memory whenever it starts.

use tasktracker_testbed::images;

use super::{PROMETHEUS, query, stack, stage};
use crate::stage::{Running, Stage, phase, wait_until};

/// Its limit of memory.
const LIMIT: &str = "128Mi";
/// Mebibytes that a write-ahead log says it takes.
const TAKES: u32 = 400;
/// What stands in the place of Prometheus' program: it takes more memory than there is where the write-ahead log says that it
/// takes more than the limit, and is Prometheus otherwise. How much memory a log really takes cannot be had to the mebibyte;
/// everything that follows from it is real.
const GREEDY: &str = r#"#!/bin/sh
takes=$(cat /prometheus/wal/takes 2>/dev/null || echo 0)
limit=$(cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max)
[ "$((limit / 1048576))" -ge "$takes" ] || exec awk 'BEGIN { all = "x"; while (1) all = all all }'
exec /bin/prometheus.real "$@"
"#;

/// A stack whose Prometheus has little memory, and what helps it.
fn write(stage: &Stage, out_of_memory: &str, more: &str) {
    let of_store = format!(
        "prometheus: {{resources: {{limits: {{memory: {LIMIT}, cpu: \"1\"}}}}, outOfMemory: {out_of_memory}, "
    );
    let text = stack(stage, images::PROMETHEUS, "replicas: 1", "").replace("prometheus: {", &of_store);
    stage.write_stack("staging.yaml", &format!("{text}{more}"));
}

const SUSPENDED: &str = "  suspend: {until: 2999-01-01T00:00:00Z, reason: the test works by hand}\n";

/// Puts the greedy program into the image.
fn make_greedy(stage: &Stage) {
    let image = images::PROMETHEUS;
    stage.on_host(&format!(
        "cat >/tmp/greedy <<'END'\n{GREEDY}END\nchmod 755 /tmp/greedy
        docker create --name greedy {image} >/dev/null && docker cp greedy:/bin/prometheus /tmp/prometheus.real
        docker cp /tmp/prometheus.real greedy:/bin/prometheus.real && docker cp /tmp/greedy greedy:/bin/prometheus
        docker commit greedy {image} >/dev/null && docker rm greedy >/dev/null"
    ));
}

/// Samples that it stored of itself.
fn stored(stage: &Stage) -> usize {
    let counted = query(stage, "count_over_time(up{job=\"prometheus\"}[1h])");
    counted.first().map_or(0, |(_, count)| format!("{count:.0}").parse().unwrap())
}

/// Starts it anew after something was done to its volume, and waits until it was OOM-killed again and again.
fn loops(stage: &Stage, what: &str) {
    stage.as_root(&format!(
        "docker stop -t 60 {PROMETHEUS} && cd $(docker volume inspect -f '{{{{.Mountpoint}}}}' tt-staging-monitoring-prometheus) && {what} && docker start {PROMETHEUS}"
    ));
    wait_until("it is ended again and again", || {
        let restarts = stage.on_host(&format!("docker inspect -f '{{{{.RestartCount}}}}' {PROMETHEUS}"));
        restarts.trim().parse::<u32>().unwrap() >= 3
    });
}

/// What is in its volume.
fn kept(stage: &Stage) -> Vec<String> {
    let shown =
        stage.as_root("ls $(docker volume inspect -f '{{.Mountpoint}}' tt-staging-monitoring-prometheus)");
    shown.lines().map(str::to_owned).collect()
}

fn memory(stage: &Stage) -> u64 {
    let shown = stage.on_host(&format!("docker inspect -f '{{{{.HostConfig.Memory}}}}' {PROMETHEUS}"));
    shown.trim().parse::<u64>().unwrap() >> 20
}

fn wait_for_failure(operator: &Running) {
    wait_until(format_args!("it is told: {}", operator.said()), || {
        operator.metric("tasktracker_host_failure", &["reason=\"OutOfMemory\""]) == Some(1.0)
    });
}

#[test]
fn a_store_that_is_oom_killed_whenever_it_starts_is_told_and_helped_as_the_spec_permits() {
    let stage = stage("memory");
    make_greedy(&stage);
    write(&stage, "{maxMemoryPercent: 0}", "");
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    wait_until("it has samples", || stored(&stage) >= 2);
    write(&stage, "{maxMemoryPercent: 0}", SUSPENDED);
    wait_until("it is suspended", || operator.metric("tasktracker_stack_suspended", &[]) == Some(1.0));
    loops(&stage, &format!("echo {TAKES} >wal/takes"));

    phase("nothing is permitted");
    let before = operator.log().len();
    write(&stage, "{maxMemoryPercent: 0}", "");
    wait_for_failure(&operator);
    operator.wait_for_checks("staging", "app-1", 3);
    let log = operator.log();
    assert!(!log[before..].contains("repairing:"), "{}", &log[before..]);
    assert!(log.contains("expected it to serve, found it OOM-killed whenever it starts, with a limit of 128Mi; raise its resources.limits.memory"), "{log}");
    assert_eq!(memory(&stage), 128);

    phase("what it reads may be moved aside");
    write(&stage, "{maxMemoryPercent: 0, moveWalAside: true}", "");
    operator.wait_until_ready("staging");
    assert_eq!(memory(&stage), 128);
    let moved: Vec<String> = kept(&stage).into_iter().filter(|name| name.contains(".moved-")).collect();
    let names: Vec<&str> = moved.iter().filter_map(|name| name.split('.').next()).collect();
    assert_eq!(names, ["chunks_head", "wal"], "{moved:?}");
    assert!(
        operator.log().contains("move wal, wbl, chunks_head of tt-staging-monitoring-prometheus-1 aside")
    );

    phase("a person brings it back, and it may have more memory");
    write(&stage, "{maxMemoryPercent: 0}", SUSPENDED);
    wait_until("it is suspended", || operator.metric("tasktracker_stack_suspended", &[]) == Some(1.0));
    loops(&stage, "rm -rf wal chunks_head && mv wal.moved-* wal && mv chunks_head.moved-* chunks_head");
    let before = operator.log().len();
    write(&stage, "{maxMemoryPercent: 10}", "");
    operator.wait_until_ready("staging");
    wait_until(format_args!("nothing is lost: {}", stored(&stage)), || stored(&stage) >= 2);
    assert_eq!(memory(&stage), 512, "{}", &operator.log()[before..]);
    for (from, to) in [(128, 256), (256, 512)] {
        let words = format!("raise the memory of {PROMETHEUS} from {from}Mi to {to}Mi");
        assert!(operator.log()[before..].contains(&words), "{words}: {}", &operator.log()[before..]);
    }
    assert!(!kept(&stage).iter().any(|name| name.contains(".moved-")), "{:?}", kept(&stage));

    phase("it stays so through a repair and a rollout");
    stage.on_host(&format!("docker rm -f {PROMETHEUS}"));
    wait_until(format_args!("it is there again: {}", operator.said()), || stored(&stage) >= 2);
    operator.wait_until_ready("staging");
    write(&stage, "{maxMemoryPercent: 10}, retention: {days: 14}", "");
    wait_until(format_args!("it is rolled out: {}", operator.said()), || {
        stage.on_host(&format!("docker inspect -f '{{{{.Config.Cmd}}}}' {PROMETHEUS}")).contains("14d")
    });
    operator.wait_until_ready("staging");
    operator.wait_for_checks("staging", "app-1", 3);
    assert_eq!(memory(&stage), 512, "{}", operator.log());
    operator.stop();
}
