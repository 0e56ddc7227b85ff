//! Secrets of the release in force while a rollout brings others.

use std::collections::BTreeMap;

use super::{
    actions::{secret_step, secret_steps},
    applied_secrets,
};
use crate::{
    diff::secrets,
    host::{self, Host, Placement, Source, Step},
    model::sha256,
    observe::Observed,
    project::service_of,
    release::Release,
    secret::Secret,
};

/// The values of secrets that the release in force was applied with, kept on the host while others are tried.
pub(super) struct SecretBackup<'a> {
    /// The release in force; none where there is nothing to keep.
    applied: Option<&'a Release>,
    /// By path.
    values: BTreeMap<String, Value>,
}

/// One value.
struct Value {
    sha256: String,
    is_kept: bool,
    /// The value itself, where the file belongs to another user: who is not that one can copy it nowhere.
    owned: Option<Secret>,
}

impl<'a> SecretBackup<'a> {
    /// What is to be kept, because other values take its place.
    ///
    /// # Errors
    /// When the host cannot be read.
    pub(super) async fn new(
        host: &Host,
        new: &BTreeMap<&String, &Secret>,
        observed: &'a Observed,
    ) -> Result<Self, host::Error> {
        let mut values = BTreeMap::new();
        let Some(applied) = &observed.applied else { return Ok(Self { applied: None, values }) };
        for path in applied.seals.keys() {
            let kept = secrets::kept_hash(applied, path, observed);
            let is_kept = kept.is_some();
            let Some(sha256) = kept.or_else(|| secrets::live_hash(applied, path, observed)) else { continue };
            let is_replaced = new.get(path).is_some_and(|new| self::sha256(new.reveal()) != sha256);
            if is_kept || is_replaced {
                let owned = owned(host, applied, path, is_kept, observed).await?;
                values.insert(path.clone(), Value { sha256, is_kept, owned });
            }
        }
        Ok(Self { applied: Some(applied), values })
    }

    /// The steps that stage other values, once these are kept; and those for the proxy, which come with its other files.
    pub(super) fn stage(&self, release: &Release, new: BTreeMap<&String, &Secret>) -> (Vec<Step>, Vec<Step>) {
        let proxy = release.project.proxy();
        let (of_proxy, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            new.into_iter().partition(|(path, _)| proxy.is_some() && service_of(path) == proxy);
        (self.keep().chain(secret_steps(release, &others)).collect(), secret_steps(release, &of_proxy))
    }

    /// Keeps those that are not kept yet.
    fn keep(&self) -> impl Iterator<Item = Step> {
        let not_yet = self.values.iter().filter(|(_, value)| !value.is_kept);
        not_yet.map(|(path, Value { sha256, owned, .. })| {
            Step::Place(Placement {
                path: secrets::kept_path(path),
                mode: secrets::KEPT_MODE,
                sha256: sha256.clone(),
                source: match owned {
                    Some(value) => Source::Secret(value.clone()),
                    None => Source::Copy(path.clone()),
                },
            })
        })
    }

    /// Puts them back into their places.
    pub(super) fn restore(&self) -> impl Iterator<Item = Step> {
        self.values.iter().filter_map(|(path, value)| self.restore_one(path, value))
    }

    /// Those of one service alone.
    pub(super) fn restore_of(&self, service: &str) -> impl Iterator<Item = Step> {
        let of_service = self.values.iter().filter(move |(path, _)| service_of(path) == Some(service));
        of_service.filter_map(|(path, value)| self.restore_one(path, value))
    }

    fn restore_one(&self, path: &str, Value { sha256, owned, .. }: &Value) -> Option<Step> {
        let applied = self.applied?;
        if let Some(value) = owned {
            return secret_step(applied, path, value);
        }
        Some(Step::Place(Placement {
            path: path.to_owned(),
            mode: applied.project.secrets.get(path)?.mode,
            sha256: sha256.clone(),
            source: Source::Copy(secrets::kept_path(path)),
        }))
    }

    /// They are needed no longer.
    pub(super) fn forget(&self) -> impl Iterator<Item = Step> {
        self.values.keys().map(|path| Step::Remove { path: secrets::kept_path(path) })
    }
}

/// The value of a secret file of another user: as it is kept, as its source has it still, or as a container sees it.
async fn owned(
    host: &Host,
    applied: &Release,
    path: &str,
    is_kept: bool,
    observed: &Observed,
) -> Result<Option<Secret>, host::Error> {
    if applied.project.secrets.get(path).is_none_or(|file| file.owner.is_none()) {
        return Ok(None);
    }
    if is_kept {
        let place = format!("{}/{}", applied.project.folder, secrets::kept_path(path));
        let mut content = host.content(std::slice::from_ref(&place)).await?;
        return Ok(content.remove(&place).map(Secret::new));
    }
    applied_secrets::value(host, applied, path, observed).await
}
