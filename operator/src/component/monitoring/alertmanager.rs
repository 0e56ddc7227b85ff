//! Alertmanager: whom an alert calls, and which alerts say nothing new beside others.

mod silences;

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tasktracker_crds::{
    AlertmanagerSpec, HostSpec, MonitoringSpec, MonitoringTlsSpec, MuteTimeSpec, ReceiversSpec, Role,
    SecretKeySpec, Weekday, scalars::Line,
};

use super::super::{
    agents::{ALERTS, FLUENT_BIT, SENT_PORT},
    prometheus, service_labels,
};
use crate::{
    model::{ComponentName, sha256},
    project::{
        Expect, File, HttpProbe, LoadedProbe, Project, Readiness, Reload, SECRETS_FOLDER, SecretFile,
        Service, Validation,
        compose::{self, Limits, Mount, PublishedPort},
    },
    source::Stack,
};

/// The service.
pub(super) const ALERTMANAGER: &str = "alertmanager";
/// Its configuration, from the project's folder.
const CONFIG: &str = "files/alertmanager/alertmanager.yml";
/// What its messages say, from the project's folder.
const MESSAGES: &str = "files/alertmanager/messages.tmpl";
/// The text of that.
const MESSAGES_TEXT: &str = include_str!("messages.tmpl");
/// How those of a cluster talk to each other over TLS, in the folder with its configuration.
const CLUSTER_TLS: &str = "cluster-tls.yml";
/// Name inside the project of the volume with silences, and with what was sent.
const DATA: &str = "alertmanager";
/// Where that is, inside the container.
const DATA_INSIDE: &str = "/alertmanager";
/// Where it sees its configuration.
const FOLDER: &str = "/etc/alertmanager";
/// Port inside the container.
const PORT: u16 = 9093;
/// Port inside the container by which those of a cluster talk to each other.
const CLUSTER_PORT: u16 = 9094;
/// How long what was sent, and silences that ended, are remembered: 7 days.
const RETENTION: &str = "168h";
/// How long the check of a configuration may take.
const VALIDATION_LIMIT: Duration = Duration::from_secs(30);
/// Labels by which two alerts are about the same thing. Every alert of a stack has all of them.
const SAME: [&str; 5] = ["namespace", "stack", "environment", "instance", "service"];
/// Alerts that follow from requests which cannot be answered.
const FAILING_REQUESTS: &str =
    "HighErrorRate|HighLatencyP95|EndpointFailing|ErrorBudget.+|TaskCreationFailureSpike|AbnormalTraffic";
/// What is told of a host that does not tell of itself: why that is, that it may be another one, that nobody is called.
const IN_ANY_CASE: &str = "HostKeyChanged|SamplesNotSent|NotificationsFailing";
/// What is only to be known, and waits for a person while nothing else is wrong.
const FOR_A_PERSON: &str = "ApprovalWaiting|SilenceTooLong";
/// How often silences, and what was sent, are written down: a container that is killed has lost no more than that.
const WRITTEN_EVERY: &str = "1m";
/// The receiver that keeps what began and ended: the log store, by way of the log shipper of the host.
const HISTORY: &str = "log-store";
/// What a message begins with.
const TITLE: &str = r#"{{ template "tasktracker.title" . }}"#;
/// The receiver of what calls nobody.
const NOBODY: &str = "nobody";
/// The receiver that calls somebody where it is not called itself any more.
const WATCHDOG: &str = "watchdog";

/// The service with all that it has.
pub(super) fn add(project: &mut Project, stack: &Stack, host: &HostSpec, monitoring: &MonitoringSpec) {
    let spec = &monitoring.alertmanager;
    let (routing, token) = config(spec, stack.spec.logging.is_some());
    let files = [(CONFIG, routing), (MESSAGES, MESSAGES_TEXT.to_owned())];
    project.files.extend(files.map(|(path, text)| (path.to_owned(), File::new(text))));
    if let Some(tls) = &monitoring.tls {
        let path = format!("files/{ALERTMANAGER}/{CLUSTER_TLS}");
        project.files.insert(path, File::new(cluster_tls(tls)));
    }
    project.volumes.extend([super::data(project, DATA)]);
    project.secrets.extend(secrets(spec));
    // One host is asked for them, and tells the others: two that are changed one after the other would undo each other's.
    if stack.spec.hosts_with(Role::Monitoring).next().is_some_and(|first| first.name == host.name) {
        project.api_collections.push(silences::collection(stack, monitoring));
    }
    project.services.insert(ALERTMANAGER.to_owned(), service(stack, host, monitoring, &token));
}

