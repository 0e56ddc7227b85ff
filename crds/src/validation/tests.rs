use super::*;

const GOOD: &str = include_str!("../../../examples/staging.yaml");

fn mistakes(text: &str) -> String {
    let found = read_stack(text).expect_err("the text is wrong");
    found.iter().map(|mistake| format!("{mistake}\n")).collect()
}

fn good_with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replace(from, to)
}

#[test]
fn the_first_example_is_good_and_fits_in_20_lines() {
    let stack = read_stack(GOOD).unwrap();
    assert_eq!(stack.spec.revision.as_str(), "3f2c1ab");
    assert!(GOOD.lines().count() <= 20, "{} lines", GOOD.lines().count());
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "\
apiVersion: tasktracker.dev/v1alpha1
kind: TaskTrackerStack
metadata: {name: Staging}
spec:
  enviroment: staging
  revision: 1234567
  hosts:
    - {name: a, address: a.example.com, port: 70000, roles: [ap], hostKeys: []}
    - {name: a, address: 'b;id', roles: [], hostKeys: [ssh-ed25519 AAAA], directory: /opt}
  ssh: {user: deploy, identitySecrets: [key]}
  policy: {upgrade: approve, rollout: {soak: 10}}
";
    insta::assert_snapshot!(mistakes(text));
}

#[test]
fn rules_run_here_as_on_the_api_server() {
    let text = good_with("roles: [app]", "roles: []");
    insta::assert_snapshot!(mistakes(&text));
    let text = good_with("  ssh:", "  ports: {page: 8000}\n  ssh:");
    insta::assert_snapshot!(mistakes(&text));
    let text = good_with(
        "registry: registry.example.com/tasktracker",
        "registry: r.example.com, backend: {env: {1A: x}}, database: {sqlite: {}, postgres: {urlSecret: a}}",
    );
    insta::assert_snapshot!(mistakes(&text));
}

