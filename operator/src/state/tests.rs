use jiff::Timestamp;
use tasktracker_crds::{DriftKind, HostStatus};

use super::*;
use crate::model::ComponentName;
use crate::{host::FileFact, release::Prepared, report::notifications::Notified};

const KEY: &str = "default/staging";

fn stack(revision: &str) -> Stack {
    let text = include_str!("../../../examples/staging.yaml").replace("3f2c1ab", revision);
    Stack::new(tasktracker_crds::validation::read_stack(&text).unwrap(), "staging.yaml".into())
}

/// The stack with one host of that name and address.
fn named(name: &str, address: &str) -> Stack {
    let mut resource = stack("one").resource;
    resource.spec.hosts.truncate(1);
    resource.spec.hosts[0].name = name.parse().unwrap();
    resource.spec.hosts[0].address = address.parse().unwrap();
    Stack::new(resource, "staging.yaml".into())
}

fn release(stack: &Stack) -> Release {
    let project = crate::component::app_project(stack, stack.spec.app.as_ref().unwrap());
    Prepared::new(project, BTreeMap::new(), BTreeMap::new()).release
}

fn record(memory: &Memory, stack: &Stack) {
    memory.record(stack, &stack.spec.hosts[0], &release(stack), None);
}

fn notified(in_force: &str) -> NotificationState {
    let notified = Notified { in_force: in_force.to_owned(), rolled_back: None };
    NotificationState { components: [(ComponentName::App, notified)].into(), waiting_plans: None }
}

fn observed(release: &Release, sha256: &str) -> Observed {
    let fact = FileFact::File { mode: 0o644, uid: 0, gid: 0, size: 1, sha256: Some(sha256.to_owned()) };
    Observed { files: [(release.manifest_path(), fact)].into(), ..Observed::default() }
}

fn since(second: i64) -> Since {
    let key = (DriftKind::FileExtra, None, Some("notes".to_owned()));
    Since::from([(key, Timestamp::from_second(second).unwrap())])
}

