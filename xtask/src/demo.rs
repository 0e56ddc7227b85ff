//! `cargo xtask demo`: a real Docker host made equal to `examples/staging.yaml`, for a person to try things on.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tasktracker_testbed::{
    DemoHost, Forward, HostOptions, LocalHost, SandboxHost, forward, hostile, packages,
};

use crate::{
    background::{Background, Job},
    images::{self, Programs},
    progress::{root, run as run_program, say, step, target},
    times::Times,
};

/// Revision of the example, and that of the file to roll out.
pub(crate) const REVISIONS: [&str; 2] = ["3f2c1ab", "4d8e2f0"];
/// The job that installs packages.
const PACKAGES: &str = "packages";
/// Where the operator serves its metrics, where the port is free.
const METRICS_PORT: u16 = 9464;
/// How long the first deployment and each thing to try may take.
const LIMIT: Duration = Duration::from_mins(3);

/// Options of `cargo xtask demo`.
#[derive(Args)]
pub(crate) struct Options {
    /// Do the three things by itself, look at what comes of them, and end.
    #[arg(long = "try")]
    pub(crate) try_things: bool,
    /// Start a sandbox host even where this machine has a Docker daemon.
    #[arg(long)]
    pub(crate) sandbox: bool,
    /// Take programs and images as `cargo xtask test` left them.
    #[arg(long, hide = true)]
    pub(crate) built: bool,
}

/// Everything of a running demo; dropped in this order.
struct Demo {
    operator: Child,
    folder: PathBuf,
    metrics: SocketAddr,
    page: SocketAddr,
    api: SocketAddr,
    _forwards: Vec<Forward>,
    host: Box<dyn DemoHost>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let (sender, stopped) = channel();
    ctrlc::set_handler(move || {
        let _: Result<(), _> = sender.send(());
    })
    .context("catching Ctrl-C")?;
    let times = Times::new("demo");
    let started = start(options, &times, &stopped);
    let reported = times.report();
    let demo = started?;
    reported?;
    demo.introduce();
    if options.try_things {
        return demo.try_things(&stopped);
    }
    let _: Result<(), _> = stopped.recv();
    say("\nremoving everything");
    Ok(())
}

/// The running demo, when its stack is ready.
fn start(options: &Options, times: &Times, stopped: &Receiver<()>) -> Result<Demo> {
    let local = !options.sandbox && LocalHost::is_possible();
    let mut packages = Background::start(times, vec![packages_job(local)]).finish_always(PACKAGES);
    if !options.built {
        times.step("building programs", |compiled| {
            *compiled = Programs::Development.build()?;
            Ok(())
        })?;
    }
    packages.wait(PACKAGES)?;
    let host = times.step("starting a Docker host", |_| start_host(local))?;
    times.step("images", |_| provide_images(options, host.as_ref()))?;
    times.step("first rollout", |_| {
        let demo = Demo::start(host)?;
        demo.wait_until_ready(stopped)?;
        Ok(demo)
    })
}

fn packages_job(local: bool) -> Job {
    Job::new(PACKAGES, move |say| {
        if !local {
            packages::ensure_docker_host(say)?;
        }
        packages::ensure_caddy(say).map(drop)
    })
}

fn provide_images(options: &Options, host: &dyn DemoHost) -> Result<()> {
    if !options.built {
        images::build(host, Programs::Development, &REVISIONS)?;
        return Ok(());
    }
    for archive in images::archives(&REVISIONS) {
        host.load_image(&archive)?;
    }
    Ok(())
}

fn start_host(local: bool) -> Result<Box<dyn DemoHost>> {
    if local {
        say("this machine's Docker, behind a private SSH server");
        return Ok(Box::new(LocalHost::start()?));
    }
    let options = HostOptions { reuse: Some("demo".to_owned()), ..HostOptions::default() };
    Ok(Box::new(SandboxHost::start("demo", &options)?))
}

