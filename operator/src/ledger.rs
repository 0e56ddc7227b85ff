//! The ledger: what happened to a project on a host, kept there. Pure: the format and how it goes on.
//!
//! What must survive the operator is in it: the release in force, what an apply was about when it was cut, what was
//! tried in vain. It is written before anything else is, and again when that is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tasktracker_crds::{DriftItem, DriftKind};

use crate::{
    host::Placement,
    json,
    project::{Project, VolumeRole},
    release::{Release, inline},
};

/// Name of a project's ledger.
pub const LEDGER_FILE: &str = "ledger.json";
/// Version of this format; version 1 was never released.
const FORMAT: u32 = 2;
/// Releases that are kept on a host.
const KEPT: usize = 5;
/// Rollouts that are remembered.
const REMEMBERED: usize = 10;
/// How often a difference is repaired before it is left alone.
const TRIES: u32 = 3;
/// Values of one setting that a host gave by itself, at most: of more, none is remembered.
const MOST_DEFAULTS: usize = 20;

/// What happened to a project on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Version of this format.
    pub format: u32,
    /// Who owns the project.
    pub owner: String,
    /// Namespace and name of the stack.
    pub stack: String,
    /// Who owned it before a person had it taken over: volumes and networks still say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_owners: Vec<String>,
    /// The host's epoch when this was written.
    #[serde(default)]
    pub epoch: u64,
    /// The release that was last rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Releases that are kept on the host, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<String>,
    /// Volumes that hold data of users: name inside the project, name on the host.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, String>,
    /// Volumes with what services make again, also those that are not wanted any more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub caches: BTreeMap<String, String>,
    /// Digests that tags meant when it was last begun to roll them out, by reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Images from registries that releases have, each as `REPOSITORY@DIGEST`, by release: they are removed from the host
    /// with the last release that has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pulled: BTreeMap<String, Vec<String>>,
    /// Compose project made by hand that was taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<String>,
    /// Version of Compose at the last rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<String>,
    /// Settings that every container had after the last rollout though nothing asked for them: the host's own defaults.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub host_defaults: BTreeMap<String, String>,
    /// Values that the host gave by itself whenever something was made: what has them is as it was made, whatever the host
    /// gives by now.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub former_defaults: BTreeMap<String, BTreeSet<String>>,
    /// What an apply is about; there only while one is under way, or was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// Differences that were still there after they were repaired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// What was done about services that were OOM-killed whenever they started, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub memory: BTreeMap<String, MemoryHelp>,
    /// A desired state that was tried and failed; it is not tried again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failed>,
    /// A release that a person went back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// A plan that was approved and is not carried out yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Approved>,
    /// Rollouts, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Rollout>,
    /// The last wish of each annotation that was heard here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, String>,
    /// When this was written, in RFC 3339, by the operator's clock.
    pub when: String,
    /// Who wrote it: the operator, or a person.
    pub who: String,
    /// Why.
    pub why: String,
}

/// What an apply is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// Hash of the plan.
    pub plan: String,
    /// Hash of the desired state that is rolled out; none where drift is repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_hash: Option<String>,
    /// Running containers made by hand that are stopped on the way, and their restart policies: they are started again
    /// where nothing comes of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stopped: BTreeMap<String, String>,
}

/// A difference that was still there after it was repaired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Kind of the difference.
    pub kind: DriftKind,
    /// What differed: a path, or a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How often it was repaired in vain.
    #[serde(default)]
    pub count: u32,
    /// How often the host refused a step of its repair.
    #[serde(default)]
    pub refused: u32,
}

/// What was done about a service that was OOM-killed whenever it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryHelp {
    /// Its limit as the release has it, in bytes: another one there ends what was done.
    pub limit: u64,
    /// Its limit by now, in bytes.
    pub raised: u64,
    /// Whether what it reads when it starts was moved aside.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moved_aside: bool,
}

/// What came of repairs, where differences are still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// They were carried out.
    Done,
    /// The host refused a step: those after it were not carried out.
    Refused,
    /// Docker refused a step: files were written before it.
    RefusedByDocker,
}

