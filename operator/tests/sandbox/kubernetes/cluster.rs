//! A control plane with the resource in it, and operators that follow it.

use std::{
    collections::BTreeSet,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tasktracker_testbed::{ControlPlane, ControlPlaneOptions, DemoHost, packages};

use crate::stage::{Running, Stage, spawn, succeeded, wait_until};

/// A control plane, and what tests ask of it.
pub(crate) struct Cluster {
    pub(crate) plane: ControlPlane,
}

impl Cluster {
    /// Starts a control plane that knows the resource.
    pub(crate) fn start() -> Self {
        let cluster = Self { plane: ControlPlane::start(&ControlPlaneOptions::default()).unwrap() };
        cluster.apply(&tasktracker_crds::crd_yaml().unwrap());
        cluster.wait_until_established();
        cluster
    }

    /// Waits until the API server serves the resource: at first it says nothing of that at all.
    fn wait_until_established(&self) {
        let path = "{.status.conditions[?(@.type=='Established')].status}";
        let is_established = || self.get("crd/tasktrackerstacks.tasktracker.dev", path) == "True";
        wait_until("the resource is served", is_established);
    }

    pub(crate) fn apply(&self, text: &str) -> String {
        self.plane.apply(text).unwrap_or_else(|error| panic!("{error:#}\n{text}"))
    }

    /// `kubectl`, which must succeed: what it printed.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        succeeded(self.plane.kubectl().args(arguments))
    }

    /// What an object has at a JSON path.
    pub(crate) fn get(&self, object: &str, path: &str) -> String {
        let output =
            self.plane.kubectl().args(["get", object, "-o", &format!("jsonpath={path}")]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same in another namespace.
    pub(crate) fn get_in(&self, namespace: &str, object: &str, path: &str) -> String {
        self.kubectl(&["get", object, "-n", namespace, "-o", &format!("jsonpath={path}")])
    }

    /// An object, whole.
    pub(crate) fn object(&self, object: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", object, "-o", "json"])).unwrap()
    }

    /// Reason of a condition, with its status: `True/Succeeded`.
    pub(crate) fn condition(&self, stack: &str, kind: &str) -> String {
        let field = |name: &str| format!("{{.status.conditions[?(@.type=='{kind}')].{name}}}");
        self.get(&format!("tts/{stack}"), &format!("{}/{}", field("status"), field("reason")))
    }

    /// Reasons and notes of the events of a stack, each with how often it was told.
    pub(crate) fn events(&self, stack: &str) -> Vec<(String, String, u64)> {
        let all: Value =
            serde_json::from_str(&self.kubectl(&["get", "events.events.k8s.io", "-o", "json"])).unwrap();
        let of_stack =
            all["items"].as_array().unwrap().iter().filter(|event| event["regarding"]["name"] == stack);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let times = |event: &Value| event["series"]["count"].as_u64().unwrap_or(1);
        of_stack.map(|event| (text(&event["reason"]), text(&event["note"]), times(event))).collect()
    }

    /// Waits until `kubectl wait` says that a stack is ready.
    pub(crate) fn wait_until_ready(&self, stack: &str, operator: &Running) {
        let waited = self
            .plane
            .kubectl()
            .args(["wait", "--for=condition=Ready", &format!("tts/{stack}"), "--timeout=900s"])
            .output()
            .unwrap();
        assert!(
            waited.status.success(),
            "{stack} is not ready: {}\n{}\n{}",
            String::from_utf8_lossy(&waited.stderr),
            self.kubectl(&["get", "tts", stack, "-o", "yaml"]),
            operator.log()
        );
    }

    /// A Secret with the key of a host.
    pub(crate) fn add_key(&self, stage: &Stage) {
        let key = stage.host.identity_file();
        let file = format!("--from-file=ssh-privatekey={}", key.display());
        self.kubectl(&["create", "secret", "generic", "key", &file]);
    }

    /// A Secret with a key that no host knows.
    pub(crate) fn add_any_key(&self, name: &str) {
        let key = self.plane.path("id");
        succeeded(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        let file = format!("--from-file=ssh-privatekey={}", key.display());
        self.kubectl(&["create", "secret", "generic", name, &file]);
    }

    /// Runs one command of the operator as the administrator, to its end.
    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tasktracker-operator"));
        command.args(arguments).arg("--kubernetes").env("KUBECONFIG", self.plane.path("administrator.yaml"));
        command.output().unwrap()
    }

    /// The same, which must end as said; what it printed.
    pub(crate) fn command_ends(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Starts `run --kubernetes` as whoever has a token.
    pub(crate) fn operator(
        &self,
        token: &str,
        log: &str,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Running {
        let kubeconfig = self.plane.kubeconfig(token).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tasktracker-operator"));
        command.args(["run", "--kubernetes"]).args(more).env("KUBECONFIG", kubeconfig);
        spawn(command.envs(environment.iter().copied()), self.log(log))
    }

    /// In a process group of its own, so that it can be stopped.
    pub(crate) fn operator_apart(&self, log: &str, environment: &[(&str, &str)]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tasktracker-operator"));
        command.args(["run", "--kubernetes"]).env("KUBECONFIG", self.plane.path("administrator.yaml"));
        command.envs(environment.iter().copied());
        spawn(command.process_group(0), self.log(log))
    }

    /// As the administrator.
    pub(crate) fn start_operator(&self) -> Running {
        self.operator("administrator", "operator.log", &[], &[])
    }

    fn log(&self, name: &str) -> PathBuf {
        self.plane.path(name)
    }

    /// Waits until something is so in the cluster; otherwise the stack and the log are shown.
    pub(crate) fn wait(&self, stack: &str, operator: &Running, what: &str, is_so: impl FnMut() -> bool) {
        let story = std::fmt::from_fn(|formatter| {
            write!(
                formatter,
                "{what}:\n{}\n{}",
                self.kubectl(&["get", "tts", stack, "-o", "yaml"]),
                operator.log()
            )
        });
        wait_until(story, is_so);
    }
}

/// Namespace of the operator.
pub(crate) const SYSTEM: &str = "tasktracker-system";
/// What the audit log calls the chart's account.
pub(crate) const ACCOUNT: &str = "system:serviceaccount:tasktracker-system:tasktracker-operator";

/// Folder of the chart.
pub(crate) fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/tasktracker-operator")
}

/// Helm, with nothing of the user's own.
pub(crate) fn helm(home: &Path) -> Command {
    let mut command = Command::new(packages::kubernetes::helm(&mut |_| {}).unwrap());
    command.env("HOME", home);
    command
}

impl Cluster {
    /// Starts a control plane into which the chart is installed; its Deployment is stored, and not run.
    pub(crate) fn with_chart(options: &ControlPlaneOptions, values: &[&str]) -> Self {
        let cluster = Self { plane: ControlPlane::start(options).unwrap() };
        cluster.helm("install", values);
        cluster.wait_until_established();
        cluster
    }

    /// `helm install` or `helm upgrade` of the chart, which must succeed.
    pub(crate) fn helm(&self, what: &str, values: &[&str]) -> String {
        let mut command = helm(self.plane.path("").as_path());
        command.args([what, "tasktracker-operator"]).arg(chart());
        command.args(["--namespace", SYSTEM, "--create-namespace", "--kubeconfig"]);
        command.arg(self.plane.path("administrator.yaml"));
        for value in values {
            command.args(["--set", value]);
        }
        succeeded(&mut command)
    }

    /// A token of the chart's account.
    pub(crate) fn account(&self) -> String {
        let token = ["create", "token", "tasktracker-operator", "--namespace", SYSTEM, "--duration=3h"];
        self.kubectl(&token).trim().to_owned()
    }

    /// Starts `run --kubernetes` as the chart does: its account, its arguments.
    pub(crate) fn start_as_chart(&self, environment: &[(&str, &str)]) -> Running {
        let arguments = ["--namespace", SYSTEM, "--metrics-reviews"];
        self.operator(&self.account(), "operator.log", &arguments, environment)
    }

    /// Every verb that roles of the chart grant its account, with what it is for.
    pub(crate) fn granted(&self) -> BTreeSet<(String, String)> {
        let mut granted = BTreeSet::new();
        let label = "app.kubernetes.io/name=tasktracker-operator";
        for kind in ["clusterrolebindings", "rolebindings"] {
            let bindings = self.kubectl(&["get", kind, "-A", "-l", label, "-o", "json"]);
            let bindings: Value = serde_json::from_str(&bindings).unwrap();
            for binding in bindings["items"].as_array().unwrap() {
                let text =
                    |path: &str| binding.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
                let (kind, name, namespace) =
                    (text("/roleRef/kind"), text("/roleRef/name"), text("/metadata/namespace"));
                let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
                let role =
                    self.kubectl(&["get", &kind.to_lowercase(), &name, "-n", &namespace, "-o", "json"]);
                let role: Value = serde_json::from_str(&role).unwrap();
                for rule in role["rules"].as_array().unwrap() {
                    let list = |field: &str| {
                        let all = rule[field].as_array().cloned().unwrap_or_default();
                        all.iter().map(|one| one.as_str().unwrap().to_owned()).collect::<Vec<_>>()
                    };
                    for (group, resource) in list("apiGroups").iter().flat_map(|group| {
                        list("resources").into_iter().map(move |resource| (group.clone(), resource))
                    }) {
                        let (resource, part) = resource.split_once('/').unwrap_or((&resource, ""));
                        let place = format!("{group}/{resource}/{part}");
                        granted.extend(list("verbs").into_iter().map(|verb| (verb, place.clone())));
                    }
                }
            }
        }
        granted
    }
}