impl Demo {
    fn start(host: Box<dyn DemoHost>) -> Result<Self> {
        let folder = target().join("demo");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let local = host.address().is_loopback();
        refuse_leftovers(host.as_ref())?;
        let (page, api) = (published(local, 3500)?, published(local, 8000)?);
        let example = fs::read_to_string(root().join("examples/staging.yaml"))?;
        let stack = for_host(&example, host.as_ref())?;
        write(&folder.join("stacks/staging.yaml"), &stack, 0o644)?;
        write(&folder.join("next.yaml"), &stack.replace(REVISIONS[0], REVISIONS[1]), 0o644)?;
        let key = fs::read_to_string(host.identity_file())?;
        write(&folder.join("secrets/staging-ssh/ssh-privatekey"), &key, 0o600)?;
        write(&folder.join("on-host"), &on_host(host.as_ref()), 0o755)?;
        let mut forwards = Vec::new();
        if !local {
            forwards.push(forward(page, SocketAddr::new(host.address(), 3500))?);
            forwards.push(forward(api, SocketAddr::new(host.address(), 8000))?);
        }
        let metrics = free(METRICS_PORT)?;
        let operator = start_operator(&folder, metrics, host.as_ref())?;
        Ok(Self { operator, folder, metrics, page, api, _forwards: forwards, host })
    }

    fn wait_until_ready(&self, stopped: &Receiver<()>) -> Result<()> {
        wait_for("the stack is ready", stopped, || {
            Ok(self.metric("tasktracker_stack_ready") == Some(1.0) && get(self.page, "/api/health").is_ok())
        })
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let text = get(self.metrics, "/metrics").ok()?;
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    fn introduce(&self) {
        let shown = self.folder.strip_prefix(root()).unwrap_or(&self.folder).display();
        say(&format!(
            "
Ready. The operator reconciles this host with {shown}/stacks/staging.yaml.

  page      http://{page}/
  API docs  http://{api}/docs
  metrics   http://{metrics}/metrics

Three things to try in another terminal; the operator says here what it sees and does:

  1. take a container away     {shown}/on-host docker rm -f tt-staging-app-backend-1
  2. edit a file on the host   {shown}/on-host 'echo \"# mine\" >> {file}'
  3. roll out a new revision   cp {shown}/next.yaml {shown}/stacks/staging.yaml

Ctrl-C removes everything.
",
            page = self.page,
            api = self.api,
            metrics = self.metrics,
            file = self.caddyfile(),
        ));
    }

    fn caddyfile(&self) -> String {
        format!("{}/staging/app/files/edge/Caddyfile", self.host.project_folder().display())
    }

    /// Does what [`Demo::introduce`] proposes, with the same commands, and looks at what comes of it.
    fn try_things(&self, stopped: &Receiver<()>) -> Result<()> {
        let on_host = |script: &str| run_program(Command::new(self.folder.join("on-host")).arg(script));
        let healed = |kind: &str| {
            let name = format!("kind=\"{kind}\"");
            let text = get(self.metrics, "/metrics").unwrap_or_default();
            text.lines().any(|line| {
                line.starts_with("tasktracker_drift_healed_total")
                    && line.contains(&name)
                    && line.ends_with(" 1")
            })
        };
        step("1. docker rm -f");
        on_host("docker rm -f tt-staging-app-backend-1")?;
        wait_for("the container is back", stopped, || {
            Ok(healed("Missing") && get(self.page, "/api/health").is_ok())
        })?;
        step("2. a file is edited");
        on_host(&format!("echo '# mine' >> {}", self.caddyfile()))?;
        wait_for("the file is as it was", stopped, || Ok(healed("FileChanged")))?;
        step("3. a new revision");
        fs::copy(self.folder.join("next.yaml"), self.folder.join("stacks/staging.yaml"))?;
        wait_for("the new revision serves", stopped, || {
            let new = get(self.page, "/api/health").is_ok_and(|health| health.contains(REVISIONS[1]));
            Ok(new && self.metric("tasktracker_stack_ready") == Some(1.0))
        })?;
        say("all three came out as promised");
        Ok(())
    }
}

/// Waits until something is so, or a person stops it.
fn wait_for(what: &str, stopped: &Receiver<()>, done: impl Fn() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !done()? {
        ensure!(started.elapsed() < LIMIT, "expected within {} s: {what}", LIMIT.as_secs());
        match stopped.recv_timeout(Duration::from_millis(200)) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => bail!("stopped while waiting: {what}"),
        }
    }
    Ok(())
}

impl Drop for Demo {
    fn drop(&mut self) {
        let stopped = self.operator.kill().and_then(|()| self.operator.wait());
        if let Err(error) = stopped {
            say(&format!("the operator could not be stopped: {error}"));
        }
        if let Err(error) = remove_stack(self.host.as_ref()) {
            say(&format!("the demo's containers could not be removed: {error:#}"));
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            say(&format!("{} could not be removed: {error}", self.folder.display()));
        }
    }
}

