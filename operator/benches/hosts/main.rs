//! Benchmarks on real hosts: `cargo xtask bench noop`, `heal`, `deploy`, `rollout`, `kubernetes`, `monitoring` and,
//! without a host, `storm`.
//!
//! What is compared runs in turn, in one run. A table goes to standard output, the same figures as JSON to
//! `TASKTRACKER_BENCH/NAME.json`.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod heal;
mod kubernetes;
mod monitoring;
mod rollout;
mod storm;
mod table;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use table::{Rows, add, put, report};
use tasktracker_operator::{
    component,
    engine::{CheckOptions, Evaluation, Images, Memory, ProjectContext},
    host::Host,
    observe::Depth,
    plan::Approval,
    project::Project,
    source::{Folder, Secrets, Stack, target},
};
use tasktracker_testbed::{DemoHost, HostOptions, SandboxHost, forward_delayed};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The project on the host.
const PROJECT: &str = "/opt/tasktracker/staging/app";
/// Tries of what takes milliseconds.
const CHECKS: usize = 200;
/// Tries of what takes seconds.
const RUNS: usize = 5;
/// Tries of what is broken and put right.
pub(crate) const TRIES: usize = 20;

fn main() -> Result<()> {
    let names = ["noop", "heal", "deploy", "rollout", "kubernetes", "monitoring", "storm"];
    let name = std::env::args().find(|argument| names.contains(&argument.as_str()));
    if name.as_deref() == Some("storm") {
        let (rows, ratios) = storm::storm()?;
        return report("storm", &rows, &ratios);
    }
    let mut stage = Stage::start()?;
    let (rows, ratios) = match name.as_deref() {
        Some("noop") => noop(&stage)?,
        Some("heal") => heal::heal(&stage)?,
        Some("deploy") => deploy(&mut stage)?,
        Some("kubernetes") => kubernetes::kubernetes(&stage)?,
        Some("monitoring") => monitoring::monitoring(&mut stage)?,
        Some("rollout") => rollout::rollout(&mut stage)?,
        _ => bail!("expected one of {}", names.join(", ")),
    };
    report(name.as_deref().unwrap_or_default(), &rows, &ratios)?;
    let is_noticed = |key: &&&str| key.ends_with("failed_requests") || key.ends_with("lost_writes");
    let noticed: Vec<&&str> =
        rows.keys().filter(is_noticed).filter(|key| rows[**key].quantile(1.0) > 0.0).collect();
    ensure!(noticed.is_empty(), "users noticed something: {noticed:?}");
    Ok(())
}

/// A host, the stack for it, and our connection to it.
struct Stage {
    runtime: Runtime,
    stack: Stack,
    /// As the component renders it; once for each spec, as in `run`.
    project: Project,
    host: Arc<Host>,
    secrets: Secrets,
    memory: Memory,
    images: Arc<Images>,
    sandbox: SandboxHost,
    folder: TempDir,
}

impl Stage {
    fn start() -> Result<Self> {
        let sandbox = host("bench")?;
        let folder = tempfile::tempdir()?;
        let key = folder.path().join("secrets/key/ssh-privatekey");
        fs::create_dir_all(key.parent().context("a file is in a folder")?)?;
        fs::copy(sandbox.identity_file(), &key)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        let stack = read_stack(&folder.path().join("staging.yaml"), &stack_text(&sandbox))?;
        let runtime = Runtime::new()?;
        let secrets = Secrets::new(Some(folder.path().join("secrets")));
        let host = runtime.block_on(target(&stack, &stack.spec.hosts[0], &secrets))?;
        let host = Arc::new(Host::new(host));
        Ok(Self {
            runtime,
            project: rendered(&stack)?,
            stack,
            host,
            secrets,
            memory: Memory::none(),
            images: Arc::default(),
            sandbox,
            folder,
        })
    }

    /// One check, as `run` makes it.
    async fn check(&self, host: &Arc<Host>, depth: Depth) -> Result<Evaluation> {
        Ok(self.site(host).check(&self.project, CheckOptions::read_only(depth)).await?)
    }

    fn site<'a>(&'a self, host: &'a Arc<Host>) -> ProjectContext<'a> {
        ProjectContext {
            stack: &self.stack,
            spec: &self.stack.spec.hosts[0],
            host,
            secrets: &self.secrets,
            memory: &self.memory,
            images: &self.images,
        }
    }

    fn check_now(&self, depth: Depth) -> Result<Evaluation> {
        self.runtime.block_on(self.check(&self.host, depth))
    }

