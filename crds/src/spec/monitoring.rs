//! Prometheus and what feeds it.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ResourcesSpec, ServiceSpec, StackReference, UseSpec, fixed};
use crate::scalars::{
    Address, AlertMatcher, AlertName, ClockTime, HttpUrl, ImageReference, LabelName, Line, Moment, Port,
    Query, RecordName, SecretName, Span, TimeZone,
};

/// The alerts that come with every stack, by name.
pub const ALERTS: &[&str] = &[
    "AbnormalTraffic",
    "AlertmanagersDisagree",
    "AuthenticationFailureSpike",
    "CertificateExpiresSoon",
    "ClockSkew",
    "ContainerCrashLooping",
    "ContainerNearMemoryLimit",
    "ContainerOomKilled",
    "ContainerUnhealthy",
    "DatabaseConnectionFailures",
    "EndpointFailing",
    "ErrorBudgetBurnsFast",
    "ErrorBudgetBurnsSlowly",
    "HighErrorRate",
    "HighLatencyP95",
    "InfoInhibitor",
    "InstanceDiskFullSoon",
    "InstanceDiskSpaceLow",
    "InstanceDown",
    "InstanceHighCpuUsage",
    "InstanceHighDiskIo",
    "InstanceHighMemoryUsage",
    "InstanceInodesLow",
    "InstanceNetworkErrors",
    "InstanceNetworkSaturated",
    "MemoryLeakSuspected",
    "MessageCeilingReached",
    "NotificationsFailing",
    "PrometheusReloadFailed",
    "PublicUrlDown",
    "RuleEvaluationFailures",
    "SamplesNotSent",
    "ServiceDown",
    "SilenceTooLong",
    "StoreFailing",
    "TargetDown",
    "TaskCreationFailureSpike",
    "ValidationErrorSpike",
    "Watchdog",
];

/// The alerts on reconciliation, which come with the operator's chart, too. They have no threshold that could be another one.
pub const RECONCILIATION_ALERTS: &[&str] = &[
    "ApprovalWaiting",
    "DriftNotHealing",
    "HostKeyChanged",
    "HostUnreachable",
    "OutOfMemoryLoop",
    "ReconcileStale",
    "RolloutRolledBack",
    "StackDrifted",
    "StackFlapping",
    "StackNotReady",
    "SuspendedTooLong",
];

/// Prometheus, on the hosts with the role monitoring, and the agents that feed it, on every host with a role.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MonitoringSpec {
    /// Use another stack's monitoring instead of one's own.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub use_stack: Option<UseSpec>,
    /// Stacks that may use this one's monitoring.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["namespace", "stack"]))]
    pub accepts: Vec<StackReference>,
    /// Secret with the key `password`: the password of the user `admin`, without whom nothing here answers.
    pub credentials_secret_ref: SecretReference,
    /// TLS wherever something here is reached over the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<MonitoringTlsSpec>,
    /// Metrics store.
    pub prometheus: PrometheusSpec,
    /// Prometheus in agent mode, which finds each replica on its host and sends what it scrapes to the store.
    pub agent: AgentSpec,
    /// Host metrics.
    pub node_exporter: NodeExporterSpec,
    /// Asks for the app's `publicUrl` as users do.
    pub blackbox_exporter: BlackboxExporterSpec,
    /// What users may expect.
    pub slo: SloSpec,
    /// What it warns of.
    pub rules: RulesSpec,
    /// Whom alerts call.
    pub alertmanager: AlertmanagerSpec,
    /// Dashboards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grafana: Option<ServiceSpec>,
}

impl Default for MonitoringSpec {
    fn default() -> Self {
        Self {
            use_stack: None,
            accepts: Vec::new(),
            credentials_secret_ref: SecretReference { name: fixed!("monitoring") },
            tls: None,
            prometheus: PrometheusSpec::default(),
            agent: AgentSpec::default(),
            node_exporter: NodeExporterSpec::default(),
            blackbox_exporter: BlackboxExporterSpec::default(),
            slo: SloSpec::default(),
            rules: RulesSpec::default(),
            alertmanager: AlertmanagerSpec::default(),
            grafana: None,
        }
    }
}

/// TLS between the parts of the monitoring, and to people.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringTlsSpec {
    /// Secret with the keys `tls.crt`, `tls.key` and `ca.crt`: the certificate that each of them shows, its key, and who vouches
    /// for it.
    pub secret_ref: SecretReference,
    /// The name in that certificate by which they know each other, whatever their addresses are.
    pub server_name: Address,
}

/// A Secret, whose keys are fixed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretReference {
    /// Its name.
    pub name: SecretName,
}

/// A server that somebody else runs: it is used, and never changed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.username) == has(self.passwordSecretRef)").message("username and passwordSecretRef are given together, or neither"))]
pub struct ExternalServerSpec {
    /// Where it is.
    pub url: HttpUrl,
    /// Who is let in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Line>,
    /// Secret with the key `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretReference>,
}

