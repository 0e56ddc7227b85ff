use std::collections::BTreeMap;

use tasktracker_crds::{Answer, DriftKind, Upgrade};

use super::*;
use crate::{
    diff,
    host::{Container, Disk, Facts, NetworkOrVolume, Source},
    ledger::{Failed, Intent, Ledger, Signature},
    model::Unserved,
    observe::ImageAvailability,
    project::compose::COMPOSE_SERVICE,
    release::Prepared,
    source::Stack,
};

fn project(revision: &str) -> Project {
    let text = include_str!("../../../examples/staging.yaml").replace("3f2c1ab", revision);
    let stack = Stack::new(tasktracker_crds::validation::read_stack(&text).unwrap(), "staging.yaml".into());
    crate::component::app_project(&stack, stack.spec.app.as_ref().unwrap())
}

fn observed(revision: &str) -> Observed {
    let applied = Prepared::new(project(revision), BTreeMap::new(), BTreeMap::new()).release;
    Observed {
        ledger: Some(Ledger::empty("o", "default/staging")),
        applied: Some(applied),
        ..Observed::default()
    }
}

fn item(kind: DriftKind, service: Option<&str>, path: Option<&str>) -> DriftItem {
    DriftItem {
        host: "app-1".to_owned(),
        component: "app".to_owned(),
        service: service.map(str::to_owned),
        kind,
        path: path.map(str::to_owned),
        wanted: String::new(),
        found: String::new(),
        first_seen: None,
        answer: kind.answer(),
    }
}

fn words(drift: &[DriftItem], desired: &str, applied: &str) -> Vec<String> {
    let (desired, observed) = (project(desired), observed(applied));
    let plan = plan(drift, None, &desired, &observed, &PolicySpec::default(), Approval::Policy);
    plan.repairs.iter().map(|repair| repair.action.words()).collect()
}

#[test]
fn no_difference_is_an_empty_plan() {
    assert!(words(&[], "a", "a").is_empty());
}

#[test]
fn each_kind_gets_its_smallest_action() {
    let cases = [
        (item(DriftKind::Missing, Some("backend"), None), "create backend"),
        (item(DriftKind::Stopped, Some("backend"), Some("tt-b-1")), "start tt-b-1"),
        (item(DriftKind::ImageChanged, Some("backend"), Some("tt-b-1")), "recreate backend"),
        (item(DriftKind::FileMissing, None, Some("compose.yaml")), "write compose.yaml"),
        (item(DriftKind::FileMode, Some("edge"), Some("files/edge/Caddyfile")), "write files/edge/Caddyfile"),
        (item(DriftKind::Paused, Some("backend"), Some("tt-b-1")), "unpause tt-b-1"),
        (item(DriftKind::Unhealthy, Some("backend"), Some("tt-b-1")), "replace tt-b-1"),
        (item(DriftKind::Unhealthy, Some("edge"), Some("tt-e-1")), "restart tt-e-1 at once"),
        (item(DriftKind::ContentStale, Some("edge"), Some("tt-e-1/etc/caddy")), "restart tt-e-1"),
        (item(DriftKind::Restarting, Some("backend"), Some("tt-b-1")), "recreate backend"),
        (item(DriftKind::ConfigChanged, Some("backend"), Some("tt-b-1/mem_limit")), "update tt-b-1"),
        (item(DriftKind::ConfigChanged, Some("backend"), Some("tt-b-1/shm_size")), "recreate backend"),
        (
            item(DriftKind::ConfigChanged, Some("backend"), Some("tt-b-1/networks/other")),
            "disconnect tt-b-1 from other",
        ),
        (item(DriftKind::NotServing, Some("edge"), Some("3500/")), "reload edge"),
        (item(DriftKind::NetworkMissing, None, Some("tt-a")), "create network tt-a"),
        (item(DriftKind::Orphan, Some("backend"), Some("tt-b-9")), "remove orphan tt-b-9"),
    ];
    for (item, expected) in cases {
        assert_eq!(words(&[item], "a", "a"), [expected]);
    }
    let network = item(DriftKind::NetworkChanged, None, Some("tt-a/driver"));
    let mut there = observed("a");
    let container = |service: &str| {
        let labels = [(COMPOSE_SERVICE.to_owned(), service.to_owned())].into();
        Container { name: format!("{service}-1"), labels, ..Container::default() }
    };
    there.containers = ["backend", "edge", "unknown"].map(container).into();
    let joined = plan(&[network], None, &project("a"), &there, &PolicySpec::default(), Approval::Policy);
    let joined: Vec<String> = joined.repairs.iter().map(|repair| repair.action.words()).collect();
    let network = &there.applied.as_ref().unwrap().project.network;
    let connect = |service: &str| format!("connect {service}-1 to {network}");
    assert_eq!(joined, ["replace network tt-a".to_owned(), connect("backend"), connect("edge")]);
    let name = DriftItem {
        wanted: "tt-b-1".to_owned(),
        ..item(DriftKind::ConfigChanged, Some("backend"), Some("0a_tt-b-1/container_name"))
    };
    assert_eq!(words(&[name], "a", "a"), ["rename 0a_tt-b-1 to tt-b-1"]);
}

