//! What a platform team writes: the `spec` of a stack.

pub mod app;
pub mod hosts;
pub mod logging;
pub mod monitoring;
pub mod policy;
pub mod services;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use app::*;
pub use hosts::*;
pub use logging::*;
pub use monitoring::*;
pub use policy::*;
pub use services::*;

use crate::{
    TaskTrackerStackStatus,
    scalars::{Environment, Line, Revision, Span},
};

/// One environment of the Task Tracker: the app, its monitoring and its logging, on Docker hosts.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tasktracker.dev",
    version = "v1alpha1",
    kind = "TaskTrackerStack",
    plural = "tasktrackerstacks",
    shortname = "tts",
    namespaced,
    derive = "PartialEq",
    status = "TaskTrackerStackStatus",
    doc = "One environment of the Task Tracker: the app, its monitoring and its logging, on Docker hosts.",
    printcolumn = r#"{"name":"Environment","type":"string","jsonPath":".spec.environment"}"#,
    printcolumn = r#"{"name":"Revision","type":"string","jsonPath":".spec.revision"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"In-Sync","type":"string","jsonPath":".status.conditions[?(@.type==\"InSync\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    validation = Rule::new("self.metadata.name.size() <= 30 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("the name of a stack has at most 30 lower-case letters, digits and inner hyphens")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.ports) || ((has(self.app) && has(self.app.tls) && self.app.tls.mode != 'Off') ? [self.ports.api, self.ports.http, self.ports.https] : [self.ports.api, self.ports.page]).all(p, ((has(self.app) && has(self.app.tls) && self.app.tls.mode != 'Off') ? [self.ports.api, self.ports.http, self.ports.https] : [self.ports.api, self.ports.page]).filter(q, q == p).size() == 1)").message("each port in ports is used once"),
    validation = Rule::new("!has(self.monitoring) || [self.monitoring.nodeExporter.port, self.monitoring.prometheus.port, self.monitoring.alertmanager.port, self.monitoring.alertmanager.clusterPort].all(p, [self.monitoring.nodeExporter.port, self.monitoring.prometheus.port, self.monitoring.alertmanager.port, self.monitoring.alertmanager.clusterPort].filter(q, q == p).size() == 1) && !(has(self.app) && has(self.ports) && self.monitoring.nodeExporter.port in ((has(self.app) && has(self.app.tls) && self.app.tls.mode != 'Off') ? [self.ports.api, self.ports.http, self.ports.https] : [self.ports.api, self.ports.page]))").message("each port of a host is used once: those of monitoring differ, and monitoring.nodeExporter.port is none of the app's"),
    validation = Rule::new("!has(self.monitoring) || !has(self.app) || !has(self.ports) || ![self.monitoring.prometheus.port, self.monitoring.alertmanager.port, self.monitoring.alertmanager.clusterPort].exists(m, m in ((has(self.app) && has(self.app.tls) && self.app.tls.mode != 'Off') ? [self.ports.api, self.ports.http, self.ports.https] : [self.ports.api, self.ports.page])) || !self.hosts.exists(h, h.roles.exists(r, r == 'app') && h.roles.exists(r, r == 'monitoring'))").message("each port of a host is used once: where it has both roles, none of monitoring's is one of the app's"),
    validation = Rule::new("!has(self.logging) || !has(self.monitoring) || (self.logging.elasticsearch.port != self.monitoring.nodeExporter.port && (!(self.logging.elasticsearch.port in [self.monitoring.prometheus.port, self.monitoring.alertmanager.port, self.monitoring.alertmanager.clusterPort]) || !self.hosts.exists(h, h.roles.exists(r, r == 'logging') && h.roles.exists(r, r == 'monitoring'))))").message("each port of a host is used once: logging.elasticsearch.port is none of monitoring's where a host has both"),
    validation = Rule::new("!has(self.logging) || !has(self.app) || !has(self.ports) || !(self.logging.elasticsearch.port in ((has(self.app) && has(self.app.tls) && self.app.tls.mode != 'Off') ? [self.ports.api, self.ports.http, self.ports.https] : [self.ports.api, self.ports.page])) || !self.hosts.exists(h, h.roles.exists(r, r == 'logging') && h.roles.exists(r, r == 'app'))").message("each port of a host is used once: where it has both roles, logging.elasticsearch.port is none of the app's"),
    validation = Rule::new("!has(self.app) || self.hosts.exists(h, h.roles.exists(r, r == 'app'))").message("app needs a host with the role app"),
    validation = Rule::new("!has(self.monitoring) || has(self.monitoring.use) || self.hosts.exists(h, h.roles.exists(r, r == 'monitoring'))").message("monitoring needs a host with the role monitoring, or use"),
    validation = Rule::new("!has(self.logging) || has(self.logging.use) || self.hosts.exists(h, h.roles.exists(r, r == 'logging'))").message("logging needs a host with the role logging, or use"),
    validation = Rule::new("!has(self.app) || !has(self.app.database) || !has(self.app.database.sqlite) || self.hosts.filter(h, h.roles.exists(r, r == 'app')).size() <= 1").message("database.sqlite is for one app host: use postgres for several"),
    validation = Rule::new("!has(self.app) || !has(self.app.tls) || self.app.tls.mode != 'Acme' || self.hosts.filter(h, h.roles.exists(r, r == 'app')).size() <= 1").message("tls.mode Acme is for one app host, which the authority asks: use Secret for several"),
    validation = Rule::new("self.hosts.all(h, !has(h.jump) || self.hosts.exists(o, o.name == h.jump && o.name != h.name))").message("jump names another host of this stack")
)]
pub struct TaskTrackerStackSpec {
    /// Name of the environment: a label on everything that belongs to it. It cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("environment cannot be changed: make another stack"))]
    pub environment: Environment,
    /// Revision of the app: the tag of its images. The one line that a release changes.
    pub revision: Revision,
    /// The Docker hosts of this environment.
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub hosts: Vec<HostSpec>,
    /// How the hosts are reached.
    pub ssh: SshSpec,
    /// The app: backend, frontend and the edge in front of them. Missing: not deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppSpec>,
    /// Prometheus, and the agents that feed it. Missing: not deployed; `{}`: all defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<MonitoringSpec>,
    /// Elasticsearch, and the shippers that feed it. Missing: not deployed; `{}`: all defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logging: Option<LoggingSpec>,
    /// Ports of the app.
    #[serde(default)]
    pub ports: PortsSpec,
    /// What the operator may do by itself.
    #[serde(default)]
    pub policy: PolicySpec,
    /// Whom to tell about rollouts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub notifications: Vec<NotificationSpec>,
    /// Hash of the waiting plan that may be executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{0,64}$"), length(max = 64))]
    pub approved_plan: Option<String>,
    /// Reports go on, writes stop, until the given moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<SuspendSpec>,
    /// How often everything is checked, however quiet it is.
    #[serde(default = "default_interval")]
    pub interval: Span,
}

