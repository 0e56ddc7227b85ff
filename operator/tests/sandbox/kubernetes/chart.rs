//! The chart: as Helm, the schemas of Kubernetes and of the monitoring operator, promtool and the API server see it.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use tasktracker_testbed::{ControlPlaneOptions, packages};

use super::cluster::{Cluster, SYSTEM, chart, helm};
use crate::stage::succeeded;

/// What the chart comes to with some values.
fn template(values: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = helm(home.path());
    command.arg("template").arg("x").arg(chart()).args([
        "--namespace",
        "system",
        "--api-versions",
        "monitoring.coreos.com/v1",
    ]);
    for value in values {
        command.args(["--set-json", value]);
    }
    command.output().unwrap()
}

/// The same, which must come to something: its documents.
fn documents(values: &[&str]) -> Vec<Value> {
    let output = template(values);
    assert!(output.status.success(), "{values:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = text.split("\n---\n").filter(|part| part.contains("kind:"));
    documents
        .map(|part| serde_saphyr::from_str::<Value>(part).unwrap_or_else(|error| panic!("{error}: {part}")))
        .collect()
}

fn find<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

#[test]
fn values_become_what_they_say_and_nothing_else_is_taken() {
    let home = tempfile::tempdir().unwrap();
    succeeded(helm(home.path()).args(["lint", "--strict"]).arg(chart()));
    let usual = documents(&[]);
    let kinds: BTreeSet<&str> = usual.iter().map(|document| document["kind"].as_str().unwrap()).collect();
    let wanted = [
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "Deployment",
        "NetworkPolicy",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    assert_eq!(kinds, BTreeSet::from(wanted));

    let pod = &find(&usual, "Deployment")[0]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
    for probe in ["livenessProbe", "readinessProbe"] {
        assert!(container[probe]["httpGet"]["path"].is_string(), "{probe}");
    }
    assert!(
        container["resources"]["requests"]["memory"].is_string()
            && container["resources"]["limits"]["memory"].is_string()
    );
    assert!(pod.get("volumes").is_none() && pod.get("hostNetwork").is_none());
    // Every argument is one that the program has.
    let arguments: Vec<&str> =
        container["args"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    let more = documents(&["namespaces=[\"a\",\"b\"]", "selector=\"team=red\"", "replicas=2"]);
    let more = find(&more, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"].clone();
    for arguments in [arguments, more.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect()] {
        let mut operator = Command::new(env!("CARGO_BIN_EXE_tasktracker-operator"));
        let output = operator
            .args(arguments)
            .env("KUBECONFIG", "/nonexistent")
            .env_remove("KUBERNETES_SERVICE_HOST")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("expected a kubeconfig or a pod's own service account"), "{said}");
    }

    // In some namespaces only, there are no rights in others.
    let some =
        documents(&["namespaces=[\"a\",\"b\"]", "metrics.authenticated=false", "rbac.peopleRoles=false"]);
    assert!(find(&some, "ClusterRole").is_empty() && find(&some, "ClusterRoleBinding").is_empty());
    let roles: BTreeSet<&str> =
        find(&some, "Role").iter().map(|role| role["metadata"]["namespace"].as_str().unwrap()).collect();
    assert_eq!(roles, BTreeSet::from(["a", "b", "system"]));
    assert!(find(&documents(&["replicas=2"]), "PodDisruptionBudget").len() == 1);
    assert!(find(&documents(&["approval.enforced=false"]), "ValidatingAdmissionPolicy").is_empty());
    let crd = documents(&["crds.keep=false"]);
    assert!(
        find(&crd, "CustomResourceDefinition")[0]["metadata"]["annotations"]
            .get("helm.sh/resource-policy")
            .is_none()
    );
    let monitored =
        documents(&["metrics.serviceMonitor.enabled=true", "metrics.prometheusRule.enabled=true"]);
    let rules = &find(&monitored, "PrometheusRule")[0]["spec"];
    let plain = fs::read_to_string(chart().join("files/alerts.yaml")).unwrap();
    let values = [
        "metrics.prometheusRule.enabled=true",
        "metrics.prometheusRule.runbookUrl=\"https://wiki.example.com/tt/\"",
    ];
    // Without a ServiceMonitor of the chart, nobody knows which labels the operator's own series get.
    let elsewhere = plain.replace("https://tasktracker.dev/runbooks/", "https://wiki.example.com/tt/");
    assert_eq!(
        find(&documents(&values), "PrometheusRule")[0]["spec"],
        serde_saphyr::from_str::<Value>(&elsewhere).unwrap()
    );
    // Several releases may have one Prometheus: what is absent is this one, by the labels that its ServiceMonitor brings.
    let service = &find(&monitored, "Service")[0]["metadata"]["name"];
    let own = format!("absent(tasktracker_build_info{{namespace=\"system\", service={service}}})");
    let plain = plain.replace("absent(tasktracker_build_info)", &own);
    let plain: Value = serde_saphyr::from_str(&plain).unwrap();
    assert_eq!(*rules, plain, "the PrometheusRule has other rules than the plain file");
    assert_eq!(find(&monitored, "ServiceMonitor").len(), 1);

    for refused in [
        "unknown=1",
        "replicas=\"two\"",
        "image.digest=\"latest\"",
        "networkPolicy.hostCidrs=[]",
        "metrics.prometheusRule.runbookUrl=\"wiki\"",
        "metrics.port=70000",
        "namespaces=[\"A b\"]",
        "logFormat=\"xml\"",
        "concurrency=0",
    ] {
        let output = template(&[refused]);
        assert!(!output.status.success(), "{refused} is taken");
    }
}

#[test]
fn every_document_is_what_several_versions_of_kubernetes_take() {
    let folder = packages::schemas::schemas(&mut |_| {}).unwrap();
    let program = packages::kubernetes::kubeconform(&mut |_| {}).unwrap();
    let everything = [
        "replicas=2",
        "metrics.serviceMonitor.enabled=true",
        "metrics.prometheusRule.enabled=true",
        "selector=\"team=red\"",
        "networkPolicy.metricsNamespaceLabels={\"a\":\"b\"}",
        "networkPolicy.extraEgress=[{\"ports\":[{\"port\":8065}]}]",
        "serviceAccount.annotations={\"a\":\"b\"}",
    ];
    let check = |text: &[u8], version: &str| {
        let place = |name: &str| {
            format!("{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", folder.join(name).display())
        };
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        fs::write(file.path(), text).unwrap();
        let mut command = Command::new(&program);
        command.args(["-strict", "-summary", "-output", "json", "-skip", "CustomResourceDefinition"]);
        command
            .args(["-schema-location", &place(version), "-schema-location", &place("monitoring")])
            .arg(file.path());
        let output = command.output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    for values in [&[][..], &everything, &["namespaces=[\"a\"]"]] {
        let text = template(values).stdout;
        for version in packages::schemas::VERSIONS {
            let summary = &check(&text, version)["summary"];
            assert!(summary["valid"].as_u64() > Some(10), "{version} {values:?}: {summary}");
            assert_eq!(
                (&summary["invalid"], &summary["errors"]),
                (&0.into(), &0.into()),
                "{version} {values:?}: {:#}",
                check(&text, version)
            );
        }
    }
    // It can fail.
    let wrong = String::from_utf8(template(&everything).stdout)
        .unwrap()
        .replace("honorLabels", "honourLabels")
        .replace("minAvailable", "leastAvailable");
    assert_eq!(check(wrong.as_bytes(), "1.34.0")["summary"]["invalid"], 2);
}

#[test]
fn every_alert_says_what_to_do_and_is_tested() {
    let rules = chart().join("files/alerts.yaml");
    let tests = chart().join("tests/alerts.yaml");
    for programs in [packages::monitoring::prometheus, packages::monitoring::prometheus_2] {
        let promtool = programs(&mut |_| {}).unwrap().join("promtool");
        succeeded(Command::new(&promtool).args(["check", "rules", "--lint-fatal"]).arg(&rules));
        let mut test = Command::new(promtool);
        succeeded(test.current_dir(tests.parent().unwrap()).args(["test", "rules", "alerts.yaml"]));
    }
    let tests = fs::read_to_string(tests).unwrap();
    let rules: Value = serde_saphyr::from_str(&fs::read_to_string(rules).unwrap()).unwrap();
    let mut names = BTreeSet::new();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        names.insert(name.to_owned());
        for field in ["summary", "description", "runbook_url"] {
            assert!(
                rule["annotations"][field].as_str().is_some_and(|text| !text.is_empty()),
                "{name}: {field}"
            );
        }
        assert!(rule["annotations"]["description"].as_str().unwrap().contains("$value | humanize"), "{name}");
        assert!(
            ["critical", "warning", "info"].contains(&rule["labels"]["severity"].as_str().unwrap()),
            "{name}"
        );
        assert!(
            rule["annotations"]["runbook_url"].as_str().unwrap().ends_with(&format!("/{name}")),
            "{name}"
        );
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/runbooks/{name}.md"));
        assert!(page.exists(), "there is no page for {name}");
        // It fires in one test and not just before, and ends.
        let of = |samples: &str| {
            tests
                .lines()
                .filter(|line| line.contains(&format!("alertname=\"{name}\"")) && line.ends_with(samples))
                .count()
        };
        assert!(of("value: 1}]}") >= 1 && of("exp_samples: []}") >= 2, "{name} is not tested");
    }
    for wanted in [
        "StackDrifted",
        "DriftNotHealing",
        "StackNotReady",
        "RolloutRolledBack",
        "HostUnreachable",
        "HostKeyChanged",
        "ReconcileStale",
        "SuspendedTooLong",
        "ApprovalWaiting",
        "StackFlapping",
    ] {
        assert!(names.contains(wanted), "{wanted}");
    }
}

#[test]
fn it_is_installed_upgraded_and_leaves_the_stacks_behind() {
    let cluster = Cluster::with_chart(&ControlPlaneOptions::default(), &["replicas=2", "image.tag=one"]);
    let image =
        || cluster.get_in(SYSTEM, "deploy/tasktracker-operator", "{.spec.template.spec.containers[0].image}");
    assert!(image().ends_with("operator:one"), "{}", image());
    assert!(cluster.get_in(SYSTEM, "pdb/tasktracker-operator", "{.spec.minAvailable}") == "1");
    cluster.apply(include_str!("../../../../examples/staging.yaml"));
    // An older definition of the resource is upgraded with the chart.
    let older = r#"{"spec":{"names":{"shortNames":[]}}}"#;
    cluster.kubectl(&["patch", "crd", "tasktrackerstacks.tasktracker.dev", "--type=merge", "-p", older]);
    cluster.helm("upgrade", &["replicas=2", "image.tag=two"]);
    assert!(image().ends_with("operator:two"), "{}", image());
    assert_eq!(cluster.get("crd/tasktrackerstacks.tasktracker.dev", "{.spec.names.shortNames[0]}"), "tts");
    let mut uninstall = helm(&cluster.plane.path(""));
    uninstall.args(["uninstall", "tasktracker-operator", "--namespace", SYSTEM, "--kubeconfig"]);
    succeeded(uninstall.arg(cluster.plane.path("administrator.yaml")));
    assert_eq!(cluster.get("tts/staging", "{.spec.revision}"), "3f2c1ab");
    let left = cluster.kubectl(&[
        "get",
        "deploy,clusterrole,clusterrolebinding,validatingadmissionpolicy",
        "-A",
        "-l",
        "app.kubernetes.io/name=tasktracker-operator",
        "-o",
        "name",
    ]);
    assert_eq!(left, "");
}

#[test]
fn a_definition_that_was_applied_by_hand_is_taken_over() {
    let cluster = Cluster::start();
    let older = tasktracker_crds::crd_yaml().unwrap().replace("- tts\n", "- older\n");
    cluster.apply(&older);
    let short_name = || cluster.get("crd/tasktrackerstacks.tasktracker.dev", "{.spec.names.shortNames[0]}");
    assert_eq!(short_name(), "older");
    let install = |more: &[&str]| {
        let mut command = helm(&cluster.plane.path(""));
        command.args(["install", "tasktracker-operator", "--namespace", SYSTEM, "--create-namespace"]);
        command.arg(chart()).arg("--kubeconfig").arg(cluster.plane.path("administrator.yaml"));
        let output = command.args(more).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (taken, said) = install(&[]);
    assert!(!taken && said.contains("invalid ownership metadata"), "{said}");
    let (taken, said) = install(&["--take-ownership", "--force-conflicts"]);
    assert!(taken, "{said}");
    assert_eq!(short_name(), "tts");
}
