//! Images before a rollout: what a tag means is settled once for a stack, and images are on the host before anything
//! there is touched. Registries are asked beside the looks, which do not wait for them.

mod credentials;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tasktracker_crds::{HostSpec, Moved, conditions::reasons};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{Evaluation, ProjectContext};
use credentials::{Credentials, credentials};

use crate::{
    component, diff,
    host::{self, Host},
    model::ComponentName,
    observe::{MovedTag, Observed, Supply},
    project::Project,
    registry::{Refusal, RefusalKind, digest_of, exact, is_digest, parts, registry_of},
    release::Release,
    source::StackKey,
};

/// How long a look waits for a registry before it goes on without it.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long a person who asks for a plan waits for a registry.
const PATIENCE_OF_A_PERSON: Duration = Duration::from_mins(1);
/// How long the other hosts of a stack may take to be looked at before it is asked what a tag means.
const SIBLINGS: Duration = Duration::from_secs(10);
/// How often it is looked whether they were, while a look waits.
const PAUSE: Duration = Duration::from_millis(50);
/// How soon it is looked again whether they were.
const WAKE: Duration = Duration::from_millis(500);
/// How long a registry that refused is not asked again.
const REST: Duration = Duration::from_secs(10);
/// Shortest time between two questions for what a tag means.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// How long what nobody uses is remembered: what a tag meant, why a pull failed, and which hosts were looked at.
const REMEMBERED: Duration = Duration::from_hours(1);

/// What tags mean to each stack, and what is on its way to which host.
#[derive(Debug)]
pub struct Images {
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By stack and reference.
    tags: BTreeMap<(StackKey, String), Tag>,
    pulls: BTreeMap<PullKey, Pull>,
    seen: BTreeMap<(StackKey, ComponentName), Seen>,
}

/// One pull. Namespaces are apart: why a registry refuses the login of one is no business of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PullKey {
    namespace: String,
    /// Address and port of the host.
    endpoint: String,
    reference: String,
}

impl PullKey {
    fn new(stack: &StackKey, host: &Host, reference: &str) -> Self {
        Self {
            namespace: stack.namespace.clone(),
            endpoint: host.target().endpoint(),
            reference: reference.to_owned(),
        }
    }
}

/// A component of a stack whose images are resolved.
#[derive(Debug)]
struct Seen {
    since: Instant,
    /// Hosts on which it was checked.
    hosts: BTreeSet<String>,
    used: Instant,
}

impl State {
    /// Forgets what nobody used for a while.
    fn prune(&mut self, now: Instant) {
        let is_used = |used: Instant| used + REMEMBERED > now;
        self.tags.retain(|_, tag| tag.asking.is_some() || is_used(tag.used));
        self.pulls.retain(|_, pull| pull.running.is_some() || is_used(pull.used));
        self.seen.retain(|_, seen| is_used(seen.used));
    }

    fn seen(&mut self, stack: &StackKey, component: ComponentName, now: Instant) -> &mut Seen {
        let new = || Seen { since: now, hosts: BTreeSet::new(), used: now };
        let seen = self.seen.entry((stack.clone(), component)).or_insert_with(new);
        seen.used = now;
        seen
    }
}

/// What an image that a spec names by a tag means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    /// Whatever the host has under that name: it was loaded or built there.
    Local,
    /// What has this digest in the registry.
    Digest(String),
}

#[derive(Debug)]
struct Tag {
    meaning: Option<Meaning>,
    /// Whether it moved, and the policy follows it.
    followed: bool,
    /// What the registry said last.
    found: Option<String>,
    /// Why the registry did not say so.
    refused: Option<Refusal>,
    /// When it was asked last.
    asked: Option<Instant>,
    /// There while it is asked.
    asking: Option<watch::Receiver<()>>,
    used: Instant,
}

#[derive(Debug)]
struct Pull {
    /// There while it is under way.
    running: Option<watch::Receiver<()>>,
    /// Why it failed, and when.
    refused: Option<(Refusal, Instant)>,
    used: Instant,
}

impl Default for Images {
    fn default() -> Self {
        Self { patience: PATIENCE, state: Mutex::default() }
    }
}

