use super::*;
use crate::plan::PeerFailure;

const ORDER: [&str; 3] = ["a", "b", "c"];

#[expect(clippy::unnecessary_wraps, reason = "beside hosts of which nothing is known")]
fn one(progress: Progress) -> Option<HostProgress> {
    Some(HostProgress {
        generation: "new".into(),
        progress,
        unavailable: false,
        blocked: false,
        preflight_failure: None,
    })
}

fn before() -> Option<HostProgress> {
    one(Progress::Before)
}

fn done() -> Option<HostProgress> {
    done_at(None)
}

fn done_at(since: Option<Timestamp>) -> Option<HostProgress> {
    one(Progress::Done { since, by_this_generation: true })
}

fn failed_on(host: &str, message: &str) -> Decision {
    Decision::Failed(PeerFailure { host: host.into(), message: message.into() })
}

fn down(standing: Option<HostProgress>) -> Option<HostProgress> {
    standing.map(|standing| HostProgress { unavailable: true, ..standing })
}

/// What each of three hosts may do.
fn decisions(hosts: [Option<HostProgress>; 3], most: usize) -> [Decision; 3] {
    let order = ORDER.map(str::to_owned);
    let hosts = ORDER.iter().zip(hosts).filter_map(|(name, one)| Some(((*name).to_owned(), one?))).collect();
    ORDER.map(|me| Fleet { order: &order, hosts: &hosts, me, generation: "new", most }.decide())
}

fn now(hosts: [Option<HostProgress>; 3], most: usize) -> Vec<&'static str> {
    let decisions = decisions(hosts, most);
    ORDER
        .into_iter()
        .zip(decisions)
        .filter(|(_, decision)| *decision == Decision::Proceed)
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn one_comes_first_and_then_as_many_as_may_be_unavailable() {
    assert_eq!(now([before(), before(), before()], 2), ["a"]);
    assert_eq!(
        now([one(Progress::Rolling), before(), before()], 2),
        ["a"],
        "it alone shows whether it is good"
    );
    assert_eq!(now([done(), before(), before()], 1), ["a", "b"]);
    assert_eq!(now([done(), before(), before()], 2), ["a", "b", "c"]);
    assert_eq!(now([done(), one(Progress::Rolling), before()], 1), ["b"]);
    assert_eq!(now([done(), one(Progress::Rolling), before()], 2), ["b", "c"]);
}

#[test]
fn nothing_is_begun_that_one_of_them_cannot_take() {
    let unfit = || {
        before().map(|one| HostProgress { blocked: true, preflight_failure: Some("no room".into()), ..one })
    };
    let told = decisions([before(), before(), unfit()], 1);
    assert_eq!(
        told[0],
        Decision::Wait("waiting for host c, which lacks what the rollout needs: no room".into())
    );
    assert_eq!(now([done(), before(), unfit()], 1), ["b"], "what was begun goes on");
    assert_eq!(now([down(before()), before(), unfit()], 1), ["a"], "who is missed is mended");
    let old = || done_at(None).map(|one| HostProgress { generation: "old".into(), ..one });
    assert_eq!(
        decisions([before(), before(), old()], 1)[0],
        Decision::Wait("waiting for the first check of host c".into())
    );
    assert_eq!(now([before(), before(), None], 2), ["a"], "one that cannot be checked is not waited for");
}

#[test]
fn who_is_missed_counts_as_unavailable_and_may_be_mended_all_the_same() {
    assert_eq!(now([None, before(), before()], 1), ["a"], "the one that cannot be checked");
    assert_eq!(now([None, before(), before()], 2), ["a", "b"]);
    assert_eq!(now([down(before()), before(), before()], 1), ["a"]);
    assert_eq!(
        now([down(before()), down(before()), down(before())], 1),
        ["a"],
        "all are broken: one is tried"
    );
    assert_eq!(now([down(done()), before(), before()], 1), ["a"], "what does not serve proves nothing");
    let told = decisions([done(), down(before()), before()], 1)[2].clone();
    assert_eq!(
        told,
        Decision::Wait("b does not serve or was not checked yet, and at most 1 may be unavailable".into())
    );
}