/// Where what runs beside it reaches it.
pub(super) fn beside() -> String {
    format!("{ALERTMANAGER}:{PORT}")
}

/// How those of a cluster know each other: each shows the certificate of the monitoring, and asks the other for it.
fn cluster_tls(tls: &MonitoringTlsSpec) -> String {
    let own = |name| secret(name);
    let (certificate, key, ca) = (own(prometheus::CERTIFICATE), own(prometheus::KEY), own(prometheus::CA));
    let config = json!({
        "tls_server_config": {
            "cert_file": certificate,
            "key_file": key,
            "client_ca_file": ca,
            "client_auth_type": "RequireAndVerifyClientCert",
        },
        "tls_client_config": {
            "cert_file": certificate,
            "key_file": key,
            "ca_file": ca,
            "server_name": tls.server_name.as_str(),
        },
    });
    crate::json::serialized(serde_saphyr::to_string(&config))
}

/// The text of its configuration file, and what it shows once that is loaded; whether the stack keeps logs.
fn config(spec: &AlertmanagerSpec, has_logs: bool) -> (String, String) {
    let mut receivers = receivers(&spec.receivers);
    receivers.extend(has_logs.then(|| {
        let url = format!("http://{FLUENT_BIT}:{SENT_PORT}/{ALERTS}");
        json!({ "name": HISTORY, "webhook_configs": [{ "url": url, "send_resolved": true }] })
    }));
    let named: Vec<&str> = receivers.iter().filter_map(|one| one["name"].as_str()).collect();
    // Where nobody was named for it, whoever is called for less is called.
    let of_severity = |severity: &str| {
        let order = ["critical", "warning", "info"];
        let from = order.iter().position(|one| *one == severity).unwrap_or_default();
        let order = order[from..].iter().chain(order[..from].iter().rev());
        order.copied().find(|name| named.contains(name)).unwrap_or(NOBODY)
    };
    let route = |matcher: String, receiver: &str| json!({ "matchers": [matcher], "receiver": receiver });
    let muted: Vec<String> = (1..=spec.mute_times.len()).map(|number| format!("mute-{number}")).collect();
    let watchdog = if named.contains(&WATCHDOG) { WATCHDOG } else { NOBODY };
    let mut routes = vec![json!({
        "matchers": ["alertname=\"Watchdog\""],
        "receiver": watchdog,
        "group_wait": "0s",
        "group_interval": "1m",
        "repeat_interval": "5m",
    })];
    routes.extend(has_logs.then(history_route));
    let severities = ["critical", "warning", "info"];
    routes.extend(severities.map(|severity| {
        let mut route = route(format!("severity=\"{severity}\""), of_severity(severity));
        if severity == "critical" {
            // What joins a group is told of as soon as what began it.
            route["group_interval"] = json!("30s");
        } else if !muted.is_empty() {
            route["mute_time_intervals"] = json!(muted);
        }
        route
    }));
    let mut config = json!({
        "route": {
            "receiver": NOBODY,
            "group_by": ["alertname", "severity"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "12h",
            "routes": routes,
        },
        "inhibit_rules": inhibitions(),
        "receivers": receivers,
    });
    if !muted.is_empty() {
        let intervals = muted.iter().zip(&spec.mute_times);
        config["time_intervals"] = intervals
            .map(|(name, times)| json!({ "name": name, "time_intervals": intervals_of(times) }))
            .collect();
    }
    let content = format!("{config}{MESSAGES_TEXT}");
    let token = format!("loaded-{}", &sha256(content.as_bytes())[..16]);
    // There is no file of the second name; what is loaded is told with it.
    config["templates"] = json!([format!("{FOLDER}/messages.tmpl"), format!("{FOLDER}/{token}.tmpl")]);
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = crate::json::serialized(serde_saphyr::to_string_with_options(&config, options));
    (format!("# Written by tasktracker-operator; changes made here are taken back.\n{text}"), token)
}

/// Has each alert kept by itself, as soon as it begins and ends.
fn history_route() -> Value {
    json!({
        "receiver": HISTORY,
        "group_by": ["..."],
        "group_wait": "0s",
        "group_interval": "15s",
        "repeat_interval": "24h",
        "continue": true,
    })
}

/// Times of the day and of the week, as Alertmanager writes them. What goes on over midnight is two of them, of which the
/// second one is on the next day.
fn intervals_of(times: &MuteTimeSpec) -> Vec<Value> {
    const WEEK: [Weekday; 7] = [
        Weekday::Monday,
        Weekday::Tuesday,
        Weekday::Wednesday,
        Weekday::Thursday,
        Weekday::Friday,
        Weekday::Saturday,
        Weekday::Sunday,
    ];
    let from = times.from.as_ref().map_or("00:00", |from| from.as_str());
    let to = times.to.as_ref().map_or("24:00", |to| to.as_str());
    let zone = times.timezone.as_ref().map_or("UTC", |zone| zone.as_str());
    let interval = |later: usize, from: &str, to: &str| {
        let mut interval = json!({ "location": zone });
        if (from, to) != ("00:00", "24:00") {
            interval["times"] = json!([{ "start_time": from, "end_time": to }]);
        }
        if !times.days.is_empty() {
            let day = |day: &Weekday| {
                let place = WEEK.iter().position(|one| one == day).unwrap_or_default();
                format!("{:?}", WEEK[(place + later) % WEEK.len()]).to_lowercase()
            };
            interval["weekdays"] = times.days.iter().map(day).collect();
        }
        interval
    };
    match (from, to) {
        _ if from < to => vec![interval(0, from, to)],
        (_, "00:00") => vec![interval(0, from, "24:00")],
        _ => vec![interval(0, from, "24:00"), interval(1, "00:00", to)],
    }
}

/// What says nothing new: less of the same, what a host that is down takes with it, and what a service that is down does; what
/// is only to be known while nothing else is wrong; and what is too much at once, unless it is critical.
fn inhibitions() -> Value {
    let same_alert: Vec<&str> = ["alertname"].into_iter().chain(SAME).collect();
    json!([
        {
            "source_matchers": ["severity=\"critical\""],
            "target_matchers": ["severity=~\"warning|info\""],
            "equal": same_alert,
        },
        {
            "source_matchers": ["alertname=\"InstanceDown\""],
            "target_matchers": [format!("alertname!~\"InstanceDown|{IN_ANY_CASE}\""), "host!=\"\"".to_owned()],
            "equal": ["namespace", "stack", "environment", "host"],
        },
        within_stack("ServiceDown", &format!("alertname=~\"{FAILING_REQUESTS}|DatabaseConnectionFailures|PublicUrlDown\"")),
        within_stack("DatabaseConnectionFailures", &format!("alertname=~\"{FAILING_REQUESTS}\"")),
        within_stack("HighErrorRate", "alertname=~\"EndpointFailing|ErrorBudget.+|TaskCreationFailureSpike\""),
        {
            "source_matchers": ["alertname=\"InfoInhibitor\""],
            "target_matchers": ["severity=\"info\"".to_owned(), format!("alertname!~\"{FOR_A_PERSON}\"")],
            "equal": ["namespace", "stack", "environment"],
        },
        within_stack("MessageCeilingReached", "severity=~\"warning|info\""),
    ])
}

/// What an alert makes of no interest in its whole stack.
fn within_stack(source: &str, target: &str) -> Value {
    json!({
        "source_matchers": [format!("alertname=\"{source}\"")],
        "target_matchers": [format!("alertname!=\"{source}\""), target],
        "equal": ["namespace", "stack", "environment"],
    })
}

/// A file among the service's secrets, as the service sees it.
fn secret(name: &str) -> String {
    format!("{}/{name}", prometheus::SECRETS_INSIDE)
}

/// Each receiver by the severity that it is called for. What is secret is a file.
fn receivers(spec: &ReceiversSpec) -> Vec<Value> {
    let mut found = vec![json!({ "name": NOBODY })];
    if let Some(pagerduty) = &spec.pagerduty {
        let mut one = json!({
            "routing_key_file": secret("pagerduty"),
            "send_resolved": true,
            "description": TITLE,
            "client": "tasktracker-operator",
            "client_url": "{{ .ExternalURL }}",
            "severity": "{{ .CommonLabels.severity }}",
            "details": {
                "environment": "{{ .CommonLabels.environment }}",
                "alerts": r#"{{ template "tasktracker.plain" . }}"#,
            },
            "links": [{ "href": "{{ .CommonAnnotations.runbook_url }}", "text": "runbook" }],
        });
        if let Some(url) = &pagerduty.url {
            one["url"] = url.as_str().into();
        }
        found.push(json!({ "name": "critical", "pagerduty_configs": [one] }));
    }
    if let Some(slack) = &spec.slack {
        let mut one = json!({
            "api_url_file": secret("slack"),
            "send_resolved": true,
            "title": TITLE,
            "title_link": "{{ .CommonAnnotations.runbook_url }}",
            "text": r#"{{ template "tasktracker.text" . }}"#,
        });
        if let Some(channel) = &slack.channel {
            one["channel"] = channel.as_str().into();
        }
        found.push(json!({ "name": "warning", "slack_configs": [one] }));
    }
    if let Some(email) = &spec.email {
        let to: Vec<&str> = email.to.iter().map(Line::as_str).collect();
        let mut one = json!({
            "to": to.join(", "),
            "from": email.from.as_str(),
            "smarthost": email.smarthost.as_str(),
            "require_tls": email.require_tls,
            "send_resolved": true,
            "headers": { "Subject": TITLE },
            "html": r#"{{ template "tasktracker.html" . }}"#,
            "text": r#"{{ template "tasktracker.plain" . }}"#,
        });
        if let Some(user) = &email.username {
            one["auth_username"] = user.as_str().into();
            one["auth_password_file"] = secret("email").into();
        }
        found.push(json!({ "name": "info", "email_configs": [one] }));
    }
    if spec.watchdog.is_some() {
        let one = json!({ "url_file": secret("watchdog"), "send_resolved": false });
        found.push(json!({ "name": WATCHDOG, "webhook_configs": [one] }));
    }
    found
}

/// The secrets of its receivers.
fn secrets(spec: &AlertmanagerSpec) -> BTreeMap<String, SecretFile> {
    let ReceiversSpec { pagerduty, slack, email, watchdog } = &spec.receivers;
    let of = [
        ("pagerduty", "routingKey", pagerduty.as_ref().map(|one| &one.routing_key_secret_ref)),
        ("slack", "url", slack.as_ref().map(|one| &one.webhook_secret_ref)),
        ("email", "password", email.as_ref().and_then(|one| one.password_secret_ref.as_ref())),
        ("watchdog", "url", watchdog.as_ref().map(|one| &one.webhook_secret_ref)),
    ];
    let file = |(name, key, reference): (&str, &str, Option<&tasktracker_crds::SecretReference>)| {
        let source = SecretKeySpec { secret: reference?.name.clone(), key: key.to_owned() };
        Some((format!("{SECRETS_FOLDER}/{ALERTMANAGER}/{name}"), SecretFile::new(source)))
    };
    of.into_iter().filter_map(file).collect()
}

/// The service on a host; with others it is a cluster.
fn service(stack: &Stack, host: &HostSpec, monitoring: &MonitoringSpec, token: &str) -> Service {
    let spec = &monitoring.alertmanager;
    let image = spec.image.to_string();
    let peers: Vec<&HostSpec> =
        stack.spec.hosts_with(Role::Monitoring).filter(|other| other.name != host.name).collect();
    let mut command = vec![
        format!("--config.file={FOLDER}/alertmanager.yml"),
        format!("--storage.path={DATA_INSIDE}"),
        format!("--data.retention={RETENTION}"),
        format!("--data.maintenance-interval={WRITTEN_EVERY}"),
        format!("--web.config.file={}", secret(prometheus::WEB_CONFIG)),
        format!("--web.external-url={}", prometheus::url(host, spec.port, monitoring)),
    ];
    let cluster = |host: &HostSpec| format!("{}:{}", prometheus::private_address(host), spec.cluster_port);
    let mut ports = vec![PublishedPort::tcp(spec.port.0, PORT)];
    if peers.is_empty() {
        command.push("--cluster.listen-address=".to_owned());
    } else {
        command.push(format!("--cluster.listen-address=0.0.0.0:{CLUSTER_PORT}"));
        command.push(format!("--cluster.advertise-address={}", cluster(host)));
        command.extend(peers.into_iter().map(|peer| format!("--cluster.peer={}", cluster(peer))));
        let gossip = spec.cluster_port.0;
        ports.push(PublishedPort::tcp(gossip, CLUSTER_PORT));
        if monitoring.tls.is_some() {
            command.push(format!("--cluster.tls-config={FOLDER}/{CLUSTER_TLS}"));
        } else {
            ports.push(PublishedPort::udp(gossip, CLUSTER_PORT));
        }
    }
    let compose = compose::Service {
        command: Some(command),
        user: Some(format!("{}:{}", prometheus::USER.uid, prometheus::USER.gid)),
        ports: ports.into_iter().map(|port| port.private(host.bind_address.as_ref())).collect(),
        volumes: vec![
            Mount::folder("./files/alertmanager", FOLDER),
            Mount::folder(format!("./{SECRETS_FOLDER}/{ALERTMANAGER}"), prometheus::SECRETS_INSIDE),
            Mount::owned_volume(DATA, DATA_INSIDE),
        ],
        labels: service_labels(stack, ComponentName::Monitoring, &image),
        ..compose::Service::new(image, Limits::new(&spec.resources.limits))
    };
    let check = ["/bin/amtool", "check-config", "/etc/alertmanager/alertmanager.yml"];
    let loaded = HttpProbe {
        expect: Expect::Text(token.to_owned()),
        ..prometheus::ready(monitoring, ALERTMANAGER, PORT, "/api/v2/status")
    };
    Service {
        reload: Reload::Signal("SIGHUP".to_owned()),
        readiness: Readiness::Http(prometheus::ready(monitoring, ALERTMANAGER, PORT, "/-/ready")),
        validations: vec![Validation { argv: check.map(str::to_owned).to_vec(), limit: VALIDATION_LIMIT }],
        loaded: vec![LoadedProbe { what: CONFIG.to_owned(), probe: loaded }],
        ..Service::new(compose)
    }
}

/// Where Prometheus on a host sends its alerts: to each of them.
pub(super) fn targets(stack: &Stack, host: &HostSpec, spec: &AlertmanagerSpec) -> Vec<String> {
    let address = |other: &HostSpec| {
        if other.name == host.name {
            return beside();
        }
        format!("{}:{}", prometheus::private_address(other), spec.port)
    };
    stack.spec.hosts_with(Role::Monitoring).map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(receivers: &str) -> AlertmanagerSpec {
        serde_saphyr::from_str(&format!("receivers: {{{receivers}}}")).unwrap()
    }

    fn receiver_of(config: &str, severity: &str) -> String {
        let config: Value = serde_saphyr::from_str(config).unwrap();
        let routes = config["route"]["routes"].as_array().unwrap().clone();
        let is_it = |route: &&Value| route["matchers"][0] == format!("severity=\"{severity}\"");
        routes.iter().find(is_it).unwrap()["receiver"].as_str().unwrap().to_owned()
    }

    #[test]
    fn times_over_midnight_go_on_on_the_next_day() {
        let intervals = |text: &str| Value::from(intervals_of(&serde_saphyr::from_str(text).unwrap()));
        assert_eq!(
            intervals("{days: [Saturday, Sunday], timezone: Europe/Berlin}"),
            json!([{ "location": "Europe/Berlin", "weekdays": ["saturday", "sunday"] }])
        );
        assert_eq!(
            intervals("{from: \"12:30\", to: \"13:00\"}"),
            json!([{ "location": "UTC", "times": [{ "start_time": "12:30", "end_time": "13:00" }] }])
        );
        assert_eq!(
            intervals("{days: [Sunday], from: \"22:00\", to: \"06:00\"}"),
            json!([
                { "location": "UTC", "weekdays": ["sunday"], "times": [{ "start_time": "22:00", "end_time": "24:00" }] },
                { "location": "UTC", "weekdays": ["monday"], "times": [{ "start_time": "00:00", "end_time": "06:00" }] },
            ])
        );
        assert_eq!(intervals("{from: \"22:00\", to: \"00:00\"}").as_array().unwrap().len(), 1);
    }

    #[test]
    fn nothing_critical_is_muted() {
        let spec: AlertmanagerSpec = serde_saphyr::from_str("muteTimes: [{days: [Sunday]}]").unwrap();
        let (config, _) = config(&spec, false);
        let config: Value = serde_saphyr::from_str(&config).unwrap();
        let routes = config["route"]["routes"].as_array().unwrap();
        let muted: Vec<bool> =
            routes.iter().map(|route| route.get("mute_time_intervals").is_some()).collect();
        assert_eq!(muted, [false, false, true, true], "the watchdog, critical, warning, info");
    }

    #[test]
    fn an_alert_calls_whoever_is_named_for_it_and_somebody_in_any_case() {
        let pagerduty = "pagerduty: {routingKeySecretRef: {name: pd}}";
        let slack = "slack: {webhookSecretRef: {name: slack}}";
        for (receivers, expected) in [
            (String::new(), ["nobody", "nobody", "nobody"]),
            (slack.to_owned(), ["warning", "warning", "warning"]),
            (format!("{pagerduty}, {slack}"), ["critical", "warning", "warning"]),
            (pagerduty.to_owned(), ["critical", "critical", "critical"]),
        ] {
            let (config, token) = config(&spec(&receivers), false);
            let found = ["critical", "warning", "info"].map(|severity| receiver_of(&config, severity));
            assert_eq!(found, expected, "{receivers}");
            assert!(config.contains(&token));
        }
    }
}