impl Images {
    /// For a person's command: it waits for registries.
    pub fn patient() -> Self {
        Self { patience: PATIENCE_OF_A_PERSON, ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles what the tags of a project mean, and looks which images are on the host where it asks for others than were
    /// rolled out.
    pub(super) async fn resolve_images(
        self: &Arc<Self>,
        site: &ProjectContext<'_>,
        mut project: Project,
        observed: &Observed,
    ) -> Result<(Project, Supply), host::Error> {
        let mut supply = Supply::default();
        let named =
            project.images().into_iter().map(|(service, named)| (service.to_owned(), named.to_owned()));
        let named: Vec<(String, String)> = named.filter(|(_, named)| parts(named).2.is_none()).collect();
        let known = |(service, reference): (String, String)| {
            let applied = known_here(observed, &service, &reference);
            (service, reference, applied)
        };
        let named: Vec<(String, String, Option<Meaning>)> = named.into_iter().map(known).collect();
        self.saw(site, project.component, &named, Instant::now());
        for (service, reference, applied) in named {
            match self.meaning(site, project.component, &reference, applied).await {
                Ok(Meaning::Local) => {}
                Ok(Meaning::Digest(digest)) => {
                    let found = self.found(site, &reference);
                    if let Some(found) = found.filter(|found| *found != digest) {
                        let applied = digest.clone();
                        supply.moved.push(MovedTag { service: service.clone(), reference, applied, found });
                    }
                    project.pin(&service, &digest);
                }
                Err(refusal) => {
                    let told = refusal.map_or_else(
                        || {
                            (
                                reasons::PULLING_IMAGES,
                                format!("image {reference}: its registry is asked for it"),
                            )
                        },
                        |refusal| (refusal.reason(), refusal.message(&reference)),
                    );
                    supply.unresolved.get_or_insert(told);
                }
            }
        }
        if supply.unresolved.is_none() && diff::change(&project, observed).is_some() {
            self.look_for(site, &project, &mut supply).await?;
        }
        Ok((project, supply))
    }

    /// What a tag means: what it moved to where the policy follows it, what it meant here or elsewhere in the stack, and
    /// else what the registry says. Nothing is wrong as long as that is not known.
    async fn meaning(
        self: &Arc<Self>,
        site: &ProjectContext<'_>,
        component: ComponentName,
        reference: &str,
        applied: Option<Meaning>,
    ) -> Result<Meaning, Option<Refusal>> {
        let key = (site.stack.key.clone(), reference.to_owned());
        let tags = &site.stack.spec.policy.tags;
        let now = Instant::now();
        let known = {
            let mut state = self.state();
            let tag = state.tags.entry(key.clone()).or_insert_with(|| Tag::new(now));
            tag.used = now;
            if tags.moved == Moved::Follow
                && let Some(found) = tag.found.clone().map(Meaning::Digest)
                && (tag.meaning.is_some() || applied.is_some())
                && applied.as_ref().or(tag.meaning.as_ref()) != Some(&found)
            {
                (tag.meaning, tag.followed) = (Some(found), true);
            }
            tag.followed &= tags.moved == Moved::Follow;
            let followed = tag.meaning.clone().filter(|_| tag.followed);
            followed.or(applied).or_else(|| tag.meaning.clone())
        };
        if known.is_none() && !self.wait_for_siblings(site, component).await {
            wake_soon(site.host.clone());
            return Err(None);
        }
        let known = known.or_else(|| self.state().tags.get(&key).and_then(|tag| tag.meaning.clone()));
        let rest = if known.is_some() { tags.interval.duration().max(SHORTEST_INTERVAL) } else { REST };
        if known != Some(Meaning::Local) {
            let done = self.ask(site, key.clone(), rest).await;
            if let (Some(mut done), None) = (done, &known) {
                // The sender is gone when it is known. The task wakes only the host that it was begun for.
                if timeout(self.patience, done.changed()).await.is_err() {
                    wake_soon(site.host.clone());
                }
            }
        }
        if let Some(known) = known {
            return Ok(known);
        }
        let refused = {
            let state = self.state();
            let tag = state.tags.get(&key);
            if let Some(meaning) = tag.and_then(|tag| tag.meaning.clone()) {
                return Ok(meaning);
            }
            tag.and_then(|tag| tag.refused.clone())
        };
        // The host that asked may lack what was loaded on this one.
        if refused.is_some() && is_local(site.host, reference).await {
            let mut state = self.state();
            let tag = state.tags.entry(key).or_insert_with(|| Tag::new(now));
            return Ok(tag.meaning.get_or_insert(Meaning::Local).clone());
        }
        Err(refused)
    }

    /// Whether every other host of the stack was looked at, or had the time for it: what they have counts.
    fn siblings_were_seen(&self, site: &ProjectContext<'_>, component: ComponentName) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let seen = state.seen(&site.stack.key, component, now);
        let is_seen =
            |host: &HostSpec| host.name == site.spec.name || seen.hosts.contains(host.name.as_str());
        component::hosts(site.stack, component).all(is_seen) || seen.since + SIBLINGS <= now
    }

    /// Waits until they were, as long as a look may wait; whether that is so.
    async fn wait_for_siblings(&self, site: &ProjectContext<'_>, component: ComponentName) -> bool {
        let started = Instant::now();
        while !self.siblings_were_seen(site, component) {
            if started.elapsed() >= self.patience {
                return false;
            }
            sleep(PAUSE).await;
        }
        true
    }

    /// A host of a stack was looked at: what the tags mean there is what they are to mean on the others.
    fn saw(
        &self,
        site: &ProjectContext<'_>,
        component: ComponentName,
        named: &[(String, String, Option<Meaning>)],
        now: Instant,
    ) {
        let mut state = self.state();
        state.prune(now);
        for (_, reference, applied) in named {
            if let Some(applied) = applied {
                let key = (site.stack.key.clone(), reference.clone());
                let tag = state.tags.entry(key).or_insert_with(|| Tag::new(now));
                tag.meaning.get_or_insert_with(|| applied.clone());
            }
        }
        let seen = state.seen(&site.stack.key, component, now);
        let is_named =
            |seen: &String| component::hosts(site.stack, component).any(|host| host.name.as_str() == seen);
        seen.hosts.retain(is_named);
        seen.hosts.insert(site.spec.name.to_string());
    }

    /// What the registry said last of a tag.
    fn found(&self, site: &ProjectContext<'_>, reference: &str) -> Option<String> {
        let key = (site.stack.key.clone(), reference.to_owned());
        self.state().tags.get(&key).and_then(|tag| tag.found.clone())
    }

    /// Asks the registry for a tag beside the looks, where it was not for a while; what is there while it is asked.
    async fn ask(
        self: &Arc<Self>,
        site: &ProjectContext<'_>,
        key: (StackKey, String),
        rest: Duration,
    ) -> Option<watch::Receiver<()>> {
        let now = Instant::now();
        let known = self.state().tags.get(&key).map(|tag| (tag.is_due(rest, now), tag.asking.clone()));
        let (is_due, asking) = known?;
        if !is_due {
            return asking;
        }
        let credentials = credentials(site, &key.1).await;
        let (host, reference) = (site.host.clone(), key.1.clone());
        let resolved = async move { resolve(&host, &reference, &credentials).await };
        self.begin_to_ask(key, (rest, now), site.host.clone(), resolved)
    }

    fn begin_to_ask(
        self: &Arc<Self>,
        key: (StackKey, String),
        (rest, now): (Duration, Instant),
        host: Arc<Host>,
        resolved: impl Future<Output = Result<(Meaning, bool), Refusal>> + Send + 'static,
    ) -> Option<watch::Receiver<()>> {
        let (sender, receiver) = watch::channel(());
        {
            let mut state = self.state();
            let tag = state.tags.get_mut(&key).filter(|tag| tag.is_due(rest, now))?;
            (tag.asked, tag.asking) = (Some(now), Some(receiver.clone()));
        }
        let images = self.clone();
        spawn_recorded(host, sender, resolved, move |said| {
            let mut state = images.state();
            let Some(tag) = state.tags.get_mut(&key) else { return };
            tag.asking = None;
            tag.refused = said.as_ref().err().cloned();
            if let Ok((meaning, by_registry)) = said {
                if let Meaning::Digest(digest) = &meaning
                    && by_registry
                {
                    tag.found = Some(digest.clone());
                }
                tag.meaning.get_or_insert(meaning);
            }
        });
        Some(receiver)
    }

    /// Which images of a project are on the host, and why the others are not.
    async fn look_for(
        &self,
        site: &ProjectContext<'_>,
        project: &Project,
        supply: &mut Supply,
    ) -> Result<(), host::Error> {
        let host = site.host;
        for (service, reference) in project.images() {
            match host.image(&exact(reference)).await {
                Ok(None) => {}
                Ok(Some(image)) => {
                    supply.there.insert(service.to_owned(), image.id);
                    continue;
                }
                // A daemon that cannot tell of one image is looked at all the same.
                Err(error @ host::Error::DockerApi { .. }) => {
                    supply.awaited = Some((reasons::PREFLIGHT_FAILED, format!("image {reference}: {error}")));
                    continue;
                }
                Err(error) => return Err(error),
            }
            supply.missing.push(reference.to_owned());
            let told = self.awaited(&PullKey::new(&site.stack.key, host, reference), Instant::now());
            // What is wrong is told before what goes on.
            if supply.awaited.as_ref().is_none_or(|(reason, _)| *reason == reasons::PULLING_IMAGES) {
                supply.awaited = Some(told);
            }
        }
        Ok(())
    }

    /// What a missing image waits for. Why a pull failed is told while it is tried again, too.
    fn awaited(&self, key: &PullKey, now: Instant) -> (&'static str, String) {
        if let Some(pull) = self.state().pulls.get_mut(key) {
            pull.used = now;
            if let Some((refusal, _)) = &pull.refused {
                return (refusal.reason(), refusal.message(&key.reference));
            }
        }
        let message = format!("image {}: it is pulled before anything is touched", key.reference);
        (reasons::PULLING_IMAGES, message)
    }

    /// Begins to pull what a change waits for, beside the looks; what is there as long as that takes.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        site: &ProjectContext<'_>,
        references: &[String],
    ) -> Vec<watch::Receiver<()>> {
        let mut running = Vec::new();
        for reference in references {
            let key = PullKey::new(&site.stack.key, site.host, reference);
            let credentials = credentials(site, reference).await;
            let (host, image) = (site.host.clone(), reference.clone());
            let pulled = async move { pull(&host, &image, &credentials).await };
            running.extend(self.begin_to_pull(key, site.host.clone(), Instant::now(), pulled));
        }
        running
    }

    /// Begins to pull, where that is not under way and did not fail just now; what is there as long as it takes.
    fn begin_to_pull(
        self: &Arc<Self>,
        key: PullKey,
        host: Arc<Host>,
        now: Instant,
        pulled: impl Future<Output = Result<(), Refusal>> + Send + 'static,
    ) -> Option<watch::Receiver<()>> {
        let (sender, receiver) = watch::channel(());
        {
            let mut state = self.state();
            let new = || Pull { running: None, refused: None, used: now };
            let pull = state.pulls.entry(key.clone()).or_insert_with(new);
            pull.used = now;
            if pull.running.is_some() {
                return pull.running.clone();
            }
            if pull.refused.as_ref().is_some_and(|(_, when)| now < *when + REST) {
                return None;
            }
            pull.running = Some(receiver.clone());
        }
        tracing::info!(namespace = key.namespace, host = key.endpoint, image = key.reference, "pulling");
        let images = self.clone();
        spawn_recorded(host, sender, pulled, move |pulled| {
            let mut state = images.state();
            match pulled {
                Ok(()) => drop(state.pulls.remove(&key)),
                Err(refusal) => {
                    let now = Instant::now();
                    state.pulls.insert(key, Pull { running: None, refused: Some((refusal, now)), used: now });
                }
            }
        });
        Some(receiver)
    }
}

/// Runs work beside the looks. Its result is recorded by a guard: also where the work panics, nothing stays marked as
/// under way, whoever waits for `done` goes on, and the host is looked at again.
fn spawn_recorded<T: Send + 'static>(
    host: Arc<Host>,
    done: watch::Sender<()>,
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    record: impl FnOnce(Result<T, Refusal>) + Send + 'static,
) {
    let defect = Refusal::unavailable("a defect of the operator; see its log");
    let mut guard = Recorded { work: Some((Err(defect), record)), done: Some(done), host };
    tokio::spawn(async move {
        let result = work.await;
        if let Some((recorded, _)) = &mut guard.work {
            *recorded = result;
        }
    });
}

