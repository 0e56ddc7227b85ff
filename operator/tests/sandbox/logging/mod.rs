//! What containers write reaches the log store that the stack brings along, and nobody else is let in there.

mod random;
mod shipper;

use std::{fs, net::SocketAddr, process::Output, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tasktracker_testbed::{DemoHost, http, http_answer, http_as, images};

use crate::stage::{Stage, phase, wait_until, wait_until_within};

const POLICY: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 1s}}\n";
const ELASTICSEARCH: &str = "tt-staging-logging-elasticsearch-1";

fn stage(name: &str) -> Stage {
    let stage = Stage::new(name);
    stage.load(&["prometheus-2", "alertmanager", "node-exporter", "blackbox-exporter"]);
    stage.write_value("monitoring", "password", b"secret-of-the-test");
    for image in [images::elasticsearch, images::fluent_bit] {
        let archive = image(&stage.host, &mut |line| println!("{line}")).unwrap();
        stage.host.load_image(&archive).unwrap();
    }
    for (key, value) in
        [("password", "of-admin"), ("shipperPassword", "of-shipper"), ("readerPassword", "of-reader")]
    {
        stage.write_value("logging", key, value.as_bytes());
    }
    stage
}

fn stack(stage: &Stage, more: &str) -> String {
    let text = stage.stack("staging", "r1", POLICY).replace("roles: [app]", "roles: [app, logging]");
    format!(
        "{text}  logging: {{elasticsearch: {{{more}resources: {{limits: {{memory: 1Gi, cpu: \"2\"}}}}}}, fluentBit: {{image: \"{}\", hostLog: Files}}}}\n",
        images::FLUENT_BIT
    )
}

/// Who asks the store.
#[derive(Clone, Copy)]
struct Asker<'a> {
    stage: &'a Stage,
    user: &'a str,
    password: &'a str,
}

impl<'a> Asker<'a> {
    fn of(stage: &'a Stage, user: &'a str) -> Self {
        let password = match user {
            "admin" => "of-admin",
            "shipper" => "of-shipper",
            _ => "of-reader",
        };
        Self { stage, user, password }
    }

    /// Status and body; 0 where nobody answers.
    fn ask(&self, request: &str) -> (u16, Value) {
        let credentials = format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)));
        let answer = http_as(at(self.stage), &credentials, request).unwrap_or_default();
        (answer.0, serde_json::from_str(&answer.1).unwrap_or_default())
    }

    /// Documents that fit a query, oldest first.
    fn found(&self, query: &Value) -> Vec<Value> {
        let body = json!({ "size": 1000, "query": query, "sort": ["@timestamp"] });
        let (_, answer) = self.ask(&format!("POST /tasktracker-logs-*/_search\n{body}"));
        let hits = answer["hits"]["hits"].as_array().cloned().unwrap_or_default();
        hits.into_iter().map(|hit| hit["_source"].clone()).collect()
    }
}

fn at(stage: &Stage) -> SocketAddr {
    SocketAddr::new(stage.host.address(), 9200)
}

/// What a command printed that succeeded.
fn text_of(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    format!("{said}{}", String::from_utf8_lossy(&output.stdout))
}

/// Answers since a moment that refused something, by what the log shipper writes of them. That a document is there already
/// is none: 1.8 sends some a second time.
fn refusals(stage: &Stage, since: &str) -> String {
    let told = "docker logs --since SINCE tt-staging-agents-fluent-bit-1 2>&1 | grep -oE '\"status\": ?[45][0-9]+' | grep -v 409 | sort | uniq -c";
    stage.on_host(&format!("{} || true", told.replace("SINCE", since)))
}

/// Whatever a line is, it is found: no document is refused, which would hold up all those that are sent with it.
fn send_random_lines(stage: &Stage, reader: Asker<'_>, count: usize) {
    let since = stage.on_host("date -u +%FT%TZ").trim().to_owned();
    let folder = stage.host.path("/var/lib/docker/containers/random");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("random-json.log"), random::records(count)).unwrap();
    let filter = json!({ "query": { "term": { "service.name": "random" } } });
    let there = || reader.ask(&format!("POST /tasktracker-logs-*/_count\n{filter}")).1["count"].as_u64();
    let mut seen = 0;
    wait_until_within(Duration::from_mins(15), format_args!("{count} documents"), || {
        seen = there().unwrap_or_default();
        seen >= u64::try_from(count).unwrap()
    });
    assert_eq!(usize::try_from(seen).unwrap(), count, "none twice");
    for number in (0..count).step_by(count / 300) {
        let word = random::word(number);
        let query = json!({ "bool": {
            "should": [{ "match": { "message": word } }, { "term": { "fields": word } }],
            "minimum_should_match": 1,
        } });
        assert_eq!(reader.found(&query).len(), 1, "{word}");
    }
    assert_eq!(refusals(stage, &since), "", "what was refused");
    println!("{count} random lines: all found, none refused");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
