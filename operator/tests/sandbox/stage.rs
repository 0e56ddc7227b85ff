//! A host with the app's images, a folder of stacks and secrets, and the operator as a program.

use std::{
    fmt::Display,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use futures::executor::block_on;
use serde_json::Value;
use tasktracker_operator::{
    component,
    engine::{CheckOptions, Evaluation, Memory, ProjectContext},
    host::{self, Host},
    source::{Folder, Secrets, Stack, target},
};
pub(crate) use tasktracker_testbed::wait::{elapse, wait_until, wait_until_within};
use tasktracker_testbed::{DemoHost, HostOptions, SandboxHost, hostile, http, wait};
use tempfile::TempDir;

use crate::metrics::{CheckCount, Results, total, value};

/// Images of every host that is not without any.
const IMAGES: [&str; 5] = ["caddy", "backend-r1", "backend-r2", "frontend-r1", "frontend-r2"];

/// One host and what the operator needs to manage it.
pub(crate) struct Stage {
    pub(crate) host: SandboxHost,
    folder: TempDir,
}

/// A running `run`.
pub(crate) struct Running {
    child: Child,
    pub(crate) metrics: SocketAddr,
    log: PathBuf,
}

impl Stage {
    /// Starts a host that has the images of the revisions r1 and r2.
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, HostOptions::default())
    }

    /// The same on a host with options of its own.
    pub(crate) fn with(name: &str, options: HostOptions) -> Self {
        let stage = Self::bare(name, options);
        stage.load(&IMAGES);
        stage
    }

    /// Starts another host with the same images.
    pub(crate) fn another_host(name: &str) -> SandboxHost {
        Self::another_host_with(name, HostOptions::default())
    }

    /// The same, with options of its own.
    pub(crate) fn another_host_with(name: &str, options: HostOptions) -> SandboxHost {
        let options = HostOptions { reuse: Some(format!("operator-{name}")), ..options };
        let host = SandboxHost::start(name, &options).unwrap();
        load(&host, &IMAGES);
        host
    }

    /// Loads archives of the images' folder into the host, such as `echo-r1`.
    pub(crate) fn load(&self, images: &[&str]) {
        load(&self.host, images);
    }

    /// Starts a host without any image.
    pub(crate) fn without_images(name: &str) -> Self {
        Self::bare(name, HostOptions::default())
    }

    /// Starts a host with options of its own, without any image.
    pub(crate) fn bare(name: &str, options: HostOptions) -> Self {
        let options = HostOptions { reuse: Some(format!("operator-{name}")), ..options };
        let host = SandboxHost::start(name, &options).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("stacks")).unwrap();
        let stage = Self { host, folder };
        stage.write_secret("key", &fs::read_to_string(stage.host.identity_file()).unwrap());
        stage
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(crate) fn write_secret(&self, name: &str, private_key: &str) {
        self.write_value(name, "ssh-privatekey", private_key.as_bytes());
    }

    /// Any value under any key of a secret.
    pub(crate) fn write_value(&self, name: &str, key: &str, value: &[u8]) {
        let path = self.path("secrets").join(name).join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, value).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The stack of a file as the operator reads it, and its host.
    pub(crate) fn managed(&self) -> (Stack, Arc<Host>) {
        let folder = Folder::new(self.path("stacks"), vec!["/opt".into()]);
        let stack = folder.read().unwrap().files.remove(0).content.unwrap();
        let secrets = Secrets::new(Some(self.path("secrets")));
        let host = Host::new(block_on(target(&stack, &stack.spec.hosts[0], &secrets)).unwrap());
        (stack, Arc::new(host))
    }

    /// The operator's own check, asked for directly.
    pub(crate) async fn check(
        &self,
        stack: &Stack,
        host: &Arc<Host>,
        options: CheckOptions<'_>,
    ) -> Result<Vec<Evaluation>, host::Error> {
        let secrets = Secrets::new(Some(self.path("secrets")));
        let (memory, images) = (Memory::none(), Arc::default());
        let spec = &stack.spec.hosts[0];
        let context =
            ProjectContext { stack, spec, host, secrets: &secrets, memory: &memory, images: &images };
        let mut evaluations = Vec::new();
        for project in component::for_host(stack, spec) {
            evaluations.push(context.check(&project, options).await?);
        }
        Ok(evaluations)
    }

    /// A good stack for this host; `more` is put at the end of its spec.
    pub(crate) fn stack(&self, name: &str, revision: &str, more: &str) -> String {
        format!(
            "apiVersion: tasktracker.dev/v1alpha1
kind: TaskTrackerStack
metadata: {{name: {name}}}
spec:
  environment: test
  revision: {revision}
  hosts:
    - {{name: app-1, address: {address}, port: {port}, roles: [app], hostKeys: [\"{key}\"]}}
  ssh: {{user: deploy, identitySecrets: [key]}}
  app: {{registry: registry.example.com/tasktracker}}
  interval: 300ms
{more}",
            address = self.host.address(),
            port = self.host.port(),
            key = self.host.host_key(),
        )
    }

    pub(crate) fn write_stack(&self, file: &str, text: &str) {
        fs::write(self.path("stacks").join(file), text).unwrap();
    }

    /// Starts `run` on the folder of stacks.
    pub(crate) fn start_operator(&self) -> Running {
        self.run_with("operator.log", &[])
    }

    /// Starts `run` once more, as another operator with a state folder of its own.
    pub(crate) fn start_other_operator(&self) -> Running {
        let state = self.path("other-state");
        self.run_with("other.log", &[("TASKTRACKER_STATE_DIR", state.to_str().unwrap())])
    }

    /// Starts a `run` that ends itself at a place, and waits until it has: whether it did, and its log.
    pub(crate) fn operator_ends_at(&self, place: &str) -> (bool, String) {
        let mut running = self.run_with("failpoint.log", &[("TASKTRACKER_FAILPOINT", place)]);
        let ended = running.wait_for_end(wait::LIMIT);
        (ended.is_some(), running.log())
    }

    /// Whether one command ends itself at a place.
    pub(crate) fn ends_at(&self, place: &str, arguments: &[&str]) -> bool {
        let mut command = self.operator(arguments[0]);
        let output = command.args(&arguments[1..]).env("TASKTRACKER_FAILPOINT", place).output().unwrap();
        output.status.code().is_none()
    }

    pub(crate) fn run_with(&self, log: &str, environment: &[(&str, &str)]) -> Running {
        self.run_on("stacks", log, environment)
    }

    /// Starts a `run` that can be stopped by SIGSTOP: in a process group of its own. What stands still in a group that
    /// was orphaned, as that of a test in the background may be, is continued by the kernel.
    pub(crate) fn start_operator_apart(&self) -> Running {
        spawn(self.operator("run").process_group(0), self.path("operator.log"))
    }

    /// Starts `run` on another folder of stacks.
    pub(crate) fn run_on(&self, stacks: &str, log: &str, environment: &[(&str, &str)]) -> Running {
        let mut command = self.operator_on(stacks, "run");
        spawn(command.envs(environment.iter().copied()), self.path(log))
    }

    fn operator(&self, command: &str) -> Command {
        self.operator_on("stacks", command)
    }

    fn operator_on(&self, stacks: &str, command: &str) -> Command {
        let mut operator = Command::new(env!("CARGO_BIN_EXE_tasktracker-operator"));
        operator
            .arg(command)
            .arg("--stacks")
            .arg(self.path(stacks))
            .arg("--secrets-dir")
            .arg(self.path("secrets"))
            .env("TASKTRACKER_STATE_DIR", self.path("state"));
        operator
    }

    /// Runs one command of the operator to its end.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        self.operator(arguments[0]).args(&arguments[1..]).output().unwrap()
    }

    /// Runs one command with `--output json`: its exit code and what it printed.
    pub(crate) fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let output =
            self.operator(arguments[0]).args(&arguments[1..]).args(["--output", "json"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{arguments:?}: {error}: {text}{}", String::from_utf8_lossy(&output.stderr))
        });
        (output.status.code().unwrap(), value)
    }

    /// Where the page of the stack `staging` is.
    pub(crate) fn page(&self) -> SocketAddr {
        SocketAddr::new(self.host.address(), 3500)
    }

    /// `apply`, which must not fail; what is only reported may differ still.
    pub(crate) fn apply(&self) {
        let output = self.command(&["apply"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_some_and(|code| code == 0 || code == 2), "{said}");
    }

    /// Runs a script on the host as the user that the operator is there.
    pub(crate) fn on_host(&self, script: &str) -> String {
        succeeded(&mut self.host.command_as_deploy(script))
    }

    /// Runs a script on the host as root.
    pub(crate) fn as_root(&self, script: &str) -> String {
        succeeded(self.host.command("sh").args(["-c", script]))
    }

    /// An HTTP request to a published port of the host: status and body.
    pub(crate) fn http(&self, port: u16, request: &str) -> (u16, String) {
        http(SocketAddr::new(self.host.address(), port), request).unwrap_or_default()
    }

    /// Everything on the host that an undisturbed operator would leave alone, as text that can be compared; of ledgers,
    /// not who wrote them last, and of containers' names, not their numbers, which grow with each rollout.
    pub(crate) fn snapshot(&self) -> String {
        let format = "{{.Name}} {{.Image}} {{.State.Status}} {{.State.Health.Status}} {{json .Config.User}} \
            {{json .Config.Cmd}} {{json .Config.Entrypoint}} {{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.ReadonlyRootfs}} \
            {{json .HostConfig.CapDrop}} {{json .HostConfig.PortBindings}} {{json .HostConfig.RestartPolicy}} \
            {{index .Config.Labels \"tasktracker.dev/service-hash\"}}{{range .Mounts}}{{println}}{{$.Name}} {{.Type}} {{.Source}} {{.Destination}} {{.RW}}{{end}}{{range .Config.Env}}{{println}}{{$.Name}} {{.}}{{end}}";
        self.on_host(&format!(
            "docker ps -aq | xargs -r docker inspect --format '{format}' | sed -E 's/(-app-[a-z]+-)[0-9]+/\\1N/' | sort
             docker network ls --format '{{{{.Name}}}}' | sort
             docker volume ls --format '{{{{.Name}}}}' | sort
             cd /opt/tasktracker && find . -type f ! -name .lock ! -path '*/addresses/*' -exec stat -c '%n %a %U' {{}} + | sort
             find . -type f ! -name .lock ! -name .epoch ! -name .reserve ! -name ledger.json ! -path '*/addresses/*' -exec sha256sum {{}} + | sort
             grep -Ev '^ +.(epoch|when|who|why|milliseconds).:' */*/ledger.json"
        ))
    }
}

/// Names the phase of a scenario that begins, with the seconds since the first one of the process began: the output of a
/// failed test says how far it came, and that of a slow one where its time goes.
pub(crate) fn phase(name: &str) {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    println!("phase at {:.0} s: {name}", BEGAN.elapsed().as_secs_f32());
}

/// Starts an operator that appends its log to a file, and serves metrics on a free port.
pub(crate) fn spawn(command: &mut Command, log: PathBuf) -> Running {
    let metrics = hostile::closed_port().unwrap();
    let file = File::options().create(true).append(true).open(&log).unwrap();
    command.args(["--listen", &metrics.to_string()]).stderr(file);
    Running { child: command.spawn().unwrap(), metrics, log }
}

pub(crate) fn load(host: &SandboxHost, images: &[&str]) {
    let folder = std::env::var("TASKTRACKER_IMAGES").expect("run `cargo xtask test`: it builds the images");
    for image in images {
        host.load_image(&Path::new(&folder).join(format!("{image}.tar"))).unwrap();
    }
}

/// Waits until a program listens on a port of a host.
pub(crate) fn wait_until_listening(host: &SandboxHost, port: u16) {
    let address = SocketAddr::new(host.address(), port);
    wait_until(format_args!("{address} listens"), || TcpStream::connect(address).is_ok());
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn succeeded(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}{printed}");
    printed
}

impl Running {
    /// The value of a metric whose line contains all of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        value(&self.metrics_text()?, name, labels)
    }

    pub(crate) fn metrics_text(&self) -> Option<String> {
        http(self.metrics, "GET /metrics").map(|(_, text)| text)
    }

    /// The sum of a metric over the lines that contain all of `labels`.
    pub(crate) fn total(&self, name: &str, labels: &[&str]) -> Option<f64> {
        Some(total(&self.metrics_text()?, name, labels))
    }

    /// Waits until `count` checks of a host succeeded, each from its begin to its end after this call.
    ///
    /// A test that asserts that nothing happened waits for this first: otherwise it would pass, too, where the operator
    /// is slow or hangs.
    pub(crate) fn wait_for_checks(&self, stack: &str, host: &str, count: u32) {
        self.wait_for_counted(stack, host, count, Results::Success);
    }

    /// The same for checks whatever their result, where a failure is expected.
    pub(crate) fn wait_for_ended_checks(&self, stack: &str, host: &str, count: u32) {
        self.wait_for_counted(stack, host, count, Results::Any);
    }

    fn wait_for_counted(&self, stack: &str, host: &str, count: u32, results: Results) {
        let mut checks = CheckCount::new(stack, host, count, results);
        let what = format!("{count} checks of {host} of {stack} {results:?}");
        wait_until(format_args!("{what}; log:\n{}", self.said()), || {
            self.metrics_text().is_some_and(|text| checks.observe(&text))
        });
    }

    pub(crate) fn is_ready(&self, stack: &str) -> bool {
        self.metric("tasktracker_stack_ready", &[&format!("stack=\"{stack}\"")]) == Some(1.0)
    }

    pub(crate) fn wait_until_ready(&self, stack: &str) {
        wait_until(format_args!("{stack} is ready; log:\n{}", self.said()), || self.is_ready(stack));
    }

    /// Waits until it ended by itself, for so long.
    pub(crate) fn wait_for_end(&mut self, limit: Duration) -> Option<ExitStatus> {
        let (started, mut ended) = (Instant::now(), None);
        wait_until_within(limit + wait::LIMIT, "the operator ended", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some() || started.elapsed() > limit
        });
        ended
    }

    /// Kills it where it stands.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its log, as it is when it is shown.
    pub(crate) fn said(&self) -> impl Display + '_ {
        std::fmt::from_fn(|formatter| formatter.write_str(&self.log()))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(Path::new(&self.log)).unwrap_or_default()
    }

    /// Sends it a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        succeeded(Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]));
    }

    /// Whether it stands still.
    pub(crate) fn stands_still(&self) -> bool {
        let state = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        state.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) {
        succeeded(Command::new("kill").args(["-TERM", &self.child.id().to_string()]));
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<_> = self.child.wait();
    }
}