/// What carries the labels of the demo's stack: containers, volumes and networks, each by its command.
const OURS: [(&str, &[&str], &[&str]); 3] = [
    ("containers", &["ps", "--all", "--quiet"], &["rm", "--force"]),
    ("volumes", &["volume", "ls", "--quiet"], &["volume", "rm"]),
    ("networks", &["network", "ls", "--quiet"], &["network", "rm"]),
];

fn ours(host: &dyn DemoHost, list: &[&str]) -> Result<Vec<String>> {
    let arguments: Vec<&str> =
        list.iter().copied().chain(["--filter", "label=tasktracker.dev/stack=default/staging"]).collect();
    Ok(host.docker(&arguments)?.split_whitespace().map(str::to_owned).collect())
}

/// On a machine's own Docker, a stack of the same name would be taken over, and removed in the end.
fn refuse_leftovers(host: &dyn DemoHost) -> Result<()> {
    for (what, list, remove) in OURS {
        let found = ours(host, list)?;
        ensure!(
            found.is_empty(),
            "expected no {what} of a stack named staging in this machine's Docker, found {0}; use --sandbox, or remove them: docker {1} {0}",
            found.join(" "),
            remove.join(" ")
        );
    }
    Ok(())
}

/// Removes what the demo made: it began without anything of that name.
fn remove_stack(host: &dyn DemoHost) -> Result<()> {
    for (_, list, remove) in OURS {
        for name in ours(host, list)? {
            let arguments: Vec<&str> = remove.iter().copied().chain([name.as_str()]).collect();
            host.docker(&arguments)?;
        }
    }
    Ok(())
}

/// The example with the address, keys and folder of a host, checked every second.
fn for_host(example: &str, host: &dyn DemoHost) -> Result<String> {
    let mut text = String::new();
    for line in example.lines() {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        match trimmed.split_once(':').map_or(trimmed, |(key, _)| key) {
            "address" => {
                text.push_str(&format!(
                    "{indent}address: {}\n{indent}port: {}\n",
                    host.address(),
                    host.port()
                ));
                text.push_str(&format!("{indent}directory: {}\n", host.project_folder().display()));
            }
            "hostKeys" => text.push_str(&format!("{indent}hostKeys: [\"{}\"]\n", host.host_key())),
            "ssh" => text.push_str(&format!(
                "{indent}ssh: {{user: {}, identitySecrets: [staging-ssh]}}\n{indent}interval: 1s\n",
                host.user()
            )),
            _ => text.push_str(&format!("{line}\n")),
        }
    }
    ensure!(text.contains(&host.host_key()), "examples/staging.yaml has no line hostKeys");
    Ok(text)
}

/// A script that runs its arguments on the host.
fn on_host(host: &dyn DemoHost) -> String {
    let ssh = host.ssh("");
    let words: Vec<String> = std::iter::once(ssh.get_program())
        .chain(ssh.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let words = words[..words.len() - 1].join(" ");
    format!("#!/bin/sh\n# Runs a command on the demo's host.\nexec {words} \"$*\"\n")
}

/// The operator ends with us, however we end.
fn start_operator(folder: &Path, metrics: SocketAddr, host: &dyn DemoHost) -> Result<Child> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(Programs::Development.path("tasktracker-operator"));
    command
        .arg("run")
        .arg("--stacks")
        .arg(folder.join("stacks"))
        .arg("--secrets-dir")
        .arg(folder.join("secrets"));
    command.args(["--listen", &metrics.to_string()]).arg("--state-dir").arg(folder.join("state"));
    command.arg("--host-roots").arg(format!(
        "/opt,/srv,/home,{}",
        host.project_folder().parent().unwrap_or(Path::new("/opt")).display()
    ));
    command.spawn().context("starting the operator")
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder)?;
    let mut file = fs::File::create(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// Where a published port of the host is reached from this machine.
fn published(local: bool, port: u16) -> Result<SocketAddr> {
    if local { Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) } else { free(port) }
}

/// A port of loopback that nobody uses, the wanted one where it is free.
fn free(port: u16) -> Result<SocketAddr> {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if std::net::TcpListener::bind(wanted).is_ok() { Ok(wanted) } else { hostile::closed_port() }
}

/// The body of a plain HTTP answer with status 200.
fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "{path}: {}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}
