//! Benchmarks on a real host: `cargo xtask bench noop` and `cargo xtask bench deploy`.
//!
//! What is compared runs in turn, in one run. A table goes to standard output, the same figures as JSON to
//! `TASKTRACKER_BENCH/NAME.json`.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tasktracker_operator::{
    engine::{self, Look},
    host::Host,
    plan::Approval,
    source::{Folder, Secrets, Stack, target},
};
use tasktracker_testbed::{DemoHost, HostOptions, SandboxHost};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The project on the host.
const PROJECT: &str = "/opt/tasktracker/staging/app";
/// Tries of what takes milliseconds.
const CHECKS: usize = 200;
/// Tries of what takes seconds.
const RUNS: usize = 5;

fn main() -> Result<()> {
    let name = std::env::args().find(|argument| ["noop", "deploy"].contains(&argument.as_str()));
    let stage = Stage::start()?;
    let (rows, ratios) = match name.as_deref() {
        Some("noop") => noop(&stage)?,
        Some("deploy") => deploy(&stage)?,
        _ => bail!("expected noop or deploy"),
    };
    report(name.as_deref().unwrap_or_default(), &rows, &ratios)
}

/// Samples of one row, with their unit.
struct Row {
    unit: &'static str,
    samples: Vec<f64>,
}

type Rows = BTreeMap<&'static str, Row>;

fn add(rows: &mut Rows, key: &'static str, milliseconds: f64) {
    rows.entry(key).or_insert_with(|| Row { unit: "ms", samples: Vec::new() }).samples.push(milliseconds);
}

impl Row {
    /// The sample that this share of the samples does not exceed.
    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index of a short list"
        )]
        let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1;
        sorted[index]
    }

    fn json(&self) -> Value {
        json!({
            "unit": self.unit, "n": self.samples.len(), "min": self.quantile(0.0), "median": self.quantile(0.5),
            "p99": self.quantile(0.99), "max": self.quantile(1.0),
        })
    }
}

/// A host, the stack for it, and our connection to it.
struct Stage {
    runtime: Runtime,
    stack: Stack,
    host: Host,
    sandbox: SandboxHost,
    folder: TempDir,
}

impl Stage {
    fn start() -> Result<Self> {
        let options = HostOptions { reuse: Some("bench".to_owned()), ..HostOptions::default() };
        let sandbox = SandboxHost::start("bench", &options)?;
        let images = PathBuf::from(std::env::var("TASKTRACKER_IMAGES").context("run `cargo xtask bench`")?);
        for image in ["caddy", "backend-r1", "frontend-r1"] {
            sandbox.load_image(&images.join(format!("{image}.tar")))?;
        }
        let folder = tempfile::tempdir()?;
        let key = folder.path().join("secrets/key/ssh-privatekey");
        fs::create_dir_all(key.parent().context("a file is in a folder")?)?;
        fs::copy(sandbox.identity_file(), &key)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        let file = folder.path().join("staging.yaml");
        fs::write(&file, stack_text(&sandbox))?;
        let stack = Folder::new(file, vec!["/opt".into()]).read()?.remove(0).content;
        let stack = stack.map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
        let secrets = Secrets::new(Some(folder.path().join("secrets")));
        let host = Host::new(target(&stack, &stack.spec.hosts[0], &secrets)?);
        Ok(Self { runtime: Runtime::new()?, stack, host, sandbox, folder })
    }

    fn look(&self) -> Result<Look> {
        let look = engine::look(&self.stack, &self.stack.spec.hosts[0], &self.host, Approval::Policy, None);
        self.runtime.block_on(look)?.pop().context("one project")
    }

    /// What `apply` does: look, lock, look again, act.
    fn apply(&self) -> Result<()> {
        self.look()?;
        self.runtime.block_on(async {
            let lock = self.host.lock().await?;
            let spec = &self.stack.spec.hosts[0];
            let looks = engine::look(&self.stack, spec, &self.host, Approval::Person, Some(&lock)).await?;
            for look in looks {
                engine::act(&self.stack, &self.host, &lock, &look, "bench", engine::now()).await?;
            }
            lock.release().await;
            anyhow::Ok(())
        })
    }

