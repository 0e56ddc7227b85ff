//! Releases as they are kept on a host. Pure: the format and how one comes about.
//!
//! A release is one desired state with everything that was open in it settled: images by their IDs, files by their
//! hashes. It is stored whole below `releases/ID/`, so that healing never needs to render anything again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    desired::{self, Project, compose, labels, sha256},
    host::{Placement, Source},
    secret::Seals,
};

/// Version of the formats on hosts.
pub(crate) const FORMAT: u32 = 1;
/// Permission bits of every file of a project.
const FILE_MODE: u32 = 0o644;
/// Name of a project's Compose file.
pub const COMPOSE_FILE: &str = "compose.yaml";

/// One applied desired state, as its `manifest.json` tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Version of this format.
    pub format: u32,
    /// Twelve hexadecimal digits; the same content has the same.
    pub id: String,
    /// Hash of the desired state.
    pub desired_hash: String,
    /// The desired state.
    pub project: Project,
    /// Image IDs, by service.
    pub images: BTreeMap<String, String>,
    /// Hash of each service's definition and of the files it mounts.
    pub service_hashes: BTreeMap<String, String>,
    /// Files, by path from the project's folder.
    pub files: BTreeMap<String, FileRecord>,
    /// Keyed hashes of its secret files, by path from the project's folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seals: Seals,
}

/// What a file of a release must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileRecord {
    /// SHA-256 of the content, in hexadecimal digits.
    pub sha256: String,
    /// Permission bits.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
}

/// A release and the content of its files.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The release.
    pub release: Release,
    /// Content of its files, by path.
    pub contents: BTreeMap<String, String>,
}

impl Prepared {
    /// Settles a desired state: `images` are the image IDs by service, `seals` the keyed hashes of its secrets.
    pub fn new(project: Project, images: BTreeMap<String, String>, seals: Seals) -> Self {
        let desired_hash = project.hash(&seals);
        let mut services = project.services.clone();
        let mut service_hashes = BTreeMap::new();
        for (name, service) in &mut services {
            if let Some(image) = images.get(name) {
                service.image.clone_from(image);
            }
            let hash = service_hash(name, service, &project, &seals);
            service.labels.insert(labels::SERVICE_HASH.to_owned(), hash.clone());
            if project.rolling.contains(name) {
                let joined = compose::Joined { aliases: vec![alias(name, &hash)] };
                service.networks.insert(compose::NETWORK.to_owned(), joined);
            }
            service_hashes.insert(name.clone(), hash);
        }
        let mut contents = project.files.clone();
        let upstream = |name: &String| Some(upstream(name, &alias(name, service_hashes.get(name)?)));
        contents.extend(project.rolling.iter().filter_map(upstream).map(|path| (path, String::new())));
        contents.insert(COMPOSE_FILE.to_owned(), compose::render(&project, &services));
        let files = contents.iter().map(|(path, content)| (path.clone(), FileRecord::of(content))).collect();
        let id = sha256(format!("{desired_hash}{service_hashes:?}").as_bytes())[..12].to_owned();
        let release =
            Release { format: FORMAT, id, desired_hash, project, images, service_hashes, files, seals };
        Self { release, contents }
    }

    /// Everything to be written for this release, in order: its stored copy, the live files, `compose.yaml` last.
    pub fn placements(&self) -> Vec<Placement> {
        let stored = self.contents.iter().map(|(path, content)| inline(&self.release.stored(path), content));
        let manifest = serde_json::to_string_pretty(&self.release).unwrap_or_default();
        let manifest = std::iter::once(inline(&self.release.stored("manifest.json"), &manifest));
        let (last, first): (Vec<_>, Vec<_>) =
            self.contents.iter().partition(|(path, _)| *path == COMPOSE_FILE);
        let live = first.into_iter().chain(last).map(|(path, content)| inline(path, content));
        stored.chain(manifest).chain(live).collect()
    }
}

