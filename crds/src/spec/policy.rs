//! What the operator may do by itself.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::services::span;
use crate::{
    DriftKind,
    scalars::{Cron, Line, Name, Span, TimeZone},
};

/// What the operator may do by itself.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicySpec {
    /// Whether drift is repaired.
    pub heal: Heal,
    /// Whether changes are rolled out at once.
    pub upgrade: Upgrade,
    /// Whether containers of ours that nothing asks for are removed. Never volumes.
    pub prune: Heal,
    /// When changes may start. Empty: always. Repair is always allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub windows: Vec<WindowSpec>,
    /// Differences that are not reported.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub ignore: Vec<IgnoreSpec>,
    /// What happens when a tag means another image than was rolled out.
    pub tags: TagsSpec,
    /// How a change is rolled out.
    pub rollout: RolloutSpec,
    /// What happens to the hosts when the stack is deleted.
    pub deletion: Deletion,
}

/// Whether differences are repaired or only reported.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Heal {
    /// Repaired at once.
    #[default]
    Auto,
    /// Reported only.
    Report,
}

/// Whether changes are rolled out at once.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upgrade {
    /// At once, within the windows.
    #[default]
    Auto,
    /// After a person approved the plan.
    Approve,
}

/// What happens to the hosts when the stack is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deletion {
    /// Everything is left running.
    #[default]
    Retain,
    /// Containers and networks are removed.
    Down,
    /// Containers, networks and data are removed.
    DownAndVolumes,
}

/// A repeated span of time in which changes may start.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowSpec {
    /// When it opens.
    pub cron: Cron,
    /// How long it stays open.
    pub duration: Span,
    /// In which time zone.
    #[serde(default = "utc")]
    pub timezone: TimeZone,
}

/// Differences that are not reported: all given fields must match.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IgnoreSpec {
    /// Component: app, agents, monitoring or logging.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<Name>,
    /// Compose service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// Kind of drift.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<DriftKind>,
    /// Path, or the beginning of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Line>,
}

/// What happens when a tag means another image in its registry than was rolled out.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TagsSpec {
    /// Whether the other image is rolled out.
    pub moved: Moved,
    /// How often the registry is asked.
    pub interval: Span,
}

/// Whether what a tag means now is rolled out.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moved {
    /// It is reported; what was rolled out stays.
    #[default]
    Report,
    /// It is rolled out, as any other change.
    Follow,
}

impl Default for TagsSpec {
    fn default() -> Self {
        Self { moved: Moved::default(), interval: span("1h") }
    }
}

/// How a change is rolled out.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutSpec {
    /// How long a service may take to become healthy.
    pub health_timeout: Span,
    /// How long it must stay healthy before it counts.
    pub soak: Span,
    /// How long an old container may finish its requests.
    pub drain_timeout: Span,
    /// Hosts changed at a time.
    #[schemars(range(min = 1, max = 100))]
    pub max_unavailable: u32,
    /// What follows a failure.
    pub on_failure: OnFailure,
}

/// What follows a failed rollout.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// The previous release comes back.
    #[default]
    Rollback,
    /// Everything stays as it is until a person decides.
    Hold,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            health_timeout: span("2m"),
            soak: span("10s"),
            drain_timeout: span("30s"),
            max_unavailable: 1,
            on_failure: OnFailure::default(),
        }
    }
}

fn utc() -> TimeZone {
    super::fixed!("UTC")
}
