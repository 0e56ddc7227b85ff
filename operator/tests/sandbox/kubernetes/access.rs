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

const CASES: [Case; 12] = [
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
        "upgrade",
        r#"{"spec":{"policy":{"upgrade":"Approve"}}}"#,
        "  policy: {upgrade: Approve}\n",
        "spec.policy.upgrade",
    ),
    in_spec(
        "windows",
        r#"{"spec":{"policy":{"windows":[{"cron":"0 3 * * *","duration":"1h"}]}}}"#,
        "  policy: {windows: [{cron: '0 3 * * *', duration: 1h}]}\n",
        "spec.policy.windows",
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

#[test]
fn only_who_may_approve_decides_what_is_rolled_out_and_when() {
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
            let role = format!("tasktracker-operator-{role}");
            let name = format!("{user}-{role}");
            cluster.kubectl(&[
                "create",
                "rolebinding",
                &name,
                &format!("--clusterrole={role}"),
                &format!("--user={user}"),
            ]);
        }
    }
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
        r#"{"spec":{"policy":{"deletion":"Down"}}}"#,
        r#"{"metadata":{"annotations":{"tasktracker.dev/reconcile":"1","team":"a"}}}"#,
    ] {
        let update = ["patch", "tts", "staging", "--type=merge", "-p", patch];
        decides(&as_user(&cluster, "editor", &update), None, patch);
        decides(&as_user(&cluster, "viewer", &update), Some("viewer"), patch);
    }
    for patch in [
        r#"{"metadata":{"annotations":{"tasktracker.dev/approve":null}}}"#,
        r#"{"spec":{"policy":{"upgrade":"Auto"}}}"#,
        r#"{"spec":{"policy":null}}"#,
    ] {
        let update = ["patch", "tts", "staging", "--type=merge", "-p", patch];
        decides(&as_user(&cluster, "editor", &update), Some("for those who have the verb approve"), patch);
    }
}
