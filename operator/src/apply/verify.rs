//! Whether services serve, looked at by the operator itself: `docker compose up --wait` is no proof.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Error, actions};
use crate::{
    certificate::Certificate,
    desired::{
        EDGE, Tls,
        compose::{COMPOSE_ONE_OFF, COMPOSE_PROJECT, COMPOSE_SERVICE},
    },
    diff,
    host::{self, Container, Host, HostLock, Shown},
    observe::{Observed, is_ours},
    release::Release,
    secret::Values,
    text::printable,
};

/// How often it is looked.
const PAUSE: Duration = Duration::from_millis(200);
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
    /// The certificate that users are to be shown, where it is known.
    pub(super) certificate: Option<Certificate>,
}

impl Proof<'_> {
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

/// Waits until services of a release serve, and have served without a break for `soak`; of the edge, until it shows users
/// the certificate that the release wants.
pub(super) async fn serving(
    host: &Host,
    lock: &HostLock,
    proof: &Proof<'_>,
    limit: Duration,
    soak: Duration,
) -> Result<(), Error> {
    healthy(host, lock, proof, limit, soak).await?;
    match &proof.release.project.tls {
        Some(tls) if proof.services.contains(EDGE) => certified(host, lock, proof, tls, limit).await,
        _ => Ok(()),
    }
}

async fn certified(
    host: &Host,
    lock: &HostLock,
    proof: &Proof<'_>,
    tls: &Tls,
    limit: Duration,
) -> Result<(), Error> {
    let started = Instant::now();
    let (project, wanted) = (&proof.release.project, proof.certificate.as_ref());
    loop {
        lock.check()?;
        let found = match host.shown(tls.port, &tls.name).await? {
            Shown::Forbidden => return Ok(()),
            Shown::Nothing(found) => found,
            Shown::Certificate(der) => match Certificate::read(&der, &tls.name) {
                Ok(shown) if wanted.is_none_or(|wanted| wanted.fingerprint == shown.fingerprint) => {
                    return Ok(());
                }
                Ok(_) => "another one than the secret has".to_owned(),
                Err(found) => found,
            },
        };
        if started.elapsed() > limit {
            let all = host.containers().await?;
            let is_edge = |one: &&Container| is_ours(one, project) && one.has_label(COMPOSE_SERVICE, EDGE);
            let logs = proof.logs_of(host, all.iter().filter(is_edge)).await;
            let fault = format!("{EDGE}: expected to show a certificate for {}, found {found}", tls.name);
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
                Err(host::Error::Failed { doing, .. }) if doing.starts_with("docker") => {}
                done => done?,
            }
            (starts, still_since) = (starts + 1, None);
        }
        let observed = Observed { containers, ..Observed::default() };
        let faults: Vec<String> = diff::faults(release, &observed)
            .into_iter()
            .filter(|fault| services.iter().any(|service| fault.starts_with(&format!("{service}: "))))
            .collect();
        good_since = match good_since {
            _ if !faults.is_empty() => None,
            Some((since, same)) if same == ids => Some((since, same)),
            _ => Some((Instant::now(), ids)),
        };
        if good_since.as_ref().is_some_and(|(since, _)| since.elapsed() >= soak) {
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
        sleep(PAUSE).await;
    }
}

/// Names of the containers of services that Docker neither runs nor is about to start.
fn standing_still<'a>(containers: impl Iterator<Item = &'a Container>) -> Vec<String> {
    let ended = containers.filter(|one| one.is("exited") || one.is("created"));
    let of_service = ended.filter(|one| !one.has_label(COMPOSE_ONE_OFF, "True"));
    of_service.map(|container| container.name.clone()).collect()
}
