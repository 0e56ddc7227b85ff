//! Whether services serve, checked by the operator itself: `docker compose up --wait` is no proof.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::{Error, actions, compose::Compose, requests};
use crate::{
    certificate::Certificate,
    diff,
    host::{self, Container, Host, HostLock, PresentedCertificate, Step},
    model::Probe,
    observe::{self, Observed, Prober, is_ours, is_ready},
    project::{
        CertificateProbe, Project,
        compose::{COMPOSE_ONE_OFF, COMPOSE_PROJECT, COMPOSE_SERVICE},
        labels,
    },
    release::Release,
    secret::Values,
    text::printable,
};

/// How long a container, or an object behind an API, may be missing until it is made once more.
const MISSING: Duration = Duration::from_secs(1);
/// Interval between two checks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long Docker may take to start what ended by itself: what stands still for longer, it does not start any more.
const STILL: Duration = Duration::from_secs(3);
/// How long it may take after a repair until users get answers again.
const SERVED_LIMIT: Duration = Duration::from_secs(5);
/// Containers whose logs are told.
const LOGS: usize = 3;
/// Lines of a log that are told.
const TELLING: usize = 10;
/// A line that is there so often, but for its numbers, is routine.
const ROUTINE: usize = 5;
/// Words of a line, in small letters, by which it tells of an error.
const ERRORS: [&str; 9] =
    ["error", "fatal", "panic", "fail", "cannot", "could not", "refused", "denied", "expected"];
/// How often what stands still is started.
const STARTS: u32 = 2;

/// What has to serve.
pub(super) struct Proof<'a> {
    /// The release.
    pub(super) release: &'a Release,
    /// Those of its services.
    pub(super) services: &'a BTreeSet<&'a str>,
    /// Names of containers that do not count.
    pub(super) without: &'a BTreeSet<&'a str>,
    /// Now.
    pub(super) now: Timestamp,
    /// A service that is not judged, and started all the same where it stands still.
    pub(super) beside: Option<&'a str>,
    /// What nobody is told.
    pub(super) secrets: &'a Values,
    /// Services that are to take up their files once they serve, where that needs a request.
    pub(super) reloads: BTreeSet<&'a str>,
    /// The certificate that users are to be shown, where it is known.
    pub(super) certificate: Option<Certificate>,
    /// Whether users must get what the release publishes, too.
    pub(super) is_published: bool,
}

impl Proof<'_> {
    /// Probes the release.
    pub(super) fn prober(&self) -> Prober<'_> {
        Prober { release: self.release, secrets: self.secrets, key: None, now: self.now }
    }

    /// The containers of the release's project, but those that do not count.
    async fn containers(&self, host: &Host) -> Result<Vec<Container>, Error> {
        let mut containers = host.containers().await?;
        containers.retain(|container| {
            let is_counted = !self.without.contains(container.name.as_str());
            is_of_project(container, &self.release.project) && is_counted
        });
        Ok(containers)
    }

    /// A container that is not ours and that Compose takes for one of a service: as long as it is there, that one does not
    /// get its own.
    fn stranger(&self, containers: &[Container]) -> Option<Error> {
        let project = &self.release.project;
        let is_stranger = |one: &&Container| {
            one.has_label(COMPOSE_PROJECT, &project.name) && !one.labels.contains_key(labels::OWNER)
        };
        let named = containers.iter().filter(is_stranger).find_map(|one| {
            let service = one.labels.get(COMPOSE_SERVICE)?;
            self.services.contains(service.as_str()).then(|| (service.clone(), one.name.clone()))
        });
        named.map(|(service, container)| Error::StrangerInTheWay { service, container })
    }

    /// The step that makes containers of the release's services that are missing beside those that are there; none where
    /// none is.
    fn remake(&self, host: &Host, containers: &[Container]) -> Option<Step> {
        let project = &self.release.project;
        let number = |service: &str, is_counted: bool| {
            let of_service = containers.iter().filter(|one| one.has_label(COMPOSE_SERVICE, service));
            let of_service = of_service.filter(|one| !one.has_label(COMPOSE_ONE_OFF, "True"));
            of_service.filter(|one| self.without.contains(one.name.as_str()) != is_counted).count()
        };
        let missing = project.services.iter().filter_map(|(name, definition)| {
            let scale = definition.compose.scale as usize;
            let is_missing = self.services.contains(name.as_str()) && number(name, true) < scale;
            is_missing.then(|| (name.as_str(), number(name, false) + scale))
        });
        let missing: Vec<(&str, usize)> = missing.collect();
        (!missing.is_empty()).then(|| Compose::new(host, project).beside(missing))
    }

    /// The last that containers wrote that do not serve.
    async fn logs(&self, host: &Host, containers: &[Container]) -> Vec<String> {
        let is_bad = |one: &&Container| {
            let service = one.labels.get(COMPOSE_SERVICE);
            let asked = service.filter(|service| self.services.contains(service.as_str()));
            let definition = asked.and_then(|service| self.release.project.services.get(service));
            definition.is_some_and(|definition| !is_ready(definition, one))
        };
        self.logs_of(host, containers.iter().filter(is_bad)).await
    }

    async fn logs_of(&self, host: &Host, containers: impl Iterator<Item = &Container>) -> Vec<String> {
        let containers: Vec<&Container> = containers.take(LOGS).collect();
        let ids: Vec<String> = containers.iter().map(|container| container.id.clone()).collect();
        let details = host.details(&ids).await.unwrap_or_default();
        let shown = |text: &str| printable(&self.secrets.redacted(text));
        let mut logs = Vec::new();
        for container in containers {
            let checked = details.get(&container.id).and_then(|details| details.health_output.as_ref());
            logs.extend(
                checked.map(|said| format!("its health check in {} said: {}", container.name, shown(said))),
            );
            let lines = host.log(&container.id).await.unwrap_or_default();
            let lines: Vec<String> = telling(&lines).into_iter().map(shown).collect();
            let said = if lines.is_empty() { "nothing".to_owned() } else { lines.join(" / ") };
            logs.push(format!("{} wrote last: {said}", container.name));
        }
        logs
    }
}

