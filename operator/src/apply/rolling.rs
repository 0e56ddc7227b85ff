//! New containers beside the old ones: those serve until the new ones do, and are let go without a lost request.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tasktracker_crds::HookSpec;

use super::{
    ACTION_LIMIT, Context, Error, QUICK_LIMIT,
    compose::Compose,
    hooks, reload,
    rollout::{POST_HOOK, bring_up, refusal},
    secret_backup::SecretBackup,
    verify,
};
use crate::{
    diff::certificate,
    failpoint,
    host::{self, Container, DockerFault, Host, Placement, Source, State, Step},
    observe::{self, Observed},
    project::{BlueGreen, compose::COMPOSE_SERVICE, labels, service_of},
    release::{COMPOSE_FILE, Prepared, Release},
};

/// Time limit for the requests to new containers. A `docker exec` may hang when the daemon is killed while it runs.
const ASK_LIMIT: Duration = Duration::from_secs(12);

/// What is replaced while it serves.
pub(super) struct Takeover<'a> {
    host: &'a Host,
    context: &'a Context<'a>,
    prepared: &'a Prepared,
    /// Secrets of the release that serves.
    backup: &'a SecretBackup<'a>,
    /// The release that serves.
    before: &'a Release,
    /// Names of its containers, by service.
    old: BTreeMap<String, Vec<String>>,
    /// What was there before.
    observed: &'a Observed,
    /// Containers of the same services that serve nobody.
    idle: Vec<&'a Container>,
    /// The container that leads traffic to them.
    proxy: Proxy,
}

/// Whether a container was made for a release.
pub(super) fn is_of(container: &Container, release: &Release, service: &str) -> bool {
    let hash = release.service_hashes.get(service);
    hash.is_some_and(|hash| container.has_label(labels::SERVICE_HASH, hash))
}

/// Takes away who served before a release, and whatever else names somebody else.
pub(super) fn stale<'a>(there: impl IntoIterator<Item = &'a String>, release: &Release) -> Vec<Step> {
    let is_stale = |path: &&String| release.project.is_upstream(path) && !release.files.contains_key(*path);
    let stale: BTreeSet<&String> = there.into_iter().filter(is_stale).collect();
    stale.into_iter().map(|path| Step::Remove { path: path.clone() }).collect()
}

/// The container that leads traffic to the others.
pub(super) struct Proxy {
    /// Its service.
    pub(super) service: String,
    name: String,
    id: String,
    /// Whether it is as a release wants it, and stays.
    pub(super) stays: bool,
}

impl Proxy {
    /// The one that runs.
    pub(super) fn running(release: &Release, observed: &Observed) -> Option<Self> {
        let service = release.project.proxy()?;
        let is_it = |one: &&Container| one.state == State::Running && one.has_label(COMPOSE_SERVICE, service);
        let container = observed.containers.iter().find(is_it)?;
        let stays = is_of(container, release, service);
        let (name, id) = (container.name.clone(), container.id.clone());
        Some(Self { service: service.to_owned(), name, id, stays })
    }
}

/// Outcome of requests to new containers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ProbeOutcome {
    /// All succeeded.
    Success,
    /// A server answered with an error.
    Failure(String),
    /// Nobody answered.
    NoAnswer(String),
}

impl<'a> Takeover<'a> {
    /// The takeover that a release needs; none where nothing that serves is replaced, or nothing leads traffic to it.
    pub(super) fn new(
        host: &'a Host,
        context: &'a Context<'a>,
        (prepared, backup): (&'a Prepared, &'a SecretBackup<'a>),
        observed: &'a Observed,
    ) -> Option<Self> {
        let release = &prepared.release;
        let proxy = Proxy::running(release, observed)?;
        let (mut old, mut idle) = (BTreeMap::<String, Vec<String>>::new(), Vec::new());
        for container in &observed.containers {
            let Some(service) = container.labels.get(COMPOSE_SERVICE) else { continue };
            if !release.project.blue_green().any(|(name, _)| name == service) {
                continue;
            }
            if container.state != State::Running {
                idle.push(container);
            } else if !is_of(container, release, service) {
                old.entry(service.clone()).or_default().push(container.name.clone());
            }
        }
        let before = observed.applied.as_ref()?;
        (!old.is_empty()).then_some(Self {
            host,
            context,
            prepared,
            backup,
            before,
            old,
            observed,
            idle,
            proxy,
        })
    }

    /// Containers of services that are taken over, and that serve nobody.
    pub(super) fn idle(&self) -> impl Iterator<Item = &'a Container> {
        self.idle.iter().copied()
    }