fn by_host(memory: &Memory, stack: &str) -> Vec<(String, Since)> {
    memory.first_seen(stack).into_iter().map(|((host, _), since)| (host, since)).collect()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_folder_has_one_owner_and_its_state_survives_a_restart() {
    let folder = folder();
    let memory = Memory::take(folder.path()).unwrap();
    let error = Memory::take(folder.path()).unwrap_err().to_string();
    assert!(error.contains("in use by another one"), "{error}");
    memory.set_first_seen("default/a", "h", "app", &since(1));
    memory.set_first_seen("default/a", "h", "agents", &since(2));
    let notified = notified("h=1");
    memory.set_notifications("default/a", &notified);
    drop(memory);
    let again = Memory::take(folder.path()).unwrap();
    let expected = [("agents", since(2)), ("app", since(1))]
        .map(|(component, since)| (("h".to_owned(), component.to_owned()), since));
    assert_eq!(again.first_seen("default/a"), BTreeMap::from(expected), "components are apart");
    assert_eq!(again.notifications("default/a"), notified);
    again.unfollow("default/a");
    drop(again);
    let last = Memory::take(folder.path()).unwrap();
    assert_eq!((last.first_seen("default/a"), last.notifications("default/a")), Default::default());
}

#[test]
fn first_seen_times_of_hosts_that_are_named_no_longer_are_forgotten() {
    let memory = Memory::none();
    memory.set_first_seen("default/a", "one", "app", &since(1));
    memory.set_first_seen("default/a", "two", "app", &since(1));
    memory.set_first_seen("default/b", "two", "app", &since(1));
    memory.retain_hosts("default/a", &BTreeSet::from(["one".to_owned()]));
    assert_eq!(by_host(&memory, "default/a"), [("one".to_owned(), since(1))]);
    assert_eq!(by_host(&memory, "default/b").len(), 1);
}

#[test]
fn the_first_manifest_that_was_observed_counts() {
    let folder = folder();
    let stack = stack("one");
    let (spec, release) = (&stack.spec.hosts[0], release(&stack));
    let first = Memory::take(folder.path()).unwrap();
    first.record(&stack, spec, &release, None);
    first.record(&stack, spec, &release, Some(&observed(&release, "aa")));
    first.record(&stack, spec, &release, Some(&observed(&release, "bb")));
    drop(first);
    let second = Memory::take(folder.path()).unwrap();
    let known = second.deployed(KEY).unwrap();
    assert_eq!(known.resource, stack.resource);
    let deployed = &known.hosts[spec.name.as_str()].components[&ComponentName::App];
    assert_eq!((&deployed.release, deployed.manifest_hash.as_deref()), (&release.id, Some("aa")));
    let project = deployed.project(ComponentName::App);
    let applied = &release.project;
    assert_eq!(
        (&project.name, &project.folder, &project.owner, &project.network, &project.volumes),
        (&applied.name, &applied.folder, &applied.owner, &applied.network, &applied.volumes)
    );
    assert_eq!(
        deployed.data_volume(),
        applied.volumes_of(crate::project::VolumeRole::Data).next().map(|(_, name)| name.as_str())
    );
    second.forget(KEY, spec.name.as_str());
    drop(second);
    assert_eq!(Memory::take(folder.path()).unwrap().stacks(), Vec::<String>::new());
}

#[test]
fn a_host_that_is_named_again_is_overtaken_until_a_rollout() {
    let (one, other) = (named("one", "10.0.0.1"), named("other", "10.0.0.2"));
    let memory = Memory::none();
    let rolled_out = |stack: &Stack| memory.rolled_out(stack, &stack.spec.hosts[0], &release(stack));
    let overtaken =
        |host: &str| memory.deployed(KEY).unwrap().hosts[host].components[&ComponentName::App].overtaken;
    record(&memory, &one);
    record(&memory, &other);
    rolled_out(&other);
    assert_eq!((overtaken("one"), overtaken("other")), (true, false));
    record(&memory, &one);
    assert_eq!((overtaken("one"), overtaken("other")), (true, false), "a check is no rollout");
    rolled_out(&one);
    assert_eq!((overtaken("one"), overtaken("other")), (false, true));
    record(&memory, &one);
    assert_eq!((overtaken("one"), overtaken("other")), (false, true));
    // Under another name it is the same place, and what was forgotten is no newer than what was not.
    rolled_out(&other);
    record(&memory, &named("uno", "10.0.0.1"));
    assert!(overtaken("uno") && !overtaken("other"));
    memory.forget(KEY, "uno");
    record(&memory, &one);
    assert_eq!((overtaken("one"), overtaken("other")), (true, false));
}

#[cfg(feature = "echo")]
#[test]
fn what_is_rolled_out_of_one_component_makes_no_other_one_newer() {
    let with_echo = |mut stack: Stack| {
        let settings = r#"{"image": "echo:r1"}"#.to_owned();
        let annotations = stack.resource.metadata.annotations.get_or_insert_default();
        annotations.insert("tasktracker.dev/echo".to_owned(), settings);
        stack
    };
    let echo = |stack: &Stack| {
        let project = crate::component::project(stack, &stack.spec.hosts[0], ComponentName::Echo).unwrap();
        Prepared::new(project, BTreeMap::new(), BTreeMap::new()).release
    };
    let (one, other) = (with_echo(named("one", "10.0.0.1")), with_echo(named("other", "10.0.0.2")));
    let memory = Memory::none();
    let overtaken =
        |host: &str, component| memory.deployed(KEY).unwrap().hosts[host].components[&component].overtaken;
    memory.rolled_out(&one, &one.spec.hosts[0], &release(&one));
    memory.rolled_out(&other, &other.spec.hosts[0], &release(&other));
    assert!(overtaken("one", ComponentName::App));
    memory.rolled_out(&one, &one.spec.hosts[0], &echo(&one));
    assert!(overtaken("one", ComponentName::App), "its data is older still");
    assert!(!overtaken("other", ComponentName::App) && !overtaken("one", ComponentName::Echo));
}

#[cfg(feature = "echo")]
#[test]
fn a_component_that_leaves_a_host_is_left_there_though_the_host_is_named_still() {
    let stack = named("one", "10.0.0.1");
    let mut with_echo = stack.clone();
    let annotations = with_echo.resource.metadata.annotations.get_or_insert_default();
    annotations.insert("tasktracker.dev/echo".to_owned(), r#"{"image": "echo:r1"}"#.to_owned());
    let spec = &stack.spec.hosts[0];
    let memory = Memory::none();
    record(&memory, &with_echo);
    // Its first rollout may have left something, though it never succeeded.
    let echo = crate::component::project(&with_echo, spec, ComponentName::Echo).unwrap();
    memory.begin(&with_echo, spec, &echo);
    let host = memory.deployed(KEY).unwrap().hosts["one"].clone();
    assert_eq!(host.left_by(&with_echo), None);
    let left = host.left_by(&stack).unwrap();
    assert!(left.components.keys().eq([&ComponentName::Echo]));
    memory.forget_projects(KEY, &left);
    let known = memory.deployed(KEY).unwrap().hosts;
    assert!(known["one"].components.keys().eq([&ComponentName::App]));
    memory.forget_projects(KEY, &known["one"]);
    assert!(memory.deployed(KEY).is_none_or(|known| known.hosts.is_empty()));
}

#[test]
fn a_host_with_another_name_is_the_same_place() {
    let (one, renamed) = (named("one", "10.0.0.1"), named("renamed", "10.0.0.1"));
    let memory = Memory::none();
    record(&memory, &one);
    assert!(
        is_wanted(&renamed, &one.spec.hosts[0], ComponentName::App),
        "it would be taken for one that is left"
    );
    record(&memory, &renamed);
    let known = memory.deployed(KEY).unwrap().hosts;
    assert!(
        known.keys().eq(["renamed"]) && !known["renamed"].components[&ComponentName::App].overtaken,
        "{known:?}"
    );
    let mut elsewhere = one.spec.hosts[0].clone();
    elsewhere.directory = "/opt/another".parse().unwrap();
    elsewhere.name = "another".parse().unwrap();
    assert!(!is_wanted(&renamed, &elsewhere, ComponentName::App));
}

#[tokio::test]
async fn what_another_program_writes_is_merged_and_not_overwritten() {
    let folder = folder();
    let operator = Memory::take(folder.path()).unwrap();
    let command = Memory::share(folder.path()).unwrap();
    let (one, other) = (named("one", "10.0.0.1"), named("other", "10.0.0.2"));
    record(&operator, &one);
    operator.flush().await;
    command.flush().await;
    assert_eq!(command.stacks(), [KEY]);
    {
        let _busy = files::lock(folder.path()).unwrap();
        // Neither knows yet what the other one does.
        record(&operator, &other);
        command.rolled_out(&one, &one.spec.hosts[0], &release(&one));
    }
    command.flush().await;
    operator.flush().await;
    command.flush().await;
    let hosts = operator.deployed(KEY).unwrap().hosts;
    assert!(hosts.keys().eq(["one", "other"]), "{:?}", hosts.keys());
    assert_eq!(command.deployed(KEY).unwrap().hosts, hosts);
    command.forget(KEY, "one");
    command.forget(KEY, "other");
    command.flush().await;
    operator.flush().await;
    assert_eq!(operator.stacks(), Vec::<String>::new());
}

#[test]
fn stacks_that_begin_and_end_at_the_same_time_keep_each_others_state() {
    let folder = folder();
    let memory = Memory::take(folder.path()).unwrap();
    let notified = notified("h=1");
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (memory, notified) = (&memory, &notified);
            scope.spawn(move || {
                for round in 0..50 {
                    let (stays, goes) = (format!("a/{worker}-{round}"), format!("b/{worker}"));
                    memory.set_first_seen(&goes, "h", "app", &since(1));
                    memory.set_first_seen(&stays, "h", "app", &since(1));
                    memory.set_notifications(&stays, notified);
                    memory.unfollow(&goes);
                }
            });
        }
    });
    drop(memory);
    let again = Memory::take(folder.path()).unwrap();
    for worker in 0..8 {
        assert!(again.first_seen(&format!("b/{worker}")).is_empty());
        for round in 0..50 {
            let stack = format!("a/{worker}-{round}");
            assert_eq!(
                (again.first_seen(&stack).len(), again.notifications(&stack) != NotificationState::default()),
                (1, true),
                "{stack}"
            );
        }
    }
}