    /// What `apply` does: check, lock, check again, act. Whether it rolled something out.
    fn apply(&self) -> Result<bool> {
        self.check_now(Depth::Whole)?;
        self.runtime.block_on(async {
            let lock = self.host.lock("bench").await?;
            let site = self.site(&self.host);
            let options = CheckOptions {
                approval: Approval::Person,
                depth: Depth::Whole,
                lock: Some(&lock),
                coordinator: None,
                read_only_reason: None,
            };
            let evaluation = site.check(&self.project, options).await?;
            let release = site.act(&lock, &evaluation, "bench").await?.rolled_out;
            lock.release().await;
            anyhow::Ok(release.is_some())
        })
    }

    fn on_host(&self, script: &str) -> Result<String> {
        run(&mut self.sandbox.ssh(script))
    }

    /// Takes away everything but images, and forgets that it was there.
    fn clear(&mut self) -> Result<()> {
        self.memory = Memory::none();
        self.on_host(CLEAR).map(drop)
    }

    /// Asks for something else from now on.
    fn ask(&mut self, text: &str) -> Result<()> {
        self.stack = read_stack(&self.file(), text)?;
        self.project = rendered(&self.stack)?;
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("staging.yaml")
    }

    /// Where the operator as a program finds everything.
    fn arguments(&self) -> Vec<OsString> {
        let path = |name: &str| self.folder.path().join(name).into_os_string();
        let arguments =
            [("--stacks", "staging.yaml"), ("--secrets-dir", "secrets"), ("--state-dir", "state")];
        arguments.into_iter().flat_map(|(key, name)| [key.into(), path(name)]).collect()
    }

    /// A secret that only its owner can read.
    fn write_value(&self, name: &str, key: &str, value: &[u8]) -> Result<()> {
        let path = self.folder.path().join("secrets").join(name).join(key);
        fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
        fs::write(&path, value)?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?)
    }
}

/// Takes away everything but images.
const CLEAR: &str = "docker ps -aq | xargs -r docker rm -f; docker volume ls -q | xargs -r docker volume rm
    docker network rm tt-staging; rm -rf /opt/tasktracker/staging; true";

/// A host that has the app's images; a later run finds it again.
fn host(name: &str) -> Result<SandboxHost> {
    let options = HostOptions { reuse: Some(name.to_owned()), ..HostOptions::default() };
    let sandbox = SandboxHost::start(name, &options)?;
    let images = PathBuf::from(std::env::var("TASKTRACKER_IMAGES").context("run `cargo xtask bench`")?);
    for image in ["caddy", "backend-r1", "frontend-r1"] {
        sandbox.load_image(&images.join(format!("{image}.tar")))?;
    }
    Ok(sandbox)
}

fn read_stack(file: &Path, text: &str) -> Result<Stack> {
    fs::write(file, text)?;
    let stack = Folder::new(file.to_owned(), vec!["/opt".into()]).read()?.files.remove(0).content;
    stack.map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))
}

/// The one project of the stack on its first host.
fn rendered(stack: &Stack) -> Result<Project> {
    component::for_host(stack, &stack.spec.hosts[0]).pop().context("one project")
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
    // As `run` does: events and sweeps go on beside the checks.
    stage.runtime.block_on(stage.host.watch())?;
    stage.check_now(Depth::Slow)?;
    let containers = stage.on_host("docker ps -q --no-trunc | sort")?;
    let remote = RemoteCompose::new(stage)?;
    let compose = format!(
        "docker compose -p tt-staging-app -f {PROJECT}/compose.yaml --project-directory {PROJECT} up -d --wait"
    );
    for round in 0..CHECKS {
        let (before, (sent, received)) = (cpu()?, stage.host.traffic().bytes());
        add(&mut rows, "ours_ms", quiet_check(stage, Depth::Woken)?);
        add(&mut rows, "ours_cpu_ms", cpu()? - before);
        let (sent_after, received_after) = stage.host.traffic().bytes();
        put(&mut rows, "ours_bytes", "bytes", count(sent_after + received_after - sent - received));
        let (milliseconds, _) = timed(|| Ok(stage.runtime.block_on(stage.host.containers())?))?;
        add(&mut rows, "api_call_ms", milliseconds);
        add(&mut rows, "ours_with_hashes_ms", quiet_check(stage, Depth::Whole)?);
        if round % (CHECKS / RUNS) == 0 {
            add(&mut rows, "slow_rota_ms", quiet_check(stage, Depth::Slow)?);
            add(&mut rows, "docker_ssh_ms", timed(|| remote.up())?.0);
            add(&mut rows, "ssh_compose_ms", timed(|| stage.on_host(&compose))?.0);
        }
    }
    ensure!(
        stage.on_host("docker ps -q --no-trunc | sort")? == containers,
        "what was compared changed something"
    );
    round_trips(stage, &mut rows)?;
    let median = |key| rows[key].quantile(0.5);
    let ratios = BTreeMap::from([
        ("docker_ssh_over_ours", median("docker_ssh_ms") / median("ours_ms")),
        ("ours_over_api_call", median("ours_ms") / median("api_call_ms")),
    ]);
    Ok((rows, ratios))
}

