//! What people wish for through annotations of a stack in Kubernetes: each is for the spec that they saw.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use tasktracker_crds::{Deletion, HostStatus};

use crate::{
    engine::now,
    kubernetes::Read,
    source::{
        ADOPT_ANNOTATION, APPROVE_ANNOTATION, DELETE_HOST_ANNOTATION, DELETE_HOST_SUFFIXES,
        LEAVE_DATA_ANNOTATION, RECONCILE_ANNOTATION, RETRY_ANNOTATION, ROLLBACK_ANNOTATION,
    },
};

/// A wish of a person about a stack.
pub(super) enum Request<'a> {
    Approve(&'a str),
    Rollback(Option<&'a str>),
    Retry,
    Reconcile,
    Adopt,
    LeaveData,
    DeleteHosts(&'a [String], Deletion),
}

impl Request<'_> {
    /// Whether the status of a stack has what is wished for.
    ///
    /// # Errors
    /// Where it has not.
    pub(super) fn check(&self, stack: &Read) -> anyhow::Result<()> {
        match self {
            Self::Approve(wanted) => {
                let waiting = stack.status.waiting_plan.as_deref();
                let waiting = waiting.context("expected a change that waits for approval, found none")?;
                if waiting != *wanted {
                    bail!(
                        "{}: expected the plan to be {wanted}, found {waiting}: something changed since; look at `plan` again",
                        stack.key
                    );
                }
            }
            Self::DeleteHosts(hosts, deletion) => {
                let left = left(stack);
                if let Some((standing, _)) =
                    standing(stack).filter(|(_, suffix)| *suffix != ending(*deletion))
                {
                    let others: Vec<&str> =
                        standing.into_iter().filter(|host| !hosts.iter().any(|one| one == host)).collect();
                    if !others.is_empty() {
                        bail!(
                            "{}: expected no other wish to stand, found one about {}: wait until it is carried out, or take the annotation {DELETE_HOST_ANNOTATION} away",
                            stack.key,
                            others.join(", ")
                        );
                    }
                }
                if let Some(unknown) = hosts.iter().find(|host| !left.contains(&host.as_str())) {
                    let left = if left.is_empty() { "none".to_owned() } else { left.join(", ") };
                    bail!(
                        "--host: expected a host that {} names no longer ({left}), found {unknown}; a new spec is seen within seconds",
                        stack.key
                    );
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Name of its annotation.
    pub(super) fn annotation(&self) -> &'static str {
        match self {
            Self::Approve(_) => APPROVE_ANNOTATION,
            Self::Rollback(_) => ROLLBACK_ANNOTATION,
            Self::Retry => RETRY_ANNOTATION,
            Self::Reconcile => RECONCILE_ANNOTATION,
            Self::Adopt => ADOPT_ANNOTATION,
            Self::LeaveData => LEAVE_DATA_ANNOTATION,
            Self::DeleteHosts(..) => DELETE_HOST_ANNOTATION,
        }
    }

    /// The annotation's value for a stack.
    pub(super) fn value(&self, stack: &Read) -> String {
        let generation = stack.generation.unwrap_or_default();
        match self {
            Self::Approve(plan) => (*plan).to_owned(),
            Self::Rollback(release) => format!("{}@{generation}/{}", release.unwrap_or("previous"), now()),
            Self::Retry | Self::Reconcile => now().to_string(),
            Self::Adopt => format!("{}@{generation}", stack.uid),
            Self::LeaveData => generation.to_string(),
            Self::DeleteHosts(hosts, deletion) => {
                let suffix = ending(*deletion);
                let before = standing(stack).filter(|(_, before)| *before == suffix);
                let before = before.map(|(hosts, _)| hosts).unwrap_or_default();
                let all: BTreeSet<&str> =
                    before.into_iter().chain(hosts.iter().map(String::as_str)).collect();
                let all: Vec<&str> = all.into_iter().collect();
                format!("{}@{}@{generation}{suffix}", all.join(","), stack.uid)
            }
        }
    }

    /// What comes of it, in words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Approve(plan) => format!("plan {plan} is approved"),
            Self::Rollback(release) => {
                format!("it goes back to the release {}; see `history`", release.unwrap_or("previous"))
            }
            Self::Retry => "what failed is tried again".to_owned(),
            Self::Reconcile => "everything is checked".to_owned(),
            Self::Adopt => "what another owner of that name had is taken over".to_owned(),
            Self::LeaveData => "services may begin without the data that they had, for this spec".to_owned(),
            Self::DeleteHosts(hosts, deletion) => {
                let what = match deletion {
                    Deletion::Retain => "forgotten; what is there stays",
                    Deletion::Down => "what is there is taken away; volumes stay",
                    Deletion::DownAndVolumes => "what is there is taken away, with its volumes",
                };
                format!("{}: {what}", hosts.join(", "))
            }
        }
    }
}

/// Hosts that a stack names no longer, and of which something is known.
fn left(stack: &Read) -> Vec<&str> {
    let is_left =
        |host: &&HostStatus| host.retained || host.components.iter().any(|component| component.retained);
    let left = stack.status.hosts.iter().filter(is_left);
    left.map(|host| host.name.as_str()).collect()
}

/// How the annotation ends.
fn ending(deletion: Deletion) -> &'static str {
    let known = DELETE_HOST_SUFFIXES.iter().find(|(known, _)| *known == deletion);
    known.map_or("", |(_, suffix)| suffix)
}

/// Hosts about which a wish stands that is not carried out yet, and how it ends.
fn standing(stack: &Read) -> Option<(Vec<&str>, &str)> {
    let (hosts, rest) = stack.annotations.get(DELETE_HOST_ANNOTATION)?.split_once('@')?;
    let this = format!("{}@{}", stack.uid, stack.generation?);
    let suffix = rest.strip_prefix(&this)?;
    let left = left(stack);
    let hosts: Vec<&str> = hosts.split(',').filter(|host| left.contains(host)).collect();
    (!hosts.is_empty()).then_some((hosts, suffix))
}