    /// Brings the release up beside what serves, proves it, leads the traffic to it and lets the old containers go. What
    /// does not come so far that it has the traffic is taken away again: the old containers have served all the while.
    pub(super) async fn carry_out(
        &self,
        steps: Vec<Step>,
        secrets_of_proxy: Vec<Step>,
        after: Option<(&str, &HookSpec)>,
    ) -> Result<(), Error> {
        let served = async {
            Box::pin(self.take_over(steps, secrets_of_proxy)).await?;
            match after {
                Some((service, hook)) => {
                    let parts = (self.prepared, &self.observed.secrets);
                    let name = hooks::name(self.context.project, POST_HOOK);
                    hooks::run(self.host, (name, service), hook, parts, self.context).await
                }
                None => Ok(()),
            }
        };
        match served.await {
            Err(error) if error.is_of_release() => {
                self.is_release_to_blame(&error).await?;
                if !self.context.leaves_failures() {
                    self.roll_back().await?;
                }
                return Err(error);
            }
            done => done?,
        }
        // From here on there is no way back that costs nothing: what goes wrong is tried again, forwards.
        self.remove_old().await.map_err(|error| match error {
            Error::Host(error) => error.into(),
            other => {
                let doing = "removing the old containers".to_owned();
                host::Error::Failed { doing, found: other.to_string() }.into()
            }
        })
    }

    async fn take_over(&self, mut steps: Vec<Step>, secrets_of_proxy: Vec<Step>) -> Result<(), Error> {
        let Self { host, context, prepared, .. } = self;
        let release = &prepared.release;
        let compose = Compose::new(host, context.project);
        // The proxy's own files come last: with them, requests go to the new containers.
        let (later, first): (Vec<Placement>, Vec<Placement>) =
            prepared.live().into_iter().partition(|placement| self.is_of_proxy(&placement.path));
        steps.extend(first.into_iter().map(Step::Place));
        steps.push(Step::Sync);
        self.run(&steps).await?;
        self.bring_beside(&compose, &BTreeMap::new()).await?;
        failpoint::reached("beside");
        // Users are led only to what has answered, and has been healthy for a while.
        let (steady, unreachable) = tokio::join!(self.steady(), self.unreachable());
        steady?;
        let unreachable = unreachable?;
        if !unreachable.is_empty() {
            // One container that cannot be reached may be the host's fault, such as an address that another one has, too:
            // only where the next one cannot be reached either, it is the release's.
            self.bring_beside(&compose, &unreachable).await?;
            let remove = |(name, _): (&String, &String)| Step::docker(&["rm", "-f", name], QUICK_LIMIT);
            self.run(&unreachable.iter().map(remove).collect::<Vec<_>>()).await?;
            let (steady, reachable) = tokio::join!(self.steady(), self.reachable());
            steady?;
            reachable?;
        }
        let mut steps: Vec<Step> =
            secrets_of_proxy.into_iter().chain(later.into_iter().map(Step::Place)).collect();
        steps.extend(stale(self.observed.files.keys().chain(self.before.files.keys()), release));
        steps.push(Step::Sync);
        steps.extend(self.reload_proxy(&compose));
        self.run(&steps).await?;
        failpoint::reached("moved");
        let services = self.replaced().chain([self.proxy.service.as_str()]).collect();
        self.serve(&services, &self.old_names().collect(), Duration::ZERO).await
    }

    /// Makes the new containers, beside the old ones and beside those of them that cannot be reached, which are given with
    /// their services; waits until they serve.
    async fn bring_beside(
        &self,
        compose: &Compose<'_>,
        unreachable: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let Self { host, context, prepared, old, .. } = self;
        let release = &prepared.release;
        let beside = compose.beside(old.iter().map(|(service, old)| {
            let wanted = release
                .project
                .services
                .get(service)
                .map_or(0, |definition| definition.compose.scale as usize);
            let more = unreachable.values().filter(|of| *of == service).count();
            (service.as_str(), old.len() + wanted + more)
        }));
        bring_up(host, &[beside], context).await?;
        let names = self.old_names().chain(unreachable.keys().map(String::as_str)).collect();
        self.serve(&self.replaced().collect(), &names, Duration::ZERO).await
    }

