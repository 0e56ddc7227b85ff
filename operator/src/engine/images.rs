//! Images before a rollout: what a tag means is settled once for a stack, and images are on the host before anything
//! there is touched. Registries are asked beside the checks, which do not wait for them.

mod background;
mod credentials;
mod logins;
mod pulls;

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
use background::spawn_recorded;
use credentials::{Credentials, credentials};
use logins::Logins;
use pulls::{Pull, PullKey};

use crate::{
    component,
    host::{self, Host},
    model::ComponentName,
    observe::{ImageAvailability, MovedTag, Observed},
    project::Project,
    registry::{Refusal, digest_of, exact, is_digest, parts, registry_of},
    release::Release,
    source::StackKey,
};

/// How long a check waits for a registry before it goes on without it.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long a person who asks for a plan waits for a registry.
const PATIENCE_OF_A_PERSON: Duration = Duration::from_mins(1);
/// How long the other hosts of a stack may take to be checked before it is asked what a tag means.
const SIBLINGS: Duration = Duration::from_secs(10);
/// How often it is checked whether they were, while a check waits.
const PAUSE: Duration = Duration::from_millis(50);
/// How soon it is checked again whether they were.
const WAKE: Duration = Duration::from_millis(500);
/// Shortest time between two questions for what a tag means.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// How long what nobody uses is remembered: what a tag meant, why a pull failed, and which hosts were checked.
const REMEMBERED: Duration = Duration::from_hours(1);

/// What tags mean to each stack, and what is on its way to which host.
#[derive(Debug)]
pub struct Images {
    patience: Duration,
    state: Mutex<State>,
    logins: Arc<Logins>,
}

#[derive(Debug, Default)]
struct State {
    /// By stack and reference.
    tags: BTreeMap<(StackKey, String), Tag>,
    pulls: BTreeMap<PullKey, Pull>,
    checked: BTreeMap<(StackKey, ComponentName), CheckedHosts>,
}

/// A component of a stack whose images are resolved.
#[derive(Debug)]
struct CheckedHosts {
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
        self.checked.retain(|_, seen| is_used(seen.used));
    }

    fn checked(&mut self, stack: &StackKey, component: ComponentName, now: Instant) -> &mut CheckedHosts {
        let new = || CheckedHosts { since: now, hosts: BTreeSet::new(), used: now };
        let seen = self.checked.entry((stack.clone(), component)).or_insert_with(new);
        seen.used = now;
        seen
    }
}

/// What an image that a spec names by a tag means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ResolvedTag {
    /// Whatever the host has under that name: it was loaded or built there.
    Local,
    /// What has this digest in the registry.
    Digest(String),
}

/// What came of asking what a tag means.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Resolved {
    meaning: ResolvedTag,
    /// Whether the registry said so.
    by_registry: bool,
    /// What it said instead, where the image that is there stands in.
    refused: Option<Refusal>,
}

impl Resolved {
    /// By what is on the host.
    fn here(meaning: ResolvedTag, refused: Option<Refusal>) -> Self {
        Self { meaning, by_registry: false, refused }
    }
}

#[derive(Debug)]
struct Tag {
    meaning: Option<ResolvedTag>,
    /// Whether it moved, and the policy follows it.
    followed: bool,
    /// What the registry said last.
    found: Option<String>,
    /// Why the registry did not say so.
    refused: Option<Refusal>,
    /// Why not, where the image that is there stood in.
    stood_in: Option<Refusal>,
    /// How often in a row.
    failures: u32,
    /// When it was asked last.
    asked: Option<Instant>,
    /// There while it is asked.
    asking: Option<watch::Receiver<()>>,
    used: Instant,
}

