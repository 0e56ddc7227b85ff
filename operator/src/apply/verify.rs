//! Whether services serve, checked by the operator itself: `docker compose up --wait` is no proof.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Error, actions, requests};
use crate::{
    certificate::Certificate,
    diff,
    host::{self, Container, Host, HostLock, PresentedCertificate},
    model::Probe,
    observe::{Observed, Prober, is_ours},
    project::{
        CertificateProbe,
        compose::{COMPOSE_ONE_OFF, COMPOSE_PROJECT, COMPOSE_SERVICE},
    },
    release::Release,
    secret::Values,
    text::printable,
};

/// Interval between two checks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long Docker may take to start what ended by itself: what stands still for longer, it does not start any more.
const STILL: Duration = Duration::from_secs(3);
/// Containers whose logs are told.
const LOGS: usize = 3;
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
    /// A service that is not judged, and started all the same where it stands still.
    pub(super) beside: Option<&'a str>,
    /// What nobody is told.
    pub(super) secrets: &'a Values,
    /// Services that are to take up their files once they serve, where that needs a request.
    pub(super) reloads: BTreeSet<&'a str>,
    /// The certificate that users are to be shown, where it is known.
    pub(super) certificate: Option<Certificate>,
}

impl Proof<'_> {
    /// Probes the release.
    pub(super) fn prober(&self) -> Prober<'_> {
        Prober { release: self.release, secrets: self.secrets, key: None }
    }

    /// The containers of the release's project, but those that do not count.
    async fn containers(&self, host: &Host) -> Result<Vec<Container>, Error> {
        let mut containers = host.containers().await?;
        containers.retain(|container| {
            let is_counted = !self.without.contains(container.name.as_str());
            container.has_label(COMPOSE_PROJECT, &self.release.project.name) && is_counted
        });
        Ok(containers)
    }

    /// The last that containers wrote that do not serve.
    async fn logs(&self, host: &Host, containers: &[Container]) -> Vec<String> {
        let is_bad = |one: &&Container| {
            let service = one.labels.get(COMPOSE_SERVICE);
            let asked = service.filter(|service| self.services.contains(service.as_str()));
            let definition = asked.and_then(|service| self.release.project.services.get(service));
            definition.is_some_and(|definition| !diff::is_ready(definition, one))
        };
        self.logs_of(host, containers.iter().filter(is_bad)).await
    }

    async fn logs_of(&self, host: &Host, containers: impl Iterator<Item = &Container>) -> Vec<String> {
        let mut logs = Vec::new();
        for container in containers.take(LOGS) {
            let lines = host.log(&container.id).await.unwrap_or_default();
            let lines: Vec<String> =
                lines.iter().map(|line| printable(&self.secrets.redacted(line))).collect();
            let said = if lines.is_empty() { "nothing".to_owned() } else { lines.join(" / ") };
            logs.push(format!("{} wrote last: {said}", container.name));
        }
        logs
    }
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
    match &proof.release.project.certificate {
        Some(probe) if proof.services.contains(probe.service.as_str()) => {
            certified(host, lock, proof, probe, limit).await
        }
        _ => Ok(()),
    }
}

/// Waits until the probes of services other than readiness succeed: loaded configuration, API objects, gates.
async fn loaded(host: &Host, lock: &HostLock, proof: &Proof<'_>, limit: Duration) -> Result<(), Error> {
    let started = Instant::now();
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
    let (mut still_since, mut starts): (Option<Instant>, _) = (None, 0);
    loop {
        // Without the lock, what is there may be another writer's.
        lock.check()?;
        let project = &release.project;
        let mut containers = host.containers().await?;
        containers.retain(|container| container.has_label(COMPOSE_PROJECT, &project.name));
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
        still_since = still_since.filter(|_| !still.is_empty()).or((!still.is_empty()).then(Instant::now));
        if starts < STARTS && still_since.is_some_and(|since| since.elapsed() >= STILL) {
            let start = actions::start(still.iter().map(String::as_str));
            match host.carry_out(lock, &project.folder, &[start]).await {
                // What does not start is told as what does not serve.
                Err(host::Error::Docker { .. }) => {}
                done => done?,
            }
            (starts, still_since) = (starts + 1, None);
        }
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

/// Names of the containers of services that Docker neither runs nor is about to start.
fn standing_still<'a>(containers: impl Iterator<Item = &'a Container>) -> Vec<String> {
    let ended = containers.filter(|one| one.is("exited") || one.is("created"));
    let of_service = ended.filter(|one| !one.has_label(COMPOSE_ONE_OFF, "True"));
    of_service.map(|container| container.name.clone()).collect()
}
