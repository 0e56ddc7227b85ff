//! Parts of a spec that this version of the operator does not carry out, or does not know: refused, never ignored.

use std::net::IpAddr;

use regex::Regex;

use crate::{
    ALERTS, DockerAccess, ExtraAlertSpec, RECONCILIATION_ALERTS, ReceiversSpec, Role, RulesSpec, SilenceSpec,
    SloSpec, TaskTrackerStackSpec, line_pattern,
    scalars::{AlertName, ClockTime, Line},
};

/// The parts of a spec that are not supported yet, as path and message.
pub fn unsupported(spec: &TaskTrackerStackSpec) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut refuse = |present: bool, path: &str| {
        if present {
            found.push((path.to_owned(), "not supported yet by this version of the operator".to_owned()));
        }
    };
    if let Some(monitoring) = &spec.monitoring {
        refuse(monitoring.use_stack.is_some(), "spec.monitoring.use");
        refuse(!monitoring.accepts.is_empty(), "spec.monitoring.accepts");
        refuse(monitoring.grafana.is_some(), "spec.monitoring.grafana");
    }
    if let Some(logging) = &spec.logging {
        refuse(logging.use_stack.is_some(), "spec.logging.use");
        refuse(!logging.accepts.is_empty(), "spec.logging.accepts");
        refuse(logging.kibana.is_some(), "spec.logging.kibana");
        let others =
            spec.hosts.iter().enumerate().filter(|(_, host)| host.roles.contains(&Role::Logging)).skip(1);
        for (index, _) in others {
            refuse(true, &format!("spec.hosts[{index}].roles: a second host with the role logging"));
        }
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        refuse(host.jump.is_some(), &format!("spec.hosts[{index}].jump"));
        refuse(host.docker_access == DockerAccess::DialStdio, &format!("spec.hosts[{index}].dockerAccess"));
    }
    found.extend(unknown_alerts(spec));
    found.extend(line_patterns(spec));
    found.extend(empty_mute_times(spec));
    found.extend(cluster_names(spec));
    found.extend(bad_silences(spec));
    found.extend(extra_rules(spec));
    found.extend(unused_parts(spec));
    found.extend(addresses_without_agents(spec));
    found
}

/// Expressions that say more than the log shipper can tell, and options that are the operator's own.
fn line_patterns(spec: &TaskTrackerStackSpec) -> Vec<(String, String)> {
    let Some(shipper) = spec.logging.as_ref().map(|logging| &logging.fluent_bit) else { return Vec::new() };
    let masks = shipper.mask.iter().map(|mask| ("mask", &mask.pattern)).enumerate();
    let drops = shipper.drop.iter().map(|drop| ("drop", &drop.pattern)).enumerate();
    let told = |(index, (field, pattern)): (usize, (&str, &Line))| {
        let why = line_pattern::line_patterns(pattern.as_str()).err()?;
        let path = format!("spec.logging.fluentBit.{field}[{index}].pattern");
        Some((path, format!("expected a simple regular expression, found '{pattern}': {why}")))
    };
    let mut found: Vec<_> = masks.chain(drops).filter_map(told).collect();
    for (index, output) in shipper.extra_outputs.iter().enumerate() {
        let names = output.options.keys().map(|name| ("options", name));
        let names = names.chain(output.secret_options.keys().map(|name| ("secretOptions", name)));
        for (field, name) in names {
            let path = format!("spec.logging.fluentBit.extraOutputs[{index}].{field}.{name}");
            let lower = name.as_str().to_lowercase();
            if ["name", "match", "match_regex"].contains(&lower.as_str()) {
                found.push((path, "expected another option: the operator sets this one".to_owned()));
            } else if field == "secretOptions" && output.options.contains_key(name) {
                found.push((path, "expected it once, found it in options, too".to_owned()));
            }
        }
    }
    found
}