/// Records a result when it is dropped.
struct Recorded<T, R: FnOnce(Result<T, Refusal>)> {
    work: Option<(Result<T, Refusal>, R)>,
    done: Option<watch::Sender<()>>,
    host: Arc<Host>,
}

impl<T, R: FnOnce(Result<T, Refusal>)> Drop for Recorded<T, R> {
    fn drop(&mut self) {
        if let Some((result, record)) = self.work.take() {
            record(result);
        }
        self.done = None;
        self.host.wake();
    }
}

impl Tag {
    /// Whether its registry is to be asked: it is not being asked, and was not within `rest`.
    fn is_due(&self, rest: Duration, now: Instant) -> bool {
        self.asking.is_none() && self.asked.is_none_or(|asked| asked + rest <= now)
    }

    fn new(now: Instant) -> Self {
        Self {
            meaning: None,
            followed: false,
            found: None,
            refused: None,
            asked: None,
            asking: None,
            used: now,
        }
    }
}

impl ProjectContext<'_> {
    /// Pulls what the change of a look waits for, and waits until that is done or failed; whether there was anything.
    pub async fn fetch_images(&self, look: &Evaluation) -> bool {
        let awaited = waits_for_images(look);
        if awaited {
            self.fetch_all(&look.observed.supply.missing).await;
        }
        awaited
    }

    /// Pulls those images of a release that are not on the host any more, where a registry knows them.
    pub(super) async fn bring_images(&self, release: &Release) -> Result<(), host::Error> {
        let mut missing = Vec::new();
        for (service, reference) in release.project.images() {
            let id = release.images.get(service).map_or(reference, String::as_str);
            if parts(reference).2.is_some() && self.host.image(id).await?.is_none() {
                missing.push(reference.to_owned());
            }
        }
        self.fetch_all(&missing).await;
        Ok(())
    }

    async fn fetch_all(&self, references: &[String]) {
        for mut running in self.images.fetch(self, references).await {
            // Its sender is gone when the pull is over, whatever came of it: the next look tells.
            let _ = running.changed().await;
        }
    }
}

