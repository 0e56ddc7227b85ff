//! Releases as they are kept on a host. Pure: the format and how one comes about.
//!
//! A release is one desired state with everything that was open in it settled: images by their IDs, files by their
//! hashes. It is stored whole below `releases/ID/`, so that healing never needs to render anything again.

mod manifest;

use std::collections::BTreeMap;

use crate::{
    host::{Container, Placement, Source, State},
    json,
    model::sha256,
    project::{BlueGreen, FILE_MODE, Project, compose, is_below, labels},
    secret::Seals,
};

/// Name of a project's Compose file.
pub const COMPOSE_FILE: &str = "compose.yaml";

/// One applied desired state.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
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
    pub seals: Seals,
}

impl Release {
    /// The running containers of one of its services; those of `docker compose run` are none.
    pub fn running<'a>(
        &self,
        service: &str,
        containers: &'a [Container],
    ) -> impl Iterator<Item = &'a Container> + use<'a> {
        let (service, hash) = (service.to_owned(), self.service_hashes.get(service).cloned());
        containers.iter().filter(move |one| {
            one.state == State::Running
                && one.has_label(compose::COMPOSE_SERVICE, &service)
                && one.has_label(labels::SERVICE_HASH, hash.as_deref().unwrap_or_default())
                && !one.has_label(compose::COMPOSE_ONE_OFF, "True")
        })
    }
}

/// What a file of a release must be.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        let mut composed = BTreeMap::new();
        let mut service_hashes = BTreeMap::new();
        for (name, service) in &project.services {
            let mut definition = service.compose.clone();
            if let Some(image) = images.get(name) {
                definition.image.clone_from(image);
            }
            let hash = service_hash(name, &definition, &project, &seals);
            // What a host gives it beyond that makes nothing anew.
            if let Some(raised) = project.raised_memory.get(name) {
                definition.limits.set_memory(*raised);
            }
            definition.labels.insert(labels::SERVICE_HASH.to_owned(), hash.clone());
            if project.blue_green().any(|(other, _)| other == name) {
                let joined = compose::Joined { aliases: vec![alias(name, &hash)] };
                definition.networks.insert(compose::NETWORK.to_owned(), joined);
            }
            composed.insert(name.clone(), definition);
            service_hashes.insert(name.clone(), hash);
        }
        let files =
            project.files.iter().map(|(path, file)| (path.clone(), (file.content.clone(), file.mode)));
        let mut files: BTreeMap<String, (String, u32)> = files.collect();
        let upstream = |(name, BlueGreen { upstreams, .. }): (&String, &BlueGreen)| {
            Some(format!("{upstreams}/{}", alias(name, service_hashes.get(name)?)))
        };
        files
            .extend(project.blue_green().filter_map(upstream).map(|path| (path, (String::new(), FILE_MODE))));
        files.insert(COMPOSE_FILE.to_owned(), (compose::render(&project, &composed), FILE_MODE));
        let records =
            files.iter().map(|(path, (content, mode))| (path.clone(), FileRecord::of(content, *mode)));
        let id = sha256(&json::to_vec(&(&desired_hash, &service_hashes)))[..12].to_owned();
        let release = Release {
            id,
            desired_hash,
            images,
            service_hashes,
            files: records.collect(),
            seals,
            project: project.as_stored(),
        };
        let contents = files.into_iter().map(|(path, (content, _))| (path, content)).collect();
        Self { release, contents }
    }

    /// The copies of its files and of its manifest that a host stores, in order.
    pub fn stored(&self) -> Vec<Placement> {
        let copies = self.contents.iter().map(|(path, content)| {
            let mode = self.mode(path);
            Placement { mode, ..inline(&self.release.stored(path), content) }
        });
        let manifest = inline(&self.release.manifest_path(), &self.release.manifest());
        copies.chain([manifest]).collect()
    }

    /// Its live files, in order: `compose.yaml` last.
    pub fn live(&self) -> Vec<Placement> {
        let (last, first): (Vec<_>, Vec<_>) =
            self.contents.iter().partition(|(path, _)| *path == COMPOSE_FILE);
        let place = |(path, content): (&String, &String)| Placement {
            mode: self.mode(path),
            ..inline(path, content)
        };
        first.into_iter().chain(last).map(place).collect()
    }

    fn mode(&self, path: &str) -> u32 {
        self.release.files.get(path).map_or(FILE_MODE, |file| file.mode)
    }
}

