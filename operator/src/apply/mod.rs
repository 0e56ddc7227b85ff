//! The only writer. Does what a plan says, in its order, and proves that it came out.

mod actions;
mod addresses;
mod adopted;
mod applied_secrets;
mod compose;
mod gate;
mod hooks;
mod lost;
mod memory;
mod one_off;
mod record;
mod reload;
mod requests;
mod rolling;
mod rollout;
mod secret_backup;
mod teardown;
mod validate;
mod verify;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use tasktracker_crds::{DriftItem, DriftKind, OnFailure, RolloutSpec, conditions::reasons};

use crate::{
    diff::{self, certificate, secrets},
    failpoint,
    host::{self, Host, HostLock, Step},
    ledger::{Cause, Intent, Ledger, Signature, Tried},
    observe::Observed,
    plan::{Action, PeerFailure, Plan},
    project::Project,
    release::{Release, inline},
};
use compose::Compose;
pub use gate::open_part;
pub use teardown::teardown;

/// How long starting, stopping or reloading one service may take on the host.
const ACTION_LIMIT: Duration = Duration::from_mins(2);
/// How long Docker may take for what waits for no program inside a container.
const QUICK_LIMIT: Duration = Duration::from_secs(45);

/// What an apply needs to know beside the plan.
#[derive(Debug)]
pub struct Context<'a> {
    /// The host's lock, held by us.
    pub lock: &'a HostLock,
    /// What the spec asks for.
    pub project: &'a Project,
    /// Time limits.
    pub rollout: &'a RolloutSpec,
    /// Who owns the project.
    pub owner: String,
    /// Namespace and name of the stack.
    pub stack: String,
    /// Who applies: the operator, or a person.
    pub who: String,
    /// Now.
    pub now: Timestamp,
    /// Where a person goes back to an earlier release.
    pub back: Option<Back>,
}

/// An earlier release that is gone back to.
#[derive(Clone, Debug)]
pub struct Back {
    /// Its image IDs, by service.
    pub images: BTreeMap<String, String>,
    /// Why.
    pub cause: RollbackCause,
}

/// Why an earlier release is gone back to.
#[derive(Clone, Debug)]
pub enum RollbackCause {
    /// A person prefers it to a desired state, of which this is the hash, whatever its secrets are.
    Requested(String),
    /// What is in force failed on another host.
    FailedOnPeer(PeerFailure),
}

impl Context<'_> {
    /// Whether what fails is left as it is, for a person to examine.
    fn leaves_failures(&self) -> bool {
        self.rollout.on_failure == OnFailure::Hold && self.back.is_none()
    }

    fn signature(&self, why: &str) -> Signature {
        Signature {
            epoch: self.lock.epoch,
            when: self.now.to_string(),
            who: self.who.clone(),
            why: why.to_owned(),
        }
    }
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Repairs, in words.
    pub repaired: Vec<String>,
    /// The release that was rolled out.
    pub rolled_out: Option<Release>,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The host, or a program on it.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// An image that was there, or was there when the release was in force, is not on the host any more.
    #[error("image {image}: expected it on the host, found none; `docker pull` or `docker load` it there")]
    ImageMissing {
        /// The image.
        image: String,
    },
    /// Compose does not understand the release: nothing was touched.
    #[error("docker compose config: expected it to accept the release, found: {found}; nothing was touched")]
    Invalid {
        /// What it said.
        found: String,
    },
    /// The gate of a serial service is closed: this instance must not stop now.
    #[error("waiting for the gate of {container}: {found}")]
    GateClosed {
        /// The container.
        container: String,
        /// Why the gate is closed.
        found: String,
    },
    /// A service does not accept its new files: nothing was touched.
    #[error("{program}: expected it to accept the new configuration, found: {found}; nothing was touched")]
    NotValid {
        /// Service, program and arguments.
        program: String,
        /// The last that it wrote, without secrets.
        found: String,
    },
    /// A service does not accept a request.
    #[error("{request}: {found}")]
    Unaccepted {
        /// Service, method and path.
        request: String,
        /// What was found.
        found: String,
    },
    /// Compose refused the release.
    #[error("docker compose: {found}")]
    Refused {
        /// What it said.
        found: String,
    },
    /// A hook did not succeed.
    #[error("{hook}: expected it to succeed within its time limit, found: {found}")]
    HookFailed {
        /// Which one.
        hook: String,
        /// How it ended, and the last that it wrote, without secrets.
        found: String,
    },
    /// A container that is not ours passes for one of a service.
    #[error(
        "{service}: expected Compose to make its containers, found {container}, which has Compose's labels of it and is not ours; remove it: docker rm -f {container}"
    )]
    StrangerInTheWay {
        /// The service.
        service: String,
        /// Name of the container.
        container: String,
    },
    /// A service does not serve.
    #[error("{}; expected within {} s{}", .faults.join("; "), .limit.as_secs(), said(.logs))]
    Unhealthy {
        /// What keeps each service from serving.
        faults: Vec<String>,
        /// The last that its containers wrote, without secrets.
        logs: Vec<String>,
        /// How long it was waited.
        limit: Duration,
    },
}