impl Release {
    /// Reads a manifest.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(manifest: &[u8]) -> Result<Self, String> {
        let release: Self = serde_json::from_slice(manifest).map_err(|error| error.to_string())?;
        if release.format != FORMAT {
            return Err(format!("expected format {FORMAT}, found {}", release.format));
        }
        release.check()?;
        Ok(release)
    }

    /// Whether what becomes part of command lines, paths and reports is what the operator writes there.
    fn check(&self) -> Result<(), String> {
        let Self { id, project, images, service_hashes, files, seals, .. } = self;
        let is_hash = |text: &&String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut hashes = [id]
            .into_iter()
            .chain(service_hashes.values())
            .chain(files.values().map(|file| &file.sha256))
            .chain(seals.values());
        if let Some(found) = hashes.find(|text| !is_hash(text)) {
            return Err(format!("expected hexadecimal digits, found {found}"));
        }
        let mut names =
            [&project.component, &project.name, &project.folder, &project.network, &project.revision]
                .into_iter()
                .chain(project.services.keys())
                .chain(project.volumes.iter().flat_map(|(name, actual)| [name, actual]))
                .chain(images.iter().flat_map(|(service, image)| [service, image]))
                .chain(service_hashes.keys())
                .chain(files.keys())
                .chain(seals.keys());
        if let Some(found) = names.find(|name| name.chars().any(char::is_control)) {
            return Err(format!("expected a name that can be printed, found {found}"));
        }
        // Files are written where a manifest says: below the project's folder and nowhere else.
        let mut paths = files.keys().chain(seals.keys()).chain(project.secrets.keys());
        match paths.find(|path| path.split('/').any(|part| ["", ".", ".."].contains(&part))) {
            Some(found) => Err(format!("expected a path below the project's folder, found {found}")),
            None => Ok(()),
        }
    }

    /// Path of the stored copy of a file, from the project's folder.
    pub fn stored(&self, path: &str) -> String {
        format!("releases/{}/{path}", self.id)
    }
}

impl FileRecord {
    fn of(content: &str) -> Self {
        Self { sha256: sha256(content.as_bytes()), mode: FILE_MODE, size: content.len() as u64 }
    }
}

/// A file that everybody may read.
pub(crate) fn inline(path: &str, content: &str) -> Placement {
    Placement {
        path: path.to_owned(),
        mode: FILE_MODE,
        sha256: sha256(content.as_bytes()),
        source: Source::Inline(content.as_bytes().to_vec()),
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Name in the network of the containers that one release of a service has.
pub(crate) fn alias(service: &str, hash: &str) -> String {
    format!("{service}-{hash}")
}

/// Path of the file whose name tells the edge who serves.
fn upstream(service: &str, alias: &str) -> String {
    format!("{}/{service}/{alias}", desired::UPSTREAMS)
}

/// Compose's own hash does not cover the files that a service mounts; this one does, but for those that it takes up while
/// it runs.
fn service_hash(name: &str, service: &compose::Service, project: &Project, seals: &Seals) -> String {
    let mut text = serde_json::to_string(service).unwrap_or_default();
    let fixed = service.volumes.iter().filter(|_| !desired::is_reloaded(name));
    for folder in fixed.filter_map(compose::Mount::project_folder) {
        for (path, content) in project.files.iter().filter(|(path, _)| is_below(path, folder)) {
            text.push_str(path);
            text.push_str(&sha256(content.as_bytes()));
        }
        for (path, seal) in seals.iter().filter(|(path, _)| is_below(path, folder)) {
            text.push_str(path);
            text.push_str(seal);
        }
    }
    sha256(text.as_bytes())[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Stack;

    #[test]
    fn a_manifest_that_leads_elsewhere_is_damaged() {
        let text = include_str!("../../examples/staging.yaml");
        let stack =
            Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), "staging.yaml".into());
        let project = crate::desired::app_project(&stack, stack.spec.app.as_ref().unwrap());
        let good = Prepared::new(project, BTreeMap::new(), Seals::new()).release;
        let read = |change: fn(&mut Release)| {
            let mut release = good.clone();
            change(&mut release);
            Release::read(&serde_json::to_vec(&release).unwrap())
        };
        assert_eq!(read(|_| {}), Ok(good.clone()));
        let moved = |release: &mut Release, path: &str| {
            let record = release.files["compose.yaml"].clone();
            release.files.insert(path.to_owned(), record);
        };
        assert!(read(|release| release.id = "../x".to_owned()).is_err());
        assert!(read(|release| release.project.name = "a\nb".to_owned()).is_err());
        for path in ["../x", "/etc/passwd", "files/../../x", "files//x"] {
            let mut release = good.clone();
            moved(&mut release, path);
            let told = Release::read(&serde_json::to_vec(&release).unwrap()).unwrap_err();
            assert!(told.contains("below the project's folder"), "{path}: {told}");
        }
    }
}