/// A difference: its kind, and what differs.
pub type Cause = (DriftKind, Option<String>);

/// A rollout that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// ID of the release.
    pub release: String,
    /// Its revision.
    pub revision: String,
    /// When it began, in RFC 3339.
    pub when: String,
    /// Who wanted it.
    pub who: String,
    /// Why.
    pub why: String,
    /// What came out: `Succeeded`, or the reason of the failure.
    pub result: String,
    /// Hash of the plan.
    #[serde(default)]
    pub plan: String,
    /// Who approved it, where that was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<String>,
    /// How long it took.
    #[serde(default)]
    pub milliseconds: u64,
}

/// A desired state that was tried and failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// Hash of the desired state.
    pub desired_hash: String,
    /// Generation that it is of: as other hosts of the stack know it.
    #[serde(default)]
    pub generation: String,
    /// When, in RFC 3339.
    #[serde(default)]
    pub when: String,
    /// Whether nothing was in force there before: then it may be the host that is not good.
    #[serde(default)]
    pub first: bool,
    /// Whether everything was left as it was then, for a person to examine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
    /// Host on which it failed first, where it was taken back here for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Its revision.
    pub revision: String,
    /// Reason, as in conditions.
    pub reason: String,
    /// What was found.
    pub message: String,
}

impl Failed {
    /// What was found, and on which host where it was another one.
    pub fn words(&self) -> String {
        let origin = self.origin.as_ref().map(|host| format!("on {host}: ")).unwrap_or_default();
        format!("{origin}{}", self.message)
    }

    /// A release that failed.
    pub fn new(release: &Release, reason: &str, message: String, signature: &Signature) -> Self {
        Self {
            desired_hash: release.desired_hash.clone(),
            generation: release.project.generation.clone(),
            when: signature.when.clone(),
            first: false,
            left: false,
            origin: None,
            revision: release.project.version().to_owned(),
            reason: reason.to_owned(),
            message,
        }
    }
}

/// A release that a person went back to; it holds until something else is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// ID of the release.
    pub release: String,
    /// Hash of the desired state that it was preferred to, whatever its secrets were.
    pub desired_hash: String,
    /// Who went back.
    pub who: String,
}

/// A plan that may be carried out though changes wait for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approved {
    /// Hash of the plan of this project on this host.
    pub plan: String,
    /// Who approved it: a person, or the spec.
    pub who: String,
    /// When, in RFC 3339.
    pub when: String,
}

/// How a rollout went, for the history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Hash of the plan.
    pub plan: String,
    /// Who approved it, where that was needed.
    pub approved: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// Who writes, when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The host's epoch.
    pub epoch: u64,
    /// Now, in RFC 3339, by the operator's clock.
    pub when: String,
    /// The operator, or a person.
    pub who: String,
    /// Why.
    pub why: String,
}