#[test]
fn what_the_smallest_action_did_not_mend_is_made_anew() {
    let (desired, mut observed) = (project("a"), observed("a"));
    let stopped = item(DriftKind::Stopped, Some("backend"), Some("tt-b-1"));
    let other = item(DriftKind::Stopped, Some("edge"), Some("tt-e-1"));
    let drift = [stopped.clone(), other];
    let ledger = observed.ledger.as_mut().unwrap();
    let cause = [(stopped.kind, stopped.path.clone())].into();
    ledger.attempts = ledger.attempts_after(&cause, Tried::Done, &drift);
    let plan = plan(&drift, None, &desired, &observed, &PolicySpec::default(), Approval::Policy);
    let words: Vec<String> = plan.repairs.iter().map(|repair| repair.action.words()).collect();
    assert_eq!(words, ["start tt-e-1", "recreate backend"]);
}

#[test]
fn what_is_ill_is_not_ended_where_another_one_beside_it_was_ill_too() {
    for (service, container, expected) in
        [("backend", "tt-b-1", "replace tt-b-1"), ("edge", "tt-e-1", "recreate edge")]
    {
        let (desired, mut observed) = (project("a"), observed("a"));
        let ill = [item(DriftKind::Unhealthy, Some(service), Some(container))];
        let ledger = observed.ledger.as_mut().unwrap();
        let cause = [(DriftKind::Unhealthy, ill[0].path.clone())].into();
        ledger.attempts = ledger.attempts_after(&cause, Tried::Done, &ill);
        let plan = plan(&ill, None, &desired, &observed, &PolicySpec::default(), Approval::Policy);
        let words: Vec<String> = plan.repairs.iter().map(|repair| repair.action.words()).collect();
        assert_eq!(words, [expected]);
    }
}

#[test]
fn what_hangs_is_ended_first_and_replaced_where_that_did_not_help() {
    let hung = |is_own_word| Unserved {
        path: "tt-b-1".to_owned(),
        container: Some("tt-b-1".to_owned()),
        is_own_word,
        ..Unserved::default()
    };
    for (unserved, tried, expected) in [
        (None, false, "replace tt-b-1"),
        (Some(hung(true)), false, "replace tt-b-1"),
        (Some(hung(false)), false, "restart tt-b-1 at once"),
        (Some(hung(false)), true, "replace tt-b-1"),
    ] {
        let (desired, mut observed) = (project("a"), observed("a"));
        let ill = [item(DriftKind::Unhealthy, Some("backend"), Some("tt-b-1"))];
        observed.unserved.extend(unserved);
        let ledger = observed.ledger.as_mut().unwrap();
        let cause = [(DriftKind::Unhealthy, ill[0].path.clone())].into();
        if tried {
            ledger.attempts = ledger.attempts_after(&cause, Tried::Done, &ill);
        }
        let plan = plan(&ill, None, &desired, &observed, &PolicySpec::default(), Approval::Policy);
        let words: Vec<String> = plan.repairs.iter().map(|repair| repair.action.words()).collect();
        assert_eq!(words, [expected], "{:?} {tried}", observed.unserved);
    }
}