fn said(logs: &[String]) -> String {
    logs.iter().map(|log| format!("; {log}")).collect()
}

impl Error {
    /// Whether trying the same release again is in vain: it was refused or did not serve. What may pass (a lost
    /// connection, a full disk, an image that is not there yet) is tried again.
    pub fn is_of_release(&self) -> bool {
        matches!(
            self,
            Self::Invalid { .. }
                | Self::NotValid { .. }
                | Self::Unaccepted { .. }
                | Self::Refused { .. }
                | Self::Unhealthy { .. }
                | Self::HookFailed { .. }
        )
    }

    /// Whether something of the release may be on the host.
    fn touched_something(&self) -> bool {
        !matches!(self, Self::Invalid { .. } | Self::NotValid { .. })
    }

    /// Whether the host said so, rather than nobody: then nothing of it goes on there.
    pub fn is_told_by_host(&self) -> bool {
        !matches!(
            self,
            Self::Host(
                host::Error::ConnectionLost
                    | host::Error::TimedOut { .. }
                    | host::Error::Locked
                    | host::Error::Overtaken { .. }
            )
        )
    }

    /// What a repair that ended so says about what it was to repair; nothing where the host or the connection failed, or a
    /// gate is closed: then it is tried again as if for the first time.
    pub fn tried(&self) -> Option<Tried> {
        match self {
            _ if !self.is_told_by_host() => None,
            Self::Host(host::Error::Docker { fault, .. }) if fault.is_of_host() => None,
            Self::GateClosed { .. } => None,
            Self::Unhealthy { .. } | Self::Unaccepted { .. } => Some(Tried::Done),
            Self::Host(host::Error::Docker { .. }) => Some(Tried::RefusedByDocker),
            _ => Some(Tried::Refused),
        }
    }

    /// The reason for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Host(error) => error.reason(),
            Self::ImageMissing { .. } => reasons::IMAGE_MISSING,
            Self::Invalid { .. } | Self::NotValid { .. } => reasons::PREFLIGHT_FAILED,
            Self::Refused { .. } | Self::Unaccepted { .. } => reasons::APPLY_FAILED,
            Self::HookFailed { .. } => reasons::HOOK_FAILED,
            Self::Unhealthy { .. } | Self::GateClosed { .. } | Self::StrangerInTheWay { .. } => {
                reasons::UNHEALTHY
            }
        }
    }
}