/// Whether a container is of a project, and not only by Compose's labels, which anybody can give.
fn is_of_project(container: &Container, project: &Project) -> bool {
    container.has_label(COMPOSE_PROJECT, &project.name) && container.labels.contains_key(labels::OWNER)
}

/// Waits until services of a release serve, and have served without a break for `soak`; then until they have loaded what
/// the release has for them, and the next instance of those may go of which no two may be down; of the edge, until it
/// shows users the certificate that the release wants.
pub(super) async fn serving(
    host: &Host,
    lock: &HostLock,
    proof: &Proof<'_>,
    limit: Duration,
    soak: Duration,
) -> Result<(), Error> {
    healthy(host, lock, proof, limit, soak).await?;
    requests::reload(host, lock, proof).await?;
    requests::put(host, lock, proof).await?;
    loaded(host, lock, proof, limit).await?;
    if proof.is_published {
        served(host, lock, proof).await?;
    }
    match &proof.release.project.certificate {
        Some(probe) if proof.services.contains(probe.service.as_str()) => {
            certified(host, lock, proof, probe, limit).await
        }
        _ => Ok(()),
    }
}

/// Waits until the probes of services other than readiness succeed: loaded configuration, API objects, gates. Objects that
/// somebody changes meanwhile are put once more.
async fn loaded(host: &Host, lock: &HostLock, proof: &Proof<'_>, limit: Duration) -> Result<(), Error> {
    let started = Instant::now();
    let mut last_put = started;
    loop {
        lock.check()?;
        let containers = proof.containers(host).await?;
        let is_chosen = |service: &str, _: &Container, probe: &Probe| {
            proof.services.contains(service) && *probe != Probe::Ready
        };
        let mut results = proof.prober().run(host, &containers, is_chosen).await?;
        results.retain(|_, result| result.is_err());
        if results.is_empty() {
            return Ok(());
        }
        if started.elapsed() > limit {
            let name =
                |id: &str| containers.iter().find(|one| one.id == id).map_or("", |one| one.name.as_str());
            let failures = results.iter().filter_map(|(probe, result)| Some((probe, result.as_ref().err()?)));
            let faults =
                failures.map(|((id, probe), failure)| format!("{}: {}{failure}", name(id), subject(probe)));
            let faults = faults.collect();
            let has_failed = |one: &&Container| results.keys().any(|(id, _)| *id == one.id);
            let logs = proof.logs_of(host, containers.iter().filter(has_failed));
            return Err(Error::Unhealthy { faults, logs: logs.await, limit });
        }
        let is_object = |probe: &Probe| matches!(probe, Probe::Object(_));
        if last_put.elapsed() > MISSING && results.keys().any(|(_, probe)| is_object(probe)) {
            requests::put(host, lock, proof).await?;
            last_put = Instant::now();
        }
        sleep(PAUSE).await;
    }
}

/// Waits until users get what the release publishes.
async fn served(host: &Host, lock: &HostLock, proof: &Proof<'_>) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        lock.check()?;
        let faults = observe::lost_answers(host, proof.release).await?;
        if faults.is_empty() {
            return Ok(());
        }
        if started.elapsed() > SERVED_LIMIT {
            return Err(Error::Unhealthy { faults, logs: Vec::new(), limit: SERVED_LIMIT });
        }
        sleep(PAUSE).await;
    }
}

