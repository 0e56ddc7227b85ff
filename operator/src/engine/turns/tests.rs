use super::*;

const ORDER: [&str; 3] = ["a", "b", "c"];

#[expect(clippy::unnecessary_wraps, reason = "beside hosts of which nothing is known")]
fn one(progress: Progress) -> Option<Standing> {
    Some(Standing { wanted: "new".into(), progress, missed: false, held: false, unfit: None })
}

fn before() -> Option<Standing> {
    one(Progress::Before)
}

fn done() -> Option<Standing> {
    one(Progress::Done(None))
}

fn down(standing: Option<Standing>) -> Option<Standing> {
    standing.map(|standing| Standing { missed: true, ..standing })
}

/// What each of three hosts may do.
fn turns(hosts: [Option<Standing>; 3], most: usize) -> [Turn; 3] {
    let order = ORDER.map(str::to_owned);
    let hosts = ORDER.iter().zip(hosts).filter_map(|(name, one)| Some(((*name).to_owned(), one?))).collect();
    ORDER.map(|me| decide(&order, &hosts, me, "new", most))
}

fn now(hosts: [Option<Standing>; 3], most: usize) -> Vec<&'static str> {
    let turns = turns(hosts, most);
    ORDER.into_iter().zip(turns).filter(|(_, turn)| *turn == Turn::Now).map(|(name, _)| name).collect()
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
    let unfit = || before().map(|one| Standing { held: true, unfit: Some("no room".into()), ..one });
    let told = turns([before(), before(), unfit()], 1);
    assert_eq!(told[0], Turn::Later("nothing is begun before c has what it needs: no room".into()));
    assert_eq!(now([done(), before(), unfit()], 1), ["b"], "what was begun goes on");
    assert_eq!(now([down(before()), before(), unfit()], 1), ["a"], "who is missed is mended");
    let old = || one(Progress::Done(None)).map(|one| Standing { wanted: "old".into(), ..one });
    assert_eq!(turns([before(), before(), old()], 1)[0], Turn::Later("c is looked at first".into()));
    assert_eq!(now([before(), before(), None], 2), ["a"], "one that cannot be looked at is not waited for");
}

#[test]
fn who_is_missed_counts_as_unavailable_and_may_be_mended_all_the_same() {
    assert_eq!(now([None, before(), before()], 1), ["a"], "the one that cannot be looked at");
    assert_eq!(now([None, before(), before()], 2), ["a", "b"]);
    assert_eq!(now([down(before()), before(), before()], 1), ["a"]);
    assert_eq!(
        now([down(before()), down(before()), down(before())], 1),
        ["a"],
        "all are broken: one is tried"
    );
    assert_eq!(now([down(done()), before(), before()], 1), ["a"], "what does not serve proves nothing");
    let told = turns([done(), down(before()), before()], 1)[2].clone();
    assert_eq!(
        told,
        Turn::Later("b does not serve or was not looked at yet, and at most 1 may be unavailable".into())
    );
}

#[test]
fn what_failed_on_one_is_tried_on_no_other_and_taken_back() {
    let time = |second: i64| Timestamp::from_second(second).ok();
    let failed = |when| one(Progress::Failed { message: "500".into(), when, first: false });
    let told = turns([one(Progress::Done(time(1))), failed(time(2)), before()], 1);
    assert_eq!([&told[0], &told[2]], [&Turn::Failed("b: 500".into()), &Turn::Failed("b: 500".into())]);
    let insisted = turns([one(Progress::Done(time(3))), failed(time(2)), before()], 1);
    assert!(matches!(insisted[0], Turn::Now | Turn::Later(_)), "{insisted:?}");
    let new = one(Progress::Failed { message: "no port".into(), when: time(2), first: true });
    let told = turns([one(Progress::Done(time(1))), new, before()], 1);
    assert_eq!(told[0], Turn::Now, "a new host may be what is not good");
    assert_eq!(told[2], Turn::Failed("b: no port".into()));
    let frozen = before().map(|one| Standing { held: true, ..one });
    assert_eq!(
        now([frozen, before(), before()], 1)[1..],
        ["b"],
        "nothing comes first where nothing is written"
    );
    let late = one(Progress::Done(None)).map(|one| Standing { wanted: "old".into(), ..one });
    assert_eq!(now([late, before(), before()], 1), ["a"], "the first one does not know of it yet");
    let other = failed(time(2)).map(|standing| Standing { wanted: "old".into(), ..standing });
    let told = turns([before(), other, before()], 1)[0].clone();
    assert_eq!(told, Turn::Later("b is looked at first".into()), "another desired state failed");
}