/// The metrics store.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PrometheusSpec {
    /// Whether it is deployed. Without it and without `external`, no samples are sent anywhere.
    pub enabled: bool,
    /// A store that somebody else runs, in its place: the URL is where it takes samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalServerSpec>,
    /// Stores that get all of its samples, too: each URL is where one takes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["url"]))]
    pub remote_write: Vec<ExternalServerSpec>,
    /// Its image.
    pub image: ImageReference,
    /// Its port on `bindAddress`; agents send to it, too.
    pub port: Port,
    /// What it may use.
    pub resources: ContainerResourcesSpec,
    /// How long it keeps what it has.
    pub retention: PrometheusRetentionSpec,
    /// What is done where it is OOM-killed whenever it starts.
    pub out_of_memory: OutOfMemorySpec,
}

impl PrometheusSpec {
    /// Whether hosts with the role monitoring run it.
    pub fn is_deployed(&self) -> bool {
        self.enabled && self.external.is_none()
    }
}

impl Default for PrometheusSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            external: None,
            remote_write: Vec::new(),
            image: fixed!("prom/prometheus:v3.16.0"),
            port: Port(9090),
            resources: ContainerResourcesSpec::new("1Gi", "1"),
            retention: PrometheusRetentionSpec::default(),
            out_of_memory: OutOfMemorySpec::default(),
        }
    }
}

/// What is done where Prometheus is OOM-killed whenever it starts, as it reads its write-ahead log: first the one,
/// then the other. Nothing is removed.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutOfMemorySpec {
    /// Share of the host's memory, in percent, up to which its limit is raised, as far as that is free; 0 leaves it as it is.
    #[schemars(range(min = 0, max = 90))]
    pub max_memory_percent: u32,
    /// Whether its write-ahead log, with the samples of the last hours, may be moved aside, to `wal.moved-TIME` in its volume.
    pub move_wal_aside: bool,
}

impl Default for OutOfMemorySpec {
    fn default() -> Self {
        Self { max_memory_percent: 50, move_wal_aside: false }
    }
}

/// How long samples are kept: whichever limit is reached first ends it.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PrometheusRetentionSpec {
    /// Days.
    #[schemars(range(min = 1, max = 3650))]
    pub days: u32,
    /// Share of its disk that it may fill.
    #[schemars(range(min = 5, max = 90))]
    pub max_disk_percent: u32,
}

impl Default for PrometheusRetentionSpec {
    fn default() -> Self {
        Self { days: 15, max_disk_percent: 70 }
    }
}

/// Prometheus in agent mode.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentSpec {
    /// What it may use. Its image is the store's.
    pub resources: ContainerResourcesSpec,
}

impl Default for AgentSpec {
    fn default() -> Self {
        Self { resources: ContainerResourcesSpec::new("256Mi", "0.25") }
    }
}

/// Host metrics.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeExporterSpec {
    /// Whether it is deployed. Without it, alerts on hosts are left out.
    pub enabled: bool,
    /// Its image.
    pub image: ImageReference,
    /// Its port on `bindAddress`.
    pub port: Port,
    /// What it may use.
    pub resources: ContainerResourcesSpec,
}

impl Default for NodeExporterSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            image: fixed!("prom/node-exporter:v1.9.1"),
            port: Port(9100),
            resources: ContainerResourcesSpec::new("64Mi", "0.25"),
        }
    }
}

/// What asks for the app's `publicUrl`.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlackboxExporterSpec {
    /// Whether it is deployed, where the app has a `publicUrl`.
    pub enabled: bool,
    /// Its image.
    pub image: ImageReference,
    /// What it may use.
    pub resources: ContainerResourcesSpec,
}

impl Default for BlackboxExporterSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            image: fixed!("prom/blackbox-exporter:v0.26.0"),
            resources: ContainerResourcesSpec::new("64Mi", "0.25"),
        }
    }
}

/// Alert routing.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AlertmanagerSpec {
    /// Whether it is deployed. Without it and without `external`, alerts call nobody.
    pub enabled: bool,
    /// One that somebody else runs, in its place: the URL is its own, without `/api`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalServerSpec>,
    /// Its image.
    pub image: ImageReference,
    /// Its port on `bindAddress`.
    pub port: Port,
    /// Port of `privateAddress`, TCP and UDP, by which those of several monitoring hosts talk to each other.
    pub cluster_port: Port,
    /// What it may use.
    pub resources: ContainerResourcesSpec,
    /// Whom it calls.
    pub receivers: ReceiversSpec,
    /// When nobody is called but for what is critical.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub mute_times: Vec<MuteTimeSpec>,
    /// Alerts of this stack of which nobody is told until a moment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub silences: Vec<SilenceSpec>,
}

impl AlertmanagerSpec {
    /// Whether hosts with the role monitoring run it.
    pub fn is_deployed(&self) -> bool {
        self.enabled && self.external.is_none()
    }
}

impl Default for AlertmanagerSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            external: None,
            image: fixed!("prom/alertmanager:v0.28.1"),
            port: Port(9093),
            cluster_port: Port(9094),
            resources: ContainerResourcesSpec::new("128Mi", "0.25"),
            receivers: ReceiversSpec::default(),
            mute_times: Vec::new(),
            silences: Vec::new(),
        }
    }
}

