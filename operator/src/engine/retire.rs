//! Takes what a stack has left on a host away, as its policy or a person says.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tasktracker_crds::{Deletion, conditions::reasons};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{Error, Hosts, Memory, now, requests::Refused, worker::Shared};
use crate::{
    apply,
    host::{self, Host, HostLock},
    observe::{self, Depth, Inputs},
    plan,
    project::Project,
    report::ProjectReport,
    source::{DELETE_HOST_ANNOTATION, Secrets, Stack, WriteScope, target},
    state::{
        DeployedHost,
        audit::{BEGAN, Entry, State},
        is_wanted,
    },
};

/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(30);
/// How often it is checked whether the source can be relied on again.
const POLL: Duration = Duration::from_secs(1);

/// Who takes what away, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Removal<'a> {
    /// Who writes.
    pub writer: &'a str,
    /// The operator, or a person.
    pub who: &'a str,
    /// Whether the volumes go, too.
    pub with_volumes: bool,
}

/// What a removal needs.
pub struct Retired<'a> {
    /// The stack as it was last followed.
    pub stack: &'a Stack,
    /// The host, and what is on it.
    pub host: &'a DeployedHost,
    /// Where the values of secrets come from.
    pub secrets: &'a Secrets,
    /// The operator's own folder.
    pub memory: &'a Memory,
}

/// Projects that a stack asks for no longer, though something of them is on a host.
pub fn retained(stack: &Stack, memory: &Memory) -> Vec<ProjectReport> {
    let hosts = memory.deployed(&stack.key.to_string()).map(|known| known.hosts).unwrap_or_default();
    let left = hosts.into_iter().filter_map(|(name, host)| Some((name, host.left_by(stack)?)));
    let in_cluster = stack.resource.metadata.uid.is_some();
    left.flat_map(|(name, host)| {
        let stack = &stack.key;
        host.components.into_iter().map(move |(component, deployed)| {
            let cluster = if in_cluster { format!("--kubernetes -n {} ", stack.namespace) } else { String::new() };
            let remedy = format!(
                "`delete {cluster}{} --host {name}` takes it away (with `--forget` where the host is gone), or ask for it again",
                stack.name
            );
            let message = format!(
                "the spec asks for {component} on this host no longer: expected release {} to stay there as it is; {remedy}",
                deployed.release
            );
            ProjectReport {
                host: name.clone(),
                component,
                release: Some(deployed.release),
                revision: deployed.revision,
                retained: Some(message),
                ..ProjectReport::default()
            }
        })
    })
    .collect()
}

impl Retired<'_> {
    /// Takes every project of the stack from the host, says in words what was done, and forgets the host.
    ///
    /// # Errors
    /// The first thing that went wrong; what was done before stays done.
    pub async fn remove(&self, hosts: &Hosts, removal: Removal<'_>) -> Result<Vec<String>, Error> {
        self.remove_if(hosts, removal, None).await
    }

    /// The same, where a job may still go on once the host is locked: it may have taken long until then.
    async fn remove_if(
        &self,
        hosts: &Hosts,
        removal: Removal<'_>,
        job: Option<(&Shared, &Job)>,
    ) -> Result<Vec<String>, Error> {
        let Self { stack, host: deployed, secrets, memory } = self;
        let host = hosts.get(&stack.key, target(stack, &deployed.spec, secrets).await?);
        let mut done = Vec::new();
        for (component, deployed) in &deployed.components {
            let lock = host.lock(removal.writer).await?;
            let may_go_on = match job {
                Some((shared, job)) => job.may_go_on(shared).await,
                None => true,
            };
            let result = if may_go_on {
                self.remove_project(&host, &lock, &deployed.project(*component), removal).await
            } else {
                let found = "what is asked for changes, or cannot be read, just now".to_owned();
                Err(Error::Held { reason: reasons::PENDING, found })
            };
            lock.release().await;
            done.extend(result?);
        }
        memory.forget_projects(&stack.key.to_string(), deployed);
        Ok(done)
    }

    /// Forgets a host that cannot be reached any more: nothing is written to it.
    pub fn forget(&self, who: &str) {
        let (stack, host) = (self.stack.key.to_string(), self.host.spec.name.as_str());
        for (component, deployed) in &self.host.components {
            let before = State { release: Some(&deployed.release), revision: deployed.revision.as_deref() };
            // Nothing is written to the host that would have to wait for the line.
            drop(self.memory.audit(&Entry {
                when: now(),
                who,
                why: "the host is there no longer",
                stack: &stack,
                host,
                component: component.as_str(),
                what: vec!["forget what is there".to_owned()],
                plan: None,
                before,
                after: Some(State::default()),
                result: reasons::SUCCEEDED,
                seconds: 0.0,
            }));
        }
        self.memory.forget_projects(&stack, self.host);
    }

    async fn remove_project(
        &self,
        host: &Host,
        lock: &HostLock,
        project: &Project,
        removal: Removal<'_>,
    ) -> Result<Vec<String>, Error> {
        let observed = observe::observe(host, project, Depth::Whole).await?.with(Inputs::default(), now());
        if let Some(other) =
            observed.ledger.as_ref().filter(|ledger| ledger.owner != project.owner && !ledger.is_torn_down())
        {
            let found = crate::text::printable(&other.stack);
            return Err(host::Error::NameConflict { project: project.name.clone(), found }.into());
        }
        let spec = &self.stack.spec;
        let hold = plan::hold(spec.suspend.as_ref(), self.host.spec.state, observed.hold.as_ref(), now());
        if let Some(hold) = hold {
            return Err(Error::Held { reason: hold.reason, found: hold.message });
        }
        let context = apply::Context {
            lock,
            project,
            rollout: &self.stack.spec.policy.rollout,
            owner: project.owner.clone(),
            stack: self.stack.key.to_string(),
            who: removal.who.to_owned(),
            now: now(),
            back: None,
        };
        let started = Instant::now();
        let entry = Entry {
            when: context.now,
            who: removal.who,
            why: "nothing asks for it any more",
            stack: &context.stack,
            host: self.host.spec.name.as_str(),
            component: project.component.as_str(),
            what: vec!["take the project away".to_owned()],
            plan: None,
            before: State::of(observed.applied.as_ref()),
            after: None,
            result: BEGAN,
            seconds: 0.0,
        };
        self.memory.audit(&entry).await;
        let done = apply::teardown(host, &observed, &context, removal.with_volumes).await;
        self.memory
            .audit(&Entry {
                what: done.clone().unwrap_or_else(|_| entry.what.clone()),
                after: Some(State::default()),
                result: done.as_ref().map_or_else(apply::Error::reason, |_| reasons::SUCCEEDED),
                seconds: started.elapsed().as_secs_f64(),
                ..entry
            })
            .await;
        Ok(done?)
    }
}