/// Does what the plan says. An empty plan writes nothing.
///
/// # Errors
/// The first thing that went wrong; what was done before stays done, and the next check sees what is left.
pub async fn apply(
    host: &Host,
    plan: &Plan,
    observed: &Observed,
    context: &Context<'_>,
) -> Result<Outcome, Error> {
    if let Some((drain, path)) = plan.drain.zip(context.project.drain_file.as_ref()) {
        let step = if drain { Step::Place(inline(path, "")) } else { Step::Remove { path: path.clone() } };
        host.carry_out(context.lock, &context.project.folder, &[step, Step::Sync]).await?;
    }
    let mut observed = Cow::Borrowed(observed);
    if let Some(who) = &plan.approve {
        let ledger = approve(host, plan, &observed, who, context).await?;
        observed.to_mut().ledger = Some(ledger);
    }
    let observed = &*observed;
    if plan.rollout.is_some() {
        let release = Box::pin(rollout::rollout(host, plan, observed, context)).await?;
        return Ok(Outcome { rolled_out: Some(release), ..Outcome::default() });
    }
    if let Some(ledger) = &observed.ledger
        && let Some(stopped) =
            ledger.intent.as_ref().map(|intent| &intent.stopped).filter(|stopped| !stopped.is_empty())
    {
        // What was to be replaced was stopped when the rollout was cut, and the rollout does not go on.
        let repaired = adopted::restore(host, stopped, context).await?;
        let done = ledger.clone().without_intent(&context.signature("what was to be replaced runs again"));
        write_ledger(host, &done, [], context).await?;
        return Ok(Outcome { repaired, rolled_out: None });
    }
    let repairs: Vec<&Action> = plan.repairs_now().map(|repair| &repair.action).collect();
    match (&observed.applied, &observed.ledger) {
        (Some(applied), Some(ledger)) if !repairs.is_empty() => {
            repair(host, plan, applied, ledger, observed, context).await?;
        }
        (_, Some(ledger)) if plan.clear_intent => {
            let ledger = Ledger { attempts: plan.attempts.clone(), ..ledger.clone() };
            let why = if plan.put_back.is_empty() {
                "nothing is left of what was cut".to_owned()
            } else {
                format!("it was gone or damaged, and is as it was seen last: {}", plan.put_back.join(", "))
            };
            let done = ledger.without_intent(&context.signature(&why));
            lost::put_back(host, observed, context).await?;
            write_ledger(host, &done, forget_kept(observed), context).await?;
        }
        (Some(applied), Some(_)) if plan.moved_containers => {
            let steps = addresses::steps(host, applied, observed).await?;
            host.carry_out(context.lock, &context.project.folder, &steps).await?;
        }
        _ => {}
    }
    Ok(Outcome { repaired: repairs.iter().map(|action| action.words()).collect(), rolled_out: None })
}

/// Keeps in the ledger what was `tried` to be repaired and differs still, where that is news; `after` is the check that
/// saw it.
///
/// # Errors
/// When the ledger cannot be written.
pub async fn remember(
    host: &Host,
    (plan, tried): (&Plan, Tried),
    after: &Observed,
    left: &[DriftItem],
    context: &Context<'_>,
) -> Result<(), Error> {
    let Some(ledger) = &after.ledger else { return Ok(()) };
    let attempts = ledger.attempts_after(&plan.causes(), tried, left);
    if attempts == ledger.attempts {
        return Ok(());
    }
    let why = if attempts.is_empty() { "repairs hold" } else { "repairs did not hold" };
    let ledger = Ledger { attempts, ..ledger.clone() }.without_intent(&context.signature(why));
    write_ledger(host, &ledger, [], context).await
}

/// What failed, and what did not hold, is forgotten: both are tried again.
///
/// # Errors
/// When the ledger cannot be written.
pub async fn retry(host: &Host, ledger: &Ledger, context: &Context<'_>) -> Result<(), Error> {
    write_ledger(host, &ledger.clone().retried(&context.signature("retry")), [], context).await
}

/// Records on the host that a request was acknowledged, as its ledger says already.
///
/// # Errors
/// When the ledger cannot be written.
pub async fn record_acknowledgement(
    host: &Host,
    ledger: &Ledger,
    context: &Context<'_>,
) -> Result<(), Error> {
    let ledger = ledger.clone().with_signature(&context.signature("a request was acknowledged"));
    write_ledger(host, &ledger, [], context).await
}

