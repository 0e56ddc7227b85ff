//! Takes what a stack has left on a host away, as its policy or a person says.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tasktracker_crds::{HostSpec, conditions::reasons};
use tokio::time::{Instant, sleep};

use super::{
    Error, Hosts, Memory,
    audit::{BEGAN, Entry, State},
    deployed::{DeployedHost, is_named},
    now,
};
use crate::{
    apply,
    desired::Project,
    host::{self, Host, HostLock},
    observe::{self, Depth},
    plan,
    report::HostReport,
    source::{Authority, Secrets, Stack, target},
};

/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(30);
/// How often it is looked whether the source can be relied on again.
const LOOK: Duration = Duration::from_secs(1);

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

/// Hosts that a stack names no longer, though something of it is there.
pub fn retained(stack: &Stack, memory: &Memory) -> Vec<HostReport> {
    let hosts = memory.deployed(&stack.key.to_string()).map(|known| known.hosts).unwrap_or_default();
    let left = hosts.into_iter().filter(|(_, host)| !is_named(stack, &host.spec));
    let in_cluster = stack.resource.metadata.uid.is_some();
    left.flat_map(|(name, host)| {
        let stack = &stack.key;
        host.components.into_iter().map(move |(component, deployed)| {
            let door = if in_cluster { format!("--kubernetes -n {} ", stack.namespace) } else { String::new() };
            let remedy = format!(
                "`delete {door}{} --host {name}` takes it away (with `--forget` where the host is gone), or name the host again",
                stack.name
            );
            let message = format!(
                "the spec names this host no longer: expected release {} to stay there as it is; {remedy}",
                deployed.release
            );
            HostReport {
                host: name.clone(),
                component,
                release: Some(deployed.release),
                revision: Some(deployed.project.revision),
                retained: Some(message),
                ..HostReport::default()
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
        let Self { stack, host: deployed, secrets, memory } = self;
        let host = hosts.get(&stack.key, target(stack, &deployed.spec, secrets).await?);
        let mut done = Vec::new();
        for component in deployed.components.values() {
            let lock = host.lock(removal.writer).await?;
            let result = self.remove_project(&host, &lock, &component.project, removal).await;
            lock.release().await;
            done.extend(result?);
        }
        memory.forget(&stack.key.to_string(), deployed.spec.name.as_str());
        Ok(done)
    }

    /// Forgets a host that cannot be reached any more: nothing is written to it.
    pub fn forget(&self, who: &str) {
        let (stack, host) = (self.stack.key.to_string(), self.host.spec.name.as_str());
        for (component, deployed) in &self.host.components {
            let before =
                State { release: Some(&deployed.release), revision: Some(&deployed.project.revision) };
            self.memory.audit(&Entry {
                when: &now().to_string(),
                who,
                why: "the host is there no longer",
                stack: &stack,
                host,
                component,
                what: vec!["forget what is there".to_owned()],
                plan: None,
                before,
                after: Some(State::default()),
                result: reasons::SUCCEEDED,
                seconds: 0.0,
            });
        }
        self.memory.forget(&stack, host);
    }

    async fn remove_project(
        &self,
        host: &Host,
        lock: &HostLock,
        project: &Project,
        removal: Removal<'_>,
    ) -> Result<Vec<String>, Error> {
        let observed = observe::observe(host, project, Depth::Whole).await?;
        if let Some(other) =
            observed.ledger.as_ref().filter(|ledger| ledger.owner != project.owner && !ledger.is_over())
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
            hooks: None,
            owner: project.owner.clone(),
            stack: self.stack.key.to_string(),
            who: removal.who.to_owned(),
            now: now().to_string(),
            back: None,
        };
        let started = Instant::now();
        let entry = Entry {
            when: &context.now,
            who: removal.who,
            why: "nothing asks for it any more",
            stack: &context.stack,
            host: self.host.spec.name.as_str(),
            component: &project.component,
            what: vec!["take the project away".to_owned()],
            plan: None,
            before: State::of(observed.applied.as_ref()),
            after: None,
            result: BEGAN,
            seconds: 0.0,
        };
        self.memory.audit(&entry);
        let done = apply::teardown(host, &observed, &context, removal.with_volumes).await;
        self.memory.audit(&Entry {
            what: done.clone().unwrap_or_else(|_| entry.what.clone()),
            after: Some(State::default()),
            result: done.as_ref().map_or_else(apply::Error::reason, |_| reasons::SUCCEEDED),
            seconds: started.elapsed().as_secs_f64(),
            ..entry
        });
        Ok(done?)
    }
}

/// Takes a stack from a host as its policy or a person says, however often that takes.
pub(super) async fn retire(
    shared: Arc<super::worker::Shared>,
    stack: Stack,
    host: DeployedHost,
    who: &'static str,
    with_volumes: bool,
) {
    let spec: &HostSpec = &host.spec;
    let retired = Retired { stack: &stack, host: &host, secrets: &shared.secrets, memory: &shared.memory };
    let removal = Removal { writer: &shared.writer, who, with_volumes };
    loop {
        while !shared.is_reliable.load(Ordering::Relaxed)
            || shared.source.authority(&stack.key) != Authority::Full
        {
            sleep(LOOK).await;
        }
        match retired.remove(&shared.hosts, removal).await {
            Ok(done) => {
                let volumes = if with_volumes { "with its volumes" } else { "volumes stay" };
                tracing::warn!(stack = %stack.key, host = %spec.name, "removed, {volumes}: {}", done.join(", "));
                return;
            }
            Err(error) if error.reason() == reasons::NAME_CONFLICT => {
                tracing::warn!(stack = %stack.key, host = %spec.name, "what is there is another one's, and is left as it is: {error}");
                shared.memory.forget(&stack.key.to_string(), spec.name.as_str());
                return;
            }
            Err(error) => {
                tracing::error!(stack = %stack.key, host = %spec.name, reason = error.reason(), "cannot be removed: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}