/// A pause that ends by itself.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SuspendSpec {
    /// When the pause ends, in RFC 3339.
    pub until: crate::scalars::Moment,
    /// Why, for the people who read the status.
    pub reason: Line,
}

/// Where news about rollouts go.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotificationSpec {
    /// A Slack-style incoming webhook.
    pub slack: SlackSpec,
    /// Which news.
    #[schemars(length(min = 1, max = 3))]
    pub events: Vec<NotificationEvent>,
}

/// A Slack-style incoming webhook.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlackSpec {
    /// Secret with the key `url`.
    pub webhook_secret: crate::scalars::SecretName,
    /// Channel, if not the webhook's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Line>,
}

/// What a notification can be about.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotificationEvent {
    /// A rollout succeeded.
    Succeeded,
    /// A rollout was taken back.
    RolledBack,
    /// A plan waits for a person.
    ApprovalNeeded,
}

/// Makes a value of a type with a grammar from a text known to fit it.
macro_rules! fixed {
    ($text:expr) => {
        $text.parse().expect("the built-in default has the form of its type")
    };
}
pub(crate) use fixed;

fn default_interval() -> Span {
    fixed!("30s")
}

impl TaskTrackerStackSpec {
    /// The hosts with a role, in the order written.
    pub fn hosts_with(&self, role: Role) -> impl Iterator<Item = &HostSpec> {
        self.hosts.iter().filter(move |host| host.roles.contains(&role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_has_the_form_of_its_type() {
        let spec: TaskTrackerStackSpec = serde_json::from_value(serde_json::json!({
            "environment": "staging", "revision": "1",
            "hosts": [{ "name": "a", "address": "a.example.com", "roles": [], "hostKeys": ["ssh-ed25519 AAAA"] }],
            "ssh": { "identitySecrets": ["key"] },
            "app": { "registry": "example.com/tasks" }
        }))
        .unwrap();
        assert_eq!(spec.interval.as_str(), "30s");
        assert_eq!(spec.hosts[0].directory.as_str(), "/opt/tasktracker");
        assert_eq!(spec.app.unwrap().backend.resources.memory.as_str(), "256Mi");
    }
}
