use super::*;
use crate::{
    engine::Memory,
    host::Target,
    source::{Secrets, Stack},
};

fn stack(namespace: &str) -> Stack {
    let text = include_str!("../../../../examples/staging.yaml");
    let mut resource = tasktracker_crds::validation::read_stack(text).unwrap();
    resource.metadata.namespace = Some(namespace.to_owned());
    Stack::new(resource, "staging.yaml".into())
}

const APP: ComponentName = ComponentName::App;
/// The shortest pause after a registry did not answer, and the interval at which it is asked otherwise.
const REST: Duration = Duration::from_secs(10);

fn host() -> Arc<Host> {
    Arc::new(Host::new(Target::for_tests("app-1", "127.0.0.1", 22)))
}

/// Checks the first host of a stack, as far as images are concerned.
fn check(images: &Arc<Images>, stack: &Stack, host: &Arc<Host>, now: Instant) {
    let (secrets, memory) = (Secrets::default(), Memory::none());
    let spec = &stack.spec.hosts[0];
    let context = ProjectContext { stack, spec, host, secrets: &secrets, memory: &memory, images };
    images.record_check(&context, APP, &[], now);
}

/// Waits until a task is over, whose sender is gone then.
async fn over(running: Option<watch::Receiver<()>>) {
    assert!(running.expect("nothing was begun").changed().await.is_err());
}

fn defect<T>() -> impl Future<Output = T> {
    futures::future::lazy(|_| panic!("a defect"))
}

#[tokio::test]
async fn a_pull_that_panics_is_a_failure_and_is_tried_again() {
    let (images, host, now) = (Arc::<Images>::default(), host(), Instant::now());
    let key = PullKey::new(&stack("a").key, &host, "r.example/backend:r1");
    over(images.begin_to_pull(key.clone(), host.clone(), now, defect())).await;
    let (reason, message) = images.pending(&key, now);
    assert_eq!(reason, reasons::REGISTRY_UNAVAILABLE);
    assert!(message.contains("a defect of the operator"), "{message}");
    assert!(images.begin_to_pull(key.clone(), host.clone(), now, defect()).is_none(), "at once");
    let later = Instant::now() + REST;
    over(images.begin_to_pull(key.clone(), host, later, async { Ok(()) })).await;
    assert_eq!(images.pending(&key, later).0, reasons::PULLING_IMAGES);
}

#[tokio::test]
async fn a_question_that_panics_is_asked_again() {
    let (images, host, now) = (Arc::<Images>::default(), host(), Instant::now());
    let key = (stack("a").key, "r.example/backend:r1".to_owned());
    images.state().tags.insert(key.clone(), Tag::new(now));
    over(images.begin_to_ask(key.clone(), (REST, now), host.clone(), defect())).await;
    assert!(images.state().tags[&key].refused.is_some());
    assert!(images.begin_to_ask(key.clone(), (REST, now), host.clone(), defect()).is_none(), "at once");
    let meaning = ResolvedTag::Digest("sha256:a".to_owned());
    let said = async { Ok(Resolved { meaning, by_registry: true, refused: None }) };
    over(images.begin_to_ask(key.clone(), (REST, now + REST), host, said)).await;
    let state = images.state();
    assert_eq!((state.tags[&key].found.as_deref(), &state.tags[&key].refused), (Some("sha256:a"), &None));
}

#[tokio::test]
async fn a_registry_that_limits_requests_is_left_alone_where_the_image_that_is_there_stands_in_too() {
    let (images, host, now) = (Arc::<Images>::default(), host(), Instant::now());
    let key = (stack("a").key, "r.example/backend:r1".to_owned());
    images.state().tags.insert(key.clone(), Tag::new(now));
    let limited = Refusal::judge(Some(429), "toomanyrequests");
    let stood_in = Resolved::here(ResolvedTag::Digest("sha256:a".to_owned()), Some(limited));
    over(images.begin_to_ask(key.clone(), (REST, now), host, async { Ok(stood_in) })).await;
    let state = images.state();
    let tag = &state.tags[&key];
    assert_eq!((&tag.refused, &tag.found, tag.failures), (&None, &None, 1));
    let pause = Duration::from_mins(5);
    assert!(REST < pause && !tag.is_due(REST, now + REST) && tag.is_due(REST, now + pause));
    // What its stack asks for less often is not asked for more often because of it.
    assert!(!tag.is_due(2 * pause, now + pause));
}

#[tokio::test]
async fn a_namespace_is_not_told_what_a_registry_refused_to_another() {
    let (images, host, now) = (Arc::<Images>::default(), host(), Instant::now());
    let key = |namespace: &str| PullKey::new(&stack(namespace).key, &host, "r.example/backend:r1");
    let denied = async { Err(Refusal::denied("no such user")) };
    over(images.begin_to_pull(key("a"), host.clone(), now, denied)).await;
    assert_eq!(images.pending(&key("a"), now).0, reasons::REGISTRY_DENIED);
    assert_eq!(images.pending(&key("b"), now).0, reasons::PULLING_IMAGES);
    assert!(images.begin_to_pull(key("a"), host.clone(), now, async { Ok(()) }).is_none());
    over(images.begin_to_pull(key("b"), host.clone(), now, async { Ok(()) })).await;
}

#[tokio::test]
async fn what_nobody_uses_is_forgotten() {
    let (images, host, now) = (Arc::<Images>::default(), host(), Instant::now());
    let (gone, stays) = (stack("a"), stack("b"));
    let key = |reference: &str| PullKey::new(&gone.key, &host, reference);
    let used = "r.example/backend:r2";
    for reference in ["r.example/backend:r1", used] {
        let missing = async { Err(Refusal::unavailable("nobody")) };
        over(images.begin_to_pull(key(reference), host.clone(), now, missing)).await;
    }
    images.state().checked(&gone.key, APP, now).hosts.insert("left".to_owned());
    check(&images, &gone, &host, now);
    assert!(
        images.state().checked[&(gone.key.clone(), APP)].hosts.iter().eq(["app-1"]),
        "a host that is named no longer"
    );
    let last = Instant::now() + REMEMBERED;
    images.pending(&key(used), last);
    check(&images, &stays, &host, last);
    let state = images.state();
    assert!(state.pulls.keys().eq([&key(used)]), "{:?}", state.pulls);
    assert!(state.checked.keys().map(|(stack, _)| stack).eq([&stays.key]), "{:?}", state.checked);
}
