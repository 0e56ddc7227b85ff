//! The only writer. Does what a plan says, in its order, and looks itself whether it came out.

mod compose;
mod rollout;
mod verify;

use std::{collections::BTreeSet, time::Duration};

use tasktracker_crds::{RolloutSpec, conditions::reasons};

use crate::{
    desired::Project,
    host::{self, Host, HostLock},
    observe::Observed,
    plan::{Action, Plan},
    release::Release,
};
use compose::Compose;

/// How long starting, stopping or reloading one service may take on the host.
const ACTION_LIMIT: Duration = Duration::from_mins(2);

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
    /// Now, in RFC 3339.
    pub now: String,
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
    /// An image is neither on the host nor to be had.
    #[error(
        "image {image}: expected it on the host or in the registry, found: {found}; push it, or `docker load` it on the host"
    )]
    ImageMissing {
        /// The image.
        image: String,
        /// What Docker said.
        found: String,
    },
    /// Compose refused the release.
    #[error("docker compose: {found}")]
    Refused {
        /// What it said.
        found: String,
    },
    /// A service does not serve.
    #[error("{}; expected within {} s", .faults.join("; "), .limit.as_secs())]
    Unhealthy {
        /// What keeps each service from serving.
        faults: Vec<String>,
        /// How long it was waited.
        limit: Duration,
    },
}

impl Error {
    /// Whether trying the same release again is in vain: it was refused or did not serve. What may pass (a lost
    /// connection, a full disk, an image that is not there yet) is tried again.
    fn is_of_release(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Unhealthy { .. })
    }

    /// The reason for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Host(error) => error.reason(),
            Self::ImageMissing { .. } => reasons::IMAGE_MISSING,
            Self::Refused { .. } => reasons::APPLY_FAILED,
            Self::Unhealthy { .. } => reasons::UNHEALTHY,
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
    let mut outcome = Outcome::default();
    let actions: Vec<&Action> =
        plan.repairs.iter().filter(|repair| !repair.later).map(|repair| &repair.action).collect();
    if let Some(applied) = observed.applied.as_ref().filter(|_| !actions.is_empty()) {
        repair(host, &actions, applied, context).await?;
        outcome.repaired = actions.iter().map(|action| action.words()).collect();
    }
    if plan.rollout.is_some() {
        outcome.rolled_out = Some(rollout::rollout(host, observed, context).await?);
    }
    Ok(outcome)
}

async fn repair(
    host: &Host,
    repairs: &[&Action],
    applied: &Release,
    context: &Context<'_>,
) -> Result<(), Error> {
    let files: Vec<_> = repairs.iter().filter_map(|action| action.placement()).collect();
    if !files.is_empty() {
        host.place(context.lock, &applied.project.folder, &files).await?;
    }
    let compose = Compose::new(host, context.lock, &applied.project);
    for action in repairs {
        match action {
            Action::WriteFile { .. } | Action::SetAside { .. } | Action::ReplaceNetwork { .. } => {}
            Action::CreateNetwork { network } => rollout::make_network(host, network, context).await?,
            Action::RemoveOrphan { container } => {
                host.docker(context.lock, &["rm", "-f", container], ACTION_LIMIT).await?;
            }
            Action::Unpause { container, .. } => {
                host.docker(context.lock, &["unpause", container], ACTION_LIMIT).await?;
            }
            Action::Restart { container, .. } => {
                host.docker(context.lock, &["restart", container], ACTION_LIMIT).await?;
            }
            Action::Reload { service } => compose.reload(service).await?,
            Action::Start { container, .. } => {
                host.docker(context.lock, &["start", container], ACTION_LIMIT).await?;
            }
            Action::Create { service } => compose.up(&["--no-deps", "--no-recreate", service]).await?,
            Action::Recreate { service } => compose.up(&["--no-deps", "--force-recreate", service]).await?,
        }
    }
    let touched: BTreeSet<&str> = repairs.iter().filter_map(|action| action.service()).collect();
    verify::serving(host, applied, &touched, context.rollout.health_timeout.duration(), Duration::ZERO).await
}
