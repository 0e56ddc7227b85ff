//! What the operator says about a stack.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::DriftItem;

/// Drift items kept per component of a host; the rest is counted.
pub const DRIFT_ITEMS_PER_COMPONENT: usize = 20;
/// Drift items kept per stack; the rest is counted.
pub const DRIFT_ITEMS_PER_STACK: usize = 100;
/// Rollouts that a status remembers.
pub const HISTORY: usize = 10;

/// What the operator says about a stack. Small and slow: no logs and no last-seen times.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskTrackerStackStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, `InSync`, Healthy, `HostsReachable`, Approved.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Revision that runs on every host, once it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Hash of the plan that waits for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_plan: Option<String>,
    /// `ConfigMap` beside the stack that has that plan in full, under the key `plan.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_plan_config_map: Option<String>,
    /// The last value of the annotation `tasktracker.dev/reconcile` that was taken up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile: Option<String>,
    /// One entry a host, in the order of the spec.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default)]
    pub hosts: Vec<HostStatus>,
    /// The last rollouts on all hosts, newest first.
    #[schemars(length(max = 10))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// The operator's own notes: what is deployed where, and what people were told. They may have another form with each
    /// version.
    #[schemars(schema_with = "any_object")]
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub notes: serde_json::Value,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// A rollout that ended on one host.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// When it began, in RFC 3339.
    pub when: String,
    /// Name of the host.
    pub host: String,
    /// Component: app, agents, monitoring or logging.
    pub component: String,
    /// ID of the release.
    pub release: String,
    /// Its revision.
    pub revision: String,
    /// What came out: `Succeeded`, or the reason of the failure.
    pub result: String,
    /// Who wanted it.
    pub who: String,
}

/// What the operator says about one host.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// Name of the host.
    pub name: String,
    /// Whether it answered.
    #[serde(default)]
    pub reachable: bool,
    /// Whether the spec names it no longer, and what was deployed is left there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retained: bool,
    /// What is wrong with the host itself, with the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why nothing is written to it, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// One entry a component.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default)]
    pub components: Vec<ComponentStatus>,
}

/// What the operator says about one project.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// Component: app, agents, monitoring or logging.
    pub name: String,
    /// Release that was last rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Revision of that release, for the component that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Whether the spec asks for the component on this host no longer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retained: bool,
    /// Whether every service of it runs and is healthy.
    #[serde(default)]
    pub healthy: bool,
    /// Whether the spec asks for something else than the release.
    #[serde(default)]
    pub change_waiting: bool,
    /// What kept the project from being checked or repaired, with the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Number of differences.
    #[serde(default)]
    pub drift_count: u32,
    /// The first differences.
    #[schemars(length(max = 20))]
    #[serde(default)]
    pub drift: Vec<DriftItem>,
}