#[test]
fn where_users_get_no_answer_each_step_is_tried_once_and_then_a_person() {
    let words = |service: &str, unserved: Unserved, tried: u32| {
        let (desired, mut observed) = (project("a"), observed("a"));
        let lost = item(DriftKind::NotServing, Some(service), Some(&unserved.path));
        observed.unserved = vec![unserved];
        observed.containers.push(Container {
            name: format!("tt-{service}-1"),
            labels: [(COMPOSE_SERVICE.to_owned(), service.to_owned())].into(),
            ..Container::default()
        });
        let ledger = observed.ledger.as_mut().unwrap();
        for _ in 0..tried {
            let cause = [(lost.kind, lost.path.clone())].into();
            ledger.attempts = ledger.attempts_after(&cause, Tried::Done, std::slice::from_ref(&lost));
        }
        let plan = plan(&[lost], None, &desired, &observed, &PolicySpec::default(), Approval::Policy);
        let now: Vec<String> = plan.repairs_now().map(|repair| repair.action.words()).collect();
        if now.is_empty() { format!("given up: {}", plan.given_up.join(", ")) } else { now.join(", ") }
    };
    let lost = |container: Option<&str>, is_port: bool| Unserved {
        path: "3500/".to_owned(),
        container: container.map(str::to_owned),
        is_port,
        ..Unserved::default()
    };
    for (service, unserved, expected) in [
        (
            "edge",
            lost(None, false),
            &["reload edge", "restart tt-edge-1", "recreate edge", "given up: recreate edge"][..],
        ),
        ("edge", lost(None, true), &["recreate edge", "given up: recreate edge"]),
        (
            "backend",
            lost(Some("tt-backend-1"), false),
            &["replace tt-backend-1", "recreate backend", "given up: recreate backend"],
        ),
    ] {
        let found: Vec<String> =
            (0..).take(expected.len()).map(|tried| words(service, unserved.clone(), tried)).collect();
        assert_eq!(found, expected, "{service} {unserved:?}");
    }
}

#[test]
fn what_was_refused_beside_something_else_is_tried_again_before_anything_bigger() {
    let words = |refused: u32| {
        let (desired, mut observed) = (project("a"), observed("a"));
        let stopped = item(DriftKind::Stopped, Some("backend"), Some("tt-b-1"));
        let ledger = observed.ledger.as_mut().unwrap();
        for _ in 0..refused {
            let cause = [(stopped.kind, stopped.path.clone())].into();
            let left = std::slice::from_ref(&stopped);
            ledger.attempts = ledger.attempts_after(&cause, Tried::RefusedByDocker, left);
        }
        let plan = plan(&[stopped], None, &desired, &observed, &PolicySpec::default(), Approval::Policy);
        plan.repairs.iter().map(|repair| repair.action.words()).collect::<Vec<_>>().join(", ")
    };
    assert_eq!([0, 1, 2].map(words), ["start tt-b-1", "start tt-b-1", "recreate backend"]);
}

#[test]
fn files_come_before_containers_and_the_compose_file_last_of_them() {
    let drift = [
        item(DriftKind::FileChanged, None, Some("compose.yaml")),
        item(DriftKind::FileMissing, Some("edge"), Some("files/edge/Caddyfile")),
        item(DriftKind::Missing, Some("backend"), None),
    ];
    assert_eq!(
        words(&drift, "a", "a"),
        ["write files/edge/Caddyfile", "write compose.yaml", "reload edge", "create backend"]
    );
}

#[test]
fn a_service_that_is_recreated_is_not_started_as_well() {
    let drift = [
        item(DriftKind::Stopped, Some("edge"), Some("tt-e-1")),
        item(DriftKind::ImageChanged, Some("edge"), Some("tt-e-2")),
    ];
    assert_eq!(words(&drift, "a", "a"), ["recreate edge"]);
}

#[test]
fn drift_is_healed_towards_the_applied_release_while_a_change_waits() {
    let (desired, observed) = (project("new"), observed("old"));
    let drift = [item(DriftKind::FileChanged, None, Some("compose.yaml"))];
    let change = diff::change(&desired, &observed);
    let policy = PolicySpec { upgrade: Upgrade::Approve, ..PolicySpec::default() };
    let plan = plan(&drift, change.clone(), &desired, &observed, &policy, Approval::Policy);
    let applied = observed.applied.as_ref().unwrap();
    let Action::WriteFile { sha256, source, .. } = &plan.repairs[0].action else {
        panic!("a file is written")
    };
    assert_eq!(*sha256, applied.files["compose.yaml"].sha256);
    assert_eq!(*source, Source::Copy(applied.stored("compose.yaml")));
    assert_eq!(plan.rollout, None);
    assert_eq!(plan.waiting.unwrap().reason, reasons::APPROVAL_NEEDED);
    let waiting_hash =
        super::plan(&[], change.clone(), &desired, &observed, &policy, Approval::Policy).hash();
    let released = super::plan(&[], change, &desired, &observed, &policy, Approval::Person);
    assert_eq!(released.hash(), waiting_hash, "what was shown is what is released");
    assert_eq!(released.rollout.unwrap().to_revision, "new");
}