#[test]
fn what_failed_on_one_is_tried_on_no_other_and_taken_back() {
    let time = |second: i64| Timestamp::from_second(second).ok();
    let failed = |when| one(Progress::Failed { origin: None, message: "500".into(), when, first: false });
    let told = decisions([done_at(time(1)), failed(time(2)), before()], 1);
    assert_eq!([&told[0], &told[2]], [&failed_on("b", "500"), &failed_on("b", "500")]);
    let insisted = decisions([done_at(time(3)), failed(time(2)), before()], 1);
    assert!(matches!(insisted[0], Decision::Proceed | Decision::Wait(_)), "{insisted:?}");
    let new = one(Progress::Failed { origin: None, message: "no port".into(), when: time(2), first: true });
    let told = decisions([done_at(time(1)), new, before()], 1);
    assert_eq!(told[0], Decision::Proceed, "a new host may be what is not good");
    assert_eq!(told[2], failed_on("b", "no port"));
    let frozen = before().map(|one| HostProgress { blocked: true, ..one });
    assert_eq!(
        now([frozen, before(), before()], 1)[1..],
        ["b"],
        "nothing comes first where nothing is written"
    );
    let late = done_at(None).map(|one| HostProgress { generation: "old".into(), ..one });
    assert_eq!(now([late, before(), before()], 1), ["a"], "the first one does not know of it yet");
    let other = failed(time(2)).map(|standing| HostProgress { generation: "old".into(), ..standing });
    let told = decisions([before(), other, before()], 1)[0].clone();
    assert_eq!(
        told,
        Decision::Wait("waiting for the first check of host b".into()),
        "another desired state failed"
    );
}

#[test]
fn a_host_that_is_asked_for_nothing_new_keeps_what_it_has_when_a_peer_fails() {
    let time = |second: i64| Timestamp::from_second(second).ok();
    let failed = one(Progress::Failed { origin: None, message: "500".into(), when: time(2), first: false });
    let unaffected = one(Progress::Done { since: time(1), by_this_generation: false });
    let told = decisions([unaffected, failed, before()], 1);
    assert_eq!(told[0], Decision::Proceed);
    assert_eq!(told[2], failed_on("b", "500"));
}

fn stack() -> Stack {
    let text = include_str!("../../../../examples/staging.yaml");
    Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), "s.yaml".into())
}

fn key(stack: &Stack, host: &str) -> ProjectKey {
    ProjectKey { stack: stack.key.clone(), host: host.to_owned(), component: ComponentName::App }
}

fn evaluation(stack: &Stack, plan: plan::Plan) -> Evaluation {
    let project = component::app_project(stack, stack.spec.app.as_ref().unwrap());
    Evaluation { project, observed: crate::observe::Observed::default(), drift: Vec::new(), plan }
}

#[test]
fn a_permit_that_is_over_is_returned_and_wakes_the_peers() {
    let stack = stack();
    let evaluation = evaluation(&stack, plan::Plan::default());
    let key = key(&stack, stack.spec.hosts[0].name.as_str());
    let coordinator = RolloutCoordinator::default();
    coordinator.begin(&stack.key);
    let peer = ProjectKey { host: "other".to_owned(), ..key.clone() };
    let neighbour = ProjectKey { component: ComponentName::Echo, ..peer.clone() };
    let mut changes = [&key, &peer, &neighbour].map(|key| coordinator.peer_changes(key));
    let permit = coordinator.permit_rollout(&stack, &key, &evaluation).unwrap().unwrap();
    let counts = changes.each_mut().map(PeerChanges::of_peers);
    assert_eq!(counts, [0, 1, 0], "a project wakes neither itself nor other components");
    let progress = |coordinator: &RolloutCoordinator| {
        let stacks = coordinator.lock();
        stacks[&key.stack].components[&key.component].get(&key.host).map(|host| host.progress.clone())
    };
    assert_eq!(progress(&coordinator), Some(Progress::Rolling));
    drop(permit);
    assert_eq!(progress(&coordinator), None, "it may have failed");
}