    fn on_host(&self, script: &str) -> Result<String> {
        run(&mut self.sandbox.ssh(script))
    }

    /// Takes away everything but images.
    fn clear(&self) -> Result<()> {
        let script = "docker ps -aq | xargs -r docker rm -f; docker volume ls -q | xargs -r docker volume rm
            docker network rm tt-staging; rm -rf /opt/tasktracker/staging; true";
        self.on_host(script).map(drop)
    }
}

fn stack_text(sandbox: &SandboxHost) -> String {
    format!(
        "apiVersion: tasktracker.dev/v1alpha1
kind: TaskTrackerStack
metadata: {{name: staging}}
spec:
  environment: bench
  revision: r1
  hosts:
    - {{name: app-1, address: {}, roles: [app], hostKeys: [\"{}\"]}}
  ssh: {{identitySecrets: [key]}}
  app: {{registry: registry.example.com/tasktracker}}
  policy: {{rollout: {{soak: 0s}}}}
",
        sandbox.address(),
        sandbox.host_key()
    )
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let started = Instant::now();
    let result = work()?;
    Ok((started.elapsed().as_secs_f64() * 1_000.0, result))
}

/// Time on a processor of every thread of this process, in milliseconds.
fn cpu() -> Result<f64> {
    let mut nanoseconds = 0.0;
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().unwrap_or_default().parse::<f64>().unwrap_or_default();
    }
    Ok(nanoseconds / 1_000_000.0)
}

/// A check of a host on which nothing changed, against what people use today.
fn noop(stage: &Stage) -> Result<(Rows, BTreeMap<&'static str, f64>)> {
    let mut rows = Rows::new();
    stage.apply()?;
    let containers = stage.on_host("docker ps -q --no-trunc | sort")?;
    let remote = RemoteCompose::new(stage)?;
    let compose = format!(
        "docker compose -p tt-staging-app -f {PROJECT}/compose.yaml --project-directory {PROJECT} up -d --wait"
    );
    for round in 0..CHECKS {
        let before = cpu()?;
        let (milliseconds, look) = timed(|| stage.look())?;
        ensure!(
            look.drift.is_empty() && look.plan.is_empty(),
            "the check found something: {:?} {:?}",
            look.drift,
            look.plan
        );
        add(&mut rows, "ours_ms", milliseconds);
        add(&mut rows, "ours_cpu_ms", cpu()? - before);
        let (milliseconds, _) =
            timed(|| Ok(stage.runtime.block_on(stage.host.containers("tt-staging-app"))?))?;
        add(&mut rows, "api_call_ms", milliseconds);
        if round % (CHECKS / RUNS) == 0 {
            add(&mut rows, "slow_rota_ms", timed(|| Ok(stage.runtime.block_on(stage.host.probe())?))?.0);
            add(&mut rows, "docker_ssh_ms", timed(|| remote.up())?.0);
            add(&mut rows, "ssh_compose_ms", timed(|| stage.on_host(&compose))?.0);
        }
    }
    ensure!(
        stage.on_host("docker ps -q --no-trunc | sort")? == containers,
        "what was compared changed something"
    );
    let ratios = BTreeMap::from([
        ("docker_ssh_over_ours", rows["docker_ssh_ms"].quantile(0.5) / rows["ours_ms"].quantile(0.5)),
        ("ours_over_api_call", rows["ours_ms"].quantile(0.5) / rows["api_call_ms"].quantile(0.5)),
    ]);
    Ok((rows, ratios))
}

/// `docker -H ssh://… compose up -d --wait` from this machine.
struct RemoteCompose {
    file: PathBuf,
    path: String,
    address: String,
}

impl RemoteCompose {
    /// `docker` runs a program `ssh`: ours knows the keys.
    fn new(stage: &Stage) -> Result<Self> {
        let programs = stage.folder.path().join("bin");
        fs::create_dir(&programs)?;
        let (identity, known) = (stage.sandbox.identity_file(), stage.sandbox.known_hosts_file());
        let script = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -i {} -o UserKnownHostsFile={} \"$@\"\n",
            identity.display(),
            known.display()
        );
        fs::write(programs.join("ssh"), script)?;
        fs::set_permissions(programs.join("ssh"), fs::Permissions::from_mode(0o755))?;
        let file = stage.folder.path().join("compose.yaml");
        fs::write(&file, stage.sandbox.read_file(Path::new(PROJECT).join("compose.yaml"))?)?;
        let address = format!("ssh://{}@{}", stage.sandbox.user(), stage.sandbox.address());
        Ok(Self { file, path: format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display()), address })
    }

    fn up(&self) -> Result<String> {
        let mut command = Command::new("/usr/bin/docker");
        command.env("PATH", &self.path).args(["-H", &self.address, "compose", "-p", "tt-staging-app", "-f"]);
        command.arg(&self.file).args(["--project-directory", PROJECT, "up", "-d", "--wait"]);
        run(&mut command)
    }
}