/// What a probe is about, for a message.
fn subject(probe: &Probe) -> String {
    match probe {
        Probe::Ready | Probe::Gate => String::new(),
        Probe::Loaded(what) | Probe::Object(what) => format!("{what}: "),
    }
}

async fn certified(
    host: &Host,
    lock: &HostLock,
    proof: &Proof<'_>,
    probe: &CertificateProbe,
    limit: Duration,
) -> Result<(), Error> {
    let started = Instant::now();
    let (project, wanted) = (&proof.release.project, proof.certificate.as_ref());
    loop {
        lock.check()?;
        let found = match host.presented_certificate(probe.port, &probe.name).await? {
            PresentedCertificate::Forbidden => return Ok(()),
            PresentedCertificate::Nothing(found) => found,
            PresentedCertificate::Certificate(der) => match Certificate::read(&der, &probe.name) {
                Ok(shown) if wanted.is_none_or(|wanted| wanted.fingerprint == shown.fingerprint) => {
                    return Ok(());
                }
                Ok(_) => "another one than the secret has".to_owned(),
                Err(found) => found,
            },
        };
        if started.elapsed() > limit {
            let all = host.containers().await?;
            let CertificateProbe { service, name, .. } = probe;
            let is_shown =
                |one: &&Container| is_ours(one, project) && one.has_label(COMPOSE_SERVICE, service);
            let logs = proof.logs_of(host, all.iter().filter(is_shown)).await;
            let fault = format!("{service}: expected to show a certificate for {name}, found {found}");
            return Err(Error::Unhealthy { faults: vec![fault], logs, limit });
        }
        sleep(PAUSE).await;
    }
}