/// Whether a change waits for images that are on their way, or could be.
pub(super) fn waits_for_images(look: &Evaluation) -> bool {
    let supply = &look.observed.supply;
    let waiting = look.plan.waiting.as_ref();
    look.plan.hold.is_none()
        && waiting.is_some_and(|waiting| supply.is_awaited(waiting.reason))
        && !supply.missing.is_empty()
}

/// Looks again after a while though nothing happened on the host.
fn wake_soon(host: Arc<Host>) {
    tokio::spawn(async move {
        sleep(WAKE).await;
        host.wake();
    });
}

/// What a reference means on a host: as it was rolled out there, or was to be.
fn known_here(observed: &Observed, service: &str, reference: &str) -> Option<Meaning> {
    let applied = observed.applied.as_ref().and_then(|applied| applied.project.services.get(service));
    let meaning = applied.and_then(|applied| match applied.compose.image.strip_prefix(reference) {
        Some("") => Some(Meaning::Local),
        Some(rest) => {
            let digest = rest.strip_prefix('@').filter(|digest| is_digest(digest));
            digest.map(|digest| Meaning::Digest(digest.to_owned()))
        }
        None => None,
    });
    let tried = observed.ledger.as_ref().and_then(|ledger| ledger.tags.get(reference));
    let tried = tried.filter(|digest| is_digest(digest));
    meaning.or_else(|| tried.map(|digest| Meaning::Digest(digest.clone())))
}

