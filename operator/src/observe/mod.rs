//! What is there. Reads the host, writes nothing, knows no policy.

use std::collections::BTreeMap;

use crate::{
    desired::Project,
    host::{Container, Error, FileFact, Host, HostLock},
    release::{Ledger, Release},
};

/// One project on a host, as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Whether another writer is at work: then what is there is neither drift nor change.
    pub busy: bool,
    /// What happened to it, where the operator was here before.
    pub ledger: Option<Ledger>,
    /// The release that was last rolled out.
    pub applied: Option<Release>,
    /// Live files, by path from the project's folder.
    pub files: BTreeMap<String, FileFact>,
    /// Containers of the project.
    pub containers: Vec<Container>,
}

/// Looks at one project on a host; with the lock, nobody else is at work there.
///
/// # Errors
/// When the host cannot be read, or what the operator keeps there is damaged.
pub async fn observe(host: &Host, project: &Project, lock: Option<&HostLock>) -> Result<Observed, Error> {
    let folder = format!("{}/{}", host.target().directory, project.folder);
    host.connect().await?;
    let (listing, containers) =
        futures::future::try_join(host.list(&folder), host.containers(&project.name)).await?;
    let damaged =
        |path: &str, found: String| Error::ReleaseDamaged { path: format!("{folder}/{path}"), found };
    let ledger = match &listing.ledger {
        Some(text) => Some(Ledger::read(text).map_err(|found| damaged("ledger.json", found))?),
        None => None,
    };
    let applied = match ledger.as_ref().and_then(|ledger| ledger.current.as_ref()) {
        None => None,
        Some(id) => {
            let path = format!("releases/{id}/manifest.json");
            let text = listing.manifests.get(id).ok_or_else(|| damaged(&path, "nothing".to_owned()))?;
            Some(Release::read(text).map_err(|found| damaged(&path, found))?)
        }
    };
    let busy = listing.locked && lock.is_none();
    Ok(Observed { busy, ledger, applied, files: listing.files, containers })
}