#[test]
fn what_failed_once_is_not_tried_again_by_itself() {
    let (desired, mut observed) = (project("new"), observed("old"));
    let change = diff::change(&desired, &observed);
    let failed = Failed {
        desired_hash: desired.hash(&BTreeMap::new()),
        generation: String::new(),
        origin: None,
        when: String::new(),
        first: false,
        left: false,
        revision: "new".to_owned(),
        reason: "Unhealthy".to_owned(),
        message: "x".to_owned(),
    };
    observed.ledger.as_mut().unwrap().failed = Some(failed.clone());
    let again = || plan(&[], change.clone(), &desired, &observed, &PolicySpec::default(), Approval::Policy);
    assert_eq!((again().rollout, again().waiting.unwrap().reason), (None, "RolledBack"));
    // What was left for a person to examine is not even tidied up.
    let intent = Intent { plan: String::new(), desired_hash: None, stopped: BTreeMap::new() };
    let ledger = observed.ledger.as_mut().unwrap();
    (ledger.failed, ledger.intent) = (Some(Failed { left: true, ..failed }), Some(intent));
    let left = plan(&[], change, &desired, &observed, &PolicySpec::default(), Approval::Policy);
    assert_eq!((left.has_work(), left.waiting.unwrap().reason), (false, "RolloutHeld"));
    let other = project("newer");
    let change = diff::change(&other, &observed);
    assert!(plan(&[], change, &other, &observed, &PolicySpec::default(), Approval::Policy).rollout.is_some());
}

#[test]
fn what_stands_in_a_files_place_is_set_aside_before_the_files_behind_it_are_written() {
    let words = words(&[item(DriftKind::NotAFile, None, Some("files/edge"))], "a", "a");
    assert_eq!(words[..2], ["set files/edge aside", "write files/edge/Caddyfile"]);
    let upstreams = words[2..].iter().map(|words| words.rsplit_once('/').unwrap().0);
    let expected = ["backend", "frontend"].map(|service| format!("write files/edge/upstreams/{service}"));
    assert!(upstreams.eq(expected), "{words:?}");
}

#[test]
fn what_stands_in_a_folders_place_is_set_aside_before_anything_mounts_it() {
    let drift = [
        item(DriftKind::NotAFile, Some("edge"), Some("files/edge")),
        item(DriftKind::Missing, Some("edge"), None),
        item(DriftKind::Missing, Some("backend"), None),
    ];
    let (desired, observed) = (project("a"), observed("a"));
    let plan = plan(&drift, None, &desired, &observed, &PolicySpec::default(), Approval::Policy);
    let now = plan.repairs.iter().filter(|repair| !repair.later).map(|repair| repair.action.words());
    let expected = ["set files/edge aside", "write files/edge/Caddyfile", "create edge", "create backend"];
    let now = now.filter(|words| !words.contains("/upstreams/"));
    assert_eq!(now.collect::<Vec<_>>(), expected);
}

#[test]
fn a_stopped_container_whose_network_is_gone_is_made_anew() {
    let drift = [
        item(DriftKind::Stopped, Some("edge"), Some("tt-e-1")),
        item(DriftKind::NetworkMissing, None, Some("tt-a")),
    ];
    assert_eq!(words(&drift, "a", "a"), ["create network tt-a", "recreate edge"]);
}

#[test]
fn one_action_names_every_difference_that_it_ends() {
    let drift = [
        item(DriftKind::ConfigChanged, Some("edge"), Some("tt-e-1/mem_limit")),
        item(DriftKind::ConfigChanged, Some("edge"), Some("tt-e-1/cpus")),
    ];
    let (desired, observed) = (project("a"), observed("a"));
    let plan = plan(&drift, None, &desired, &observed, &PolicySpec::default(), Approval::Policy);
    assert_eq!(plan.repairs.len(), 1);
    let paths: Vec<&str> = plan.repairs[0].because.iter().filter_map(|(_, path)| path.as_deref()).collect();
    assert_eq!(paths, ["tt-e-1/mem_limit", "tt-e-1/cpus"]);
}

