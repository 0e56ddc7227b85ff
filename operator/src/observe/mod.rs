//! What is there. Reads the host, writes nothing, knows no policy.

mod folder;
mod hold;
mod image_availability;
mod listed;
mod ports;
mod probes;
mod published;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use futures::future::try_join_all;
use jiff::Timestamp;

use crate::{
    certificate::Certificate,
    host::{
        Container, Details, Engine, Error, Facts, FileFact, Health, Host, ImageConfig, Mounted,
        NetworkOrVolume, PresentedCertificate, ProjectResource, State,
    },
    ledger::{Cause, Ledger},
    model::{ProbeResults, Unserved, sha256},
    project::{
        Project, Readiness, Service,
        compose::{COMPOSE_ONE_OFF, COMPOSE_PROJECT, COMPOSE_SERVICE},
        labels, service_of,
    },
    release::Release,
    secret::{SealKey, Values},
};

pub(crate) use folder::damaged;
pub use hold::Hold;
pub use image_availability::{ImageAvailability, MovedTag};
pub use listed::ListDifferences;
pub use probes::{Prober, probe};
pub use published::{ANY_TIME, lost_answers, published};

/// The seal key of a stack, from the folder of one of its projects.
pub const KEY_FILE: &str = "../.key";

/// Containers of a project that are inspected, at most: of more, what the list tells is enough to take them away.
const MOST_INSPECTED: usize = 200;

/// How much is read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Containers; of files, networks and volumes those that changed by what `stat` and Docker's events tell.
    Woken,
    /// The content of every file, and every network and volume, too.
    Whole,
    /// The host itself, too: engine, disks, clock, versions.
    Slow,
}

/// One project on a host, as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Whether another writer is at work: then what is there is neither drift nor change.
    pub busy: bool,
    /// What the operator keeps there and cannot read any more.
    pub damaged: Option<Error>,
    /// A person's wish on the host that nothing be written.
    pub hold: Option<Hold>,
    /// What happened to it, where the operator was here before.
    pub ledger: Option<Ledger>,
    /// Owners from whom projects of the stack were taken over: networks and volumes still name them.
    pub former_owners: BTreeSet<String>,
    /// What of the operator's own is lost there, and is here as it saw it last: everything else is left until that is back.
    pub lost: Vec<Lost>,
    /// The release that was last rolled out.
    pub applied: Option<Release>,
    /// The operator's folder on the host.
    pub directory: String,
    /// The folders of the stack and of the project on the host, as whole paths, and what they are.
    pub own_folders: Vec<(String, FileFact)>,
    /// What the project's folder holds, by path from it; `.` where that is no folder.
    pub files: BTreeMap<String, FileFact>,
    /// Containers of the project.
    pub containers: Vec<Container>,
    /// Every other container of the host.
    pub others: Vec<Container>,
    /// What is known of the images that the spec asks for.
    pub availability: ImageAvailability,
    /// What images bring along for their containers, by ID.
    pub images: BTreeMap<String, Arc<ImageConfig>>,
    /// The networks that were checked, by name.
    pub networks: BTreeMap<String, Option<NetworkOrVolume>>,
    /// The volumes that were checked, by name.
    pub volumes: BTreeMap<String, Option<NetworkOrVolume>>,
    /// The networks and volumes labelled with the Compose project; the operator's own are not.
    pub project_resources: Vec<ProjectResource>,
    /// What the engine says of itself.
    pub engine: Engine,
    /// What was found when the host was last probed.
    pub facts: Option<Facts>,
    /// How far the host's clock is ahead, in seconds.
    pub clock_ahead_seconds: Option<i64>,
    /// What the user's session on the host, and each container by its ID, sees mounted.
    pub mounts: Mounts,
    /// Ports of ours on which something listens that is no container.
    pub taken_ports: BTreeSet<u16>,
    /// The certificate that users are shown, or why there is none; nothing where none is wanted, or nobody could check.
    pub certificate: Option<Result<Certificate, String>>,
    /// What users do not get of what the applied release publishes.
    pub unserved: Vec<Unserved>,
    /// Number of the state of files that was observed.
    pub files_state: u64,
    /// Results of the HTTP probes of the applied release.
    pub probe_results: ProbeResults,
    /// How often containers, by ID, were OOM-killed since they served, or since something was done about it.
    pub oom_kills: BTreeMap<String, u64>,
    /// The key by which secrets are remembered there.
    pub seal_key: Option<SealKey>,
    /// What the source of secrets has now, for the desired state and the applied release.
    pub secrets: Values,
    /// What the operator's own folder tells.
    pub remembered: Remembered,
}