/// Whether a host has an image that comes from no registry: it was loaded or built there.
async fn is_local(host: &Host, reference: &str) -> bool {
    let image = host.image(reference).await.ok().flatten();
    image.is_some_and(|image| digest_of(reference, &image.repo_digests).is_none())
}

/// What a reference means, and whether its registry said so. What was loaded or built on the host is not in any registry.
/// Where that cannot be told apart, and where the registry does not say anything, the image that is there stands in.
async fn resolve(
    host: &Host,
    reference: &str,
    credentials: &Credentials,
) -> Result<(Meaning, bool), Refusal> {
    let image = host.image(reference).await.map_err(Refusal::unavailable)?;
    let pulled = image.as_ref().and_then(|image| digest_of(reference, &image.repo_digests));
    if image.is_some() && pulled.is_none() {
        return Ok((Meaning::Local, false));
    }
    let login = credentials.login(host, registry_of(reference)).await;
    let said = match login {
        Ok(login) => {
            let said = host.digest(reference, login.as_ref()).await;
            said.unwrap_or_else(|error| Err(Refusal::unavailable(error)))
        }
        Err(refusal) => Err(refusal),
    };
    match (said, pulled.filter(|digest| is_digest(digest))) {
        (Ok(digest), _) => Ok((Meaning::Digest(digest), true)),
        (Err(_), Some(pulled)) => Ok((Meaning::Digest(pulled.to_owned()), false)),
        (Err(refusal), None) => Err(refusal),
    }
}