#[expect(clippy::cast_precision_loss, reason = "bytes of one check are few")]
fn count(bytes: u64) -> f64 {
    bytes as f64
}

/// One check that must find nothing, in milliseconds.
fn quiet_check(stage: &Stage, depth: Depth) -> Result<f64> {
    let (milliseconds, evaluation) = timed(|| stage.check_now(depth))?;
    let nothing = evaluation.drift.is_empty() && evaluation.plan.is_empty();
    ensure!(nothing, "the check found something: {:?} {:?}", evaluation.drift, evaluation.plan);
    Ok(milliseconds)
}

/// How often a check waits for the host: what it takes longer over a link with a delay, in units of that delay.
fn round_trips(stage: &Stage, rows: &mut Rows) -> Result<()> {
    let one_way = Duration::from_millis(20);
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let link = forward_delayed(local, SocketAddr::new(stage.sandbox.address(), 22), one_way)?;
    let mut target = stage.host.target().clone();
    (target.address, target.port) = ("127.0.0.1".to_owned(), link.local().port());
    let far = Arc::new(Host::new(target));
    stage.runtime.block_on(stage.check(&far, Depth::Slow))?;
    let near = rows["ours_ms"].quantile(0.5);
    for _ in 0..RUNS * 4 {
        let (milliseconds, _) = timed(|| stage.runtime.block_on(stage.check(&far, Depth::Woken)))?;
        let delay = 2.0 * one_way.as_secs_f64() * 1_000.0;
        put(rows, "ours_round_trips", "count", (milliseconds - near) / delay);
    }
    Ok(())
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
fn deploy(stage: &mut Stage) -> Result<(Rows, BTreeMap<&'static str, f64>)> {
    let mut rows = Rows::new();
    stage.apply()?;
    let listed = stage.on_host(&format!("cd {PROJECT} && find compose.yaml files -type f"))?;
    let text =
        |path: &str| anyhow::Ok(String::from_utf8(stage.sandbox.read_file(format!("{PROJECT}/{path}"))?)?);
    let files: BTreeMap<String, String> =
        listed.lines().map(|path| anyhow::Ok((path.to_owned(), text(path)?))).collect::<Result<_>>()?;
    for _ in 0..RUNS {
        stage.clear()?;
        let (time, is_rolled_out) = timed(|| stage.apply())?;
        ensure!(is_rolled_out, "nothing was deployed");
        add(&mut rows, "ours_ms", time);
        stage.clear()?;
        add(&mut rows, "by_hand_ms", timed(|| by_hand(stage, &files))?.0);
    }
    let ratio = rows["ours_ms"].quantile(0.5) / rows["by_hand_ms"].quantile(0.5);
    println!("The stability window of a rollout (policy.rollout.soak, 10 s by default) is 0 s here.");
    Ok((rows, BTreeMap::from([("ours_over_by_hand", ratio)])))
}

/// What a person types: copy the files, make what is external, `up --wait`.
fn by_hand(stage: &Stage, files: &BTreeMap<String, String>) -> Result<()> {
    let write = |path: &str, text: &str| {
        let mut command =
            stage.sandbox.ssh(&format!("mkdir -p $(dirname {PROJECT}/{path}) && cat > {PROJECT}/{path}"));
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
        let mut child = command.spawn()?;
        std::io::Write::write_all(&mut child.stdin.take().context("a pipe")?, text.as_bytes())?;
        ensure!(child.wait()?.success(), "copying {path}");
        anyhow::Ok(())
    };
    for (path, text) in files {
        write(path, text)?;
    }
    stage.on_host("docker network create tt-staging && docker volume create tt-staging-app-data")?;
    stage.on_host(&format!("cd {PROJECT} && docker compose up -d --wait")).map(drop)
}