/// Keeps on the host that its plan may be carried out; the ledger that says so.
///
/// # Errors
/// When the ledger cannot be written.
pub async fn approve(
    host: &Host,
    plan: &Plan,
    observed: &Observed,
    who: &str,
    context: &Context<'_>,
) -> Result<Ledger, Error> {
    let ledger = observed.ledger.clone().unwrap_or_else(|| Ledger::empty(&context.owner, &context.stack));
    let hash = plan.hash();
    let signature = context.signature(&format!("plan {hash} is approved"));
    let signature = Signature { who: who.to_owned(), ..signature };
    let ledger = ledger.with_approval(hash, &signature);
    write_ledger(host, &ledger, [], context).await?;
    Ok(ledger)
}

/// Removes the values of secrets that were kept for a way back.
fn forget_kept(observed: &Observed) -> impl Iterator<Item = Step> {
    secrets::kept(observed).map(|path| Step::Remove { path: path.clone() })
}

/// Writes the ledger, removes what it does not name any more, and then does what must not be done before.
async fn write_ledger(
    host: &Host,
    ledger: &Ledger,
    then: impl IntoIterator<Item = Step>,
    context: &Context<'_>,
) -> Result<(), Error> {
    let mut steps = vec![Step::Place(ledger.placement()), Step::Sync];
    steps.push(Step::KeepReleases { ids: ledger.kept() });
    steps.extend(then);
    host.carry_out(context.lock, &context.project.folder, &steps).await?;
    failpoint::reached("concluded");
    Ok(())
}

/// The intent, the repairs, proof, and the ledger again.
async fn repair(
    host: &Host,
    plan: &Plan,
    applied: &Release,
    ledger: &Ledger,
    observed: &Observed,
    context: &Context<'_>,
) -> Result<(), Error> {
    let repairs: Vec<&Action> = plan.repairs_now().map(|repair| &repair.action).collect();
    let words: Vec<String> = repairs.iter().map(|action| action.words()).collect();
    let signature = context.signature(&format!("repair: {}", words.join(", ")));
    let intent = Intent { plan: plan.hash(), desired_hash: None, stopped: BTreeMap::new() };
    let defaults = observed.facts.as_ref().map(diff::configured_defaults).into_iter().flatten();
    let ledger = Ledger { attempts: plan.attempts.clone(), ..ledger.clone().made_with(defaults) };
    let ledger = repairs.iter().fold(ledger, |ledger, action| memory::known_to(ledger, action));
    let begin = vec![Step::Place(ledger.clone().with_intent(intent, &signature).placement()), Step::Sync];
    let groups = grouped(host, &repairs, applied, observed, context);
    let is_refused = |(kind, subject): &Cause| ledger.was_refused(*kind, subject.as_ref());
    let done = async {
        let (carried_out, refused) = if plan.causes().iter().any(is_refused) {
            one_by_one(host, begin, groups, context).await?
        } else {
            let steps = groups.into_iter().flat_map(|(_, steps)| steps);
            let steps: Vec<Step> = begin.into_iter().chain(steps).collect();
            let done = host.carry_out(context.lock, &applied.project.folder, &steps);
            failpoint::during("applying", done).await?;
            (repairs.clone(), None)
        };
        failpoint::reached("applied");
        let helped = memory::helped(&carried_out, observed);
        for (service, replica) in &helped {
            host.reset_oom_kills(&applied.project.name, service, replica);
        }
        let proved = Box::pin(prove(host, plan, &carried_out, applied, observed, context));
        tokio::select! {
            proved = proved => proved?,
            again = memory::ended_again(host, &applied.project.name, &helped) => return Err(again),
        }
        refused.map_or(Ok(()), |error| Err(Error::Host(error)))
    }
    .await;
    failpoint::reached("proved");
    // What ended by the connection or the lock goes on without us, or is another writer's: its intent stays.
    if done.is_ok() || done.as_ref().is_err_and(Error::is_told_by_host) {
        let moved = match &done {
            Ok(()) => addresses::steps(host, applied, observed).await?,
            Err(_) => Vec::new(),
        };
        write_ledger(host, &ledger.without_intent(&signature), moved, context).await?;
    }
    done
}