/// Alerts of which nobody is told until a moment.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SilenceSpec {
    /// Which alerts of the stack: all of these must fit.
    #[schemars(length(min = 1, max = 20))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub matchers: Vec<AlertMatcher>,
    /// When it ends.
    pub until: Moment,
    /// Why.
    pub reason: Line,
}

/// Times at which nobody is called but for what is critical.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MuteTimeSpec {
    /// On which days it begins; on every one where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub days: Vec<Weekday>,
    /// When it begins, by the clock on the wall; with the day where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ClockTime>,
    /// When it ends, on the next day where that is earlier; with the day where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ClockTime>,
    /// In which time zone; UTC where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<TimeZone>,
}

/// A day of the week.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Weekday {
    /// Monday.
    Monday,
    /// Tuesday.
    Tuesday,
    /// Wednesday.
    Wednesday,
    /// Thursday.
    Thursday,
    /// Friday.
    Friday,
    /// Saturday.
    Saturday,
    /// Sunday.
    Sunday,
}

/// Whom alerts call. Where nobody is named for a severity, whoever is named for another one is called.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReceiversSpec {
    /// For what is critical.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pagerduty: Option<PagerDutyReceiverSpec>,
    /// For warnings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slack: Option<SlackReceiverSpec>,
    /// For what is only to be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<EmailReceiverSpec>,
    /// For the alert that always fires: something that calls somebody when nothing comes any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<WebhookReceiverSpec>,
}

/// A service of `PagerDuty`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PagerDutyReceiverSpec {
    /// Secret with the key `routingKey`: the integration key of its Events API v2.
    pub routing_key_secret_ref: SecretReference,
    /// Where events are sent, if not to the one of `PagerDuty` itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Line>,
}

/// A Slack-style incoming webhook.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlackReceiverSpec {
    /// Secret with the key `url`.
    pub webhook_secret_ref: SecretReference,
    /// Channel, if not the webhook's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Line>,
}

/// People who get mail.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.username) == has(self.passwordSecretRef)").message("username and passwordSecretRef are given together, or neither"))]
pub struct EmailReceiverSpec {
    /// Their addresses.
    #[schemars(length(min = 1, max = 20))]
    pub to: Vec<Line>,
    /// The sender's address.
    pub from: Line,
    /// Host and port of the mail server.
    pub smarthost: Line,
    /// Who logs in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Line>,
    /// Secret with the key `password`, with which they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretReference>,
    /// Whether nothing is sent but over TLS.
    #[serde(default = "yes")]
    pub require_tls: bool,
}

/// A webhook.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookReceiverSpec {
    /// Secret with the key `url`.
    pub webhook_secret_ref: SecretReference,
}

fn yes() -> bool {
    true
}

/// What users may expect, over 14 days.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SloSpec {
    /// Percentage of requests that do not end in an error of the server.
    #[schemars(range(min = 50.0, max = 99.999))]
    pub availability: f64,
}

impl Default for SloSpec {
    fn default() -> Self {
        Self { availability: 99.9 }
    }
}

/// The alerts that come with a stack.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RulesSpec {
    /// Alerts that are left out, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub disable: Vec<AlertName>,
    /// Alerts that are otherwise here, by name.
    #[serde(rename = "override", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, RuleOverrideSpec>", extend("maxProperties" = 100))]
    pub overrides: BTreeMap<AlertName, RuleOverrideSpec>,
    /// More alerts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["alert"]))]
    pub extra: Vec<ExtraAlertSpec>,
    /// More series that are made of others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["record"]))]
    pub extra_records: Vec<ExtraRecordSpec>,
}

/// An alert of a stack's own.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtraAlertSpec {
    /// Its name, which none of those that come with a stack has.
    pub alert: AlertName,
    /// It fires for each series that this has.
    pub expr: Query,
    /// How long it must hold.
    #[serde(rename = "for")]
    pub duration: Span,
    /// Whom it calls.
    pub severity: Severity,
    /// What is wrong, in a sentence. Templates of Prometheus are filled in.
    pub summary: Line,
    /// How bad it is. Templates of Prometheus are filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Line>,
    /// The page about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook_url: Option<HttpUrl>,
    /// What it is about: the label `service`, unless its series have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<LabelName>,
}

/// A series that is made of others.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtraRecordSpec {
    /// Its name.
    pub record: RecordName,
    /// What it is made of.
    pub expr: Query,
}

/// What is otherwise about an alert.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleOverrideSpec {
    /// What is compared with; a share is written as a number from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// How long it must hold.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Span>,
    /// Whom it calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
}

/// Whom an alert calls.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody at once.
    Critical,
    /// Somebody today.
    Warning,
    /// Nobody: it is kept to be read.
    Info,
}

impl Severity {
    /// As it stands in the label of an alert.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// What a container may use, as Kubernetes writes it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerResourcesSpec {
    /// What it never gets more of.
    pub limits: ResourcesSpec,
}

impl ContainerResourcesSpec {
    pub(super) fn new(memory: &str, cpu: &str) -> Self {
        Self { limits: ResourcesSpec { memory: fixed!(memory), cpu: fixed!(cpu) } }
    }
}
