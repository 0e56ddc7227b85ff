//! Who may do what, by the chart's roles and its admission policy, as the API server decides.

use std::{fs, process::Output};

use tasktracker_testbed::ControlPlaneOptions;

use super::cluster::Cluster;

const STACK: &str = include_str!("../../../../examples/staging.yaml");

/// A change that needs the verb `approve`: what is put where, and what it is refused with.
struct Case {
    what: &'static str,
    /// Patch of an object that is there.
    patch: &'static str,
    /// The same in a new object: annotations, and lines of its spec.
    annotation: &'static str,
    spec: &'static str,
    refused: &'static str,
}

const CASES: [Case; 10] = [
    annotation(
        "approve",
        r#"{"metadata":{"annotations":{"tasktracker.dev/approve":"0123"}}}"#,
        "tasktracker.dev/approve: '0123'",
    ),
    annotation(
        "rollback",
        r#"{"metadata":{"annotations":{"tasktracker.dev/rollback":"previous"}}}"#,
        "tasktracker.dev/rollback: previous",
    ),
    annotation(
        "retry",
        r#"{"metadata":{"annotations":{"tasktracker.dev/retry":"1"}}}"#,
        "tasktracker.dev/retry: '1'",
    ),
    annotation(
        "adopt",
        r#"{"metadata":{"annotations":{"tasktracker.dev/adopt":"1"}}}"#,
        "tasktracker.dev/adopt: '1'",
    ),
    annotation(
        "leave-data",
        r#"{"metadata":{"annotations":{"tasktracker.dev/leave-data":"1"}}}"#,
        "tasktracker.dev/leave-data: '1'",
    ),
    annotation(
        "delete-host",
        r#"{"metadata":{"annotations":{"tasktracker.dev/delete-host":"app-2@1/volumes"}}}"#,
        "tasktracker.dev/delete-host: 'app-2@1/volumes'",
    ),
    in_spec(
        "approvedPlan",
        r#"{"spec":{"approvedPlan":"0123"}}"#,
        "  approvedPlan: '0123'\n",
        "spec.approvedPlan",
    ),
    in_spec(
        "rollout",
        r#"{"spec":{"policy":{"rollout":{"soak":"1s"}}}}"#,
        "  policy: {rollout: {soak: 1s}}\n",
        "spec.policy.rollout",
    ),
    in_spec(
        "deletion",
        r#"{"spec":{"policy":{"deletion":"DownAndVolumes"}}}"#,
        "  policy: {deletion: DownAndVolumes}\n",
        "spec.policy.deletion DownAndVolumes",
    ),
    in_spec(
        "onFailure",
        r#"{"spec":{"policy":{"rollout":{"onFailure":"Hold"}}}}"#,
        "  policy: {rollout: {onFailure: Hold}}\n",
        "spec.policy.rollout",
    ),
];

const fn annotation(what: &'static str, patch: &'static str, annotation: &'static str) -> Case {
    Case {
        what,
        patch,
        annotation,
        spec: "",
        refused: "the annotations approve, rollback, retry, adopt, leave-data and delete-host",
    }
}

const fn in_spec(what: &'static str, patch: &'static str, spec: &'static str, refused: &'static str) -> Case {
    Case { what, patch, annotation: "", spec, refused }
}

/// `kubectl` as a user.
fn as_user(cluster: &Cluster, user: &str, arguments: &[&str]) -> Output {
    cluster.plane.kubectl_as(user).unwrap().args(arguments).output().unwrap()
}

#[track_caller]
fn decides(output: &Output, refused: Option<&str>, what: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    match refused {
        None => assert!(output.status.success(), "{what}: {said}"),
        Some(words) => assert!(
            !output.status.success() && said.contains(words) && said.contains("orbidden"),
            "{what}: {said}"
        ),
    }
}

/// A cluster with people who have the chart's roles.
fn with_people() -> Cluster {
    let users = ["editor", "approver", "viewer", "releaser"].map(str::to_owned).to_vec();
    let cluster = Cluster::with_chart(&ControlPlaneOptions { users }, &[]);
    // What the controller of a whole cluster would aggregate into `edit` and `view`.
    for (user, roles) in [
        ("editor", &["view", "edit"][..]),
        ("approver", &["view", "edit", "approve"]),
        ("viewer", &["view"]),
        ("releaser", &["approve"]),
    ] {
        for role in roles {
            bind(&cluster, "default", user, role);
        }
    }
    cluster
}

