//! The rules of Prometheus, from tables beside this file and from the stack.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::{Deserialize, Serialize};
use tasktracker_crds::{
    ExtraAlertSpec, ExtraRecordSpec, MonitoringSpec, Role, RuleOverrideSpec, RulesSpec, scalars::Span,
};

use super::blackbox;
use crate::source::Stack;

/// Where the pages about alerts are.
const RUNBOOKS: &str = "https://tasktracker.dev/runbooks";

/// Every group of rules, in the order of their evaluation.
static GROUPS: LazyLock<Vec<Group>> = LazyLock::new(|| {
    let texts = [
        include_str!("rules/hosts.yaml"),
        include_str!("rules/containers.yaml"),
        include_str!("rules/app.yaml"),
        include_str!("rules/budget.yaml"),
        include_str!("rules/business.yaml"),
        include_str!("rules/meta.yaml"),
    ];
    texts.iter().map(|text| serde_saphyr::from_str(text).expect("the tables of rules can be read")).collect()
});

/// Alerts on reconciliation, which a Prometheus has that somebody else runs, too.
static RECONCILIATION: LazyLock<File> = LazyLock::new(|| {
    let text = include_str!("../../../../charts/tasktracker-operator/files/alerts.yaml");
    serde_saphyr::from_str(text).expect("the alerts on reconciliation can be read")
});

/// Rules that are evaluated one after the other.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    scope: Scope,
    needs: Option<Needs>,
    records: Vec<Record>,
    alerts: Vec<Alert>,
}

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scope {
    /// An instance, which its series name.
    Instance,
    /// Something on a host, which its series name.
    Host,
    /// The stack as a whole.
    Stack,
}

/// What an alert hears of things from: without it, it is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Needs {
    App,
    NodeExporter,
    BlackboxExporter,
}

impl Needs {
    fn is_there(self, stack: &Stack, monitoring: &MonitoringSpec) -> bool {
        match self {
            Self::App => stack.spec.app.is_some(),
            Self::NodeExporter => monitoring.node_exporter.enabled,
            Self::BlackboxExporter => blackbox::url(stack, monitoring).is_some(),
        }
    }
}

/// A series that others are made of.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(rename = "record")]
    name: String,
    expr: String,
}

/// An alert.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alert {
    #[serde(rename = "alert")]
    name: String,
    /// An expression with `{threshold}` in it. `{budget}` is the share of requests that may fail, `{monitors}` how many hosts
    /// have the monitoring.
    expr: String,
    /// An expression with `{host}` in it, for each host from which something was heard: it fires, too.
    for_each_host: Option<String>,
    threshold: f64,
    #[serde(rename = "for")]
    duration: String,
    severity: String,
    needs: Option<Needs>,
    /// What it is about, where that is not what the group is about.
    scope: Option<Scope>,
    /// What it is about, where its series do not say so.
    service: Option<String>,
    summary: String,
    description: String,
}

/// A file with rules.
#[derive(Debug, Deserialize, Serialize)]
struct File {
    groups: Vec<RenderedGroup>,
}