async fn healthy(
    host: &Host,
    lock: &HostLock,
    proof: &Proof<'_>,
    limit: Duration,
    soak: Duration,
) -> Result<(), Error> {
    let &Proof { release, services, without, beside, .. } = proof;
    let started = Instant::now();
    let mut good_since: Option<(Instant, Vec<String>)> = None;
    let mut helped = Helped::default();
    loop {
        // Without the lock, what is there may be another writer's.
        lock.check()?;
        let project = &release.project;
        let mut containers = host.containers().await?;
        let stranger = proof.stranger(&containers);
        containers.retain(|container| is_of_project(container, project));
        let remake = proof.remake(host, &containers);
        helped.make_missing((host, lock, project), stranger, remake).await?;
        // A daemon that was killed in between leaves its containers ended, whatever their restart policy: those that
        // serve until the new ones do, too.
        let is_touched = |one: &&Container| {
            let service = one.labels.get(COMPOSE_SERVICE);
            let is_named = |name: &String| services.contains(name.as_str()) || beside == Some(name.as_str());
            is_ours(one, project) && service.is_some_and(is_named)
        };
        let still = standing_still(containers.iter().filter(is_touched));
        containers.retain(|container| !without.contains(container.name.as_str()));
        let mut ids: Vec<String> = containers.iter().map(|container| container.id.clone()).collect();
        ids.sort();
        helped.start_still((host, lock, project), &still).await?;
        let is_chosen = |service: &str, _: &Container, probe: &Probe| {
            services.contains(service) && *probe == Probe::Ready
        };
        let probe_results = proof.prober().run(host, &containers, is_chosen).await?;
        let observed = Observed { containers, probe_results, ..Observed::default() };
        let faults = diff::faults(release, &observed).into_iter();
        let faults = faults.filter(|fault| services.contains(fault.service.as_str()));
        let faults: Vec<String> = faults.map(|fault| fault.to_string()).collect();
        good_since = match good_since {
            _ if !faults.is_empty() => None,
            Some((since, same)) if same == ids => Some((since, same)),
            _ => Some((Instant::now(), ids)),
        };
        let left = good_since.as_ref().map(|(since, _)| soak.saturating_sub(since.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(());
        }
        if faults.is_empty() && started.elapsed() > limit + soak {
            let faults =
                vec!["containers: expected the same ones, found them replaced again and again".to_owned()];
            let logs = proof.logs(host, &observed.containers).await;
            return Err(Error::Unhealthy { faults, logs, limit: limit + soak });
        }
        if !faults.is_empty() && started.elapsed() > limit {
            let logs = proof.logs(host, &observed.containers).await;
            return Err(Error::Unhealthy { faults, logs, limit });
        }
        sleep(left.unwrap_or(PAUSE).min(PAUSE)).await;
    }
}

/// What is done about containers that end or go while they are waited for, a few times.
#[derive(Default)]
struct Helped {
    still_since: Option<Instant>,
    starts: u32,
    missing_since: Option<Instant>,
    makes: u32,
}

impl Helped {
    /// Starts what stands still for a while.
    async fn start_still(
        &mut self,
        (host, lock, project): (&Host, &HostLock, &Project),
        still: &[String],
    ) -> Result<(), Error> {
        self.still_since = since(self.still_since, !still.is_empty());
        if self.starts >= STARTS || !is_over(self.still_since, STILL) {
            return Ok(());
        }
        (self.starts, self.still_since) = (self.starts + 1, None);
        let start = actions::start(still.iter().map(String::as_str));
        match host.carry_out(lock, &project.folder, &[start]).await {
            // What does not start is told as what does not serve.
            Err(host::Error::Docker { .. }) => Ok(()),
            done => Ok(done?),
        }
    }

    /// Makes what is missing once more, by the step for that; somebody may have removed what was made just now. A stranger in
    /// the way is told.
    async fn make_missing(
        &mut self,
        (host, lock, project): (&Host, &HostLock, &Project),
        stranger: Option<Error>,
        remake: Option<Step>,
    ) -> Result<(), Error> {
        self.missing_since = since(self.missing_since, remake.is_some());
        let Some(step) = remake.filter(|_| is_over(self.missing_since, MISSING)) else { return Ok(()) };
        if let Some(stranger) = stranger {
            return Err(stranger);
        }
        if self.makes >= STARTS {
            return Ok(());
        }
        (self.makes, self.missing_since) = (self.makes + 1, None);
        match host.carry_out(lock, &project.folder, &[step]).await {
            Err(host::Error::Docker { fault, .. }) if !fault.is_of_host() => Ok(()),
            done => Ok(done?),
        }
    }
}

/// Since when something is so, where it is so now.
fn since(before: Option<Instant>, is_so: bool) -> Option<Instant> {
    before.filter(|_| is_so).or_else(|| is_so.then(Instant::now))
}

fn is_over(since: Option<Instant>, limit: Duration) -> bool {
    since.is_some_and(|since| since.elapsed() >= limit)
}

/// The lines of a log that tell most, in their order: the last errors, and the last of what is not said again and again,
/// as answers to health checks are.
fn telling(lines: &[String]) -> Vec<&str> {
    // What differs in numbers alone is the same line.
    let shape = |line: &str| -> String { line.chars().filter(char::is_ascii_alphabetic).collect() };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines {
        *counts.entry(shape(line)).or_default() += 1;
    }
    let is_rare = |line: &str| counts.get(&shape(line)).is_none_or(|count| *count < ROUTINE);
    let is_error = |line: &str| {
        let line = line.to_lowercase();
        ERRORS.iter().any(|word| line.contains(word))
    };
    let last = |most: usize, is_chosen: &dyn Fn(&str) -> bool| -> BTreeSet<usize> {
        let chosen = lines.iter().enumerate().rev().filter(|(_, line)| is_chosen(line));
        chosen.map(|(index, _)| index).take(most).collect()
    };
    let mut chosen = last(TELLING / 2, &|line| is_error(line) && is_rare(line));
    chosen.extend(last(TELLING - chosen.len(), &|line| is_rare(line)));
    if chosen.is_empty() {
        chosen = last(TELLING / 2, &|_| true);
    }
    chosen.into_iter().filter_map(|index| lines.get(index)).map(String::as_str).collect()
}

/// Names of the containers of services that Docker neither runs nor is about to start.
fn standing_still<'a>(containers: impl Iterator<Item = &'a Container>) -> Vec<String> {
    let ended = containers.filter(|one| one.is("exited") || one.is("created"));
    let of_service = ended.filter(|one| !one.has_label(COMPOSE_ONE_OFF, "True"));
    of_service.map(|container| container.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_the_errors_are_told_and_not_what_is_said_again_and_again() {
        let routine =
            |number: u32| format!("{{\"ts\":{number}.5,\"msg\":\"received request\",\"uri\":\"/config/\"}}");
        let error =
            "{\"level\":\"error\",\"msg\":\"could not get certificate\",\"error\":\"connection refused\"}";
        let mut lines: Vec<String> = (0..190).map(routine).collect();
        lines.insert(20, "starting".to_owned());
        lines.insert(30, error.to_owned());
        assert_eq!(telling(&lines), ["starting", error]);
        // Where there is nothing else, the last of it.
        let lines: Vec<String> = (0..20).map(routine).collect();
        assert_eq!(telling(&lines), lines[15..].iter().map(String::as_str).collect::<Vec<_>>());
        let few = ["a".to_owned(), "b".to_owned()];
        assert_eq!(telling(&few), ["a", "b"]);
        assert_eq!(telling(&[]), [""; 0]);
    }
}