impl Remembered {
    /// The host and the volume there with data that is newer than what is on this host.
    pub fn newer_elsewhere(&self) -> Option<&(String, String)> {
        self.elsewhere.as_ref().filter(|_| self.overtaken)
    }
}

impl Observed {
    /// Whether a rollout was cut here, and nobody finished it or took it back yet.
    pub fn has_open_intent(&self) -> bool {
        let intent = self.ledger.as_ref().and_then(|ledger| ledger.intent.as_ref());
        intent.is_some_and(|intent| intent.desired_hash.is_some())
    }
}

/// What the operator keeps in a project's folder, and what was found in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Path from the project's folder.
    pub path: String,
    /// Nothing, where it is gone; else what is there.
    pub found: Option<&'static str>,
}

/// What the operator's own folder tells of a project, beside what is on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// ID of the release that was on this host.
    pub release: Option<String>,
    /// Hash of the desired state of that release.
    pub desired_hash: Option<String>,
    /// Volumes that were on this host: name inside the project, name on the host.
    pub volumes: BTreeMap<String, String>,
    /// A host that the spec names no longer, and the volume there that holds the data.
    pub elsewhere: Option<(String, String)>,
    /// Whether the stack was in force on that one after it was on this host.
    pub overtaken: bool,
    /// Differences that came back again and again after they were repaired: somebody undoes it.
    pub undone: BTreeSet<Cause>,
}

/// What is mounted where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// As the user's session sees it.
    pub host: Vec<Mounted>,
    /// As containers see it, by their IDs.
    pub containers: BTreeMap<String, Vec<Mounted>>,
}

/// What a host says of one project, and nothing else. It can be read, and becomes an [`Observed`] once.
#[derive(Clone, Debug)]
pub struct HostFacts(Observed);

impl HostFacts {
    /// The release that was last rolled out.
    pub fn applied(&self) -> Option<&Release> {
        self.0.applied.as_ref()
    }

    /// The host's own account.
    pub fn as_observed(&self) -> &Observed {
        &self.0
    }

    /// The same with what is lost on the host: a ledger, the release that it names, a key.
    #[must_use]
    pub fn with_lost(
        self,
        lost: Vec<Lost>,
        ledger: Ledger,
        applied: Release,
        seal_key: Option<SealKey>,
    ) -> Self {
        let (ledger, applied) = (Some(ledger), Some(applied));
        Self(Observed { ledger, applied, seal_key, damaged: None, lost, ..self.0 })
    }

    /// Joins what the host says with what is known from elsewhere.
    pub fn with(self, inputs: Inputs, now: Timestamp) -> Observed {
        let Inputs { busy, secrets, remembered, damaged } = inputs;
        let applied = if damaged.is_some() { None } else { self.0.applied };
        Observed {
            busy,
            secrets,
            remembered,
            applied,
            damaged: damaged.or(self.0.damaged),
            clock_ahead_seconds: self.0.facts.as_ref().and_then(|facts| clock_ahead(facts, now)),
            ..self.0
        }
    }
}

/// What is known of a project from elsewhere than its host.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Whether another writer is at work there.
    pub busy: bool,
    /// What the source of secrets has, for the desired state and the applied release.
    pub secrets: Values,
    /// What the operator's own state says.
    pub remembered: Remembered,
    /// Why the manifest on the host cannot be trusted, though it can be read.
    pub damaged: Option<Error>,
}

/// How far a host's clock is ahead of ours, in seconds.
fn clock_ahead(facts: &Facts, now: Timestamp) -> Option<i64> {
    let then = now.as_second() - i64::try_from(facts.taken.elapsed().as_secs()).ok()?;
    Some(facts.seconds?.saturating_sub(then))
}