#[test]
fn the_hash_counts_what_is_done_and_not_what_was_found_beyond_that() {
    let (desired, observed) = (project("a"), observed("a"));
    let hash = |drift: &[DriftItem], policy: &PolicySpec| {
        plan(drift, None, &desired, &observed, policy, Approval::Policy).hash()
    };
    let stopped = item(DriftKind::Stopped, Some("edge"), Some("tt-e-1"));
    let told = DriftItem { found: "exited (137)".to_owned(), ..stopped.clone() };
    let extra = item(DriftKind::FileExtra, None, Some("notes"));
    let policy = PolicySpec::default();
    let first = hash(std::slice::from_ref(&stopped), &policy);
    assert_eq!(first, hash(&[told, extra], &policy));
    assert_ne!(first, hash(&[item(DriftKind::Paused, Some("edge"), Some("tt-e-1"))], &policy));
    let (elsewhere, there) = (project("b"), self::observed("b"));
    let other = plan(&[stopped], None, &elsewhere, &there, &policy, Approval::Policy);
    assert_ne!(first, other.hash(), "another desired state is another plan");
}

#[test]
fn the_hash_of_a_stack_does_not_depend_on_the_order_of_its_hosts() {
    let plans = [Plan::default(), Plan { desired_hash: "x".to_owned(), ..Plan::default() }];
    let (one, two) = (("a", "app", plans[0].hash()), ("b", "app", plans[1].hash()));
    assert_eq!(hash_of([one.clone(), two.clone()]), hash_of([two.clone(), one.clone()]));
    assert_ne!(hash_of([one.clone(), two]), hash_of([one]), "a host that was not read is not in it");
}

#[test]
fn what_is_held_is_planned_and_not_done() {
    let (desired, observed) = (project("a"), observed("a"));
    let drift = [item(DriftKind::Stopped, Some("edge"), Some("tt-e-1"))];
    let mut plan = plan(&drift, None, &desired, &observed, &PolicySpec::default(), Approval::Policy);
    assert!(plan.has_work());
    plan.hold = Some(Hold { reason: reasons::HELD, message: String::new() });
    assert!(!plan.has_work() && plan.repairs.len() == 1);
}

#[test]
fn kinds_that_are_only_reported_get_no_action() {
    for kind in DriftKind::ALL.iter().filter(|kind| kind.answer() == Answer::Report) {
        assert!(words(&[item(*kind, Some("edge"), Some("x"))], "a", "a").is_empty(), "{kind:?}");
    }
}

#[test]
fn a_rollout_that_may_begin_is_not_held_up_by_repairs_of_what_it_replaces() {
    let (desired, observed) = (project("new"), observed("old"));
    let change = diff::change(&desired, &observed);
    let drift = [item(DriftKind::Missing, Some("backend"), None)];
    let plan = plan(&drift, change, &desired, &observed, &PolicySpec::default(), Approval::Policy);
    assert_eq!((plan.repairs.len(), plan.rollout.is_some()), (0, true));
}

#[test]
fn the_spec_renders_what_a_damaged_copy_cannot_give_back() {
    let (desired, observed) = (project("a"), observed("a"));
    let drift = [item(DriftKind::FileMissing, None, Some("compose.yaml"))];
    let plan = plan(&drift, None, &desired, &observed, &PolicySpec::default(), Approval::Policy);
    assert!(matches!(&plan.repairs[0].action, Action::WriteFile { source: Source::Inline(_), .. }));
}

#[test]
fn the_environment_cannot_be_changed_not_even_by_a_person() {
    let (mut desired, observed) = (project("a"), observed("a"));
    desired.environment = "production".to_owned();
    let change = diff::change(&desired, &observed);
    let plan = plan(&[], change, &desired, &observed, &PolicySpec::default(), Approval::Person);
    assert_eq!(plan.waiting.unwrap().reason, reasons::INVALID_SPEC);
}

#[test]
fn nothing_is_written_where_the_projects_own_folder_is_none() {
    let drift = [item(DriftKind::NotAFile, None, Some(".")), item(DriftKind::Missing, Some("backend"), None)];
    let (desired, observed) = (project("a"), observed("a"));
    let plan = plan(&drift, None, &desired, &observed, &PolicySpec::default(), Approval::Person);
    assert!(!plan.repairs.is_empty() && plan.repairs_now().next().is_none(), "{plan:?}");
}

