//! `manifest.json`: a release as a host keeps it. A format with a version, apart from [`Release`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FileRecord, Release};
use crate::{json, project::stored::ProjectV1, secret::Seals};

/// Version that is written.
const VERSION: u32 = 2;

/// What every version has: which one it is.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// Version 2 of a manifest; version 1 was never released.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ManifestV2 {
    format: u32,
    id: String,
    desired_hash: String,
    generation: String,
    project: ProjectV1,
    images: BTreeMap<String, String>,
    service_hashes: BTreeMap<String, String>,
    files: BTreeMap<String, FileRecordV2>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    seals: Seals,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRecordV2 {
    sha256: String,
    mode: u32,
    size: u64,
}

/// A manifest as text.
pub(super) fn written(release: &Release) -> String {
    let Release { id, desired_hash, project, images, service_hashes, files, seals } = release;
    let record = |FileRecord { sha256, mode, size }: &FileRecord| FileRecordV2 {
        sha256: sha256.clone(),
        mode: *mode,
        size: *size,
    };
    json::to_string_pretty(&ManifestV2 {
        format: VERSION,
        id: id.clone(),
        desired_hash: desired_hash.clone(),
        generation: project.generation.clone(),
        project: project.into(),
        images: images.clone(),
        service_hashes: service_hashes.clone(),
        files: files.iter().map(|(path, file)| (path.clone(), record(file))).collect(),
        seals: seals.clone(),
    })
}

/// The release of a manifest.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(text: &[u8]) -> Result<Release, String> {
    let Version { format } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if format != VERSION {
        return Err(format!("expected format {VERSION}, found {format}"));
    }
    let ManifestV2 { format: _, id, desired_hash, generation, project, images, service_hashes, files, seals } =
        serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let record = |FileRecordV2 { sha256, mode, size }| FileRecord { sha256, mode, size };
    Ok(Release {
        id,
        desired_hash,
        project: project.into_project(generation),
        images,
        service_hashes,
        files: files.into_iter().map(|(path, file)| (path, record(file))).collect(),
        seals,
    })
}