#[test]
fn peers_know_of_a_failure_before_the_permit_is_free() {
    let stack = stack();
    let key = key(&stack, stack.spec.hosts[0].name.as_str());
    let change = diff::Change { desired_hash: "bad".to_owned(), ..diff::Change::default() };
    let waiting = plan::Waiting { reason: reasons::ROLLED_BACK, message: String::new(), change };
    let mut failed = evaluation(&stack, plan::Plan { waiting: Some(waiting), ..plan::Plan::default() });
    let mut ledger = crate::ledger::Ledger::empty("owner", "default/staging");
    ledger.failed = Some(crate::ledger::Failed {
        desired_hash: "bad".to_owned(),
        generation: failed.project.generation.clone(),
        when: String::new(),
        first: false,
        left: false,
        origin: None,
        revision: "bad".to_owned(),
        reason: reasons::UNHEALTHY.to_owned(),
        message: "500".to_owned(),
    });
    failed.observed.ledger = Some(ledger);
    let coordinator = RolloutCoordinator::default();
    coordinator.begin(&stack.key);
    let permit =
        coordinator.permit_rollout(&stack, &key, &evaluation(&stack, plan::Plan::default())).unwrap();
    coordinator.record(&stack, &key, &failed);
    drop(permit);
    let peer = ProjectKey { host: "other".to_owned(), ..key.clone() };
    assert_eq!(coordinator.decide(&stack, &peer, &failed.project), failed_on(&key.host, "500"));
}

#[test]
fn components_are_in_order_apart_from_one_another() {
    let stack = stack();
    let coordinator = RolloutCoordinator::default();
    coordinator.begin(&stack.key);
    let app = key(&stack, "app-1");
    let echo = ProjectKey { component: ComponentName::Echo, ..app.clone() };
    let quiet = evaluation(&stack, plan::Plan::default());
    let mut changes = coordinator.peer_changes(&ProjectKey { host: "other".to_owned(), ..app.clone() });
    for _ in 0..3 {
        coordinator.record(&stack, &app, &quiet);
        coordinator.record(&stack, &echo, &quiet);
    }
    assert_eq!(changes.of_peers(), 1, "two components of one host wake nobody by turns");
}

/// A project of which no two instances may be down; in force, and serving where `serves`.
fn serial(stack: &Stack, serves: bool) -> Evaluation {
    let mut serial = evaluation(stack, plan::Plan::default());
    let endpoint = crate::project::Endpoint::new(1, "/");
    let gate = crate::project::HttpProbe {
        endpoint,
        credentials: None,
        expect: crate::project::Expect::Status(200),
    };
    serial.project.services.get_mut("backend").unwrap().strategy = crate::project::Strategy::Serial { gate };
    // A release without services serves, and one with services does not where no container is.
    let project = if serves { Project::default() } else { serial.project.clone() };
    serial.observed.applied =
        Some(crate::release::Prepared::new(project, BTreeMap::new(), BTreeMap::new()).release);
    serial
}