/// Why a stack is taken from a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It names the host no longer: its policy says so, and volumes stay.
    Left,
    /// It was deleted, with that policy.
    Deleted(Deletion),
    /// It names the host no longer, and a person asks for this in an annotation.
    Requested(Deletion),
}

/// A stack that is to be taken from a host.
pub(super) struct Job {
    /// The stack as it was when that began.
    pub(super) stack: Stack,
    /// The stack that is in force now; none where it is deleted, or gone from its source.
    pub(super) in_force: Option<watch::Receiver<Option<Arc<Stack>>>>,
    /// The host, and what is on it.
    pub(super) host: DeployedHost,
    /// Why.
    pub(super) why: Why,
}

impl Job {
    /// The stack that is in force now, where it is followed.
    fn current(&self) -> Option<Arc<Stack>> {
        self.in_force.as_ref().and_then(|stack| stack.borrow().clone())
    }

    /// Whether what is in force still says so.
    fn is_wanted(&self) -> bool {
        let Some(in_force) = &self.in_force else { return true };
        in_force.borrow().as_ref().is_some_and(|stack| {
            let is_said = match self.why {
                Why::Left => stack.spec.policy.deletion != Deletion::Retain,
                Why::Requested(deletion) => stack.deletion_of(self.host.spec.name.as_str()) == Some(deletion),
                Why::Deleted(_) => true,
            };
            let mut components = self.host.components.keys();
            is_said && components.all(|component| !is_wanted(stack, &self.host.spec, *component))
        })
    }

    fn may_begin(&self, shared: &Shared) -> bool {
        shared.is_reliable.load(Ordering::Relaxed)
            && shared.source.write_scope(&self.stack.key) == WriteScope::Full
    }

    /// Whether it may go on under the lock: what is in force says so, and is what the source, read anew, has.
    async fn may_go_on(&self, shared: &Shared) -> bool {
        let is_current = match self.current() {
            Some(stack) => shared.source.is_current(&stack).await,
            None => true,
        };
        is_current && self.is_wanted() && self.may_begin(shared)
    }
}

/// Takes a stack from a host as its policy or a person says, however often that takes, and as long as that is said.
pub(super) async fn retire(shared: Arc<Shared>, job: Job) {
    let Job { host, why, .. } = &job;
    let name = host.spec.name.as_str();
    let (who, with_volumes) = match why {
        Why::Left => (super::OPERATOR, false),
        Why::Deleted(deletion) => (super::OPERATOR, *deletion == Deletion::DownAndVolumes),
        Why::Requested(deletion) => (DELETE_HOST_ANNOTATION, *deletion == Deletion::DownAndVolumes),
    };
    let removal = Removal { writer: &shared.writer, who, with_volumes };
    let mut last_error = String::new();
    while job.is_wanted() {
        if !job.may_begin(&shared) {
            sleep(POLL).await;
            continue;
        }
        let stack = job.current().map_or_else(|| job.stack.clone(), |stack| Stack::clone(&stack));
        let retired = Retired { stack: &stack, host, secrets: &shared.secrets, memory: &shared.memory };
        match retired.remove_if(&shared.hosts, removal, Some((&shared, &job))).await {
            Ok(done) => {
                let volumes = if with_volumes { "with its volumes" } else { "volumes stay" };
                tracing::warn!(stack = %stack.key, host = %name, "removed, {volumes}: {}", done.join(", "));
                if job.in_force.is_some() {
                    shared.watcher.host_deleted(&stack, name, &format!("removed, {volumes}"));
                }
                return;
            }
            Err(error) if error.reason() == reasons::NAME_CONFLICT => {
                tracing::warn!(stack = %stack.key, host = %name, "what is there is another one's, and is left as it is: {error}");
                shared.memory.forget_projects(&stack.key.to_string(), host);
                return;
            }
            Err(error) => {
                let found = error.to_string();
                tracing::error!(stack = %stack.key, host = %name, reason = error.reason(), "cannot be removed: {found}");
                let is_passing = error.reason() == reasons::PENDING;
                if matches!(why, Why::Requested(_)) && found != last_error && !is_passing {
                    let refused = Refused { reason: error.reason(), found: found.clone() };
                    shared.watcher.refused_request(&stack, name, &refused);
                }
                last_error = found;
                sleep(PAUSE).await;
            }
        }
    }
    tracing::warn!(stack = %job.stack.key, host = %name, "nobody wants it to be removed any more: what is there stays");
}
