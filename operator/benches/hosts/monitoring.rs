//! What watching a stack costs: memory of every part, and of a core for what is known of containers.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tasktracker_testbed::{DemoHost, hostile, http, images};

use super::{
    Stage, stack_text,
    table::{Rows, put},
};

/// Samples of memory, and how far apart.
const SAMPLES: usize = 8;
const APART: Duration = Duration::from_secs(15);
/// How long it may take until everything serves.
const LIMIT: Duration = Duration::from_mins(5);
/// How often everything is read to know what that costs, and how often it is read within a minute.
const ROUNDS: u32 = 100;
const PER_MINUTE: f64 = 1.0;
/// Of a core, in percent, for what is known of the containers of a host: at most.
const MOST: f64 = 0.2;
/// Service, and key of its row.
const PARTS: [(&str, &str); 5] = [
    ("prometheus", "prometheus_mb"),
    ("alertmanager", "alertmanager_mb"),
    ("prometheus-agent", "agent_mb"),
    ("node-exporter", "node_exporter_mb"),
    ("blackbox-exporter", "blackbox_exporter_mb"),
];

/// The operator, which ends with this.
struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Megabytes of memory of a container, as Docker counts them.
fn megabytes(stage: &Stage, service: &str) -> Result<f64> {
    let script = format!(
        "docker stats --no-stream --format '{{{{.MemUsage}}}}' $(docker ps -qf label=com.docker.compose.service={service})"
    );
    let shown = stage.on_host(&script)?;
    let amount = shown.split(" / ").next().unwrap_or_default().trim();
    let (number, unit) = amount.split_at(amount.find(char::is_alphabetic).unwrap_or(amount.len()));
    let factor = match unit {
        "KiB" => 1.0 / 1024.0,
        "MiB" => 1.0,
        "GiB" => 1024.0,
        _ => anyhow::bail!("{service}: expected an amount of memory, found {shown:?}"),
    };
    Ok(number.parse::<f64>()? * factor)
}

pub(crate) fn monitoring(stage: &mut Stage) -> Result<(Rows, BTreeMap<&'static str, f64>)> {
    for archive in [
        images::prometheus(&stage.sandbox, &mut |line| println!("{line}"))?,
        images::alertmanager(&stage.sandbox, &mut |line| println!("{line}"))?,
        images::node_exporter(&stage.sandbox, &mut |line| println!("{line}"))?,
        images::blackbox_exporter(&stage.sandbox, &mut |line| println!("{line}"))?,
    ] {
        stage.sandbox.load_image(&archive)?;
    }
    stage.write_value("monitoring", "password", b"bench")?;
    let page = format!("http://{}:3500", stage.sandbox.address());
    let text = stack_text(&stage.sandbox)
        .replace("roles: [app]", "roles: [app, monitoring]")
        .replace("tasktracker}", &format!("tasktracker, publicUrl: \"{page}\"}}"));
    let text = format!(
        "{text}  monitoring: {{prometheus: {{image: \"{}\"}}, nodeExporter: {{image: \"{}\"}}}}\n",
        images::PROMETHEUS,
        images::NODE_EXPORTER
    );
    stage.ask(&text)?;
    let metrics = hostile::closed_port()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tasktracker-operator"));
    command.arg("run").args(stage.arguments()).args(["--listen", &metrics.to_string()]);
    let operator = Operator(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let (began, is_ready) = (Instant::now(), |(_, text): (u16, String)| {
        text.lines().any(|line| line.starts_with("tasktracker_stack_ready{") && line.ends_with(" 1"))
    });
    while !http(metrics, "GET /metrics").is_some_and(is_ready) {
        ensure!(began.elapsed() < LIMIT, "the stack is not ready");
        thread::sleep(Duration::from_millis(500));
    }
    let mut rows = Rows::new();
    for _ in 0..SAMPLES {
        thread::sleep(APART);
        for (service, key) in PARTS {
            put(&mut rows, key, "MiB", megabytes(stage, service)?);
        }
    }
    drop(operator);
    let spent = container_metrics(stage)?;
    put(&mut rows, "container_metrics_cpu_percent", "%", spent);
    let whole: f64 = PARTS.iter().map(|(_, key)| rows[key].quantile(0.5)).sum();
    put(&mut rows, "all_mb", "MiB", whole);
    ensure!(spent <= MOST, "container metrics: expected at most {MOST} % of a core, found {spent:.4}");
    Ok((rows, BTreeMap::new()))
}

/// What it costs to know of every container of the host once a minute, in percent of a core there.
fn container_metrics(stage: &Stage) -> Result<f64> {
    let shown = stage.on_host("docker ps -q | xargs docker inspect -f '{{.State.Pid}}'")?;
    let processes = shown.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let read = || -> Result<()> {
        stage.runtime.block_on(async {
            for process in &processes {
                stage.host.usage("staging", *process).await?.context("a container is not there")?;
            }
            anyhow::Ok(())
        })
    };
    stage.runtime.block_on(stage.host.files("staging", true))?;
    read()?;
    let before = helper_seconds(stage)?;
    for _ in 0..ROUNDS {
        read()?;
    }
    let once = (helper_seconds(stage)? - before) / f64::from(ROUNDS);
    println!("{} containers: {:.2} ms of a core each time", processes.len(), once * 1e3);
    Ok(once * PER_MINUTE / 60.0 * 100.0)
}

/// Time on a processor of the operator's helpers on the host, and of what they started, in seconds.
fn helper_seconds(stage: &Stage) -> Result<f64> {
    let shown = stage.on_host(
        "for of in $(pgrep -f tasktracker-helper); do cat /proc/$of/stat 2>/dev/null; done; getconf CLK_TCK",
    )?;
    let per_second: f64 = shown.lines().last().context("no lines")?.trim().parse()?;
    let ticks = |line: &str| -> f64 {
        let fields = line.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum()
    };
    Ok(shown.lines().filter(|line| line.contains(')')).map(ticks).sum::<f64>() / per_second)
}