/// Observes one project on a host. Whether another writer is at work is asked apart: see [`is_busy`].
///
/// # Errors
/// When the host cannot be read.
pub async fn observe(host: &Host, project: &Project, depth: Depth) -> Result<HostFacts, Error> {
    if !host.connect().await? && depth == Depth::Slow {
        host.probe().await?;
    }
    let stack = stack_folder(project);
    let anew = depth >= Depth::Whole;
    let asked = async {
        futures::try_join!(
            host.files(stack, anew),
            containers(host, project),
            networks(host, project, anew),
            volumes(host, project, anew),
            host.project_resources(&project.name, anew),
            host.engine(),
        )
    };
    let (listing, containers, networks, volumes, project_resources, engine) = Box::pin(asked).await?;
    let facts = host.facts().await?;
    let mut observed = folder::read_folder(host, project, &listing)?;
    let mut volumes = volumes;
    let of_ledger = observed.ledger.iter().flat_map(|ledger| ledger.all_volumes().into_values());
    for name in of_ledger.filter(|name| !project.volumes.values().any(|known| known.name == *name)) {
        let made = host.volume(&name, anew).await?;
        volumes.insert(name, made);
    }
    (observed.containers, observed.others) =
        told_apart(host, project, observed.ledger.as_ref(), containers).await?;
    inspect_others(host, project, &mut observed).await?;
    if let Some(applied) = &observed.applied {
        observed.images = images(host, applied).await?;
    }
    observed.files_state = listing.state;
    observed.mounts = mounts(host, stack, &observed, listing.state).await?;
    read_owned_secrets(host, &mut observed).await?;
    observed.taken_ports = ports::taken_ports(host, project, &observed).await?;
    observed.certificate = certificate(host, observed.applied.as_ref(), depth).await?;
    Ok(HostFacts(Observed { networks, volumes, project_resources, engine, facts: Some(facts), ..observed }))
}

/// What `inspect` says of containers that are to be taken over, and of those of strangers in the project's network, whose
/// names there may be ours.
async fn inspect_others(host: &Host, project: &Project, observed: &mut Observed) -> Result<(), Error> {
    let is_stranger = |one: &&Container| {
        one.networks.contains(&project.network) && !one.has_label(labels::OWNER, &project.owner)
    };
    let strangers = observed.others.iter().filter(is_stranger);
    let asked = adopted_containers(project, observed).into_iter().chain(strangers);
    let ids: Vec<String> = asked.take(MOST_INSPECTED).map(|container| container.id.clone()).collect();
    let mut details = host.details(&ids).await?;
    for container in &mut observed.others {
        container.details = details.remove(&container.id);
    }
    Ok(())
}

/// The containers to be taken over; none where that is over, or nothing is to be adopted.
pub(crate) fn adopted_containers<'a>(desired: &Project, observed: &'a Observed) -> Vec<&'a Container> {
    let Some(adopt) = &desired.adopt else { return Vec::new() };
    let project = adopt.project.as_str();
    let done = observed.ledger.as_ref().and_then(|ledger| ledger.adopted.as_deref()) == Some(project);
    let is_adopted = |container: &&Container| {
        let is_one_off = container.has_label(COMPOSE_ONE_OFF, "True");
        !done && !is_one_off && container.has_label(COMPOSE_PROJECT, project)
    };
    let mut adopted: Vec<&Container> = observed.others.iter().filter(is_adopted).collect();
    adopted.sort_by(|one, other| one.name.cmp(&other.name));
    adopted
}

/// Whether a writer is at work on the host that may explain what is found of a project. This operator's own work on
/// another project explains nothing: it must not hide what happens to this one meanwhile.
///
/// # Errors
/// When the host cannot be asked.
pub async fn is_busy(host: &Host, project: &Project) -> Result<bool, Error> {
    let before = host.written_project();
    let is_locked = host.locked(stack_folder(project)).await?;
    let is_ours = before.is_some() && before == host.written_project();
    Ok(is_locked && !(is_ours && before.as_ref() != Some(&project.folder)))
}

fn stack_folder(project: &Project) -> &str {
    project.folder.split('/').next().unwrap_or_default()
}

/// Whether a container is the project's: by Compose's mark and by its owner's.
pub(crate) fn is_ours(container: &Container, project: &Project) -> bool {
    container.has_label(COMPOSE_PROJECT, &project.name) && container.has_label(labels::OWNER, &project.owner)
}