#[test]
fn a_service_whose_volume_is_gone_is_not_started() {
    let drift = [
        item(DriftKind::VolumeMissing, None, Some("tt-staging-app-data")),
        item(DriftKind::Missing, Some("backend"), None),
        item(DriftKind::Missing, Some("frontend"), None),
    ];
    let (desired, observed) = (project("a"), observed("a"));
    let plan = plan(&drift, None, &desired, &observed, &PolicySpec::default(), Approval::Policy);
    let now: Vec<String> = plan.repairs_now().map(|repair| repair.action.words()).collect();
    assert_eq!(now, ["create frontend"]);
}

#[test]
fn a_change_that_has_not_the_data_of_its_release_waits_even_for_a_person_who_does_not_say_so() {
    let (desired, applied) = (project("b"), observed("a"));
    let waits = |desired: &Project, observed: &Observed, approval| {
        let change = diff::change(desired, observed);
        let plan = plan(&[], change, desired, observed, &PolicySpec::default(), approval);
        plan.waiting.map(|waiting| (waiting.reason, waiting.message))
    };
    let with = |name: &str, there: bool| {
        let mut observed = applied.clone();
        let ledger = observed.ledger.as_mut().unwrap();
        ledger.current = observed.applied.as_ref().map(|applied| applied.id.clone());
        ledger.volumes.insert("data".to_owned(), name.to_owned());
        observed.volumes.insert(name.to_owned(), there.then(NetworkOrVolume::default));
        observed
    };
    let usual = "tt-staging-app-data";
    assert_eq!(waits(&desired, &with(usual, true), Approval::Policy), None);
    let mut without = desired.clone();
    without.volumes.clear();
    let cases = [
        (&desired, with(usual, false), "found none on the host"),
        (&desired, with("taken-over", true), "found tt-staging-app-data in the spec"),
        (&without, with(usual, true), "found none in the spec"),
    ];
    for (desired, observed, part) in cases {
        for approval in [Approval::Policy, Approval::Person] {
            let (reason, message) = waits(desired, &observed, approval).unwrap();
            assert!(reason == "DataWouldBeLeft" && message.contains(part), "{message}");
        }
        assert_eq!(waits(desired, &observed, Approval::LeavingData), None);
        // Where the first rollout failed, nothing was ever kept there.
        let mut first = Observed { applied: None, ..observed };
        first.ledger.as_mut().unwrap().current = None;
        assert_eq!(waits(desired, &first, Approval::Policy), None);
    }
}

#[test]
fn what_was_approved_and_cut_is_still_approved_and_what_is_over_is_concluded() {
    let (desired, mut observed) = (project("b"), observed("a"));
    let change = diff::change(&desired, &observed);
    let policy = PolicySpec { upgrade: Upgrade::Approve, ..PolicySpec::default() };
    let planned =
        |observed: &Observed| plan(&[], change.clone(), &desired, observed, &policy, Approval::Policy);
    assert_eq!(planned(&observed).waiting.unwrap().reason, "ApprovalNeeded");
    let mut open = |desired_hash: &str| {
        let intent = Intent {
            plan: String::new(),
            desired_hash: Some(desired_hash.to_owned()),
            stopped: BTreeMap::new(),
        };
        observed.ledger.as_mut().unwrap().intent = Some(intent);
        observed.clone()
    };
    assert!(planned(&open(&desired.hash(&BTreeMap::new()))).rollout.is_some());
    let other = planned(&open("another"));
    assert!(other.rollout.is_none() && other.clear_intent && other.has_work());
}

#[test]
fn what_failed_on_another_host_is_not_tried_and_goes_where_it_is_unless_that_was_tried_in_vain() {
    let (desired, mut observed) = (project("a"), observed("a"));
    let applied = observed.applied.clone().unwrap();
    let leave = RolloutGate {
        decision: Decision::Failed(PeerFailure { host: "app-2".into(), message: "500".into() }),
        ..Approval::Policy.into()
    };
    let planned =
        |observed: &Observed| plan(&[], None, &desired, observed, &PolicySpec::default(), leave.clone());
    assert_eq!(planned(&observed).rollback_to_previous, None, "there is nothing to go back to");
    observed.ledger.as_mut().unwrap().previous = Some("aa".into());
    let back = planned(&observed);
    assert_eq!(back.rollback_to_previous.as_ref().map(ToString::to_string).as_deref(), Some("app-2: 500"));
    assert!(back.has_work() && back.rollback_failed.is_none());
    let person = plan(&[], None, &desired, &observed, &PolicySpec::default(), Approval::Person);
    assert_eq!(person.rollback_to_previous, None, "a person who applies insists");
    let signature = Signature { epoch: 1, when: String::new(), who: String::new(), why: String::new() };
    let failed = Failed::new(&applied, "RolledBack", "the way back: x".into(), &signature);
    observed.ledger.as_mut().unwrap().failed = Some(failed);
    let rollback_failed = planned(&observed);
    assert_eq!(
        (rollback_failed.rollback_to_previous, rollback_failed.rollback_failed.as_deref()),
        (None, Some("the way back: x"))
    );
    // Where it is not in force, it is not tried.
    let newer = project("b");
    let change = diff::change(&newer, &observed);
    let refused = plan(&[], change, &newer, &observed, &PolicySpec::default(), leave);
    assert_eq!((refused.rollout, refused.waiting.unwrap().reason), (None, "RolledBack"));
}