#[ignore = "takes long: `cargo xtask soak logging`"]
fn soak_no_line_is_refused() {
    let stage = stage("random");
    stage.write_stack("staging.yaml", &stack(&stage, ""));
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    send_random_lines(&stage, Asker::of(&stage, "reader"), 100_000);
    operator.stop();
}

#[test]
fn lines_of_every_service_reach_the_store_and_everybody_may_do_their_part_alone() {
    let stage = stage("logging");
    let monitoring = format!(
        "  monitoring: {{prometheus: {{image: \"{}\"}}, nodeExporter: {{image: \"{}\"}}}}\n",
        images::PROMETHEUS_2,
        images::NODE_EXPORTER
    );
    let text = stack(&stage, "").replace("[app, logging]", "[app, monitoring, logging]") + &monitoring;
    stage.write_stack("staging.yaml", &text);
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");

    phase("a request");
    let (status, _) = stage.http(3500, "POST /api/tasks\n{\"title\": \"one\"}");
    assert_eq!(status, 201);
    let reader = Asker::of(&stage, "reader");
    let created = || {
        reader.found(&json!({ "bool": { "filter": [
            { "term": { "service.name": "backend" } },
            { "term": { "http.request.method": "POST" } },
        ] } }))
    };
    wait_until(format_args!("it is found: {}", operator.said()), || !created().is_empty());
    let found = created();
    assert_eq!(found.len(), 1, "{found:?}");
    let expected = json!({
        "service.name": "backend", "service.environment": "test", "host.name": "app-1", "stack": "default/staging",
        "component": "app", "log.level": "info", "http.response.status_code": 201, "message": "request", "stream": "stdout",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&found[0][field], value, "{field}: {}", found[0]);
    }

    phase("what the operator did");
    let audit = json!({ "bool": { "filter": [
        { "term": { "service.name": "operator" } },
        { "term": { "component": "app" } },
        { "term": { "fields.result": "Succeeded" } },
    ] } });
    wait_until(format_args!("its audit lines are found: {}", operator.said()), || {
        !reader.found(&audit).is_empty()
    });
    let found = reader.found(&audit);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["message"], "roll out revision r1 after nothing: Succeeded", "{found:?}");

    phase("an alert that begins and ends");
    let alertmanager = SocketAddr::new(stage.host.address(), 9093);
    let of_admin = format!("Basic {}", STANDARD.encode("admin:secret-of-the-test"));
    let alerts = || reader.found(&json!({ "term": { "service.name": "alerts" } }));
    for (ends, status, level) in
        [("2099-01-01T00:00:00Z", "firing", "fatal"), ("2026-01-31T13:00:00Z", "resolved", "info")]
    {
        let alert = json!([{
            "labels": { "alertname": "OfTheTest", "severity": "critical", "host": "app-1" },
            "annotations": { "summary": "It is only a test." },
            "startsAt": "2026-01-31T12:00:00Z",
            "endsAt": ends,
        }]);
        let answer = http_as(alertmanager, &of_admin, &format!("POST /api/v2/alerts\n{alert}"));
        assert_eq!(answer.as_ref().map(|(status, _)| *status), Some(200), "{answer:?}");
        let of_it = || {
            alerts()
                .into_iter()
                .find(|one| one["message"] == format!("{status}: OfTheTest: It is only a test."))
        };
        wait_until(format_args!("{status}: {}", operator.said()), || of_it().is_some());
        let found = of_it().unwrap();
        assert_eq!((&found["log.level"], &found["host.name"]), (&json!(level), &json!("app-1")), "{found}");
    }

    phase("what the shipper tells of itself");
    let query = "GET /api/v1/query?query=sum(fluentbit_output_proc_records_total%7Bhost=%22app-1%22%7D)";
    wait_until(format_args!("it is scraped: {}", operator.said()), || {
        let answer = http_as(SocketAddr::new(stage.host.address(), 9090), &of_admin, query);
        let answer: Value = answer.and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or_default();
        answer["data"]["result"][0]["value"][1].as_str().is_some_and(|count| count != "0")
    });

    phase("one request, traced");
    let request = |request: &str| {
        let answer = http_answer(stage.page(), request).unwrap();
        let name = "x-request-id: ";
        let id = answer.lines().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned));
        id.unwrap_or_else(|| panic!("{answer}"))
    };
    let created = request("POST /api/tasks\n{\"title\": \"traced\"}");
    let shown = request("GET /");
    for source in [&[][..], &["--from-hosts"]] {
        for (id, services, words) in
            [(&created, ["backend", "edge"], ["POST", "201"]), (&shown, ["edge", "frontend"], ["GET", "200"])]
        {
            let asked = [&["logs", "staging", "--request", id], source].concat();
            let mut found = String::new();
            wait_until_within(Duration::from_mins(1), format_args!("{source:?}: {services:?}"), || {
                found = text_of(&stage.command(&asked));
                found.lines().count() == services.len()
            });
            let mut by: Vec<&str> = found.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
            by.sort_unstable();
            assert_eq!(by, services, "{source:?}: {found}");
            let tells =
                |line: &str| line.contains(id.as_str()) && words.iter().all(|word| line.contains(word));
            assert!(found.lines().all(tells), "{source:?}: {found}");
            let more = [&asked[..], &["--service", "edge", "--level", "info"]].concat();
            assert_eq!(text_of(&stage.command(&more)).lines().count(), 1, "{source:?}");
            let less = [&asked[..], &["--level", "error"]].concat();
            assert_eq!(text_of(&stage.command(&less)), "", "{source:?}");
        }
    }

    phase("lines that nobody expects");
    send_random_lines(&stage, reader, 3000);

    phase("nobody does more than their part");
    assert_eq!(http(at(&stage), "GET /").unwrap().0, 401);
    let of = |user| Asker::of(&stage, user);
    let index = "tasktracker-logs-other-test-2026.01.01";
    for (user, request, expected) in [
        ("shipper", format!("POST /{index}/_doc\n{{\"message\": \"a\"}}"), 201),
        ("shipper", format!("GET /{index}/_search"), 403),
        ("shipper", format!("DELETE /{index}"), 403),
        ("shipper", "POST /elsewhere/_doc\n{\"message\": \"a\"}".to_owned(), 403),
        ("shipper", "GET /_security/user".to_owned(), 403),
        ("reader", format!("GET /{index}/_search"), 200),
        ("reader", format!("POST /{index}/_doc\n{{\"message\": \"a\"}}"), 403),
        ("reader", format!("DELETE /{index}"), 403),
        ("elastic", "GET /".to_owned(), 401),
    ] {
        let (status, answer) = of(user).ask(&request);
        assert_eq!(status, expected, "{user}: {request}: {answer}");
    }
    let shown = stage.on_host("ps -eo args; docker ps -aq | xargs docker inspect");
    assert!(!shown.contains("of-admin") && !shown.contains("of-shipper"), "a password is seen");

    phase("what somebody changes comes back");
    let admin = of("admin");
    let shorter =
        json!({ "policy": { "phases": { "delete": { "min_age": "1d", "actions": { "delete": {} } } } } });
    for request in [
        format!("PUT /_ilm/policy/tasktracker-logs\n{shorter}"),
        "DELETE /_index_template/tasktracker-logs".to_owned(),
        "DELETE /_security/user/reader".to_owned(),
        "PUT /_security/role/shipper\n{\"cluster\": [\"all\"]}".to_owned(),
    ] {
        let (status, answer) = admin.ask(&request);
        assert_eq!(status, 200, "{request}: {answer}");
    }
    let is_back = || {
        let policy = admin.ask("GET /_ilm/policy/tasktracker-logs").1;
        let role = admin.ask("GET /_security/role/shipper").1;
        policy["tasktracker-logs"]["policy"]["phases"]["delete"]["min_age"] == "30d"
            && admin.ask("GET /_index_template/tasktracker-logs").0 == 200
            && reader.ask("GET /_security/_authenticate").0 == 200
            && role["shipper"]["cluster"] == json!([])
    };
    wait_until(format_args!("it is back: {}", operator.said()), is_back);
    operator.wait_until_ready("staging");

    phase("other passwords");
    let life = format!("docker inspect -f '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {ELASTICSEARCH}");
    let before = stage.on_host(&life);
    for (key, user) in [("password", "admin"), ("shipperPassword", "shipper"), ("readerPassword", "reader")] {
        let password = format!("new-of-{user}");
        stage.write_value("logging", key, password.as_bytes());
        let new = Asker { password: &password, ..of(user) };
        wait_until(format_args!("{user} has the new one: {}", operator.said()), || {
            new.ask("GET /_security/_authenticate").0 == 200
        });
        assert_eq!(of(user).ask("GET /_security/_authenticate").0, 401, "{user} has the old one, too");
    }
    operator.wait_until_ready("staging");
    assert_eq!(stage.on_host(&life), before, "it was not started anew");
    let (status, _) = stage.http(3500, "POST /api/tasks\n{\"title\": \"two\"}");
    assert_eq!(status, 201);
    let reader = Asker { password: "new-of-reader", ..reader };
    let filter = json!({ "bool": { "filter": [{ "term": { "http.request.method": "POST" } }, { "term": { "service.name": "backend" } }] } });
    wait_until(format_args!("documents come: {}", operator.said()), || reader.found(&filter).len() == 3);
    operator.stop();
}