/// The address, in the project's network, of the first running container of one of its services.
///
/// # Errors
/// When the host cannot be reached.
pub async fn address_of(host: &Host, project: &Project, service: &str) -> Result<Option<IpAddr>, Error> {
    let is_it = |one: &&Container| {
        is_ours(one, project) && one.has_label(COMPOSE_SERVICE, service) && one.state == State::Running
    };
    let containers = host.containers().await?;
    let address = containers.iter().find(is_it).and_then(|one| one.addresses.get(&project.network));
    Ok(address.copied())
}

/// Whether a container is ready according to Docker: it runs, and its health check succeeded where it has one. A health
/// check of the image counts where the service defines none. Readiness over HTTP is a [`Probe`](crate::model::Probe).
pub fn is_ready(service: &Service, container: &Container) -> bool {
    let is_healthy = match container.health {
        Health::Healthy => true,
        Health::None => service.compose.healthcheck.is_none(),
        Health::Starting | Health::Unhealthy => service.readiness == Readiness::Running,
    };
    is_healthy && container.state == State::Running
}

/// Whether a container is the project's, or was made for an owner from whom a person let it be taken over.
pub(crate) fn belongs(container: &Container, project: &Project, ledger: Option<&Ledger>) -> bool {
    let is_of = |owner: &String| container.has_label(labels::OWNER, owner);
    let taken_over = || {
        let owners = ledger.into_iter().flat_map(|ledger| ledger.former_owners.iter().chain([&ledger.owner]));
        container.has_label(COMPOSE_PROJECT, &project.name) && owners.into_iter().any(is_of)
    };
    is_ours(container, project) || taken_over()
}

/// Every container of the host, and what `inspect` says of those that were the project's before.
async fn containers(
    host: &Host,
    project: &Project,
) -> Result<(Vec<Container>, BTreeMap<String, Details>), Error> {
    let known = host.inspected(&project.name);
    futures::try_join!(host.containers(), host.details(&known))
}

/// The project's containers as they are now, with what `inspect` says of them.
///
/// # Errors
/// When Docker cannot be asked.
pub async fn inspected(host: &Host, project: &Project, ledger: &Ledger) -> Result<Vec<Container>, Error> {
    let there = containers(host, project).await?;
    Ok(told_apart(host, project, Some(ledger), there).await?.0)
}

/// The project's containers with what `inspect` says of them, and every other one.
async fn told_apart(
    host: &Host,
    project: &Project,
    ledger: Option<&Ledger>,
    (all, mut details): (Vec<Container>, BTreeMap<String, Details>),
) -> Result<(Vec<Container>, Vec<Container>), Error> {
    let known: BTreeSet<String> = details.keys().cloned().collect();
    let (mut ours, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| belongs(one, project, ledger));
    ours.sort_by(|one, other| one.name.cmp(&other.name));
    let ids: Vec<String> = ours.iter().take(MOST_INSPECTED).map(|container| container.id.clone()).collect();
    let unknown: Vec<String> = ids.iter().filter(|id| !known.contains(*id)).cloned().collect();
    details.extend(host.details(&unknown).await?);
    host.keep_inspected(&project.name, ids);
    for container in &mut ours {
        container.details = details.remove(&container.id);
        if container.details.as_ref().is_some_and(|details| details.awaits_check) {
            container.health = Health::Starting;
        }
    }
    Ok((ours, others))
}

async fn networks(
    host: &Host,
    project: &Project,
    anew: bool,
) -> Result<BTreeMap<String, Option<NetworkOrVolume>>, Error> {
    Ok(BTreeMap::from([(project.network.clone(), host.network(&project.network, anew).await?)]))
}

async fn volumes(
    host: &Host,
    project: &Project,
    anew: bool,
) -> Result<BTreeMap<String, Option<NetworkOrVolume>>, Error> {
    let all = project
        .volumes
        .values()
        .map(async |volume| Ok::<_, Error>((volume.name.clone(), host.volume(&volume.name, anew).await?)));
    Ok(try_join_all(all).await?.into_iter().collect())
}

