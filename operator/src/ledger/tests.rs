use tasktracker_crds::Answer;

use super::*;
use crate::{release::Prepared, source::Stack};

fn item(kind: DriftKind, path: &str) -> DriftItem {
    DriftItem {
        host: "h".to_owned(),
        component: "app".to_owned(),
        service: Some("s".to_owned()),
        kind,
        path: Some(path.to_owned()),
        wanted: "a".to_owned(),
        found: "b".to_owned(),
        first_seen: None,
        answer: Answer::Heal,
    }
}

#[test]
fn what_was_repaired_three_times_in_vain_is_given_up_until_it_is_gone() {
    let (kind, path) = (DriftKind::ConfigChanged, "c/ulimits/nofile".to_owned());
    let cause = BTreeSet::from([(kind, Some(path.clone()))]);
    let left = [item(kind, &path)];
    let mut ledger = Ledger::empty("o", "default/a");
    for _ in 0..TRIES {
        assert!(!ledger.gave_up(kind, Some(&path)));
        // What the host refuses says nothing of what would come of it.
        ledger.attempts = ledger.attempts_after(&cause, Tried::Refused, &left);
        assert!(ledger.was_refused(kind, Some(&path)));
        ledger.attempts = ledger.attempts_after(&cause, Tried::Done, &left);
    }
    assert!(ledger.gave_up(kind, Some(&path)));
    // Another difference of the same container was not tried.
    assert!(!ledger.gave_up(kind, Some(&"c/user".to_owned())));
    let nothing = BTreeSet::new();
    assert_eq!(ledger.attempts_after(&nothing, Tried::Done, &left), ledger.attempts, "looking is no attempt");
    ledger.attempts = ledger.attempts_after(&nothing, Tried::Done, &[]);
    assert!(!ledger.gave_up(kind, Some(&path)), "it was gone in between");
}

#[test]
fn a_service_without_containers_is_given_up_by_itself() {
    let missing = |service: &str| DriftItem {
        service: Some(service.to_owned()),
        path: None,
        ..item(DriftKind::Missing, "")
    };
    let left = [missing("backend"), missing("frontend")];
    let cause = |service: &str| BTreeSet::from([(DriftKind::Missing, Some(service.to_owned()))]);
    let mut ledger = Ledger::empty("o", "default/a");
    for _ in 0..TRIES {
        ledger.attempts = ledger.attempts_after(&cause("frontend"), Tried::Done, &left);
    }
    let gave_up = |service: &str| ledger.gave_up(DriftKind::Missing, Some(&service.to_owned()));
    assert_eq!([gave_up("frontend"), gave_up("backend")], [true, false]);
}

#[test]
fn five_releases_are_kept_and_ten_rollouts_remembered() {
    let text = include_str!("../../../examples/staging.yaml");
    let release = |revision: usize| {
        let text = text.replace("3f2c1ab", &format!("r{revision}"));
        let stack = Stack::new(tasktracker_crds::validation::read_stack(&text).unwrap(), "s".into());
        let project = crate::component::app_project(&stack, stack.spec.app.as_ref().unwrap());
        Prepared::new(project, BTreeMap::new(), BTreeMap::new()).release
    };
    let signature =
        Signature { epoch: 7, when: "now".to_owned(), who: "me".to_owned(), why: "so".to_owned() };
    let mut ledger = Ledger::empty("o", "default/staging");
    ledger.volumes.insert("data".to_owned(), "what-was-left".to_owned());
    for revision in 0..12 {
        ledger = ledger.succeeded(&release(revision), &Course::default(), &signature);
    }
    let newest: Vec<String> = (7..12).rev().map(|revision| release(revision).id).collect();
    assert_eq!((&ledger.releases, ledger.history.len()), (&newest, 10));
    assert_eq!(ledger.volumes["data"], "tt-staging-app-data", "data that a person left is asked for again");
    assert_eq!((ledger.current.as_ref(), ledger.previous.as_ref()), (newest.first(), newest.get(1)));
    // Going back to a kept one loses none of the others.
    let back = ledger.succeeded(&release(9), &Course::default(), &signature);
    assert_eq!((back.releases.len(), back.kept()), (5, back.releases.clone()));
    assert_eq!((back.current, back.previous.as_ref()), (Some(newest[2].clone()), newest.first()));
    // A ledger of an earlier operator names no more than two; they are kept.
    let old =
        Ledger { current: Some("aa".to_owned()), previous: Some("bb".to_owned()), ..Ledger::empty("o", "s") };
    assert_eq!(old.kept(), ["aa", "bb"]);
}

#[test]
fn an_intent_stands_until_the_result() {
    let signature = Signature { epoch: 7, when: String::new(), who: String::new(), why: String::new() };
    let intent = Intent { plan: "p".to_owned(), desired_hash: None, stopped: BTreeMap::new() };
    let open = Ledger::empty("o", "default/a").with_intent(intent.clone(), &signature);
    let read = Ledger::read(&serde_json::to_vec(&open).unwrap()).unwrap();
    assert_eq!((read.intent.clone(), read.epoch), (Some(intent), 7));
    assert_eq!(read.without_intent(&signature).intent, None);
    for id in ["../x", "", "g"] {
        let odd = Ledger { releases: vec![id.to_owned()], ..open.clone() };
        assert!(Ledger::read(&serde_json::to_vec(&odd).unwrap()).is_err(), "{id}");
    }
}

