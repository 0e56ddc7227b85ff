//! What following five hundred suspended stacks of a real API server costs: memory, and requests.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tasktracker_testbed::{ControlPlane, ControlPlaneOptions, DemoHost, hostile, http};

use super::{
    Stage, run, stack_text,
    table::{Rows, put},
};

/// Stacks that are followed.
const STACKS: usize = 500;
/// How often memory and requests are checked, and how far apart.
const SAMPLES: usize = 5;
const APART: Duration = Duration::from_mins(1);
/// How long it may take until something is known of every stack.
const LIMIT: Duration = Duration::from_mins(10);

/// An operator that ends with this.
struct Operator {
    child: Child,
    metrics: SocketAddr,
}

impl Operator {
    /// The sum of all series of a metric.
    fn total(&self, name: &str) -> Result<f64> {
        let (_, text) = http(self.metrics, "GET /metrics").context("the operator does not answer")?;
        let series = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
        Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    fn resident_megabytes(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes / 1024.0)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn kubernetes(stage: &Stage) -> Result<(Rows, BTreeMap<&'static str, f64>)> {
    let plane = ControlPlane::start(&ControlPlaneOptions::default())?;
    plane.apply(&tasktracker_crds::crd_yaml()?)?;
    while run(plane.kubectl().args(["get", "tasktrackerstacks"])).is_err() {
        std::thread::sleep(Duration::from_millis(200));
    }
    let key = format!("--from-file=ssh-privatekey={}", stage.sandbox.identity_file().display());
    run(plane.kubectl().args(["create", "secret", "generic", "key", &key]))?;
    let suspended = "  suspend: {until: 2100-01-01T00:00:00Z, reason: a benchmark}\n";
    let stack = |number: usize| {
        let text =
            stack_text(&stage.sandbox).replace("{name: staging}", &format!("{{name: stack-{number}}}"));
        format!("{text}{suspended}---\n")
    };
    plane.apply(&(0..STACKS).map(stack).collect::<String>())?;

    let metrics = hostile::closed_port()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tasktracker-operator"));
    command.args(["run", "--kubernetes", "--listen", &metrics.to_string()]).stderr(Stdio::null());
    let child = command.env("KUBECONFIG", plane.path("administrator.yaml")).spawn()?;
    let operator = Operator { child, metrics };
    let began = Instant::now();
    let mut rows = Rows::new();
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let all = STACKS as f64;
    while operator.total("tasktracker_host_reachable{").unwrap_or_default() < all {
        ensure!(began.elapsed() < LIMIT, "not every stack was checked within {} s", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(200));
    }
    put(&mut rows, "all_known_s", "s", began.elapsed().as_secs_f64());
    // What is told of them is written by then.
    std::thread::sleep(APART);
    for _ in 0..SAMPLES {
        let figures = || {
            let requests = operator.total("rest_client_requests_total{")?;
            anyhow::Ok((requests, operator.total("tasktracker_status_writes_total")?))
        };
        let (requests, writes) = figures()?;
        std::thread::sleep(APART);
        let (more_requests, more_writes) = figures()?;
        put(&mut rows, "api_requests_per_minute", "1/min", more_requests - requests);
        put(&mut rows, "status_writes_steady", "1/min", more_writes - writes);
        put(&mut rows, "rss_mb", "MiB", operator.resident_megabytes()?);
    }
    let per_stack = rows["rss_mb"].quantile(0.5) * 1024.0 / all;
    Ok((rows, BTreeMap::from([("rss_kb_per_stack", per_stack)])))
}