impl Ledger {
    /// Reads a ledger.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let ledger: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if ledger.format != FORMAT {
            return Err(format!("expected format {FORMAT}, found {}", ledger.format));
        }
        let mut ids = ledger.releases.iter().chain(&ledger.current).chain(&ledger.previous);
        if let Some(found) = ids.find(|id| id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            return Err(format!("expected hexadecimal digits, found {found}"));
        }
        Ok(ledger)
    }

    /// The ledger of a project that nothing was rolled out to yet.
    pub fn empty(owner: &str, stack: &str) -> Self {
        Self {
            format: FORMAT,
            owner: owner.to_owned(),
            stack: stack.to_owned(),
            former_owners: Vec::new(),
            epoch: 0,
            current: None,
            previous: None,
            releases: Vec::new(),
            volumes: BTreeMap::new(),
            caches: BTreeMap::new(),
            tags: BTreeMap::new(),
            pulled: BTreeMap::new(),
            adopted: None,
            compose: None,
            host_defaults: BTreeMap::new(),
            former_defaults: BTreeMap::new(),
            intent: None,
            attempts: Vec::new(),
            memory: BTreeMap::new(),
            failed: None,
            held: None,
            approved: None,
            history: Vec::new(),
            requests: BTreeMap::new(),
            when: String::new(),
            who: String::new(),
            why: String::new(),
        }
    }

    /// Whether nothing was ever rolled out, or begun: no data is known here.
    pub fn is_empty(&self) -> bool {
        self.current.is_none() && self.previous.is_none() && self.has_no_volumes()
    }

    /// Whether a release was ever in force here: before that, nothing kept data.
    pub fn was_in_force(&self) -> bool {
        self.current.is_some() || self.previous.is_some()
    }

    /// Whether everything was taken away, data as well: whoever comes next finds nothing of it.
    pub fn is_torn_down(&self) -> bool {
        self.current.is_none() && self.has_no_volumes() && self.intent.is_none()
    }

    fn has_no_volumes(&self) -> bool {
        self.volumes.is_empty() && self.caches.is_empty()
    }

    /// Every volume that is known: name inside the project, name on the host.
    pub fn all_volumes(&self) -> BTreeMap<String, String> {
        self.caches.iter().chain(&self.volumes).map(|(inside, name)| (inside.clone(), name.clone())).collect()
    }

    /// A failed release that was left as it was, as long as nothing was done about it.
    pub fn held_failure(&self) -> Option<&Failed> {
        self.failed.as_ref().filter(|failed| failed.left && self.intent.is_some())
    }

    /// What to write into the project's folder.
    pub fn placement(&self) -> Placement {
        inline(LEDGER_FILE, &json::to_string_pretty(self))
    }

    /// The releases whose folders stay on the host.
    pub fn kept(&self) -> Vec<String> {
        let named = self.current.iter().chain(&self.previous).filter(|id| !self.releases.contains(id));
        self.releases.iter().chain(named).cloned().collect()
    }

    /// The same without the images of releases that are not kept, and those of them that no other release has.
    #[must_use]
    pub fn without_old_images(mut self) -> (Self, Vec<String>) {
        let kept = self.kept();
        let (pulled, old): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.pulled).into_iter().partition(|(release, _)| kept.contains(release));
        let is_left = |image: &String| !pulled.values().flatten().any(|other| other == image);
        let old: BTreeSet<String> = old.into_values().flatten().filter(is_left).collect();
        (Self { pulled, ..self }, old.into_iter().collect())
    }

    /// Before the first step of an apply.
    #[must_use]
    pub fn with_intent(self, intent: Intent, signature: &Signature) -> Self {
        Self { intent: Some(intent), ..self.signed(signature) }
    }

    /// After the last one, or when there is nothing left of what was cut.
    #[must_use]
    pub fn without_intent(self, signature: &Signature) -> Self {
        Self { intent: None, ..self.signed(signature) }
    }

    /// A release serves, and is the one in force, with its volumes. Those that are kept no longer are not listed any
    /// more.
    #[must_use]
    pub fn succeeded(self, release: &Release, course: &Course, signature: &Signature) -> Self {
        let raised = self.raised_memory(&release.project);
        let memory = self.memory.into_iter().filter(|(name, _)| raised.contains_key(name)).collect();
        let previous = if self.current.as_ref() == Some(&release.id) { self.previous } else { self.current };
        let mut releases = vec![release.id.clone()];
        releases.extend(self.releases.into_iter().filter(|id| *id != release.id));
        releases.truncate(KEPT);
        let of = |role| release.project.volumes_of(role).map(|(inside, name)| (inside.clone(), name.clone()));
        // A cache that is not wanted any more is there all the same.
        let caches = self.caches.into_iter().chain(of(VolumeRole::Cache)).collect();
        let volumes = of(VolumeRole::Data).collect();
        Self {
            current: Some(release.id.clone()),
            previous: previous.filter(|id| releases.contains(id)),
            releases,
            volumes,
            caches,
            intent: None,
            attempts: Vec::new(),
            memory: moved_aside_no_more(memory),
            failed: None,
            held: None,
            approved: None,
            history: remembered(self.history, release, ("Succeeded", course), signature),
            ..self
        }
        .signed(signature)
    }

    /// A release was refused or does not serve: the one before stays in force.
    #[must_use]
    pub fn failed(
        self,
        release: &Release,
        (reason, message): (&str, String),
        course: &Course,
        signature: &Signature,
    ) -> Self {
        let first = self.current.is_none();
        let failed = Failed { first, ..Failed::new(release, reason, message, signature) };
        let history = remembered(self.history, release, (reason, course), signature);
        Self { failed: Some(failed), intent: None, approved: None, history, ..self }.signed(signature)
    }

    /// The project is taken from the host: nothing is in force any more. Its volumes are still known where they stay.
    #[must_use]
    pub fn removed(self, applied: Option<&Release>, with_volumes: bool, signature: &Signature) -> Self {
        let history = match applied {
            Some(release) => remembered(self.history, release, ("Removed", &Course::default()), signature),
            None => self.history,
        };
        let (volumes, caches) = if with_volumes { Default::default() } else { (self.volumes, self.caches) };
        let previous = self.current.or(self.previous);
        Self {
            current: None,
            previous,
            volumes,
            caches,
            intent: None,
            attempts: Vec::new(),
            memory: BTreeMap::new(),
            failed: None,
            held: None,
            approved: None,
            history,
            ..self
        }
        .signed(signature)
    }

    /// What failed, and what did not hold, is forgotten: both are tried again, and what was moved aside may be so again.
    #[must_use]
    pub fn retried(self, signature: &Signature) -> Self {
        let memory = moved_aside_no_more(self.memory);
        Self { attempts: Vec::new(), memory, failed: None, held: None, intent: None, ..self }
            .signed(signature)
    }

    /// The same, written by somebody else, or for another reason.
    #[must_use]
    pub fn with_signature(self, signature: &Signature) -> Self {
        self.signed(signature)
    }

    /// A plan may be carried out.
    #[must_use]
    pub fn with_approval(self, plan: String, signature: &Signature) -> Self {
        let approved = Approved { plan, who: signature.who.clone(), when: signature.when.clone() };
        Self { approved: Some(approved), ..self.signed(signature) }
    }

    /// Something was made while the host gave these settings by itself.
    #[must_use]
    pub fn made_with(mut self, defaults: impl IntoIterator<Item = (String, String)>) -> Self {
        let learned = std::mem::take(&mut self.host_defaults);
        for (field, value) in learned.clone().into_iter().chain(defaults) {
            let values = self.former_defaults.entry(field).or_default();
            if values.len() < MOST_DEFAULTS {
                values.insert(value);
            }
        }
        Self { host_defaults: learned, ..self }
    }

    /// Limits of memory, in bytes, that services have instead of those of a project, by name.
    pub fn raised_memory(&self, project: &Project) -> BTreeMap<String, u64> {
        let limit = |name: &String| Some(project.services.get(name)?.compose.limits.mem_limit);
        let raised = self.memory.iter().filter(|(name, help)| limit(name) == Some(help.limit));
        raised.map(|(name, help)| (name.clone(), help.raised)).collect()
    }

    /// A release with the limits of memory that its services have by now.
    #[must_use]
    pub fn with_raised_memory(&self, mut release: Release) -> Release {
        for (name, raised) in self.raised_memory(&release.project) {
            if let Some(service) = release.project.services.get_mut(&name) {
                service.compose.limits.set_memory(raised);
            }
        }
        release
    }

    /// Something is done about the memory of a service, whose limit is this one so far.
    #[must_use]
    pub fn with_memory_help(mut self, service: &str, limit: u64, raised: u64, moved_aside: bool) -> Self {
        let known = self.memory.get(service).filter(|known| known.raised == limit);
        let known = known.copied().unwrap_or(MemoryHelp { limit, raised: limit, moved_aside: false });
        let moved_aside = known.moved_aside || moved_aside;
        self.memory.insert(service.to_owned(), MemoryHelp { raised, moved_aside, ..known });
        self
    }

    /// Another owner has the project from now on: what Docker made for those before stays labelled so.
    #[must_use]
    pub fn taken_over(self, owner: &str, stack: &str) -> Self {
        if self.owner == owner {
            return self;
        }
        let former = self.former_owners.into_iter().chain([self.owner]).collect();
        Self { owner: owner.to_owned(), stack: stack.to_owned(), former_owners: former, ..self }
    }

    fn signed(self, Signature { epoch, when, who, why }: &Signature) -> Self {
        Self { epoch: *epoch, when: when.clone(), who: who.clone(), why: why.clone(), ..self }
    }

    /// Whether a difference was repaired in vain so often that it is left to a person.
    pub fn gave_up(&self, kind: DriftKind, subject: Option<&String>) -> bool {
        self.tries(kind, subject).is_some_and(|attempt| attempt.count >= TRIES)
    }

    /// Whether the host refused to repair a difference.
    pub fn was_refused(&self, kind: DriftKind, subject: Option<&String>) -> bool {
        self.tries(kind, subject).is_some_and(|attempt| attempt.refused > 0)
    }

    /// What was tried about a difference that is still there.
    pub fn tries(&self, kind: DriftKind, subject: Option<&String>) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.kind == kind && attempt.path.as_ref() == subject)
    }

    /// What is known to have been tried after differences were repaired and some of them are `left`.
    pub fn attempts_after(
        &self,
        repaired: &BTreeSet<Cause>,
        tried: Tried,
        left: &[DriftItem],
    ) -> Vec<Attempt> {
        let is_left = |kind: DriftKind, subject: &Option<String>| {
            left.iter().any(|item| item.kind == kind && item.subject() == subject.as_ref())
        };
        let mut attempts = self.attempts.clone();
        attempts.retain(|attempt| is_left(attempt.kind, &attempt.path));
        // What helps against want of memory is another thing each time, and comes to an end by itself.
        let counts = |kind: DriftKind, subject: &Option<String>| {
            kind != DriftKind::OutOfMemory && is_left(kind, subject)
        };
        for (kind, path) in repaired.iter().filter(|(kind, subject)| counts(*kind, subject)) {
            let known = attempts.iter().position(|attempt| attempt.kind == *kind && attempt.path == *path);
            let index = known.unwrap_or_else(|| {
                attempts.push(Attempt { kind: *kind, path: path.clone(), count: 0, refused: 0 });
                attempts.len() - 1
            });
            let Attempt { count, refused, .. } = &mut attempts[index];
            let is_file = matches!(kind, DriftKind::FileMissing | DriftKind::FileChanged);
            match tried {
                Tried::Done => *count = count.saturating_add(1),
                // Who changes a file again may be why Docker refused what followed.
                Tried::RefusedByDocker if is_file => *count = count.saturating_add(1),
                Tried::Refused | Tried::RefusedByDocker => *refused = refused.saturating_add(1),
            }
        }
        attempts
    }
}

/// What was done about memory, where the next time moves aside again.
fn moved_aside_no_more(memory: BTreeMap<String, MemoryHelp>) -> BTreeMap<String, MemoryHelp> {
    memory.into_iter().map(|(service, help)| (service, MemoryHelp { moved_aside: false, ..help })).collect()
}

fn remembered(
    history: Vec<Rollout>,
    release: &Release,
    (result, course): (&str, &Course),
    Signature { when, who, why, .. }: &Signature,
) -> Vec<Rollout> {
    let newest = Rollout {
        release: release.id.clone(),
        revision: release.project.version().to_owned(),
        when: when.clone(),
        who: who.clone(),
        why: why.clone(),
        result: result.to_owned(),
        plan: course.plan.clone(),
        approved: course.approved.clone(),
        milliseconds: u64::try_from(course.took.as_millis()).unwrap_or(u64::MAX),
    };
    let mut history: Vec<Rollout> = std::iter::once(newest).chain(history).collect();
    history.truncate(REMEMBERED);
    history
}

#[cfg(test)]
mod tests;