impl Default for Images {
    fn default() -> Self {
        Self { patience: PATIENCE, state: Mutex::default(), logins: Arc::default() }
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

    /// Settles what the tags of a project mean.
    pub(super) async fn resolve_tags(
        self: &Arc<Self>,
        context: &ProjectContext<'_>,
        mut project: Project,
        observed: &Observed,
    ) -> (Project, ImageAvailability) {
        let mut availability = ImageAvailability::default();
        let named =
            project.images().into_iter().map(|(service, named)| (service.to_owned(), named.to_owned()));
        let named: Vec<(String, String)> = named.filter(|(_, named)| parts(named).2.is_none()).collect();
        let known = |(service, reference): (String, String)| {
            let applied = known_here(observed, &service, &reference);
            (service, reference, applied)
        };
        let named: Vec<(String, String, Option<ResolvedTag>)> = named.into_iter().map(known).collect();
        self.record_check(context, project.component, &named, Instant::now());
        for (service, reference, applied) in named {
            match self.meaning(context, project.component, &reference, applied).await {
                Ok(ResolvedTag::Local) => {}
                Ok(ResolvedTag::Digest(digest)) => {
                    let found = self.found(context, &reference);
                    if let Some(found) = found.filter(|found| *found != digest) {
                        let applied = digest.clone();
                        availability.moved.push(MovedTag {
                            service: service.clone(),
                            reference,
                            applied,
                            found,
                        });
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
                    availability.unresolved.get_or_insert(told);
                }
            }
        }
        (project, availability)
    }

    /// What a tag means: what it moved to where the policy follows it, what it meant here or elsewhere in the stack, and
    /// else what the registry says. Nothing is wrong as long as that is not known.
    async fn meaning(
        self: &Arc<Self>,
        context: &ProjectContext<'_>,
        component: ComponentName,
        reference: &str,
        applied: Option<ResolvedTag>,
    ) -> Result<ResolvedTag, Option<Refusal>> {
        let key = (context.stack.key.clone(), reference.to_owned());
        let tags = &context.stack.spec.policy.tags;
        let now = Instant::now();
        let known = {
            let mut state = self.state();
            let tag = state.tags.entry(key.clone()).or_insert_with(|| Tag::new(now));
            tag.used = now;
            if tags.moved == Moved::Follow
                && let Some(found) = tag.found.clone().map(ResolvedTag::Digest)
                && (tag.meaning.is_some() || applied.is_some())
                && applied.as_ref().or(tag.meaning.as_ref()) != Some(&found)
            {
                (tag.meaning, tag.followed) = (Some(found), true);
            }
            tag.followed &= tags.moved == Moved::Follow;
            let followed = tag.meaning.clone().filter(|_| tag.followed);
            followed.or(applied).or_else(|| tag.meaning.clone())
        };
        if known.is_none() && !self.wait_for_siblings(context, component).await {
            wake_soon(context.host.clone());
            return Err(None);
        }
        let known = known.or_else(|| self.state().tags.get(&key).and_then(|tag| tag.meaning.clone()));
        let interval = tags.interval.duration().max(SHORTEST_INTERVAL);
        if known != Some(ResolvedTag::Local) {
            let done = self.ask(context, key.clone(), interval).await;
            if let (Some(mut done), None) = (done, &known) {
                // The sender is gone when it is known. The task wakes only the host that it was begun for.
                if timeout(self.patience, done.changed()).await.is_err() {
                    wake_soon(context.host.clone());
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
        if refused.is_some() && is_local(context.host, reference).await {
            let mut state = self.state();
            let tag = state.tags.entry(key).or_insert_with(|| Tag::new(now));
            return Ok(tag.meaning.get_or_insert(ResolvedTag::Local).clone());
        }
        Err(refused)
    }

    /// Whether every other host of the stack was checked, or had the time for it: what they have counts.
    fn siblings_were_checked(&self, context: &ProjectContext<'_>, component: ComponentName) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let seen = state.checked(&context.stack.key, component, now);
        let is_seen =
            |host: &HostSpec| host.name == context.spec.name || seen.hosts.contains(host.name.as_str());
        component::hosts(context.stack, component).all(is_seen) || seen.since + SIBLINGS <= now
    }

    /// Waits until they were, as long as a check may wait; whether that is so.
    async fn wait_for_siblings(&self, context: &ProjectContext<'_>, component: ComponentName) -> bool {
        let started = Instant::now();
        while !self.siblings_were_checked(context, component) {
            if started.elapsed() >= self.patience {
                return false;
            }
            sleep(PAUSE).await;
        }
        true
    }

    /// A host of a stack was checked: what the tags mean there is what they are to mean on the others.
    fn record_check(
        &self,
        context: &ProjectContext<'_>,
        component: ComponentName,
        named: &[(String, String, Option<ResolvedTag>)],
        now: Instant,
    ) {
        let mut state = self.state();
        state.prune(now);
        for (_, reference, applied) in named {
            if let Some(applied) = applied {
                let key = (context.stack.key.clone(), reference.clone());
                let tag = state.tags.entry(key).or_insert_with(|| Tag::new(now));
                tag.meaning.get_or_insert_with(|| applied.clone());
            }
        }
        let seen = state.checked(&context.stack.key, component, now);
        let is_named =
            |seen: &String| component::hosts(context.stack, component).any(|host| host.name.as_str() == seen);
        seen.hosts.retain(is_named);
        seen.hosts.insert(context.spec.name.to_string());
    }

    /// What the registry said last of a tag.
    fn found(&self, context: &ProjectContext<'_>, reference: &str) -> Option<String> {
        let key = (context.stack.key.clone(), reference.to_owned());
        self.state().tags.get(&key).and_then(|tag| tag.found.clone())
    }

    /// Asks the registry for a tag beside the checks, where it was not for a while; what is there while it is asked.
    async fn ask(
        self: &Arc<Self>,
        context: &ProjectContext<'_>,
        key: (StackKey, String),
        interval: Duration,
    ) -> Option<watch::Receiver<()>> {
        let now = Instant::now();
        let known = self.state().tags.get(&key).map(|tag| (tag.is_due(interval, now), tag.asking.clone()));
        let (is_due, asking) = known?;
        if !is_due {
            return asking;
        }
        let credentials = credentials(context, &key.1).await;
        let (host, reference) = (context.host.clone(), key.1.clone());
        let logins = self.logins.clone();
        let namespace = key.0.namespace.clone();
        let resolved = async move { resolve(&host, &reference, &credentials, (&namespace, &logins)).await };
        self.begin_to_ask(key, (interval, now), context.host.clone(), resolved)
    }

    fn begin_to_ask(
        self: &Arc<Self>,
        key: (StackKey, String),
        (interval, now): (Duration, Instant),
        host: Arc<Host>,
        resolved: impl Future<Output = Result<Resolved, Refusal>> + Send + 'static,
    ) -> Option<watch::Receiver<()>> {
        let (sender, receiver) = watch::channel(());
        {
            let mut state = self.state();
            let tag = state.tags.get_mut(&key).filter(|tag| tag.is_due(interval, now))?;
            (tag.asked, tag.asking) = (Some(now), Some(receiver.clone()));
        }
        let images = self.clone();
        spawn_recorded(host, sender, resolved, move |said| {
            let mut state = images.state();
            let Some(tag) = state.tags.get_mut(&key) else { return };
            tag.asking = None;
            tag.refused = said.as_ref().err().cloned();
            tag.stood_in = said.as_ref().ok().and_then(|said| said.refused.clone());
            let has_failed = tag.refused.is_some() || tag.stood_in.is_some();
            tag.failures = if has_failed { tag.failures.saturating_add(1) } else { 0 };
            if let Ok(Resolved { meaning, by_registry, .. }) = said {
                if let ResolvedTag::Digest(digest) = &meaning
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
    pub(super) async fn find_on_host(
        &self,
        context: &ProjectContext<'_>,
        project: &Project,
        availability: &mut ImageAvailability,
    ) -> Result<(), host::Error> {
        let host = context.host;
        for (service, reference) in project.images() {
            match host.image(&exact(reference)).await {
                Ok(None) => {}
                Ok(Some(image)) => {
                    availability.present.insert(service.to_owned(), image.id);
                    continue;
                }
                // A daemon that cannot tell of one image is checked all the same.
                Err(error @ host::Error::DockerApi { .. }) => {
                    availability.pending =
                        Some((reasons::PREFLIGHT_FAILED, format!("image {reference}: {error}")));
                    continue;
                }
                Err(error) => return Err(error),
            }
            availability.missing.push(reference.to_owned());
            let told = self.pending(&PullKey::new(&context.stack.key, host, reference), Instant::now());
            // What is wrong is told before what goes on.
            if availability.pending.as_ref().is_none_or(|(reason, _)| *reason == reasons::PULLING_IMAGES) {
                availability.pending = Some(told);
            }
        }
        Ok(())
    }
}

impl Tag {
    /// Whether its registry is to be asked: it is not being asked, and was not within `interval`, or within the pause that
    /// follows a refusal.
    fn is_due(&self, interval: Duration, now: Instant) -> bool {
        let pause = |refused: &Refusal| refused.pause(self.failures);
        let beside = self.stood_in.as_ref().map_or(interval, |refused| interval.max(pause(refused)));
        let rest = self.refused.as_ref().map_or(beside, pause);
        self.asking.is_none() && self.asked.is_none_or(|asked| asked + rest <= now)
    }

    fn new(now: Instant) -> Self {
        Self {
            meaning: None,
            followed: false,
            found: None,
            stood_in: None,
            refused: None,
            failures: 0,
            asked: None,
            asking: None,
            used: now,
        }
    }
}

impl ProjectContext<'_> {
    /// Pulls what the change of a check waits for, and waits until that is done or failed; whether there was anything.
    pub async fn fetch_images(&self, evaluation: &Evaluation) -> bool {
        let awaited = waits_for_images(evaluation);
        if awaited {
            self.fetch_all(&evaluation.observed.availability.missing).await;
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
            // Its sender is gone when the pull is over, whatever came of it: the next check tells.
            let _ = running.changed().await;
        }
    }
}

/// Whether a change waits for images that are on their way, or could be.
pub(super) fn waits_for_images(evaluation: &Evaluation) -> bool {
    let availability = &evaluation.observed.availability;
    let waiting = evaluation.plan.waiting.as_ref();
    evaluation.plan.hold.is_none()
        && waiting.is_some_and(|waiting| availability.is_pending(waiting.reason))
        && !availability.missing.is_empty()
}

/// Checks again after a while though nothing happened on the host.
fn wake_soon(host: Arc<Host>) {
    tokio::spawn(async move {
        sleep(WAKE).await;
        host.wake();
    });
}

/// What a reference means on a host: as it was rolled out there, or was to be.
fn known_here(observed: &Observed, service: &str, reference: &str) -> Option<ResolvedTag> {
    let applied = observed.applied.as_ref().and_then(|applied| applied.project.services.get(service));
    let meaning = applied.and_then(|applied| match applied.compose.image.strip_prefix(reference) {
        Some("") => Some(ResolvedTag::Local),
        Some(rest) => {
            let digest = rest.strip_prefix('@').filter(|digest| is_digest(digest));
            digest.map(|digest| ResolvedTag::Digest(digest.to_owned()))
        }
        None => None,
    });
    let tried = observed.ledger.as_ref().and_then(|ledger| ledger.tags.get(reference));
    let tried = tried.filter(|digest| is_digest(digest));
    meaning.or_else(|| tried.map(|digest| ResolvedTag::Digest(digest.clone())))
}

/// Where the image that a host has under a reference comes from.
enum Origin {
    /// A registry, under this digest.
    Registry(String),
    /// No registry: it was loaded or built there.
    Local,
    /// It has this digest, which the store of its engine gives to every image.
    Unknown(String),
}

/// Where the image that a host has under a reference comes from; nothing where it has none.
async fn origin(host: &Host, reference: &str) -> Result<Option<Origin>, host::Error> {
    let Some(image) = host.image(reference).await? else { return Ok(None) };
    let Some(digest) = digest_of(reference, &image.repo_digests) else { return Ok(Some(Origin::Local)) };
    let digest = digest.to_owned();
    if digest != image.id {
        return Ok(Some(Origin::Registry(digest)));
    }
    // A daemon that is late with an answer to this one question is as one that cannot tell.
    Ok(Some(match host.was_pulled(reference).await.ok().flatten() {
        Some(true) => Origin::Registry(digest),
        Some(false) => Origin::Local,
        None => Origin::Unknown(digest),
    }))
}

/// Whether a host has an image that comes from no registry.
async fn is_local(host: &Host, reference: &str) -> bool {
    matches!(origin(host, reference).await, Ok(Some(Origin::Local)))
}

/// What a reference means, and whether its registry said so. What was loaded or built on the host is not in any registry.
/// Where that cannot be told apart, and where the registry does not say anything, the image that is there stands in.
async fn resolve(
    host: &Host,
    reference: &str,
    credentials: &Credentials,
    (namespace, logins): (&str, &Logins),
) -> Result<Resolved, Refusal> {
    let origin = origin(host, reference).await.map_err(Refusal::unavailable)?;
    if matches!(origin, Some(Origin::Local)) {
        return Ok(Resolved::here(ResolvedTag::Local, None));
    }
    let registry = registry_of(reference);
    let login = credentials.login(host, registry).await;
    let said = match login {
        Ok(login) => {
            let asked = async {
                let said = host.digest(reference, login.as_ref()).await;
                said.unwrap_or_else(|error| Err(Refusal::unavailable(error)))
            };
            logins.ask((namespace, registry), login.as_ref(), asked).await
        }
        Err(refusal) => Err(refusal),
    };
    match (said, origin) {
        (Ok(digest), _) => {
            Ok(Resolved { meaning: ResolvedTag::Digest(digest), by_registry: true, refused: None })
        }
        // A registry that does not have it is not where it comes from.
        (Err(refusal), Some(Origin::Unknown(_))) if refusal.is_without_image() => {
            Ok(Resolved::here(ResolvedTag::Local, None))
        }
        (Err(refusal), Some(Origin::Registry(digest) | Origin::Unknown(digest))) if is_digest(&digest) => {
            Ok(Resolved::here(ResolvedTag::Digest(digest), Some(refusal)))
        }
        (Err(refusal), _) => Err(refusal),
    }
}

#[cfg(test)]
mod tests;