async fn pull(host: &Host, reference: &str, credentials: &Credentials) -> Result<(), Refusal> {
    let login = credentials.login(host, registry_of(reference)).await?;
    host.pull(reference, login.as_ref()).await.unwrap_or_else(|error| Err(Refusal::unavailable(error)))?;
    let wanted = exact(reference);
    let image = host.image(&wanted).await.map_err(Refusal::unavailable)?;
    image
        .map(drop)
        .ok_or_else(|| Refusal { kind: RefusalKind::Missing, found: "nothing after a pull".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::Memory,
        host::Target,
        source::{Secrets, Stack},
    };

    fn stack(namespace: &str) -> Stack {
        let text = include_str!("../../../examples/staging.yaml");
        let mut resource = tasktracker_crds::validation::read_stack(text).unwrap();
        resource.metadata.namespace = Some(namespace.to_owned());
        Stack::new(resource, "staging.yaml".into())
    }

    const APP: ComponentName = ComponentName::App;

    fn host() -> Arc<Host> {
        Arc::new(Host::new(Target::for_tests("app-1", "127.0.0.1", 22)))
    }

    /// Looks at the first host of a stack, as far as images are concerned.
    fn look(images: &Arc<Images>, stack: &Stack, host: &Arc<Host>, now: Instant) {
        let (secrets, memory) = (Secrets::default(), Memory::none());
        let spec = &stack.spec.hosts[0];
        let context = ProjectContext { stack, spec, host, secrets: &secrets, memory: &memory, images };
        images.saw(&context, APP, &[], now);
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
        let (reason, message) = images.awaited(&key, now);
        assert_eq!(reason, reasons::REGISTRY_UNAVAILABLE);
        assert!(message.contains("a defect of the operator"), "{message}");
        assert!(images.begin_to_pull(key.clone(), host.clone(), now, defect()).is_none(), "at once");
        let later = Instant::now() + REST;
        over(images.begin_to_pull(key.clone(), host, later, async { Ok(()) })).await;
        assert_eq!(images.awaited(&key, later).0, reasons::PULLING_IMAGES);
    }

    #[tokio::test]
    async fn a_question_that_panics_is_asked_again() {
        let (images, host, now) = (Arc::<Images>::default(), host(), Instant::now());
        let key = (stack("a").key, "r.example/backend:r1".to_owned());
        images.state().tags.insert(key.clone(), Tag::new(now));
        over(images.begin_to_ask(key.clone(), (REST, now), host.clone(), defect())).await;
        assert!(images.state().tags[&key].refused.is_some());
        assert!(images.begin_to_ask(key.clone(), (REST, now), host.clone(), defect()).is_none(), "at once");
        let said = async { Ok((Meaning::Digest("sha256:a".to_owned()), true)) };
        over(images.begin_to_ask(key.clone(), (REST, now + REST), host, said)).await;
        let state = images.state();
        assert_eq!((state.tags[&key].found.as_deref(), &state.tags[&key].refused), (Some("sha256:a"), &None));
    }

    #[tokio::test]
    async fn a_namespace_is_not_told_what_a_registry_refused_to_another() {
        let (images, host, now) = (Arc::<Images>::default(), host(), Instant::now());
        let key = |namespace: &str| PullKey::new(&stack(namespace).key, &host, "r.example/backend:r1");
        let denied = async { Err(Refusal::denied("no such user")) };
        over(images.begin_to_pull(key("a"), host.clone(), now, denied)).await;
        assert_eq!(images.awaited(&key("a"), now).0, reasons::REGISTRY_DENIED);
        assert_eq!(images.awaited(&key("b"), now).0, reasons::PULLING_IMAGES);
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
        images.state().seen(&gone.key, APP, now).hosts.insert("left".to_owned());
        look(&images, &gone, &host, now);
        assert!(
            images.state().seen[&(gone.key.clone(), APP)].hosts.iter().eq(["app-1"]),
            "a host that is named no longer"
        );
        let last = Instant::now() + REMEMBERED;
        images.awaited(&key(used), last);
        look(&images, &stays, &host, last);
        let state = images.state();
        assert!(state.pulls.keys().eq([&key(used)]), "{:?}", state.pulls);
        assert!(state.seen.keys().map(|(stack, _)| stack).eq([&stays.key]), "{:?}", state.seen);
    }
}
