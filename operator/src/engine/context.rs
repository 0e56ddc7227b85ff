//! One stack on one host, and what is needed to check and repair its projects there.

use std::{collections::BTreeMap, sync::Arc};

use tasktracker_crds::HostSpec;
use tokio::time::Instant;

use super::{
    Evaluation, Images, Memory, RolloutCoordinator,
    evaluation::{Resolved, Terms},
    now,
};
use crate::{
    diff::{self, certificate},
    host::{self, Host, HostLock},
    ledger::LEDGER_FILE,
    model::Hold,
    observe::{self, Depth, HostFacts, Inputs, KEY_FILE, Lost, Observed, Remembered},
    plan::Approval,
    project::{Project, labels},
    release::Release,
    source::{ProjectKey, Secrets, Stack},
    state::{Deployed, DeployedHost, deployed},
};

/// Who asks for a check, and how thorough it is.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions<'a> {
    /// Who may release a change.
    pub approval: Approval,
    /// How much is read anew.
    pub depth: Depth,
    /// The host's lock: whoever holds it is alone there.
    pub lock: Option<&'a HostLock>,
    /// The order among the hosts of the stack, where that counts.
    pub coordinator: Option<&'a RolloutCoordinator>,
    /// Why nothing but repairs may be begun.
    pub read_only_reason: Option<&'a Hold>,
}

impl CheckOptions<'_> {
    /// A check that only reads, as the policy of the stack permits.
    pub fn read_only(depth: Depth) -> Self {
        Self { approval: Approval::Policy, depth, lock: None, coordinator: None, read_only_reason: None }
    }
}

/// One host of a stack, and what is needed to check and repair its projects.
#[derive(Clone, Copy)]
pub struct ProjectContext<'a> {
    /// The stack.
    pub stack: &'a Stack,
    /// What it says of the host.
    pub spec: &'a HostSpec,
    /// The host.
    pub host: &'a Arc<Host>,
    /// Where the values of secrets come from.
    pub secrets: &'a Secrets,
    /// The operator's own state.
    pub memory: &'a Memory,
    /// What tags mean, and what is being pulled.
    pub images: &'a Arc<Images>,
}

