//! `cargo xtask demo`: a real Docker host made equal to `examples/staging.yaml`, for a person to try things on.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tasktracker_testbed::{
    DemoHost, Forward, HostOptions, LocalHost, Recorder, SandboxHost, Taken, forward, hostile, packages,
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
const LIMIT: Duration = Duration::from_mins(4);
/// Who is let in to the monitoring, and by which password.
const MONITORING: (&str, &str) = ("admin", "demo");
/// The secrets of the demo's stack beside its key, as `NAME/KEY`.
const PASSWORD_FILE: &str = "monitoring/password";
const WEBHOOK_FILE: &str = "recorder/url";

/// Options of `cargo xtask demo`.
#[derive(Args)]
pub(crate) struct Options {
    /// Do the four things by itself, look at what comes of them, and end.
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
    prometheus: SocketAddr,
    alertmanager: SocketAddr,
    recorder: Recorder,
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
    demo.show_alerts(&stopped);
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
        packages::ensure_caddy(say)?;
        packages::monitoring::of_debian(say).map(drop)
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
        let ports = [3500, 8000, 9090, 9093];
        let within = inner_address(host.as_ref())?;
        let recorder = Recorder::start_at(gateway(host.as_ref())?)?;
        let mut forwards = Vec::new();
        let mut shown = Vec::new();
        for port in ports {
            // What is for people of the stack is not published on every address.
            let is_public = port == 3500 || port == 8000;
            let place =
                if local && is_public { SocketAddr::from((Ipv4Addr::LOCALHOST, port)) } else { free(port)? };
            if !(local && is_public) {
                forwards.push(forward(place, SocketAddr::new(within, port))?);
            }
            shown.push(place);
        }
        let [page, api, prometheus, alertmanager] = shown[..] else { bail!("a place for each port") };
        let example = fs::read_to_string(root().join("examples/staging.yaml"))?;
        let stack = for_host(&example, host.as_ref(), within)?;
        write(&folder.join("stacks/staging.yaml"), &stack, 0o644)?;
        write(&folder.join("next.yaml"), &stack.replace(REVISIONS[0], REVISIONS[1]), 0o644)?;
        let key = fs::read_to_string(host.identity_file())?;
        write(&folder.join("secrets/staging-ssh/ssh-privatekey"), &key, 0o600)?;
        write(&folder.join("secrets").join(PASSWORD_FILE), MONITORING.1, 0o600)?;
        let webhook = format!("http://{}/alerts", recorder.address);
        write(&folder.join("secrets").join(WEBHOOK_FILE), &webhook, 0o600)?;
        write(&folder.join("on-host"), &on_host(host.as_ref()), 0o755)?;
        let metrics = free(METRICS_PORT)?;
        let operator = start_operator(&folder, metrics, host.as_ref())?;
        Ok(Self {
            operator,
            folder,
            metrics,
            page,
            api,
            prometheus,
            alertmanager,
            recorder,
            _forwards: forwards,
            host,
        })
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

  page          http://{page}/
  API docs      http://{api}/docs
  Prometheus    http://{prometheus}/    user {user}, password {password}
  Alertmanager  http://{alertmanager}/  the same
  metrics       http://{metrics}/metrics

What Alertmanager sends to a chat is shown here. Four things to try in another terminal; the operator says here what it sees and does:

  1. take a container away     {shown}/on-host docker rm -f tt-staging-app-backend-1
  2. edit a file on the host   {shown}/on-host 'echo \"# mine\" >> {file}'
  3. roll out a new revision   cp {shown}/next.yaml {shown}/stacks/staging.yaml
  4. be told of what is down   {shown}/on-host '{keep_down}'
                               and after two minutes, with the alert: {shown}/on-host '{let_up}'

Ctrl-C removes everything.
",
            page = self.page,
            api = self.api,
            metrics = self.metrics,
            file = self.caddyfile(),
            prometheus = self.prometheus,
            alertmanager = self.alertmanager,
            user = MONITORING.0,
            password = MONITORING.1,
            keep_down = self.keep_down(),
            let_up = self.let_up(),
        ));
    }

    fn caddyfile(&self) -> String {
        format!("{}/staging/app/files/edge/Caddyfile", self.host.project_folder().display())
    }

    /// Stops the backend where the operator may not start it again.
    fn keep_down(&self) -> String {
        let hold = format!("{}/staging/app/HOLD", self.host.project_folder().display());
        let of =
            "-f label=com.docker.compose.project=tt-staging-app -f label=com.docker.compose.service=backend";
        format!("echo demo >{hold}; docker stop $(docker ps -q {of})")
    }

    fn let_up(&self) -> String {
        format!("rm {}/staging/app/HOLD", self.host.project_folder().display())
    }

    /// What was sent to the chat so far: title and text of each message.
    fn messages(&self) -> Vec<String> {
        let text = |taken: Taken| {
            let message = &taken.body["attachments"][0];
            let part = |name: &str| message[name].as_str().unwrap_or_default().trim().to_owned();
            format!("{}\n{}", part("title"), part("text"))
        };
        self.recorder.taken().into_iter().map(text).collect()
    }

    /// Shows what comes to the chat until a person stops it.
    fn show_alerts(&self, stopped: &Receiver<()>) {
        let mut shown = 0;
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_millis(500)) {
            let messages = self.messages();
            for message in &messages[shown..] {
                say(&format!("\nto the chat: {message}"));
            }
            shown = messages.len();
        }
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
        step("4. a backend that is down");
        on_host(&self.keep_down())?;
        wait_for("the chat is told", stopped, || {
            Ok(self.messages().iter().any(|message| message.contains("ServiceDown")))
        })?;
        on_host(&self.let_up())?;
        wait_for("it serves again", stopped, || Ok(get(self.page, "/api/health").is_ok()))?;
        for message in self.messages() {
            say(&format!("to the chat: {message}"));
        }
        say("all four came out as promised");
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

/// Where containers of the host, and this machine, reach what is not for everybody.
fn inner_address(host: &dyn DemoHost) -> Result<IpAddr> {
    if host.address().is_loopback() { gateway(host) } else { Ok(host.address()) }
}

/// Where containers of the host reach this machine.
fn gateway(host: &dyn DemoHost) -> Result<IpAddr> {
    if let Some(machine) = host.machine() {
        return Ok(machine);
    }
    let format = "{{range .IPAM.Config}}{{.Gateway}} {{end}}";
    let told = host.docker(&["network", "inspect", "bridge", "--format", format])?;
    let first = told.split_whitespace().next().context("Docker's network `bridge` has no gateway")?;
    first.parse().with_context(|| format!("the gateway of Docker's network `bridge`: {first}"))
}

/// The example with the address, keys and folder of a host, checked every second, and with monitoring that tells a chat.
fn for_host(example: &str, host: &dyn DemoHost, within: IpAddr) -> Result<String> {
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
            "roles" => text.push_str(&format!(
                "{indent}roles: [app, monitoring]\n{indent}privateAddress: {within}\n{indent}bindAddress: {within}\n"
            )),
            "hostKeys" => text.push_str(&format!("{indent}hostKeys: [\"{}\"]\n", host.host_key())),
            "ssh" => text.push_str(&format!(
                "{indent}ssh: {{user: {}, identitySecrets: [staging-ssh]}}\n{indent}interval: 1s\n",
                host.user()
            )),
            _ => text.push_str(&format!("{line}\n")),
        }
    }
    ensure!(text.contains(&host.host_key()), "examples/staging.yaml has no line hostKeys");
    Ok(format!(
        "{text}  monitoring:
    prometheus: {{image: \"{}\"}}
    nodeExporter: {{image: \"{}\"}}
    alertmanager: {{receivers: {{slack: {{webhookSecretRef: {{name: recorder}}}}}}}}
",
        tasktracker_testbed::images::PROMETHEUS_2,
        tasktracker_testbed::images::NODE_EXPORTER,
    ))
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