/// What the images of a release bring along for their containers.
///
/// # Errors
/// When Docker cannot be asked.
pub async fn images(host: &Host, release: &Release) -> Result<BTreeMap<String, Arc<ImageConfig>>, Error> {
    let ids: BTreeSet<&String> = release.images.values().collect();
    let all = ids
        .into_iter()
        .map(async |id| Ok::<_, Error>(host.image_config(id).await?.map(|config| (id.clone(), config))));
    Ok(try_join_all(all).await?.into_iter().flatten().collect())
}

/// What running containers that mount folders of the project see of them.
async fn mounts(host: &Host, stack: &str, observed: &Observed, state: u64) -> Result<Mounts, Error> {
    // Folders of the host are not exchanged by the operator, and who sees the whole host has a long list.
    let folder = format!("bind {}/", observed.directory);
    let binds = |details: &&Details| details.settings.values().any(|setting| setting.starts_with(&folder));
    let running: Vec<(String, u32)> = observed
        .containers
        .iter()
        .filter_map(|container| {
            Some((container.id.clone(), container.details.as_ref().filter(binds)?.process?))
        })
        .collect();
    let processes: Vec<u32> = running.iter().map(|(_, process)| *process).collect();
    let (host, inside) = host.mounts(stack, &processes, state).await?;
    Ok(Mounts { host, containers: running.into_iter().map(|(id, _)| id).zip(inside).collect() })
}

/// Secret files of other users than SSH's are read through a container that has them mounted.
async fn read_owned_secrets(host: &Host, observed: &mut Observed) -> Result<(), Error> {
    let Some(applied) = &observed.applied else { return Ok(()) };
    for (path, _) in applied.project.secrets.iter().filter(|(_, secret)| secret.owner.is_some()) {
        let Some(FileFact::File { sha256: content @ None, .. }) = observed.files.get_mut(path) else {
            continue;
        };
        let Some((service, inside)) = service_of(path).and_then(|service| {
            Some((service, applied.project.services.get(service)?.compose.inside(path)?))
        }) else {
            continue;
        };
        let Some(container) = observed.containers.iter().find(|one| one.has_label(COMPOSE_SERVICE, service))
        else {
            continue;
        };
        *content = match host.archived_file(&container.id, &inside).await {
            // Whatever is there, such as a file of any size, is not the secret.
            Err(Error::DockerApi { .. }) => None,
            file => file?.map(|file| sha256(file.content.reveal())),
        };
    }
    Ok(())
}

/// The certificate that a service of a release shows. While it shows one, it is asked on the slow schedule; else
/// whenever everything is read.
async fn certificate(
    host: &Host,
    applied: Option<&Release>,
    depth: Depth,
) -> Result<Option<Result<Certificate, String>>, Error> {
    let Some(probe) = applied.and_then(|applied| applied.project.certificate.as_ref()) else {
        return Ok(None);
    };
    let before = host.presented_certificate_before(probe.port, &probe.name);
    let schedule = |shown: &PresentedCertificate| {
        if matches!(shown, PresentedCertificate::Certificate(_)) { Depth::Slow } else { Depth::Whole }
    };
    let before = before.filter(|shown| depth < schedule(shown));
    let shown = match before {
        Some(shown) => shown,
        None => host.presented_certificate(probe.port, &probe.name).await?,
    };
    Ok(match shown {
        PresentedCertificate::Certificate(der) => Some(Certificate::read(&der, &probe.name)),
        PresentedCertificate::Nothing(found) => Some(Err(found)),
        PresentedCertificate::Forbidden => None,
    })
}

/// The content of some files of a project as they are, and as the applied release has them; for people to compare.
///
/// # Errors
/// When the host cannot be asked.
pub async fn contents(
    host: &Host,
    project: &Project,
    applied: &Release,
    paths: &[String],
) -> Result<BTreeMap<String, (String, String)>, Error> {
    let live = |path: &String| format!("{}/{path}", project.folder);
    let stored = |path: &String| format!("{}/{}", project.folder, applied.stored(path));
    let all: Vec<String> = paths.iter().flat_map(|path| [live(path), stored(path)]).collect();
    if all.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found = host.content(&all).await?;
    let text =
        |path: &String| String::from_utf8_lossy(found.get(path).map_or(&[], Vec::as_slice)).into_owned();
    Ok(paths.iter().map(|path| (path.clone(), (text(&stored(path)), text(&live(path))))).collect())
}