/// Silences that Alertmanager would refuse.
fn bad_silences(spec: &TaskTrackerStackSpec) -> Vec<(String, String)> {
    let silences =
        spec.monitoring.iter().flat_map(|monitoring| &monitoring.alertmanager.silences).enumerate();
    let mut found = Vec::new();
    for (index, SilenceSpec { matchers, until, .. }) in silences {
        let path = |field: &str| format!("spec.monitoring.alertmanager.silences[{index}].{field}");
        if until.timestamp().is_none() {
            found.push((path("until"), format!("expected a moment that exists, found '{until}'")));
        }
        for (place, matcher) in matchers.iter().enumerate() {
            let (_, _, is_pattern, value) = matcher.parts();
            if is_pattern && Regex::new(value).is_err() {
                let told = format!("expected a regular expression after '~', found '{value}'");
                found.push((path(&format!("matchers[{place}]")), told));
            }
        }
    }
    found
}

/// Alerts of a stack's own that have the name of one that comes with it: nobody could tell which one is meant.
fn extra_rules(spec: &TaskTrackerStackSpec) -> Vec<(String, String)> {
    let extra = spec.monitoring.iter().flat_map(|monitoring| &monitoring.rules.extra).enumerate();
    let is_known =
        |name: &AlertName| ALERTS.contains(&name.as_str()) || RECONCILIATION_ALERTS.contains(&name.as_str());
    let told = |(index, alert): (usize, &ExtraAlertSpec)| {
        let told = format!(
            "expected another name, as an alert named '{0}' comes with every stack; change that one in rules.override.{0}",
            alert.alert
        );
        (format!("spec.monitoring.rules.extra[{index}].alert"), told)
    };
    extra.filter(|(_, alert)| is_known(&alert.alert)).map(told).collect()
}

/// What a Prometheus or an Alertmanager of the stack would do, where it has none: ignored, it would be an alert that nobody
/// gets.
fn unused_parts(spec: &TaskTrackerStackSpec) -> Vec<(String, String)> {
    let Some(monitoring) = &spec.monitoring else { return Vec::new() };
    let (prometheus, alertmanager) = (&monitoring.prometheus, &monitoring.alertmanager);
    let [stores, own] = [
        "expected none where the stack runs no Prometheus",
        "expected none where the stack runs no Alertmanager",
    ];
    let there = [
        (
            prometheus.is_deployed(),
            prometheus.remote_write.is_empty(),
            "prometheus.remoteWrite",
            stores,
            "that could send to them; name one in prometheus.external",
        ),
        (
            prometheus.is_deployed(),
            monitoring.rules == RulesSpec::default(),
            "rules",
            stores,
            "that evaluates them; they belong to whoever runs prometheus.external",
        ),
        (
            prometheus.is_deployed(),
            monitoring.slo == SloSpec::default(),
            "slo",
            stores,
            "that watches over it; it belongs to whoever runs prometheus.external",
        ),
        (
            alertmanager.is_deployed(),
            alertmanager.receivers == ReceiversSpec::default(),
            "alertmanager.receivers",
            own,
            "that calls them; they belong to whoever runs alertmanager.external",
        ),
        (
            alertmanager.is_deployed(),
            alertmanager.mute_times.is_empty(),
            "alertmanager.muteTimes",
            own,
            "that keeps to them; they belong to whoever runs alertmanager.external",
        ),
        (
            alertmanager.is_deployed(),
            alertmanager.silences.is_empty(),
            "alertmanager.silences",
            own,
            "that has them; they belong to whoever runs alertmanager.external",
        ),
    ];
    let unused = there.into_iter().filter(|(is_deployed, is_empty, ..)| !is_deployed && !is_empty);
    unused
        .map(|(_, _, path, what, why)| (format!("spec.monitoring.{path}"), format!("{what} {why}")))
        .collect()
}