#[test]
fn images_go_with_the_last_release_that_has_them() {
    let images = |names: &[&str]| names.iter().map(|name| format!("a/{name}@sha256:0")).collect::<Vec<_>>();
    let ledger = Ledger {
        current: Some("cc".to_owned()),
        releases: vec!["cc".to_owned(), "bb".to_owned()],
        pulled: [
            ("aa".to_owned(), images(&["backend:1", "caddy"])),
            ("bb".to_owned(), images(&["backend:2", "caddy"])),
            ("cc".to_owned(), images(&["backend:3", "caddy"])),
        ]
        .into(),
        ..Ledger::empty("o", "default/a")
    };
    let (ledger, old) = ledger.without_old_images();
    assert_eq!(old, images(&["backend:1"]));
    assert_eq!(ledger.pulled.keys().collect::<Vec<_>>(), ["bb", "cc"]);
    assert_eq!(ledger.clone().without_old_images(), (ledger, Vec::new()), "nothing is removed twice");
}

#[test]
fn a_file_that_differs_again_was_repaired_in_vain_whatever_docker_refused_after_it() {
    let (file, missing) = ((DriftKind::FileChanged, "files/a"), (DriftKind::Missing, "s"));
    let left = [
        item(file.0, file.1),
        DriftItem { service: Some(missing.1.to_owned()), path: None, ..item(missing.0, "") },
    ];
    let cause = |(kind, subject): (DriftKind, &str)| (kind, Some(subject.to_owned()));
    let causes = BTreeSet::from([cause(file), cause(missing)]);
    let mut ledger = Ledger::empty("o", "default/a");
    for _ in 0..TRIES {
        ledger.attempts = ledger.attempts_after(&causes, Tried::RefusedByDocker, &left);
    }
    let gave_up = |(kind, subject): (DriftKind, &str)| ledger.gave_up(kind, Some(&subject.to_owned()));
    assert_eq!([gave_up(file), gave_up(missing)], [true, false]);
}

#[test]
fn a_raised_limit_of_memory_counts_until_the_release_has_another_one() {
    let text = include_str!("../../../examples/staging.yaml");
    let stack = Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), "s".into());
    let project = crate::component::app_project(&stack, stack.spec.app.as_ref().unwrap());
    let release = Prepared::new(project, BTreeMap::new(), BTreeMap::new()).release;
    let limits = |release: &Release| {
        let limits = &release.project.services["backend"].compose.limits;
        (limits.mem_limit, limits.memswap_limit)
    };
    let (limit, _) = limits(&release);
    let raised = |ledger: &Ledger| limits(&ledger.with_raised_memory(release.clone())).0 / limit;
    let signature = Signature { epoch: 7, when: String::new(), who: String::new(), why: String::new() };
    let twice = Ledger::empty("o", "default/a")
        .with_memory_help("backend", limit, 2 * limit, false)
        .with_memory_help("backend", 2 * limit, 4 * limit, false)
        .with_memory_help("backend", 4 * limit, 4 * limit, true);
    assert_eq!(limits(&twice.with_raised_memory(release.clone())), (4 * limit, 4 * limit));
    let help = MemoryHelp { limit, raised: 4 * limit, moved_aside: true };
    assert_eq!(twice.memory["backend"], help);
    let read = Ledger::read(&serde_json::to_vec(&twice).unwrap()).unwrap();
    assert_eq!(read.memory, twice.memory);
    // Another rollout and a person's `retry` leave the limit, and let what is read be moved aside again.
    let again = MemoryHelp { moved_aside: false, ..help };
    for ledger in
        [twice.clone().succeeded(&release, &Course::default(), &signature), twice.clone().retried(&signature)]
    {
        assert_eq!((ledger.memory["backend"], raised(&ledger)), (again, 4));
    }
    // Another limit there ends it, and begins anew.
    let mut other = release.clone();
    other.project.services.get_mut("backend").unwrap().compose.limits.set_memory(3 * limit);
    assert_eq!(limits(&twice.with_raised_memory(other.clone())).0, 3 * limit);
    let ended = twice.clone().succeeded(&other, &Course::default(), &signature);
    assert_eq!(ended.memory, BTreeMap::new());
    // What is rolled out has it in its Compose file, and is the same release all the same.
    let raised_memory = twice.raised_memory(&release.project);
    let project = Project { raised_memory, ..release.project.clone() };
    let prepared = Prepared::new(project, BTreeMap::new(), BTreeMap::new());
    assert_eq!((&prepared.release.id, &prepared.release.project), (&release.id, &release.project));
    assert_eq!(prepared.release.service_hashes, release.service_hashes);
    let bytes = format!("mem_limit: {}", 4 * limit);
    assert!(prepared.contents["compose.yaml"].contains(&bytes), "{}", prepared.contents["compose.yaml"]);
    let anew = twice.with_memory_help("backend", 3 * limit, 6 * limit, false);
    assert_eq!(
        anew.memory["backend"],
        MemoryHelp { limit: 3 * limit, raised: 6 * limit, moved_aside: false }
    );
}