impl ProjectContext<'_> {
    /// Checks one project. Writes nothing.
    ///
    /// # Errors
    /// When the host cannot be read.
    pub async fn check(
        &self,
        project: &Project,
        options: CheckOptions<'_>,
    ) -> Result<Evaluation, host::Error> {
        let facts = observe::observe(self.host, project, options.depth).await?;
        let first = Box::pin(self.observe_and_evaluate(project, facts, false, options)).await?;
        let quiet = first.drift.is_empty() && first.plan.is_empty() && !first.observed.has_open_intent();
        if options.lock.is_some() || quiet {
            return Ok(first);
        }
        // Something differs, or was interrupted. Another writer at work, or one that ended just now, would explain it: it is
        // observed again between two moments at which nobody wrote.
        drop(first);
        let busy_before = observe::is_busy(self.host, project).await?;
        let facts = observe::observe(self.host, project, Depth::Whole).await?;
        let busy_after = observe::is_busy(self.host, project).await?;
        Box::pin(self.observe_and_evaluate(project, facts, busy_before || busy_after, options)).await
    }

    /// From what a host says to what follows from it: resolve, then evaluate.
    async fn observe_and_evaluate(
        &self,
        project: &Project,
        facts: HostFacts,
        busy: bool,
        options: CheckOptions<'_>,
    ) -> Result<Evaluation, host::Error> {
        let facts = self.with_lost(project, facts).await?;
        let inputs = self.inputs(project, &facts, busy).await;
        let mut observed = facts.with(inputs, now());
        if observed.lost.is_empty() {
            self.memory.keep_seen(&self.key(project), &observed);
        }
        observed.probe_results = Box::pin(observe::probe(self.host, &observed, options.depth, now())).await?;
        if !observed.busy && observed.lost.is_empty() {
            observed.unserved =
                Box::pin(observe::published(self.host, &observed, options.depth, options.lock.is_some()))
                    .await?;
        }
        observed.oom_kills = self.oom_kills(&project.name, &observed);
        let observed = certificate::without_unusable(project, observed, now());
        let project = self.resolve_volumes(project, &observed, options.approval)?;
        let resolved = Box::pin(self.resolve_images(project, observed)).await?;
        let key = self.key(&resolved.project);
        let coordinator = options.coordinator;
        let terms = Terms {
            approval: options.approval,
            decision: coordinator
                .map(|coordinator| coordinator.decide(self.stack, &key, &resolved.project))
                .unwrap_or_default(),
            approved: coordinator.and_then(|coordinator| coordinator.approved(self.stack, &key)),
            read_only_reason: options.read_only_reason,
            now: now(),
        };
        self.evaluate(resolved, terms)
    }

    /// How often containers were OOM-killed and do not serve since.
    fn oom_kills(&self, project: &str, observed: &Observed) -> BTreeMap<String, u64> {
        let Some(applied) = &observed.applied else { return BTreeMap::new() };
        let kills = observed.containers.iter().filter_map(|container| {
            let (service, replica) = container.replica()?;
            if diff::is_serving(applied.project.services.get(service)?, container, observed) {
                self.host.reset_oom_kills(project, service, replica);
            }
            let kills = self.host.oom_kills_since_serving(project, service, replica);
            (kills > 0).then(|| (container.id.clone(), kills))
        });
        kills.collect()
    }

    /// The key of a project on this host.
    pub fn key(&self, project: &Project) -> ProjectKey {
        ProjectKey {
            stack: self.stack.key.clone(),
            host: self.spec.name.to_string(),
            component: project.component,
        }
    }

    /// Where something of the operator's own is gone from a host or damaged there, and this operator saw it: what was seen
    /// counts, and is put back. A ledger does where everything that runs is of the release that it names.
    async fn with_lost(&self, project: &Project, facts: HostFacts) -> Result<HostFacts, host::Error> {
        let observed = facts.as_observed();
        let seen = self.memory.seen(&self.key(project));
        let ledger = observed.ledger.as_ref().or(seen.ledger.as_ref());
        let ledger = ledger.filter(|ledger| ledger.intent.is_none());
        let Some((ledger, id)) = ledger.and_then(|ledger| Some((ledger, ledger.current.clone()?))) else {
            return Ok(facts);
        };
        let is_unchanged = seen.ledger.as_ref() == Some(ledger);
        // Where both are lost, it is for a person to say that what is there is ours. Whoever wrote the ledger may have
        // written the manifest anew.
        let (there, seen_release) = match (&observed.ledger, &observed.applied) {
            (Some(_), Some(there)) if !is_unchanged => (Some(there.clone()), None),
            (Some(_), there) => (there.clone(), seen.release.filter(|seen| seen.id == id)),
            (None, _) => (self.release(project, &id).await?.filter(|release| runs(release, observed)), None),
        };
        let Some(release) = seen_release.or_else(|| there.clone()) else { return Ok(facts) };
        // All components of the stack have the one key: another one in its place may be what a rollout of theirs needed.
        let seal_key = seen.seal_key.filter(|_| observed.seal_key.is_none() && !release.seals.is_empty());
        let file = |path: &str| observed.files.get(path).map(|_| "a damaged one");
        let is_lost = [
            (LEDGER_FILE.to_owned(), observed.ledger.is_none()),
            (release.manifest_path(), there.as_ref() != Some(&release)),
            (KEY_FILE.to_owned(), seal_key.is_some()),
        ];
        let lost = is_lost.into_iter().filter(|(_, is_lost)| *is_lost);
        let lost: Vec<Lost> = lost.map(|(path, _)| Lost { found: file(&path), path }).collect();
        if lost.is_empty() {
            return Ok(facts);
        }
        let (ledger, seal_key) = (ledger.clone(), seal_key.or_else(|| observed.seal_key.clone()));
        Ok(facts.with_lost(lost, ledger, release, seal_key))
    }

    /// A release that a host stores; none where it does not, or that is damaged.
    async fn release(&self, project: &Project, id: &str) -> Result<Option<Release>, host::Error> {
        let path = format!("{}/releases/{id}/manifest.json", project.folder);
        let kept = self.host.content(std::slice::from_ref(&path)).await?.remove(&path);
        Ok(kept.and_then(|text| Release::read(&text).ok()).filter(|release| release.id == id))
    }

    /// What is known from elsewhere than the host.
    async fn inputs(&self, project: &Project, facts: &HostFacts, busy: bool) -> Inputs {
        let secrets = self.secrets.of(&self.stack.key);
        let mut values = crate::secret::Values::default();
        secrets.add(&mut values, &project.references()).await;
        if let Some(applied) = facts.applied() {
            secrets.add(&mut values, &applied.project.references()).await;
        }
        let (remembered, damaged) = self.remembered(project, facts);
        Inputs { busy, secrets: values, remembered, damaged }
    }

    /// What the operator's own state says of a project on this host, and of its data on hosts that the spec names no longer;
    /// and why its manifest cannot be trusted: it is another one than was seen first.
    fn remembered(&self, project: &Project, facts: &HostFacts) -> (Remembered, Option<host::Error>) {
        let undone = self.memory.undone(&self.key(project), Instant::now());
        let Some(known) = self.memory.deployed(&self.stack.key.to_string()) else {
            return (Remembered { undone, ..Remembered::default() }, None);
        };
        let component = &project.component;
        let same_place = || known.hosts.values().find(|host| deployed::is_same_place(&host.spec, self.spec));
        let host = known.hosts.get(self.spec.name.as_str()).or_else(same_place);
        let here = host.and_then(|host| host.components.get(component));
        let is_left = |host: &DeployedHost| !deployed::is_wanted(self.stack, &host.spec, *component);
        let left = known.hosts.iter().filter(|(_, host)| is_left(host));
        let mut left: Vec<_> =
            left.filter_map(|(name, host)| Some((name, host.components.get(component)?))).collect();
        left.sort_by_key(|(_, deployed)| deployed.overtaken);
        let elsewhere = left
            .into_iter()
            .find_map(|(name, deployed)| Some((name.clone(), deployed.data_volume()?.to_owned())));
        let in_force = here.filter(|here| !here.release.is_empty());
        let remembered = Remembered {
            release: in_force.map(|here| here.release.clone()),
            desired_hash: in_force.map(|here| here.desired_hash.clone()),
            volumes: in_force.map(Deployed::volume_names).unwrap_or_default(),
            elsewhere,
            overtaken: here.is_none_or(|here| here.overtaken),
            undone,
        };
        (remembered, here.and_then(|here| changed_manifest(project, facts.as_observed(), here)))
    }

    /// Pins what tags mean, and finds out which images are on the host where it is asked for others than were rolled out.
    async fn resolve_images(&self, project: Project, observed: Observed) -> Result<Resolved, host::Error> {
        let (project, mut availability) = self.images.resolve_tags(self, project, &observed).await;
        let change = diff::change(&project, &observed);
        if availability.unresolved.is_none() && change.is_some() {
            self.images.find_on_host(self, &project, &mut availability).await?;
        }
        let change = change.map(|change| diff::with_images(change, &project, &availability, &observed));
        Ok(Resolved { project, observed: Observed { availability, ..observed }, change })
    }
}

/// Whether every container of a project that is there was made for a release.
fn runs(release: &Release, observed: &Observed) -> bool {
    let is_of = |container: &host::Container| {
        release.service_hashes.values().any(|hash| container.has_label(labels::SERVICE_HASH, hash))
    };
    observed.containers.iter().all(is_of)
}

/// A manifest that is another one than was seen first for the same release.
fn changed_manifest(project: &Project, observed: &Observed, here: &Deployed) -> Option<host::Error> {
    let applied = observed.applied.as_ref().filter(|applied| applied.id == here.release)?;
    let path = applied.manifest_path();
    if observed.lost.iter().any(|lost| lost.path == path) {
        return None;
    }
    let found = observed.files.get(&path).and_then(host::FileFact::sha256);
    let is_other = here.manifest_hash.as_deref().zip(found).is_some_and(|(wanted, found)| wanted != found);
    let found = "another content than was seen first";
    is_other.then(|| observe::damaged(&observed.directory, project, &path, found))
}