    /// Waits until the new containers have been healthy for `policy.rollout.soak`.
    async fn steady(&self) -> Result<(), Error> {
        let soak = self.context.rollout.soak.duration();
        self.serve(&self.replaced().collect(), &self.old_names().collect(), soak).await
    }

    /// Services of which containers are replaced.
    fn replaced(&self) -> impl Iterator<Item = &str> {
        self.old.keys().map(String::as_str)
    }

    /// Names of the containers that serve until the new ones do.
    fn old_names(&self) -> impl Iterator<Item = &str> {
        self.old.values().flatten().map(String::as_str)
    }

    /// Fails where a new container does not answer as users will ask it.
    async fn reachable(&self) -> Result<(), Error> {
        for ((name, _), urls) in self.requests().await? {
            if let ProbeOutcome::NoAnswer(found) | ProbeOutcome::Failure(found) = self.ask(&urls).await? {
                return Err(Error::Refused { found: format!("{name}: {found}") });
            }
        }
        Ok(())
    }

    /// The new containers that do not answer as users will ask them, though they are healthy: name and service.
    async fn unreachable(&self) -> Result<BTreeMap<String, String>, Error> {
        let requests = self.requests().await?;
        if self.ask(&requests.values().flatten().cloned().collect::<Vec<_>>()).await? == ProbeOutcome::Success
        {
            return Ok(BTreeMap::new());
        }
        let mut unreachable = BTreeMap::new();
        for ((name, service), urls) in requests {
            match self.ask(&urls).await? {
                ProbeOutcome::Success => {}
                // It is reached.
                ProbeOutcome::Failure(found) => {
                    return Err(Error::Refused { found: format!("{name}: {found}") });
                }
                ProbeOutcome::NoAnswer(_) => drop(unreachable.insert(name, service)),
            }
        }
        Ok(unreachable)
    }

