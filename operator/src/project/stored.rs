//! A project as manifests keep it and as its hash covers it: a format with a version, apart from [`Project`].
//!
//! Service definitions are stored in the Compose Specification's own form, and what the engine does about a service in the
//! form of the types in `service.rs`. Golden manifests show every change of either.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    ApiCollection, ApiObject, CertificateProbe, File, LoadedProbe, Owner, Project, PublishedProbe, Readiness,
    Reload, SecretFile, Service, Strategy, Validation, Volume, VolumeRole, compose,
};
use crate::{model::ComponentName, secret::SecretSource};

/// Version 1 of a stored project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ProjectV1 {
    component: ComponentName,
    name: String,
    folder: String,
    owner: String,
    environment: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    network: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<String, VolumeV1>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<String, FileV1>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<String, SecretV1>,
    services: BTreeMap<String, ServiceV1>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    api_objects: Vec<ApiObject>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    api_collections: Vec<ApiCollection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateProbe>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drain_file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_store: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeV1 {
    name: String,
    role: VolumeRole,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<Owner>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileV1 {
    mode: u32,
    content: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretV1 {
    secret: SecretSource,
    mode: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<Owner>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceV1 {
    compose: compose::Service,
    strategy: Strategy,
    reload: Reload,
    readiness: Readiness,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    validations: Vec<Validation>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    loaded: Vec<LoadedProbe>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    published: Vec<PublishedProbe>,
}

impl From<&Project> for ProjectV1 {
    fn from(project: &Project) -> Self {
        let Project {
            component,
            name,
            folder,
            owner,
            environment,
            revision,
            generation: _,
            network,
            volumes,
            files,
            secrets,
            services,
            api_objects,
            api_collections,
            certificate,
            drain_file,
            data_store,
            // What happens around a rollout is no part of what is rolled out.
            metrics_store: _,
            out_of_memory: _,
            raised_memory: _,
            hooks: _,
            adopt: _,
        } = project;
        Self {
            component: *component,
            name: name.clone(),
            folder: folder.clone(),
            owner: owner.clone(),
            environment: environment.clone(),
            revision: revision.clone(),
            network: network.clone(),
            volumes: volumes.iter().map(|(inside, volume)| (inside.clone(), volume.into())).collect(),
            files: files.iter().map(|(path, file)| (path.clone(), file.into())).collect(),
            secrets: secrets.iter().map(|(path, file)| (path.clone(), file.into())).collect(),
            services: services.iter().map(|(name, service)| (name.clone(), service.into())).collect(),
            api_objects: api_objects.clone(),
            api_collections: api_collections.clone(),
            certificate: certificate.clone(),
            drain_file: drain_file.clone(),
            data_store: data_store.clone(),
        }
    }
}

impl ProjectV1 {
    /// The project, with the generation that it was rolled out for.
    pub(crate) fn into_project(self, generation: String) -> Project {
        Project {
            component: self.component,
            name: self.name,
            folder: self.folder,
            owner: self.owner,
            environment: self.environment,
            revision: self.revision,
            generation,
            network: self.network,
            volumes: self.volumes.into_iter().map(|(inside, volume)| (inside, volume.into())).collect(),
            files: self.files.into_iter().map(|(path, file)| (path, file.into())).collect(),
            secrets: self.secrets.into_iter().map(|(path, file)| (path, file.into())).collect(),
            services: self.services.into_iter().map(|(name, service)| (name, service.into())).collect(),
            api_objects: self.api_objects,
            api_collections: self.api_collections,
            certificate: self.certificate,
            drain_file: self.drain_file,
            data_store: self.data_store,
            metrics_store: None,
            out_of_memory: BTreeMap::new(),
            raised_memory: BTreeMap::new(),
            hooks: None,
            adopt: None,
        }
    }
}

impl From<&Volume> for VolumeV1 {
    fn from(Volume { name, role, owner }: &Volume) -> Self {
        Self { name: name.clone(), role: *role, owner: *owner }
    }
}

impl From<VolumeV1> for Volume {
    fn from(VolumeV1 { name, role, owner }: VolumeV1) -> Self {
        Self { name, role, owner }
    }
}

impl From<&File> for FileV1 {
    fn from(File { content, mode }: &File) -> Self {
        Self { mode: *mode, content: content.clone() }
    }
}

impl From<FileV1> for File {
    fn from(FileV1 { mode, content }: FileV1) -> Self {
        Self { content, mode }
    }
}

impl From<&SecretFile> for SecretV1 {
    fn from(SecretFile { reference, mode, owner }: &SecretFile) -> Self {
        Self { secret: reference.clone(), mode: *mode, owner: *owner }
    }
}

impl From<SecretV1> for SecretFile {
    fn from(SecretV1 { secret, mode, owner }: SecretV1) -> Self {
        Self { reference: secret, mode, owner }
    }
}

impl From<&Service> for ServiceV1 {
    fn from(service: &Service) -> Self {
        let Service { compose, strategy, reload, readiness, validations, loaded, published } = service;
        Self {
            compose: compose.clone(),
            strategy: strategy.clone(),
            reload: reload.clone(),
            readiness: readiness.clone(),
            validations: validations.clone(),
            loaded: loaded.clone(),
            published: published.clone(),
        }
    }
}

impl From<ServiceV1> for Service {
    fn from(stored: ServiceV1) -> Self {
        let ServiceV1 { compose, strategy, reload, readiness, validations, loaded, published } = stored;
        Self { compose, strategy, reload, readiness, validations, loaded, published }
    }
}