fn bind(cluster: &Cluster, namespace: &str, user: &str, role: &str) {
    let role = format!("tasktracker-operator-{role}");
    let name = format!("{user}-{role}");
    let (role, user) = (format!("--clusterrole={role}"), format!("--user={user}"));
    cluster.kubectl(&["create", "rolebinding", &name, &role, &user, "--namespace", namespace]);
}

#[test]
fn only_who_may_approve_decides_what_is_rolled_out_and_when() {
    let cluster = with_people();
    cluster.apply(STACK);
    for Case { what, patch, annotation, spec, refused } in CASES {
        let annotations =
            if annotation.is_empty() { String::new() } else { format!("\n  annotations: {{{annotation}}}") };
        let text = STACK.replace("  name: staging\n", &format!("  name: other{annotations}\n"));
        let file = cluster.plane.path("stack.yaml");
        fs::write(&file, format!("{text}\n{spec}")).unwrap();
        let file = file.display().to_string();
        for (user, refused) in [("editor", Some(refused)), ("approver", None)] {
            let update = ["patch", "tts", "staging", "--dry-run=server", "--type=merge", "-p", patch];
            decides(&as_user(&cluster, user, &update), refused, &format!("{user} updates {what}"));
            let create = ["create", "--dry-run=server", "-f", &file];
            decides(&as_user(&cluster, user, &create), refused, &format!("{user} creates {what}"));
        }
    }
    // The role by itself is enough for `approve`.
    decides(&as_user(&cluster, "releaser", &["get", "tts", "staging"]), None, "releaser reads");
    let approval =
        [&["patch", "tts", "staging", "--dry-run=server", "--type=merge", "-p"][..], &[CASES[0].patch]];
    decides(&as_user(&cluster, "releaser", &approval.concat()), None, "releaser approves");
    // What anybody who edits may do, whatever an approver set before.
    let approved = r#"{"metadata":{"annotations":{"tasktracker.dev/approve":"0123"}},"spec":{"policy":{"upgrade":"Approve","rollout":{"soak":"1s"}}}}"#;
    cluster.kubectl(&["patch", "tts", "staging", "--type=merge", "-p", approved]);
    for patch in [
        r#"{"spec":{"revision":"4d8e2f0"}}"#,
        r#"{"spec":{"policy":{"heal":"Report"}}}"#,
        r#"{"metadata":{"annotations":{"tasktracker.dev/reconcile":"1","team":"a"}}}"#,
    ] {
        let update = ["patch", "tts", "staging", "--type=merge", "-p", patch];
        decides(&as_user(&cluster, "editor", &update), None, patch);
        decides(&as_user(&cluster, "viewer", &update), Some("viewer"), patch);
    }
    for patch in [
        r#"{"metadata":{"annotations":{"tasktracker.dev/approve":null}}}"#,
        r#"{"spec":{"policy":{"upgrade":"Auto"}}}"#,
        r#"{"spec":{"policy":{"deletion":"Down"}}}"#,
        r#"{"spec":{"policy":null}}"#,
    ] {
        let update = ["patch", "tts", "staging", "--type=merge", "-p", patch];
        decides(&as_user(&cluster, "editor", &update), Some("for those who have the verb approve"), patch);
    }
}

/// A stack with a policy, as a file for `kubectl`.
fn file_of(cluster: &Cluster, name: &str, policy: &str) -> String {
    let file = cluster.plane.path(&format!("{name}.yaml"));
    let text = STACK.replace("  name: staging\n", &format!("  name: {name}\n"));
    fs::write(&file, format!("{text}\n  policy: {policy}\n")).unwrap();
    file.display().to_string()
}