#[test]
fn a_turn_that_is_over_is_given_back_and_everybody_hears_of_it() {
    let text = include_str!("../../../../examples/staging.yaml");
    let stack = Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), "s.yaml".into());
    let project = crate::desired::app_project(&stack, stack.spec.app.as_ref().unwrap());
    let look = Look {
        project,
        observed: crate::observe::Observed::default(),
        drift: Vec::new(),
        plan: crate::plan::Plan::default(),
    };
    let host = stack.spec.hosts[0].name.to_string();
    let turns = Turns::default();
    let (mut own, mut other) = (turns.news(&stack.key, &host), turns.news(&stack.key, "other"));
    let taken = turns.take(&stack, &host, &look).unwrap();
    assert_eq!((own.of_others(), other.of_others()), (0, 1), "a host does not wake itself");
    assert_eq!(turns.lock()[&stack.key].hosts[&host].progress, Progress::Rolling);
    drop(taken);
    assert!(turns.lock()[&stack.key].hosts.is_empty(), "it may have failed");
}

#[test]
fn the_plan_that_the_spec_approves_is_that_of_all_hosts_and_lasts_though_the_first_is_done() {
    let text = include_str!("../../../../examples/staging.yaml");
    let mut stack = Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), "s.yaml".into());
    let mut other = stack.spec.hosts[0].clone();
    other.name = serde_json::from_value("app-2".into()).unwrap();
    stack.spec.hosts.push(other);
    let project = crate::desired::app_project(&stack, stack.spec.app.as_ref().unwrap());
    let look = |desired_hash: &str, waits: bool| {
        let change = diff::Change { desired_hash: desired_hash.into(), ..diff::Change::default() };
        let reason = if waits { reasons::APPROVAL_NEEDED } else { reasons::ROLLING_OUT };
        let waiting = Some(plan::Waiting { reason, message: String::new(), change });
        let plan = plan::Plan { waiting, ..plan::Plan::default() };
        let observed = crate::observe::Observed::default();
        Look { project: project.clone(), observed, drift: Vec::new(), plan }
    };
    let turns = Turns::default();
    let (one, two) = (look("one", true), look("two", true));
    let hash = plan::hash_of([("app-1", "app", one.plan.hash()), ("app-2", "app", two.plan.hash())]);
    let approve = |stack: &mut Stack, hash: &str| stack.spec.approved_plan = Some(hash.to_owned());
    approve(&mut stack, "0000");
    turns.saw(&stack, "app-1", &one);
    turns.saw(&stack, "app-2", &two);
    assert!(!turns.grants(&stack, "app-1", &one));
    approve(&mut stack, &hash);
    let mut news = turns.news(&stack.key, "app-1");
    news.catch_up();
    turns.saw(&stack, "app-2", &two);
    assert_ne!(news.of_others(), news.known, "the others hear of it");
    assert!(turns.grants(&stack, "app-1", &one) && turns.grants(&stack, "app-2", &two));
    let comes_first = Turn::Later("app-1 comes first".into());
    let second = || turns.of(&stack, "app-2", &project);
    assert_eq!(second(), comes_first, "it heard of it before the first one did");
    turns.saw(&stack, "app-1", &one);
    assert_eq!(second(), comes_first, "a look from before says nothing else");
    assert!(!turns.grants(&stack, "app-2", &look("another", true)), "exactly that plan");
    turns.saw(&stack, "app-1", &look("done", false));
    assert!(turns.grants(&stack, "app-2", &two), "the first is done");
    approve(&mut stack, "");
    turns.saw(&stack, "app-1", &one);
    assert!(!turns.grants(&stack, "app-1", &one), "it is withdrawn");
}