#[test]
fn a_certificate_needs_a_name_and_where_it_comes_from() {
    let app = |more: &str| good_with("tasktracker}", &format!("tasktracker, {more}}}"));
    let name = "publicUrl: \"https://tasks.example.com\"";
    let acme = format!("{name}, tls: {{mode: Acme, acme: {{email: \"a@example.com\"}}}}");
    let internal = app(&format!("{name}, tls: {{mode: Internal}}"));
    let with_ports =
        |text: &str, ports: &str| text.replace("  ssh:", &format!("  ports: {{{ports}}}\n  ssh:"));
    for good in
        [internal.clone(), app(&acme), with_ports(GOOD, "page: 80"), with_ports(&internal, "page: 443")]
    {
        read_stack(&good).unwrap();
    }
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let host =
        format!("    - {{name: app-2, address: b.example.com, roles: [app], hostKeys: [\"{key}\"]}}\n");
    let several = app(&format!("{acme}, database: {{postgres: {{urlSecret: db}}}}"));
    let several = several.replace("  ssh:", &format!("{host}  ssh:"));
    let bad = [
        (app("tls: {mode: Internal}"), "TLS needs publicUrl with https://"),
        (app("publicUrl: \"http://a.example.com\", tls: {mode: Internal}"), "TLS needs publicUrl"),
        (app(&format!("{name}, tls: {{mode: Secret}}")), "tls.mode Secret needs tls.secret"),
        (app(&format!("{name}, tls: {{mode: Acme}}")), "tls.mode Acme needs tls.acme"),
        (several, "tls.mode Acme is for one app host"),
        (with_ports(&internal, "https: 8000"), "each port in ports is used once"),
        (with_ports(&internal, "https: 80"), "each port in ports is used once"),
    ];
    for (text, words) in bad {
        let told = mistakes(&text);
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn parts_that_are_not_built_are_refused() {
    let text = good_with(
        "  ssh:",
        "  monitoring: {use: {stack: shared}}\n  notifications: [{slack: {webhookSecret: x}, events: [Succeeded]}]\n  ssh:",
    );
    insta::assert_snapshot!(mistakes(&text));
}

/// `spec.monitoring`, and what is said of it; nothing where it is good.
const MONITORING: &[(&str, &str)] = &[
    ("rules: {disable: [InstanceDwon]}", "spec.monitoring.rules.disable[0]: expected the name of an alert"),
    ("rules: {override: {StackDrifted: {for: 1m}}}", ""),
    (
        "rules: {override: {StackDrifted: {threshold: 1}}}",
        "override.StackDrifted.threshold: expected `for` or",
    ),
    ("alertmanager: {muteTimes: [{days: [Sunday]}]}", ""),
    (
        "alertmanager: {muteTimes: [{from: \"07:00\", to: \"07:00\"}]}",
        "muteTimes[0].to: expected another time",
    ),
    ("alertmanager: {muteTimes: [{from: \"7:00\"}]}", "a time of the day such as 06:30"),
    ("slo: {availability: 100}", "99.999"),
    (
        "alertmanager: {silences: [{matchers: ['severity!=\"critical\"'], until: \"2026-12-01T00:00:00Z\", reason: moving}]}",
        "",
    ),
    (
        "alertmanager: {silences: [{matchers: ['host=app'], until: \"2026-12-01T00:00:00Z\", reason: moving}]}",
        "a matcher such as",
    ),
    (
        "alertmanager: {silences: [{matchers: ['host=~\"app-(\"'], until: \"2026-02-30T00:00:00Z\", reason: moving}]}",
        "silences[0].matchers[0]: expected a regular expression",
    ),
    (
        "alertmanager: {silences: [{matchers: ['a=\"b\"'], until: \"2026-02-30T00:00:00Z\", reason: moving}]}",
        "silences[0].until: expected a moment that exists",
    ),
    ("rules: {extra: [{alert: QueueLong, expr: a > 1, for: 5m, severity: info, summary: long}]}", ""),
    (
        "rules: {extra: [{alert: ServiceDown, expr: a > 1, for: 5m, severity: info, summary: long}]}",
        "extra[0].alert: expected another name",
    ),
    ("rules: {extraRecords: [{record: queue, expr: a}]}", "with the level in front"),
    ("prometheus: {external: {url: \"https://metrics.example.com/push\"}}", ""),
    (
        "prometheus: {external: {url: \"https://metrics.example.com/push\", username: a}}",
        "username and passwordSecretRef are given together",
    ),
    (
        "prometheus: {enabled: false, remoteWrite: [{url: \"https://metrics.example.com/push\"}]}",
        "remoteWrite: expected none",
    ),
    (
        "prometheus: {enabled: false}, rules: {disable: [ClockSkew]}, slo: {availability: 99}",
        "rules: expected none where the stack runs no Prometheus that evaluates them; they belong to whoever runs",
    ),
    ("prometheus: {enabled: false}, slo: {availability: 99}", "monitoring.slo: expected none"),
    (
        "alertmanager: {enabled: false, muteTimes: [{days: [Sunday]}]}",
        "muteTimes: expected none where the stack runs no Alertmanager",
    ),
    (
        "alertmanager: {enabled: false, silences: [{matchers: ['a=\"b\"'], until: \"2026-12-01T00:00:00Z\", reason: moving}]}",
        "silences: expected none",
    ),
    (
        "alertmanager: {external: {url: \"https://alerts.example.com\"}, receivers: {slack: {webhookSecretRef: {name: a}}}}",
        "receivers: expected none",
    ),
    (
        "alertmanager: {receivers: {email: {to: [a@example.com], from: b@example.com, smarthost: \"c:25\", username: a}}}",
        "username and passwordSecretRef are given together",
    ),
];

#[test]
fn alerts_and_times_that_mean_nothing_are_refused() {
    for (monitoring, words) in MONITORING {
        let text = good_with("  ssh:", &format!("  monitoring: {{{monitoring}}}\n  ssh:"));
        let text = text.replace("roles: [app]", "roles: [app, monitoring]");
        if words.is_empty() {
            assert!(read_stack(&text).is_ok(), "{monitoring}");
        } else {
            let told = mistakes(&text);
            assert!(told.contains(words), "{told}");
        }
    }
    for (address, is_good) in [("127.0.0.1", false), ("\"::\"", false), ("10.0.0.11", true)] {
        let text = good_with(
            "      roles: [app]",
            &format!("      bindAddress: {address}\n      roles: [app, monitoring]"),
        );
        assert!(read_stack(&text).is_ok(), "{address}");
        let text = text.replacen("  ssh:", "  monitoring: {}\n  ssh:", 1);
        let told = if is_good { String::new() } else { mistakes(&text) };
        assert_eq!(read_stack(&text).is_ok(), is_good, "{address}");
        assert!(is_good || told.contains("bindAddress: expected an address of the host"), "{told}");
    }
}

#[test]
fn logging_that_could_not_be_is_refused() {
    let with = |roles: &str, logging: &str| {
        let text = good_with("  ssh:", &format!("  monitoring: {{}}\n  logging: {{{logging}}}\n  ssh:"));
        text.replace("roles: [app]", &format!("roles: [{roles}]"))
    };
    for (roles, logging, words) in [
        ("app, monitoring, logging", "", ""),
        ("app, monitoring, logging", "elasticsearch: {port: 9201, retention: {days: 3}}", ""),
        ("app, monitoring", "", "logging needs a host with the role logging"),
        ("app, monitoring, logging", "elasticsearch: {port: 9100}", "is none of monitoring's"),
        ("app, monitoring, logging", "elasticsearch: {port: 9090}", "is none of monitoring's"),
        ("app, monitoring, logging", "elasticsearch: {port: 8000}", "is none of the app's"),
        ("app, monitoring, logging", "elasticsearch: {retention: {days: 0}}", "days"),
        ("app, monitoring, logging", "kibana: {}", "spec.logging.kibana"),
        (
            "app, monitoring, logging",
            "fluentBit: {drop: [{pattern: a}], mask: [{pattern: 'b|c'}], extraOutputs: [{plugin: loki, options: {host: d}}]}",
            "",
        ),
        (
            "app, monitoring, logging",
            "fluentBit: {mask: [{pattern: '(ab)*c'}]}",
            "spec.logging.fluentBit.mask[0].pattern: expected a simple regular expression, found '(ab)*c': a group",
        ),
        (
            "app, monitoring, logging",
            "fluentBit: {drop: [{pattern: a}, {pattern: '[b'}]}",
            "spec.logging.fluentBit.drop[1].pattern: expected a simple regular expression, found '[b': unclosed",
        ),
        (
            "app, monitoring, logging",
            "fluentBit: {extraOutputs: [{plugin: loki, options: {Match: a}}]}",
            "spec.logging.fluentBit.extraOutputs[0].options.Match: expected another option",
        ),
        (
            "app, monitoring, logging",
            "fluentBit: {extraOutputs: [{plugin: loki, options: {a: b}, secretOptions: {a: {secret: c, key: d}}}]}",
            "spec.logging.fluentBit.extraOutputs[0].secretOptions.a: expected it once",
        ),
        ("app, monitoring, logging", "use: {stack: other}", "spec.logging.use"),
    ] {
        let text = with(roles, logging);
        if words.is_empty() {
            assert!(read_stack(&text).is_ok(), "{logging}: {:?}", read_stack(&text));
        } else {
            let told = mistakes(&text);
            assert!(told.contains(words), "{logging}: {told}");
        }
    }
}

#[test]
fn what_is_no_single_mapping_is_told() {
    for text in ["", "- a", "a: [", "a: 1\na: 2", "--- {}\n--- {}", "\u{0}", "a: &a [*a]"] {
        assert!(read_stack(text).is_err(), "{text:?}");
    }
    insta::assert_snapshot!(mistakes("a: 1\na: 2\n"));
    insta::assert_snapshot!(mistakes("- 1\n"));
}

#[test]
fn bombs_and_large_files_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(read_stack(&bomb).is_err());
    assert!(read_stack(&"x".repeat(MAX_FILE_BYTES + 1)).is_err());
    assert!(read_stack(&"[".repeat(100_000)).is_err());
}

#[test]
fn the_environment_cannot_be_changed() {
    let old = read_stack(GOOD).unwrap();
    let new = read_stack(&good_with("environment: staging", "environment: production")).unwrap();
    assert_eq!(check_update(&old, &old), Ok(()));
    assert_eq!(
        check_update(&old, &new),
        Err(vec!["environment cannot be changed: make another stack".to_owned()])
    );
}

#[test]
fn a_tag_runs_nothing_and_merged_keys_replace_nothing() {
    let good = read_stack(GOOD).unwrap();
    let tagged = good_with("spec:", "spec: !!python/object:os.system");
    let merged = format!("{GOOD}\n<<: {{spec: {{}}, kind: Other}}\n");
    for text in [tagged, merged] {
        assert_eq!(read_stack(&text).unwrap(), good, "{text}");
    }
}

/// Whatever would reach beyond the project has no place in a spec: by its name, or by the form of a value.
#[test]
fn what_an_author_may_never_do_cannot_be_said() {
    let app = |more: &str| good_with("tasktracker}", &format!("tasktracker, {more}}}"));
    let backend = |more: &str| app(&format!("backend: {{{more}}}"));
    let edge = |more: &str| app(&format!("edge: {{{more}}}"));
    let host = |more: &str| good_with("roles: [app]", &format!("roles: [app]\n      {more}"));
    let cases = [
        backend("privileged: true"),
        backend("pid: host"),
        backend("ipc: host"),
        backend("network_mode: host"),
        backend("networkMode: host"),
        backend("userns_mode: host"),
        backend("uts: host"),
        backend("cgroup: host"),
        backend("cgroup_parent: /"),
        backend("user: root"),
        backend("devices: [/dev/mem]"),
        backend("cap_add: [SYS_ADMIN]"),
        backend("security_opt: ['seccomp:unconfined']"),
        backend("volumes: ['/:/host']"),
        backend("volumes: ['/var/run/docker.sock:/var/run/docker.sock']"),
        backend("mounts: [{source: /etc, target: /etc}]"),
        backend("tmpfs: [/x]"),
        backend("command: [sh]"),
        backend("entrypoint: [sh]"),
        backend("env_file: /etc/shadow"),
        backend("labels: {'tasktracker.dev/owner': x}"),
        backend("secretEnv: {A: {secret: ../x, key: y}}"),
        backend("secretEnv: {A: {secret: x, key: ../y}}"),
        backend("secretEnv: {../A: {secret: x, key: y}}"),
        backend("secretEnv: {DATABASE_PATH: {secret: x, key: y}}"),
        backend("env: {A_FILE: /x}, secretEnv: {A: {secret: x, key: y}}"),
        edge("image: --privileged"),
        edge("image: 'caddy; id'"),
        edge("config: ':80'"),
        app("adopt: {project: --all}"),
        app("adopt: {project: a, volumes: {data: /var/run/docker.sock}}"),
        app("adopt: {project: a, volumes: {data: ../x}}"),
        app("adopt: {project: a, volumes: {data: -v}}"),
        app("adopt: {project: a, volumes: {other: x}}"),
        host("directory: /etc"),
        host("directory: /opt/../etc"),
        host("directory: opt/x"),
        host("bindAddress: 0.0.0.0:80"),
    ];
    for text in cases {
        let line = text.lines().find(|line| !GOOD.contains(*line)).unwrap();
        let found = read_stack(&text).expect_err(line);
        assert!(
            found.iter().all(|mistake| mistake.line > 0 && !mistake.path.is_empty()),
            "{line}: {found:?}"
        );
    }
}