#[test]
fn a_change_waits_for_room_and_for_images_even_where_a_person_asks_for_it() {
    let (desired, mut observed) = (project("b"), observed("a"));
    let change = diff::change(&desired, &observed);
    let reason = |observed: &Observed, approval| {
        let plan = plan(&[], change.clone(), &desired, observed, &PolicySpec::default(), approval);
        plan.waiting.map(|waiting| (waiting.reason, waiting.needs_person()))
    };
    let both = |observed: &Observed| [Approval::Policy, Approval::Person].map(|who| reason(observed, who));
    let awaited = |reason| Some((reason, "image x".to_owned()));
    observed.availability.pending = awaited("PullingImages");
    assert_eq!(both(&observed), [Some(("PullingImages", false)); 2]);
    observed.availability.pending = awaited("RegistryDenied");
    assert_eq!(both(&observed), [Some(("RegistryDenied", true)); 2]);
    // Where it is not known what a tag means, there is nothing to approve either.
    observed.availability.unresolved = awaited("RegistryUnavailable");
    let approve = PolicySpec { upgrade: Upgrade::Approve, ..PolicySpec::default() };
    let plan = plan(&[], change.clone(), &desired, &observed, &approve, Approval::Policy);
    assert_eq!(plan.waiting.unwrap().reason, "RegistryUnavailable");
    observed.availability = ImageAvailability::default();
    assert_eq!(both(&observed), [None, None]);
    let disk = |free_percent, free_inodes_percent| {
        let disk = Disk { place: "/".to_owned(), free_percent, free_inodes_percent };
        Observed { facts: Some(Facts { disks: vec![disk], ..Facts::for_tests() }), ..observed.clone() }
    };
    assert_eq!(both(&disk(2, 2)), [None, None]);
    assert_eq!(both(&disk(1, 50)), [Some(("PreflightFailed", true)); 2]);
    assert_eq!(both(&disk(50, 1)), [Some(("PreflightFailed", true)); 2]);
}

#[test]
fn a_change_waits_for_its_turn_and_for_a_window_and_a_cut_one_for_neither() {
    let (desired, mut observed) = (project("b"), observed("a"));
    let change = diff::change(&desired, &observed);
    let reason = |observed: &Observed, leave: RolloutGate| {
        let plan = plan(&[], change.clone(), &desired, observed, &PolicySpec::default(), leave);
        plan.waiting.map(|waiting| (waiting.reason, waiting.needs_person()))
    };
    let later =
        || RolloutGate { decision: Decision::Wait("app-1 comes first".into()), ..Approval::Policy.into() };
    let closed = || RolloutGate { closed: Some("until noon".into()), ..Approval::Policy.into() };
    assert_eq!(reason(&observed, later()), Some(("RollingOut", false)));
    assert_eq!(reason(&observed, closed()), Some(("WindowClosed", false)));
    assert_eq!(
        reason(&observed, RolloutGate { approval: Approval::Person, ..closed() }),
        None,
        "a person does not wait"
    );
    let intent = Intent {
        plan: String::new(),
        desired_hash: change.as_ref().map(|change| change.desired_hash.clone()),
        stopped: BTreeMap::new(),
    };
    observed.ledger.as_mut().unwrap().intent = Some(intent);
    assert_eq!((reason(&observed, later()), reason(&observed, closed())), (None, None));
}