#[tokio::test]
async fn three_hundred_changes_are_a_few_writes_and_none_waits_for_the_disk() {
    let folder = folder();
    let memory = Memory::take(folder.path()).unwrap();
    // The writer waits, and whoever waited for it would never get on.
    let busy = files::lock(folder.path()).unwrap();
    let example = stack("one");
    let of = |number: usize| {
        let mut stack = example.clone();
        stack.key.name = format!("stack-{number}");
        stack
    };
    for number in 0..100 {
        let stack = of(number);
        let (key, release) = (stack.key.to_string(), release(&stack));
        for host in ["one", "two", "three"] {
            let mut spec = stack.spec.hosts[0].clone();
            (spec.name, spec.address) = (host.parse().unwrap(), format!("{host}.example").parse().unwrap());
            memory.record(&stack, &spec, &release, None);
            memory.set_first_seen(&key, host, "app", &since(1));
            memory.set_notifications(&key, &notified(host));
            assert_eq!(memory.notes(&stack)["notifications"]["components"]["app"]["inForce"], host);
        }
    }
    assert_eq!(memory.shared.replaced(), 0);
    drop(busy);
    memory.flush().await;
    // One round of the three files may have begun at the first change; a second one writes all others.
    let replaced = memory.shared.replaced();
    assert!((3..=6).contains(&replaced), "{replaced} files were replaced for 900 changes");
    // The same again is no change.
    memory.set_first_seen(&of(0).key.to_string(), "one", "app", &since(1));
    memory.flush().await;
    assert_eq!(memory.shared.replaced(), replaced);
    drop(memory);
    let again = Memory::take(folder.path()).unwrap();
    assert_eq!(again.stacks().len(), 100);
    let key = of(99).key.to_string();
    assert_eq!((again.deployed(&key).unwrap().hosts.len(), by_host(&again, &key).len()), (3, 3));
}