/// Actions that are carried out together, and their steps.
type Group<'a> = (Vec<&'a Action>, Vec<Step>);

/// Repairs in groups that do not depend on each other's success. What does not start keeps nothing else from being
/// started.
fn grouped<'a>(
    host: &Host,
    repairs: &[&'a Action],
    applied: &Release,
    observed: &Observed,
    context: &Context<'_>,
) -> Vec<Group<'a>> {
    let compose = Compose::new(host, &applied.project);
    let mut groups = Vec::new();
    let mut unsynced = false;
    for group in repairs.chunk_by(|one, next| one.started().is_some() && next.started().is_some()) {
        let is_file = group.iter().any(|action| action.is_of_files());
        let sync = (unsynced && !is_file).then_some(Step::Sync);
        unsynced = is_file;
        let steps = match group {
            [action] => actions::steps(action, applied, observed, &compose, context),
            starts => vec![actions::start(starts.iter().filter_map(|action| action.started()))],
        };
        groups.push((group.to_vec(), sync.into_iter().chain(steps).collect()));
    }
    groups
}

/// Carries out each group by itself, where the host refused something before: what it refuses again keeps nothing else
/// from being repaired. The actions that were carried out, and the first refusal.
async fn one_by_one<'a>(
    host: &Host,
    begin: Vec<Step>,
    groups: Vec<Group<'a>>,
    context: &Context<'_>,
) -> Result<(Vec<&'a Action>, Option<host::Error>), Error> {
    let folder = &context.project.folder;
    host.carry_out(context.lock, folder, &begin).await?;
    let (mut carried_out, mut refused) = (Vec::new(), None);
    for (actions, steps) in groups {
        match host.carry_out(context.lock, folder, &steps).await {
            Ok(()) => carried_out.extend(actions),
            Err(error) => match Error::from(error.clone()).tried() {
                Some(_) => refused = refused.or(Some(error)),
                None => return Err(error.into()),
            },
        }
    }
    Ok((carried_out, refused))
}

/// Waits until what was repaired serves; containers that were replaced go then.
async fn prove(
    host: &Host,
    plan: &Plan,
    repairs: &[&Action],
    applied: &Release,
    observed: &Observed,
    context: &Context<'_>,
) -> Result<(), Error> {
    host.forget_published(&applied.project.name);
    let limits = context.rollout;
    let touched: BTreeSet<&str> = repairs.iter().filter_map(|action| action.service()).collect();
    let replaced: BTreeSet<&str> = repairs.iter().filter_map(|action| action.replaced()).collect();
    let soak = if plan.needs_soak() { limits.soak.duration() } else { Duration::ZERO };
    let secrets = &*applied_secrets::values(host, observed).await?;
    let proof = verify::Proof {
        now: context.now,
        release: applied,
        services: &touched,
        without: &replaced,
        beside: None,
        secrets,
        reloads: repairs.iter().filter_map(|action| action.reloaded()).collect(),
        certificate: certificate::applied(applied, observed),
        is_published: plan.causes().iter().any(|(kind, _)| *kind == DriftKind::NotServing),
    };
    verify::serving(host, context.lock, &proof, limits.health_timeout.duration(), soak).await?;
    let gone: Vec<Step> =
        replaced.iter().map(|name| Step::docker(&["rm", "-f", name], ACTION_LIMIT)).collect();
    if gone.is_empty() {
        return Ok(());
    }
    Ok(host.carry_out(context.lock, &context.project.folder, &gone).await?)
}