#[test]
fn exactly_the_plan_that_was_approved_goes_ahead() {
    let (desired, mut observed) = (project("b"), observed("a"));
    let change = diff::change(&desired, &observed);
    let policy = PolicySpec { upgrade: Upgrade::Approve, ..PolicySpec::default() };
    let planned = |observed: &Observed, leave: RolloutGate| {
        plan(&[], change.clone(), &desired, observed, &policy, leave)
    };
    let by_spec = |plan: Option<String>| RolloutGate {
        approved: SpecApproval { plan, named: Some("spec.approvedPlan 77".into()) },
        ..Approval::Policy.into()
    };
    let waits = planned(&observed, by_spec(None));
    let hash = waits.hash();
    let told = waits.waiting.unwrap();
    assert_eq!(told.reason, reasons::APPROVAL_NEEDED);
    assert!(told.message.ends_with("found spec.approvedPlan 77"), "{}", told.message);

    // By the spec: at once, or kept on the host until it may begin.
    let now = planned(&observed, by_spec(Some(hash.clone())));
    assert!(now.rollout.is_some() && now.approve.is_some(), "{now:#?}");
    let closed =
        planned(&observed, RolloutGate { closed: Some("noon".into()), ..by_spec(Some(hash.clone())) });
    assert_eq!(closed.waiting.as_ref().unwrap().reason, reasons::WINDOW_CLOSED);
    assert_eq!(closed.approve.as_deref(), Some("spec.approvedPlan 77"));
    assert!(closed.has_work() && closed.hash() == hash);
    assert!(planned(&observed, by_spec(Some("other".into()))).rollout.is_none());

    // Kept on the host: it is enough, as long as it is the same plan.
    let signature = Signature { epoch: 1, when: "noon".into(), who: "eve".into(), why: String::new() };
    let keep = |observed: &mut Observed, plan: &str| {
        let ledger = observed.ledger.take().unwrap();
        observed.ledger = Some(ledger.with_approval(plan.into(), &signature));
    };
    keep(&mut observed, &hash);
    let kept = planned(&observed, Approval::Policy.into());
    assert!(kept.rollout.is_some() && kept.approve.is_none());
    let closed = planned(&observed, RolloutGate { closed: Some("noon".into()), ..by_spec(Some(hash)) });
    assert!(closed.approve.is_none() && !closed.has_work(), "it is kept again and again");
    keep(&mut observed, "0123");
    let told = planned(&observed, Approval::Policy.into()).waiting.unwrap();
    assert!(told.message.contains("what eve approved (noon) was plan 0123"), "{}", told.message);
}

#[test]
fn nothing_begins_where_somebody_else_has_a_port_even_for_a_person() {
    let (desired, mut observed) = (project("b"), observed("a"));
    let change = diff::change(&desired, &observed);
    let told = |observed: &Observed| {
        let plan = plan(&[], change.clone(), &desired, observed, &PolicySpec::default(), Approval::Person);
        plan.waiting.map(|waiting| (waiting.reason, waiting.message))
    };
    assert_eq!(told(&observed), None);
    observed.others.push(crate::host::Container {
        name: "other".into(),
        published: vec![crate::host::Published { port: 3500, protocol: "tcp".into(), address: None }],
        ..crate::host::Container::default()
    });
    let (reason, message) = told(&observed).unwrap();
    assert_eq!(reason, "PreflightFailed");
    assert!(
        message.contains("port 3500: expected it to be free for edge, found the container other"),
        "{message}"
    );
    observed.others.clear();
    observed.taken_ports = [8000].into();
    assert!(told(&observed).unwrap().1.contains("something that is no container listening there"));
}

#[test]
fn an_approval_alone_is_no_sign_that_data_is_here() {
    let desired = project("b");
    let change = diff::change(&desired, &Observed::default());
    let mut observed = Observed::default();
    observed.remembered.elsewhere = Some(("app-0".into(), "tt-staging-app-data".into()));
    let reason = |observed: &Observed| {
        let policy = PolicySpec::default();
        let plan = plan(&[], change.clone(), &desired, observed, &policy, Approval::Policy);
        plan.waiting.map(|waiting| waiting.reason)
    };
    assert_eq!(reason(&observed), Some(reasons::DATA_WOULD_BE_LEFT));
    let signature = Signature { epoch: 1, when: "noon".into(), who: "eve".into(), why: String::new() };
    observed.ledger = Some(Ledger::empty("o", "s").with_approval("0123".into(), &signature));
    assert_eq!(reason(&observed), Some(reasons::DATA_WOULD_BE_LEFT));
    let data = desired.volumes_of(crate::project::VolumeRole::Data);
    let data = data.map(|(inside, name)| (inside.clone(), name.clone())).collect();
    observed.ledger.as_mut().unwrap().volumes = data;
    assert_eq!(reason(&observed), None, "what was begun here is here");
}