/// The first deployment, against the same steps by hand over OpenSSH.
fn deploy(stage: &Stage) -> Result<(Rows, BTreeMap<&'static str, f64>)> {
    let mut rows = Rows::new();
    stage.apply()?;
    let (compose, caddyfile) = (
        String::from_utf8(stage.sandbox.read_file(format!("{PROJECT}/compose.yaml"))?)?,
        String::from_utf8(stage.sandbox.read_file(format!("{PROJECT}/files/edge/Caddyfile"))?)?,
    );
    for _ in 0..RUNS {
        stage.clear()?;
        add(&mut rows, "ours_ms", timed(|| stage.apply())?.0);
        stage.clear()?;
        add(&mut rows, "by_hand_ms", timed(|| by_hand(stage, &compose, &caddyfile))?.0);
    }
    let ratio = rows["ours_ms"].quantile(0.5) / rows["by_hand_ms"].quantile(0.5);
    println!("The stability window of a rollout (policy.rollout.soak, 10 s by default) is 0 s here.");
    Ok((rows, BTreeMap::from([("ours_over_by_hand", ratio)])))
}

/// What a person types: copy the files, make what is external, `up --wait`.
fn by_hand(stage: &Stage, compose: &str, caddyfile: &str) -> Result<()> {
    let write = |path: &str, text: &str| {
        let mut command =
            stage.sandbox.ssh(&format!("mkdir -p {PROJECT}/files/edge && cat > {PROJECT}/{path}"));
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
        let mut child = command.spawn()?;
        std::io::Write::write_all(&mut child.stdin.take().context("a pipe")?, text.as_bytes())?;
        ensure!(child.wait()?.success(), "copying {path}");
        anyhow::Ok(())
    };
    write("compose.yaml", compose)?;
    write("files/edge/Caddyfile", caddyfile)?;
    stage.on_host("docker network create tt-staging && docker volume create tt-staging-app-data")?;
    stage.on_host(&format!("cd {PROJECT} && docker compose up -d --wait")).map(drop)
}

fn report(name: &str, rows: &Rows, ratios: &BTreeMap<&'static str, f64>) -> Result<()> {
    println!("{:<22} {:>4} {:>10} {:>10} {:>10} {:>10}", name, "n", "min", "median", "p99", "max");
    for (key, row) in rows {
        let figure = |share| format!("{:.2}", row.quantile(share));
        println!(
            "{key:<22} {:>4} {:>10} {:>10} {:>10} {:>10}",
            row.samples.len(),
            figure(0.0),
            figure(0.5),
            figure(0.99),
            figure(1.0)
        );
    }
    for (key, ratio) in ratios {
        println!("{key:<22} {ratio:>10.2}");
    }
    let folder =
        PathBuf::from(std::env::var("TASKTRACKER_BENCH").unwrap_or_else(|_| "target/bench".to_owned()));
    fs::create_dir_all(&folder)?;
    let rows: BTreeMap<_, _> = rows.iter().map(|(key, row)| (key, row.json())).collect();
    let document = json!({ "bench": name, "machine": machine(), "rows": rows, "ratios": ratios });
    let path = folder.join(format!("{name}.json"));
    fs::write(&path, serde_json::to_string_pretty(&document)?)?;
    println!("wrote {}", path.display());
    Ok(())
}

fn machine() -> Value {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = text("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned()));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    json!({ "cpu": model, "cores": cores, "kernel": text("/proc/sys/kernel/osrelease").trim() })
}
