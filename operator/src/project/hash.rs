//! The canonical hash of a project: of a versioned form, never of the type that a component renders to.

use serde::Serialize;

use super::{Project, stored::ProjectV1};
use crate::{json, model::sha256, secret::Seals};

/// What the hash of version 1 is over, as JSON with sorted keys of maps and this order of fields.
#[derive(Serialize)]
struct V1<'a> {
    hash: u32,
    project: ProjectV1,
    seals: &'a Seals,
}

/// The hash of a project and of the keyed hashes of its secrets.
pub(super) fn v1(project: &Project, seals: &Seals) -> String {
    sha256(&json::to_vec(&V1 { hash: 1, project: ProjectV1::from(project), seals }))
}
