//! Secrets of the release in force while a rollout brings others.

use std::collections::BTreeMap;

use super::actions::secret_steps;
use crate::{
    diff::secrets,
    host::{Placement, Source, Step},
    model::sha256,
    observe::Observed,
    project::{SECRET_MODE, service_of},
    secret::Secret,
};

/// The values of secrets that the release in force was applied with, kept on the host while others are tried: by path,
/// their SHA-256, and whether they are kept already.
pub(super) struct Kept(BTreeMap<String, (String, bool)>);

impl Kept {
    pub(super) fn new(new: &BTreeMap<&String, &Secret>, observed: &Observed) -> Self {
        let Some(applied) = &observed.applied else { return Self(BTreeMap::new()) };
        let kept = applied.seals.keys().filter_map(|path| {
            if let Some(sha256) = secrets::kept_hash(applied, path, observed) {
                return Some((path.clone(), (sha256, true)));
            }
            let live = secrets::live_hash(applied, path, observed)?;
            let is_replaced = new.get(path).is_some_and(|new| sha256(new.reveal()) != live);
            is_replaced.then(|| (path.clone(), (live, false)))
        });
        Self(kept.collect())
    }

    /// The steps that stage other values, once these are kept; and those for the proxy, which come with its other files.
    pub(super) fn stage(
        &self,
        new: BTreeMap<&String, &Secret>,
        proxy: Option<&str>,
    ) -> (Vec<Step>, Vec<Step>) {
        let (of_proxy, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            new.into_iter().partition(|(path, _)| proxy.is_some() && service_of(path) == proxy);
        (self.keep().chain(secret_steps(&others)).collect(), secret_steps(&of_proxy))
    }

    /// Keeps those that are not kept yet.
    fn keep(&self) -> impl Iterator<Item = Step> {
        let not_yet = self.0.iter().filter(|(_, (_, is_kept))| !is_kept);
        not_yet.map(|(path, (sha256, _))| {
            Step::Place(Placement {
                path: secrets::kept_path(path),
                mode: secrets::KEPT_MODE,
                sha256: sha256.clone(),
                source: Source::Copy(path.clone()),
            })
        })
    }

    /// Puts them back into their places.
    pub(super) fn restore(&self) -> impl Iterator<Item = Step> {
        self.0.iter().map(|(path, (sha256, _))| restore_one(path, sha256))
    }

    /// Those of one service alone.
    pub(super) fn restore_of(&self, service: &str) -> impl Iterator<Item = Step> {
        let of_service = self.0.iter().filter(move |(path, _)| service_of(path) == Some(service));
        of_service.map(|(path, (sha256, _))| restore_one(path, sha256))
    }

    /// They are needed no longer.
    pub(super) fn forget(&self) -> impl Iterator<Item = Step> {
        self.0.keys().map(|path| Step::Remove { path: secrets::kept_path(path) })
    }
}

fn restore_one(path: &str, sha256: &str) -> Step {
    Step::Place(Placement {
        path: path.to_owned(),
        mode: SECRET_MODE,
        sha256: sha256.to_owned(),
        source: Source::Copy(secrets::kept_path(path)),
    })
}