/// A policy as people write it, the policy that replaces it, and whether everybody who edits may do that.
const CHANGES: [(&str, &str, bool); 14] = [
    ("{}", r#"{"upgrade":"Approve"}"#, true),
    ("{}", r#"{"windows":[{"cron":"0 3 * * *","duration":"1h"}]}"#, true),
    ("{}", r#"{"deletion":"Down"}"#, true),
    ("{upgrade: Approve}", r#"{"upgrade":"Auto"}"#, false),
    ("{upgrade: Approve}", r#"{"deletion":"Down"}"#, false),
    ("{upgrade: Approve}", r#"{"upgrade":"Auto","deletion":"Down"}"#, false),
    ("{upgrade: Approve, deletion: Down}", r#"{"deletion":"Retain"}"#, true),
    ("{upgrade: Approve, deletion: Down}", r#"{"deletion":null}"#, true),
    ("{upgrade: Approve, deletion: Down}", r#"{"deletion":"DownAndVolumes"}"#, false),
    ("{upgrade: Approve, deletion: DownAndVolumes}", r#"{"deletion":"Down"}"#, true),
    ("{windows: [{cron: '0 3 * * *', duration: 1h}]}", r#"{"windows":null}"#, false),
    (
        "{windows: [{cron: '0 3 * * *', duration: 1h}]}",
        r#"{"windows":[{"cron":"* * * * *","duration":"1h"}]}"#,
        false,
    ),
    ("{windows: [{cron: '0 3 * * *', duration: 1h}]}", r#"{"upgrade":"Approve"}"#, true),
    ("{windows: [{cron: '0 3 * * *', duration: 1h}]}", r#"{"deletion":"Down"}"#, false),
];

/// A policy, and whether everybody who edits may delete such a stack.
const DELETIONS: [(&str, bool); 7] = [
    ("{}", true),
    ("{deletion: Down}", true),
    ("{upgrade: Approve}", true),
    ("{upgrade: Approve, deletion: Down}", false),
    ("{upgrade: Approve, deletion: DownAndVolumes}", false),
    ("{windows: [{cron: '0 3 * * *', duration: 1h}]}", true),
    ("{windows: [{cron: '0 3 * * *', duration: 1h}], deletion: Down}", false),
];

const NEEDS_APPROVE: &str = "for those who have the verb approve on tasktrackerstacks";

#[test]
fn rules_about_rollouts_are_made_stricter_by_everybody_and_weaker_by_approvers() {
    let cluster = with_people();
    for (policy, change, is_for_all) in CHANGES {
        let file = file_of(&cluster, "changed", policy);
        cluster.kubectl(&["apply", "-f", &file]);
        let patch = format!(r#"{{"spec":{{"policy":{change}}}}}"#);
        let update = ["patch", "tts", "changed", "--dry-run=server", "--type=merge", "-p", &patch];
        let what = format!("{policy} to {change}");
        decides(&as_user(&cluster, "editor", &update), (!is_for_all).then_some(NEEDS_APPROVE), &what);
        decides(&as_user(&cluster, "approver", &update), None, &what);
        cluster.kubectl(&["delete", "tts", "changed"]);
    }
    for policy in ["{upgrade: Approve}", "{windows: [{cron: '0 3 * * *', duration: 1h}]}"] {
        let file = file_of(&cluster, "new", policy);
        let create = ["create", "--dry-run=server", "-f", &file];
        decides(&as_user(&cluster, "editor", &create), None, &format!("creates {policy}"));
    }
}

#[test]
fn what_waits_for_approval_does_not_get_out_by_delete_and_create() {
    let cluster = with_people();
    let delete = ["delete", "tts", "kept", "--dry-run=server"];
    for (policy, is_for_all) in DELETIONS {
        let file = file_of(&cluster, "kept", policy);
        cluster.kubectl(&["apply", "-f", &file]);
        let what = format!("deletes {policy}");
        decides(&as_user(&cluster, "editor", &delete), (!is_for_all).then_some(NEEDS_APPROVE), &what);
        decides(&as_user(&cluster, "approver", &delete), None, &what);
        cluster.kubectl(&["delete", "tts", "kept"]);
    }
    let file = file_of(&cluster, "kept", "{upgrade: Approve, deletion: Down}");
    cluster.kubectl(&["apply", "-f", &file]);
    for arguments in
        [&["delete", "tts", "kept"][..], &["delete", "tts", "--all"], &["replace", "--force", "-f", &file]]
    {
        decides(&as_user(&cluster, "editor", arguments), Some(NEEDS_APPROVE), &arguments.join(" "));
    }
    assert_eq!(cluster.get("tts/kept", "{.metadata.deletionTimestamp}"), "", "it is being deleted");

    // With the namespace goes everything in it: that is not for those who edit.
    cluster.kubectl(&["create", "namespace", "leaving"]);
    for role in ["view", "edit"] {
        bind(&cluster, "leaving", "editor", role);
    }
    cluster.kubectl(&["apply", "-f", &file, "--namespace", "leaving"]);
    let there = ["delete", "tts", "kept", "--dry-run=server", "--namespace", "leaving"];
    decides(&as_user(&cluster, "editor", &there), Some(NEEDS_APPROVE), "the namespace is there");
    cluster.kubectl(&["delete", "namespace", "leaving", "--wait=false"]);
    decides(&as_user(&cluster, "editor", &there), None, "the namespace is being deleted");
}