#[derive(Debug, Deserialize, Serialize)]
struct RenderedGroup {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Rule {
    Record(Record),
    Alert(RenderedAlert),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct RenderedAlert {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    duration: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// The file with the rules of a stack.
pub(super) fn render(stack: &Stack, monitoring: &MonitoringSpec) -> String {
    let spec = &monitoring.rules;
    let hosts: Vec<&str> = crate::component::all_hosts(stack).map(|host| host.name.as_str()).collect();
    let is_there = |needs: Option<Needs>| needs.is_none_or(|needs| needs.is_there(stack, monitoring));
    let groups = GROUPS.iter().filter(|group| is_there(group.needs)).map(|group| {
        let records = group.records.iter().cloned().map(Rule::Record);
        let is_wanted = |alert: &&Alert| {
            is_there(alert.needs) && !spec.disable.iter().any(|name| name.as_str() == alert.name)
        };
        let alerts = group.alerts.iter().filter(is_wanted);
        let alerts = alerts.map(|alert| {
            let other = spec.overrides.iter().find(|(name, _)| name.as_str() == alert.name);
            let other = other.map(|(_, other)| other);
            Rule::Alert(alert.render(group.scope, stack, &hosts, other))
        });
        RenderedGroup { name: group.name.clone(), rules: records.chain(alerts).collect() }
    });
    let groups = groups.chain(reconciliation(stack, spec)).chain(extra(stack, spec));
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let file = File { groups: groups.collect() };
    let text = crate::json::serialized(serde_saphyr::to_string_with_options(&file, options));
    format!("# Written by tasktracker-operator; changes made here are taken back.\n{text}")
}

/// The alerts on reconciliation, as those of one stack.
fn reconciliation(stack: &Stack, spec: &RulesSpec) -> impl Iterator<Item = RenderedGroup> {
    RECONCILIATION.groups.iter().map(|group| {
        let alerts = group.rules.iter().filter_map(|rule| match rule {
            Rule::Alert(alert) if !spec.disable.iter().any(|name| name.as_str() == alert.alert) => {
                Some(alert.clone())
            }
            _ => None,
        });
        let alerts = alerts.map(|mut alert| {
            let other = spec.overrides.iter().find(|(name, _)| name.as_str() == alert.alert);
            if let Some(severity) = other.and_then(|(_, other)| other.severity) {
                alert.labels.insert("severity".to_owned(), severity.as_str().to_owned());
            }
            if let Some(duration) = other.and_then(|(_, other)| other.duration.as_ref()) {
                alert.duration = seconds(duration);
            }
            alert.labels.insert("instance".to_owned(), stack.key.name.clone());
            Rule::Alert(alert)
        });
        RenderedGroup { name: group.name.clone(), rules: alerts.collect() }
    })
}

/// The rules of a stack's own. What is compared to find that an alert says nothing new, these have, too.
fn extra(stack: &Stack, spec: &RulesSpec) -> Option<RenderedGroup> {
    let record = |ExtraRecordSpec { record, expr }: &ExtraRecordSpec| {
        Rule::Record(Record { name: record.to_string(), expr: expr.to_string() })
    };
    let alert = |alert: &ExtraAlertSpec| {
        let own = |label: &str, or: &str| format!("{{{{ or $labels.{label} \"{or}\" }}}}");
        let service = alert.service.as_ref().map_or(stack.key.name.as_str(), |service| service.as_str());
        let description =
            alert.description.as_ref().map_or("It is {{ $value | humanize }}.", |text| text.as_str());
        let page = alert.runbook_url.as_ref().map_or(RUNBOOKS, |page| page.as_str());
        Rule::Alert(RenderedAlert {
            alert: alert.alert.to_string(),
            expr: alert.expr.to_string(),
            duration: seconds(&alert.duration),
            labels: named([
                ("severity", alert.severity.as_str().to_owned()),
                ("instance", own("instance", &stack.key.name)),
                ("service", own("service", service)),
            ]),
            annotations: named([
                ("summary", alert.summary.to_string()),
                ("description", description.to_owned()),
                ("runbook_url", page.to_owned()),
            ]),
        })
    };
    let rules: Vec<Rule> =
        spec.extra_records.iter().map(record).chain(spec.extra.iter().map(alert)).collect();
    (!rules.is_empty()).then(|| RenderedGroup { name: "extra".to_owned(), rules })
}

fn seconds(duration: &Span) -> String {
    format!("{}s", duration.duration().as_secs())
}

/// The share of requests that may fail, going by the stack's objective.
fn budget(stack: &Stack) -> String {
    let slo = stack.spec.monitoring.as_ref().map(|monitoring| monitoring.slo.clone()).unwrap_or_default();
    // What a decimal number lacks in binary is not written out.
    let share = format!("{:.9}", 1.0 - slo.availability / 100.0);
    share.trim_end_matches('0').to_owned()
}

fn named(values: impl IntoIterator<Item = (&'static str, String)>) -> BTreeMap<String, String> {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Alert {
    fn render(
        &self,
        scope: Scope,
        stack: &Stack,
        hosts: &[&str],
        other: Option<&RuleOverrideSpec>,
    ) -> RenderedAlert {
        let threshold = other.and_then(|other| other.threshold).unwrap_or(self.threshold);
        let severity = other.and_then(|other| other.severity);
        let duration = other.and_then(|other| other.duration.as_ref());
        let of_hosts =
            self.for_each_host.iter().flat_map(|one| hosts.iter().map(|host| one.replace("{host}", host)));
        let monitors = stack.spec.hosts_with(Role::Monitoring).count().to_string();
        let filled =
            self.expr.replace("{threshold}", &threshold.to_string()).replace("{monitors}", &monitors);
        let expr = [filled.replace("{budget}", &budget(stack))].into_iter().chain(of_hosts);
        let severity =
            severity.map_or_else(|| self.severity.clone(), |severity| severity.as_str().to_owned());
        let service = self.service.clone().map(|service| ("service", service));
        let labels = [("severity", severity)].into_iter().chain(service);
        // Every alert names an instance: what has none at all would pass for any other one of that kind.
        let instance = match self.scope.unwrap_or(scope) {
            Scope::Instance => None,
            Scope::Host => Some("{{ $labels.host }}".to_owned()),
            Scope::Stack => Some(stack.key.name.clone()),
        };
        RenderedAlert {
            alert: self.name.clone(),
            expr: expr.collect::<Vec<_>>().join(" or "),
            duration: duration.map_or_else(|| self.duration.clone(), seconds),
            labels: named(labels.chain(instance.map(|name| ("instance", name)))),
            annotations: named([
                ("summary", self.summary.clone()),
                ("description", self.description.clone()),
                ("runbook_url", format!("{RUNBOOKS}/{}", self.name)),
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_knows_every_alert() {
        let alerts = GROUPS.iter().flat_map(|group| &group.alerts).map(|alert| alert.name.as_str());
        let mut names: Vec<&str> = alerts.collect();
        names.sort_unstable();
        assert_eq!(names, tasktracker_crds::ALERTS);
        let names =
            RECONCILIATION.groups.iter().flat_map(|group| &group.rules).filter_map(|rule| match rule {
                Rule::Alert(alert) => Some(alert.alert.as_str()),
                Rule::Record(_) => None,
            });
        let names: std::collections::BTreeSet<&str> = names.collect();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), tasktracker_crds::RECONCILIATION_ALERTS);
    }

    #[test]
    fn alerts_on_reconciliation_are_those_of_the_stack() {
        let text = include_str!("../../../../examples/staging.yaml");
        let stack =
            Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), "staging.yaml".into());
        let spec =
            "{rules: {disable: [HostUnreachable], override: {StackDrifted: {severity: info, for: 7m}}}}";
        let rules = render(&stack, &serde_saphyr::from_str(spec).unwrap());
        let file: File = serde_saphyr::from_str(&rules).unwrap();
        let alerts = file.groups.iter().flat_map(|group| &group.rules).filter_map(|rule| match rule {
            Rule::Alert(alert) => Some((alert.alert.as_str(), alert)),
            Rule::Record(_) => None,
        });
        let alerts: BTreeMap<&str, &RenderedAlert> = alerts.collect();
        let drifted = alerts["StackDrifted"];
        let labels = ["severity", "instance", "service"].map(|name| drifted.labels[name].as_str());
        assert_eq!((labels, drifted.duration.as_str()), (["info", "staging", "tasktracker"], "420s"));
        assert!(!alerts.contains_key("HostUnreachable"));
        // What is equal where one alert says nothing new beside another one: without it, it passes for equal.
        for (name, alert) in alerts {
            let of_series =
                alert.expr.contains("host, component, service, replica") || alert.expr.contains("replica:");
            assert!(of_series || alert.labels.contains_key("service"), "{name}");
        }
    }
}