#[test]
fn a_serial_component_has_one_instance_down_at_most_also_for_repairs() {
    let mut stack = stack();
    stack.spec.policy.rollout.max_unavailable = 3;
    for name in ["app-2", "app-3"] {
        let mut other = stack.spec.hosts[0].clone();
        other.name = serde_json::from_value(name.into()).unwrap();
        stack.spec.hosts.push(other);
    }
    let coordinator = RolloutCoordinator::default();
    coordinator.begin(&stack.key);
    let keys = ["app-1", "app-2", "app-3"].map(|host| key(&stack, host));
    let [one, two, three] = &keys;
    let (good, bad) = (serial(&stack, true), serial(&stack, false));
    let parallel = evaluation(&stack, plan::Plan::default());
    let waits_for = |key: &ProjectKey, evaluation: &Evaluation| match coordinator
        .urgent_permit(&stack, key, evaluation)
    {
        Ok(_) => None,
        Err(Error::PeerUnavailable { peer, most: 1 }) => Some(peer),
        Err(error) => panic!("{error}"),
    };
    let waits_for = |key: &ProjectKey, evaluation: &Evaluation| {
        let found = waits_for(key, evaluation);
        // What was permitted is recorded as it was.
        coordinator.record(&stack, key, evaluation);
        found
    };
    assert_eq!(waits_for(one, &good).as_deref(), Some("app-2"), "nothing is known of it");
    for key in &keys {
        coordinator.record(&stack, key, &good);
    }
    assert_eq!(waits_for(one, &good), None);

    let first = coordinator.urgent_permit(&stack, one, &good).unwrap();
    assert_eq!(waits_for(two, &good).as_deref(), Some("app-1"), "it is rolled out");
    assert_eq!(waits_for(three, &bad).as_deref(), Some("app-1"), "down itself, but one at a time");
    assert!(coordinator.urgent_permit(&stack, two, &parallel).is_ok(), "the policy allows three");
    drop(first);
    coordinator.record(&stack, two, &good);
    coordinator.record(&stack, three, &good);
    assert_eq!(waits_for(two, &good).as_deref(), Some("app-1"), "it may have failed");
    coordinator.record(&stack, one, &bad);
    assert_eq!(waits_for(two, &good).as_deref(), Some("app-1"), "it is down");
    coordinator.record(&stack, two, &bad);
    assert_eq!(waits_for(one, &bad), None, "what is down itself is repaired, though a peer is down");

    // A host that the spec names no longer counts no more.
    coordinator.record(&stack, one, &good);
    coordinator.record(&stack, two, &good);
    coordinator.record(&stack, three, &bad);
    assert_eq!(waits_for(one, &good).as_deref(), Some("app-3"));
    let mut smaller = stack.clone();
    smaller.spec.hosts.retain(|host| host.name.as_str() != "app-3");
    assert!(coordinator.urgent_permit(&smaller, one, &good).is_ok());
}

#[test]
fn a_check_that_ends_after_its_stack_went_leaves_nothing_behind() {
    let stack = stack();
    let coordinator = RolloutCoordinator::default();
    coordinator.begin(&stack.key);
    coordinator.end(&stack.key);
    let evaluation = evaluation(&stack, plan::Plan::default());
    coordinator.record(&stack, &key(&stack, "app-1"), &evaluation);
    coordinator.unavailable(&key(&stack, "app-1"));
    assert!(coordinator.permit_rollout(&stack, &key(&stack, "app-1"), &evaluation).is_err());
    assert!(coordinator.lock().is_empty());
}