impl Release {
    /// Reads a manifest.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let release = manifest::read(text)?;
        release.check()?;
        Ok(release)
    }

    /// Its manifest, as a host keeps it.
    pub fn manifest(&self) -> String {
        manifest::written(self)
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
        let mut names = [&project.name, &project.folder, &project.network, &project.generation]
            .into_iter()
            .chain(&project.revision)
            .chain(project.services.keys())
            .chain(project.volumes.iter().flat_map(|(inside, volume)| [inside, &volume.name]))
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

    /// The names by which a service is known in the project's network.
    pub(crate) fn aliases(&self, service: &str) -> Vec<String> {
        let hash = self.service_hashes.get(service);
        let hash = hash.filter(|_| self.project.blue_green().any(|(name, _)| name == service));
        let joined = self.project.services.get(service).into_iter();
        let joined = joined.flat_map(|service| service.compose.networks.values());
        let own = joined.flat_map(|joined| joined.aliases.iter().cloned());
        let all = [service.to_owned()].into_iter().chain(hash.map(|hash| alias(service, hash))).chain(own);
        let all: std::collections::BTreeSet<String> = all.collect();
        all.into_iter().collect()
    }

    /// Path of its manifest, from the project's folder.
    pub fn manifest_path(&self) -> String {
        self.stored("manifest.json")
    }

    /// Path of the stored copy of a file, from the project's folder.
    pub fn stored(&self, path: &str) -> String {
        format!("releases/{}/{path}", self.id)
    }
}

impl FileRecord {
    fn of(content: &str, mode: u32) -> Self {
        Self { sha256: sha256(content.as_bytes()), mode, size: content.len() as u64 }
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

/// Name in the network of the containers that one release of a service has.
pub(crate) fn alias(service: &str, hash: &str) -> String {
    format!("{service}-{hash}")
}

/// Compose's own hash does not cover the files that a service mounts; this one does, but for those that it takes up while
/// it runs.
fn service_hash(name: &str, definition: &compose::Service, project: &Project, seals: &Seals) -> String {
    let fixed = definition.volumes.iter().filter(|_| !project.is_reloaded(name));
    let folders: Vec<&str> = fixed.filter_map(compose::Mount::project_folder).collect();
    let is_mounted = |path: &str| folders.iter().any(|folder| is_below(path, folder));
    let files = project.files.iter().filter(|(path, _)| is_mounted(path));
    let files: BTreeMap<&String, (String, u32)> =
        files.map(|(path, file)| (path, (sha256(file.content.as_bytes()), file.mode))).collect();
    let seals: BTreeMap<&String, &String> = seals.iter().filter(|(path, _)| is_mounted(path)).collect();
    sha256(&json::to_vec(&(definition, files, seals)))[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Stack;

    #[test]
    fn a_manifest_that_leads_elsewhere_is_damaged() {
        let text = include_str!("../../../examples/staging.yaml");
        let stack =
            Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), "staging.yaml".into());
        let project = crate::component::app_project(&stack, stack.spec.app.as_ref().unwrap());
        let good = Prepared::new(project, BTreeMap::new(), Seals::new()).release;
        let read = |change: fn(&mut Release)| {
            let mut release = good.clone();
            change(&mut release);
            Release::read(release.manifest().as_bytes())
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
            let told = Release::read(release.manifest().as_bytes()).unwrap_err();
            assert!(told.contains("below the project's folder"), "{path}: {told}");
        }
    }
}