#[tokio::test]
async fn a_file_of_another_version_is_an_error_and_stays_as_it_is() {
    for name in [DEPLOYED, FIRST_SEEN, NOTIFICATIONS] {
        let folder = folder();
        let path = folder.path().join(name);
        fs::write(&path, r#"{"version": 2, "stacks": []}"#).unwrap();
        for error in [Memory::take(folder.path()).unwrap_err(), Memory::share(folder.path()).unwrap_err()] {
            let error = error.to_string();
            let expected =
                format!("expected version 1 in {}, found version 2; run the operator", path.display());
            assert!(error.contains(&expected), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"version": 2, "stacks": []}"#);
    }
    // Another operator may write it while this one runs.
    let folder = folder();
    let memory = Memory::take(folder.path()).unwrap();
    let path = folder.path().join(DEPLOYED);
    fs::write(&path, r#"{"version": 2}"#).unwrap();
    record(&memory, &stack("one"));
    memory.flush().await;
    assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"version": 2}"#);
    // What could not be written is not lost.
    fs::remove_file(&path).unwrap();
    memory.flush().await;
    drop(memory);
    assert_eq!(Memory::take(folder.path()).unwrap().stacks(), [KEY]);
}

#[tokio::test]
async fn a_damaged_file_is_kept_beside_and_begun_anew() {
    for rubbish in ["rubbish", "{}", r#"{"version": 1, "stacks": 7, "projects": 7}"#] {
        for name in [DEPLOYED, FIRST_SEEN, NOTIFICATIONS] {
            let folder = folder();
            fs::write(folder.path().join(name), rubbish).unwrap();
            let memory = Memory::take(folder.path()).unwrap();
            let kept = fs::read_to_string(folder.path().join(format!("{name}.damaged"))).unwrap();
            assert_eq!(kept, rubbish);
            assert!(!folder.path().join(name).exists());
            record(&memory, &stack("one"));
            memory.set_first_seen(KEY, "h", "app", &since(1));
            memory.set_notifications(KEY, &notified("h=1"));
            drop(memory);
            let again = Memory::take(folder.path()).unwrap();
            assert_eq!((again.stacks().len(), again.first_seen(KEY).len()), (1, 1));
            assert!(again.notifications(KEY) != NotificationState::default());
        }
    }
    // While the operator runs, what it knows takes the place of the damaged file.
    let folder = folder();
    let memory = Memory::take(folder.path()).unwrap();
    record(&memory, &stack("one"));
    memory.flush().await;
    fs::write(folder.path().join(DEPLOYED), "rubbish").unwrap();
    memory.flush().await;
    assert_eq!(Memory::share(folder.path()).unwrap().stacks(), [KEY]);
}

#[test]
fn drafts_of_an_operator_that_was_killed_are_removed() {
    let folder = folder();
    fs::write(folder.path().join(".draft-a1b2c3"), "half").unwrap();
    let _memory = Memory::take(folder.path()).unwrap();
    assert!(!folder.path().join(".draft-a1b2c3").exists());
}

/// A status with one difference of a host, and notes.
fn status(memory: &Memory, stack: &Stack, first_seen: &str) -> TaskTrackerStackStatus {
    let item = serde_json::json!({
        "host": "app-1", "component": "app", "kind": "FileExtra", "path": "notes", "wanted": "", "found": "",
        "firstSeen": first_seen, "answer": "Heal",
    });
    let host = HostStatus {
        name: "app-1".to_owned(),
        components: vec![tasktracker_crds::ComponentStatus {
            drift: vec![serde_json::from_value(item).unwrap()],
            ..tasktracker_crds::ComponentStatus::default()
        }],
        ..HostStatus::default()
    };
    TaskTrackerStackStatus { notes: memory.notes(stack), hosts: vec![host], ..Default::default() }
}

#[test]
fn a_status_is_restored_where_nothing_is_known_and_never_replaces_newer_state() {
    let (old, new) = (named("one", "10.0.0.1"), named("other", "10.0.0.2"));
    let before = Memory::none();
    record(&before, &old);
    before.set_notifications(KEY, &notified("one=1"));
    let status = status(&before, &old, "1970-01-01T00:00:07Z");
    let restored = Memory::none();
    restored.restore(&old, &status);
    assert_eq!(restored.deployed(KEY), before.deployed(KEY));
    assert_eq!(restored.notifications(KEY), before.notifications(KEY));
    assert_eq!(by_host(&restored, KEY), [("app-1".to_owned(), since(7))]);
    assert_eq!(restored.notes(&old), status.notes);

    let folder = folder();
    let memory = Memory::take(folder.path()).unwrap();
    record(&memory, &new);
    memory.set_notifications(KEY, &notified("other=2"));
    memory.set_first_seen(KEY, "other", "app", &since(9));
    drop(memory);
    let again = Memory::take(folder.path()).unwrap();
    again.restore(&new, &status);
    drop(again);
    let last = Memory::take(folder.path()).unwrap();
    assert!(last.deployed(KEY).unwrap().hosts.keys().eq(["other"]));
    assert_eq!(last.notifications(KEY), notified("other=2"));
    assert_eq!(by_host(&last, KEY), [("other".to_owned(), since(9))]);
}

#[test]
fn notes_of_another_version_stay_as_they_are() {
    let stack = stack("one");
    let notes = serde_json::json!({ "version": 2, "hosts": ["another form"] });
    let memory = Memory::none();
    memory.restore(&stack, &TaskTrackerStackStatus { notes: notes.clone(), ..Default::default() });
    record(&memory, &stack);
    assert_eq!(memory.notes(&stack), notes);
    memory.unfollow(KEY);
    memory.restore(&stack, &TaskTrackerStackStatus { notes: Value::Null, ..Default::default() });
    assert_eq!(memory.notes(&stack)["version"], VERSION);
}

#[test]
fn notes_of_many_hosts_are_small() {
    let memory = Memory::none();
    let stack = stack("one");
    let mut release = release(&stack);
    for component in ComponentName::ALL {
        release.project.component = *component;
        release.project.name = format!("tt-staging-{component}");
        for number in 0..100 {
            let mut spec = stack.spec.hosts[0].clone();
            spec.name = format!("host-{number}").parse().unwrap();
            spec.address = format!("host-{number}.example").parse().unwrap();
            memory.record(&stack, &spec, &release, Some(&observed(&release, &"a".repeat(64))));
        }
    }
    let notes = memory.notes(&stack);
    // A status of 100 hosts has to leave room below the 1.5 MiB of an object for what it reports of them.
    let size = json::to_vec(&notes).len();
    assert!(size < 200 * 100 * ComponentName::ALL.len(), "{size} bytes");
    let restored = Memory::none();
    restored.restore(&stack, &TaskTrackerStackStatus { notes: notes.clone(), ..Default::default() });
    assert_eq!(restored.deployed(KEY), memory.deployed(KEY));
    // A list that was cut is no notes: nothing is made up.
    let mut cut = notes;
    cut["projects"].as_array_mut().unwrap().pop();
    let nothing = Memory::none();
    nothing.restore(&stack, &TaskTrackerStackStatus { notes: cut, ..Default::default() });
    assert_eq!(nothing.deployed(KEY), None);
}

#[tokio::test]
async fn a_line_of_the_audit_log_is_in_the_file_before_anything_is_written_to_a_host() {
    let folder = folder();
    let memory = Memory::share(folder.path()).unwrap();
    let entry = audit::Entry {
        when: jiff::Timestamp::UNIX_EPOCH,
        who: "a person",
        why: "",
        stack: KEY,
        host: "one",
        component: "app",
        what: Vec::new(),
        plan: None,
        before: audit::State::default(),
        after: None,
        result: audit::BEGAN,
        seconds: 0.0,
    };
    memory.audit(&entry).await;
    let log = fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    assert!(log.ends_with('\n') && log.contains("Began"), "{log}");
    Memory::none().audit(&entry).await;
}