#[test]
fn the_plan_that_the_spec_approves_is_that_of_all_hosts_and_lasts_though_the_first_is_done() {
    let mut stack = stack();
    let mut other = stack.spec.hosts[0].clone();
    other.name = serde_json::from_value("app-2".into()).unwrap();
    stack.spec.hosts.push(other);
    let waiting = |desired_hash: &str, waits: bool| {
        let change = diff::Change { desired_hash: desired_hash.into(), ..diff::Change::default() };
        let reason = if waits { reasons::APPROVAL_NEEDED } else { reasons::ROLLING_OUT };
        let waiting = Some(plan::Waiting { reason, message: String::new(), change });
        evaluation(&stack, plan::Plan { waiting, ..plan::Plan::default() })
    };
    let (one, two) = (waiting("one", true), waiting("two", true));
    let (another, done) = (waiting("another", true), waiting("done", false));
    let (first, second) = (key(&stack, "app-1"), key(&stack, "app-2"));
    let coordinator = RolloutCoordinator::default();
    coordinator.begin(&stack.key);
    let hash = plan::hash_of([("app-1", "app", one.plan.hash()), ("app-2", "app", two.plan.hash())]);
    let approve = |stack: &mut Stack, hash: &str| stack.spec.approved_plan = Some(hash.to_owned());
    approve(&mut stack, "0000");
    coordinator.record(&stack, &first, &one);
    coordinator.record(&stack, &second, &two);
    assert!(!coordinator.is_newly_approved(&stack, &first, &one));
    approve(&mut stack, &hash);
    let mut changes = coordinator.peer_changes(&first);
    changes.catch_up();
    coordinator.record(&stack, &second, &two);
    assert_ne!(changes.of_peers(), changes.known, "the others are woken");
    let is_approved =
        |stack: &Stack, key: &ProjectKey, one: &Evaluation| coordinator.is_newly_approved(stack, key, one);
    assert!(is_approved(&stack, &first, &one) && is_approved(&stack, &second, &two));
    let comes_first = Decision::Wait("app-1 comes first".into());
    let decision = |stack: &Stack| coordinator.decide(stack, &second, &two.project);
    assert_eq!(decision(&stack), comes_first, "it was checked before the first one was");
    coordinator.record(&stack, &first, &one);
    assert_eq!(decision(&stack), comes_first, "a check from before says nothing else");
    assert!(!is_approved(&stack, &second, &another), "exactly that plan");
    coordinator.record(&stack, &first, &done);
    assert!(is_approved(&stack, &second, &two), "the first is done");
    approve(&mut stack, "");
    coordinator.record(&stack, &first, &one);
    assert!(!is_approved(&stack, &first, &one), "it is withdrawn");
}

#[cfg(feature = "echo")]
#[test]
fn an_approval_can_be_limited_to_a_component() {
    let mut stack = stack();
    let settings = r#"{"image": "echo:r1"}"#;
    let annotate = |stack: &mut Stack, name: &str, value: &str| {
        let annotations = stack.resource.metadata.annotations.get_or_insert_default();
        annotations.insert(name.to_owned(), value.to_owned());
    };
    annotate(&mut stack, "tasktracker.dev/echo", settings);
    let waiting = |desired_hash: &str| {
        let change = diff::Change { desired_hash: desired_hash.into(), ..diff::Change::default() };
        let waiting = plan::Waiting { reason: reasons::APPROVAL_NEEDED, message: String::new(), change };
        evaluation(&stack, plan::Plan { waiting: Some(waiting), ..plan::Plan::default() })
    };
    let (one, two) = (waiting("one"), waiting("two"));
    let app = key(&stack, "app-1");
    let echo = ProjectKey { component: ComponentName::Echo, ..app.clone() };
    let coordinator = RolloutCoordinator::default();
    coordinator.begin(&stack.key);
    let hash = plan::hash_of([("app-1", "app", one.plan.hash()), ("app-1", "echo", two.plan.hash())]);
    let mut approved = |value: &str| {
        annotate(&mut stack, crate::source::APPROVE_ANNOTATION, value);
        coordinator.record(&stack, &app, &one);
        coordinator.record(&stack, &echo, &two);
        [(&app, &one), (&echo, &two)].map(|(key, one)| coordinator.is_newly_approved(&stack, key, one))
    };
    assert_eq!(approved("app:0000"), [false, false]);
    assert_eq!(approved(&format!("app:{hash}")), [true, false]);
    assert_eq!(approved(&format!("echo:{hash}")), [false, true]);
    assert_eq!(approved(&format!("app,echo:{hash}")), [true, true]);
    assert_eq!(approved(&format!("unknown:{hash}")), [false, false]);
    assert_eq!(approved(&hash), [true, true]);
}