    /// Requests from the edge, one after the other, until one does not succeed.
    async fn ask(&self, urls: &[String]) -> Result<ProbeOutcome, Error> {
        let words = ["exec", self.proxy.name.as_str(), "wget", "-q", "-O", "/dev/null"];
        let words: Vec<&str> = words.into_iter().chain(urls.iter().map(String::as_str)).collect();
        if urls.is_empty() {
            return Ok(ProbeOutcome::Success);
        }
        let (host, context) = (self.host, self.context);
        let steps = [Step::docker(&words, ASK_LIMIT)];
        match host.carry_out(context.lock, &context.project.folder, &steps).await {
            Ok(()) => Ok(ProbeOutcome::Success),
            Err(host::Error::Docker { fault: DockerFault::HttpError, found }) => {
                Ok(ProbeOutcome::Failure(found))
            }
            Err(host::Error::Docker { fault: DockerFault::Other, found }) => {
                Ok(ProbeOutcome::NoAnswer(found))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Stops the old containers, which end when they have answered what they are about, and removes them.
    async fn remove_old(&self) -> Result<(), Error> {
        let Self { host, context, prepared, .. } = self;
        let release = &prepared.release;
        let limits = context.rollout;
        let on_old = |words: &[&str], limit| {
            let all = words.iter().copied().chain(self.old_names());
            Step::docker(&all.collect::<Vec<_>>(), limit)
        };
        let stop = on_old(&["stop"], limits.drain_timeout.duration() + ACTION_LIMIT);
        self.run(&[stop, on_old(&["rm", "-f"], ACTION_LIMIT)]).await?;
        if !self.is_whole().await? {
            self.run(&[Compose::new(host, context.project).up(&[])]).await?;
        }
        failpoint::reached("applied");
        let services = release.project.services.keys().map(String::as_str).collect();
        self.serve(&services, &BTreeSet::new(), Duration::ZERO).await
    }

    /// Whether every service has its containers by now, as the release wants them and running: then Compose has nothing
    /// to do.
    async fn is_whole(&self) -> Result<bool, Error> {
        let release = &self.prepared.release;
        let all = self.host.containers().await?;
        let number = |service: &str| {
            let ours = all.iter().filter(|one| observe::is_ours(one, &release.project));
            ours.filter(|one| one.state == State::Running && is_of(one, release, service)).count()
        };
        let services = &release.project.services;
        Ok(services.iter().all(|(name, service)| number(name) == service.compose.scale as usize))
    }

    /// Refuses to blame a release where what led the traffic before stands still: no release does that, a daemon that was
    /// killed or a host without power does. It is tried again.
    async fn is_release_to_blame(&self, error: &Error) -> Result<(), Error> {
        let containers = self.host.containers().await?;
        let proxy = containers.iter().find(|container| container.id == self.proxy.id);
        match proxy.filter(|proxy| proxy.state != State::Running) {
            None => Ok(()),
            Some(proxy) => {
                let doing = format!("taking over, while {} stood still ({})", proxy.name, proxy.status);
                Err(host::Error::Failed { doing, found: error.to_string() }.into())
            }
        }
    }

    /// Waits until services serve, and have without a break for `soak`, while the proxy is to go on; containers named in
    /// `without` do not count.
    async fn serve(
        &self,
        services: &BTreeSet<&str>,
        without: &BTreeSet<&str>,
        soak: Duration,
    ) -> Result<(), Error> {
        let Self { host, context, prepared, observed, proxy, .. } = self;
        let (release, secrets) = (&prepared.release, &observed.secrets);
        let proof = verify::Proof {
            now: context.now,
            release,
            services,
            without,
            beside: Some(&proxy.service),
            secrets,
            reloads: BTreeSet::new(),
            certificate: certificate::given(&release.project, secrets).and_then(Result::ok),
            is_published: false,
        };
        verify::serving(host, context.lock, &proof, context.rollout.health_timeout.duration(), soak).await
    }

    async fn run(&self, steps: &[Step]) -> Result<(), Error> {
        let Self { host, context, .. } = self;
        let done = host.carry_out(context.lock, &context.project.folder, steps);
        done.await.map_err(refusal)
    }

    /// Makes the proxy take up its configuration, where that is another one; where it is another one itself, it is made
    /// anew.
    fn reload_proxy(&self, compose: &Compose<'_>) -> Option<Step> {
        let service = self.proxy.service.as_str();
        if !self.proxy.stays {
            return Some(compose.up(&["--no-deps", service]));
        }
        let releases = (Some(self.before), &self.prepared.release);
        reload::step(service, releases, self.observed, compose)
    }

    /// Whether a file is one that the proxy sees.
    fn is_of_proxy(&self, path: &str) -> bool {
        service_of(path) == Some(&self.proxy.service)
    }

    /// What users will ask each new container for, by the container's name and service.
    async fn requests(&self) -> Result<BTreeMap<(String, String), Vec<String>>, Error> {
        let of = |(service, container): (String, String)| {
            let (_, BlueGreen { port, paths, .. }) =
                self.prepared.release.project.blue_green().find(|(name, _)| **name == service)?;
            let urls = paths.iter().map(|path| format!("http://{container}:{port}{path}")).collect();
            Some(((container, service), urls))
        };
        Ok(self.new_containers().await?.into_iter().filter_map(of).collect())
    }

    /// The new containers: service and name.
    async fn new_containers(&self) -> Result<Vec<(String, String)>, Error> {
        let owner = &self.context.project.owner;
        let all = self.host.containers().await?.into_iter().filter(|one| one.has_label(labels::OWNER, owner));
        let new = all.filter_map(|container| {
            let service = container.labels.get(COMPOSE_SERVICE)?;
            let is_new = self.old.contains_key(service) && is_of(&container, &self.prepared.release, service);
            is_new.then(|| (service.clone(), container.name))
        });
        Ok(new.collect())
    }

    /// The old release serves still, or again: its files are in force, and nothing is left of the other one.
    async fn roll_back(&self) -> Result<(), Error> {
        let Self { host, context, prepared, before, .. } = self;
        let copy = |path: &String| {
            let record = before.files.get(path)?;
            Some(Step::Place(Placement {
                path: path.clone(),
                mode: record.mode,
                sha256: record.sha256.clone(),
                source: Source::Copy(before.stored(path)),
            }))
        };
        let mut files: Vec<&String> = before.files.keys().filter(|path| self.is_of_proxy(path)).collect();
        let compose_file = COMPOSE_FILE.to_owned();
        files.push(&compose_file);
        let mut steps: Vec<Step> = files.into_iter().filter_map(copy).collect();
        steps.extend(self.backup.restore_of(&self.proxy.service));
        steps.extend(stale(self.observed.files.keys().chain(prepared.release.files.keys()), before));
        steps.push(Step::Sync);
        steps.extend(self.reload_proxy(&Compose::new(host, context.project)));
        let new = self.new_containers().await?;
        steps.extend(new.iter().map(|(_, name)| Step::docker(&["rm", "-f", name], QUICK_LIMIT)));
        Ok(host.carry_out(context.lock, &context.project.folder, &steps).await?)
    }
}