/// Addresses by which agents of a host could not be reached: they listen at the loopback address anyway.
fn addresses_without_agents(spec: &TaskTrackerStackSpec) -> Vec<(String, String)> {
    let hosts = spec.hosts.iter().enumerate().filter(|_| spec.monitoring.is_some());
    let unusable = hosts.filter_map(|(index, host)| {
        let address = host.bind_address.as_ref()?;
        let parsed: IpAddr = address.as_str().parse().ok()?;
        let told = format!(
            "expected an address of the host where its agents are reached, found '{address}'; leave it out for every address"
        );
        let is_usable = !parsed.is_unspecified() && !parsed.is_loopback();
        (!is_usable).then(|| (format!("spec.hosts[{index}].bindAddress"), told))
    });
    unusable.collect()
}

/// Names in the place of addresses by which Alertmanagers are told to each other: they look none up.
fn cluster_names(spec: &TaskTrackerStackSpec) -> Vec<(String, String)> {
    let is_cluster = spec.monitoring.is_some() && spec.hosts_with(Role::Monitoring).count() > 1;
    let hosts = spec
        .hosts
        .iter()
        .enumerate()
        .filter(|(_, host)| is_cluster && host.roles.contains(&Role::Monitoring));
    let named = hosts.filter_map(|(index, host)| {
        let (field, address) = match &host.private_address {
            Some(address) => ("privateAddress", address),
            None => ("address", &host.address),
        };
        let is_name = address.as_str().parse::<IpAddr>().is_err();
        let told = format!(
            "expected an IP address, as several monitoring hosts tell each other where they are and look no name up, found '{address}'; set privateAddress"
        );
        is_name.then(|| (format!("spec.hosts[{index}].{field}"), told))
    });
    named.collect()
}

/// Times that end when they begin: whether that is never or always, nobody knows.
fn empty_mute_times(spec: &TaskTrackerStackSpec) -> Vec<(String, String)> {
    let times = spec.monitoring.iter().flat_map(|monitoring| &monitoring.alertmanager.mute_times);
    let times = times.enumerate().filter(|(_, times)| {
        let of = |time: &Option<ClockTime>, or: &str| time.as_ref().map_or(or, ClockTime::as_str).to_owned();
        of(&times.from, "00:00") == of(&times.to, "24:00")
    });
    let told = |(index, _)| {
        let path = format!("spec.monitoring.alertmanager.muteTimes[{index}].to");
        (path, "expected another time than that of `from`; leave both out for the whole day".to_owned())
    };
    times.map(told).collect()
}

/// Names that no alert has: a misspelt one would be a warning that nobody gets, or one that nobody wanted.
fn unknown_alerts(spec: &TaskTrackerStackSpec) -> Vec<(String, String)> {
    let Some(rules) = spec.monitoring.as_ref().map(|monitoring| &monitoring.rules) else { return Vec::new() };
    let disabled = rules.disable.iter().enumerate();
    let disabled = disabled.map(|(index, name)| (format!("spec.monitoring.rules.disable[{index}]"), name));
    let others = rules.overrides.keys().map(|name| (format!("spec.monitoring.rules.override.{name}"), name));
    let is_unknown = |(_, name): &(String, &AlertName)| {
        !ALERTS.contains(&name.as_str()) && !RECONCILIATION_ALERTS.contains(&name.as_str())
    };
    let told = |(path, name): (String, &AlertName)| {
        let there_are = ALERTS.iter().chain(RECONCILIATION_ALERTS).copied().collect::<Vec<_>>().join(", ");
        (path, format!("expected the name of an alert, found '{name}'; there are {there_are}"))
    };
    let thresholds = rules
        .overrides
        .iter()
        .filter(|(name, other)| other.threshold.is_some() && RECONCILIATION_ALERTS.contains(&name.as_str()));
    let thresholds = thresholds.map(|(name, _)| {
        let path = format!("spec.monitoring.rules.override.{name}.threshold");
        (path, format!("expected `for` or `severity` alone, found a threshold: {name} has none"))
    });
    disabled.chain(others).filter(is_unknown).map(told).chain(thresholds).collect()
}
