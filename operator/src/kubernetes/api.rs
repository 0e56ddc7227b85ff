//! Stacks as the API server has them: read as they are, since one that was stored before a rule existed must not keep
//! the others from being read.

use std::collections::BTreeMap;

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams},
};
use serde_json::{Value, json};
use tasktracker_crds::{TaskTrackerStack, TaskTrackerStackStatus, validation, validation::Mistake};

use super::{MANAGER, limited};
use crate::source::{Stack, StackKey};

/// What the API server calls the resource.
pub(super) fn resource() -> ApiResource {
    ApiResource::erase::<TaskTrackerStack>(&())
}

/// The stacks of one namespace, or of all.
pub(super) fn stacks_api(client: Client, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource()),
        None => Api::all_with(client, &resource()),
    }
}

/// Namespace and name of an object.
pub(super) fn key_of(object: &DynamicObject) -> StackKey {
    let metadata = &object.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    StackKey { namespace: text(&metadata.namespace), name: text(&metadata.name) }
}

/// The stack that an object asks for, by the same rules as a file; it was stored by an API server that may have known
/// fewer of them.
///
/// # Errors
/// Every mistake.
pub(super) fn read(object: &DynamicObject) -> Result<Stack, Vec<Mistake>> {
    let document = json!({
        "apiVersion": tasktracker_crds::API_VERSION,
        "kind": tasktracker_crds::KIND,
        "metadata": metadata_of(object),
        "spec": object.data.get("spec").cloned().unwrap_or_default(),
    });
    let resource = validation::read_object(&document)?;
    Ok(Stack::of_object(resource, std::path::PathBuf::new()))
}

/// The metadata of an object as [`read`] gives it to a stack.
pub(super) fn metadata_of(object: &DynamicObject) -> ObjectMeta {
    let metadata = &object.metadata;
    ObjectMeta {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        generation: metadata.generation,
        creation_timestamp: metadata.creation_timestamp.clone(),
        annotations: Some(metadata.annotations.clone().unwrap_or_default()),
        ..ObjectMeta::default()
    }
}

/// The status of an object; one that cannot be read is none.
pub(super) fn status_of(object: &DynamicObject) -> TaskTrackerStackStatus {
    let status = object.data.get("status").cloned().unwrap_or_default();
    serde_json::from_value(status).unwrap_or_default()
}

/// The stacks that a person at the command line asks the API server about.
pub struct Stacks {
    api: Api<DynamicObject>,
    client: Client,
    namespace: String,
}

/// One stack as a person asked for it.
pub struct Read {
    /// Namespace and name.
    pub key: StackKey,
    /// UID of the object.
    pub uid: String,
    /// What the operator says.
    pub status: TaskTrackerStackStatus,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    version: Option<String>,
}

impl Stacks {
    /// The stacks of a namespace.
    pub fn new(client: Client, namespace: String) -> Self {
        Self { api: stacks_api(client.clone(), Some(&namespace)), client, namespace }
    }

    /// One stack, or all of the namespace.
    ///
    /// # Errors
    /// Where there is none of that name, or the API server does not tell.
    pub async fn read(&self, names: &[String]) -> anyhow::Result<Vec<Read>> {
        let mut objects = Vec::new();
        for name in names {
            let found = limited(self.api.get_opt(name)).await?;
            let missing = || {
                anyhow::anyhow!(
                    "expected a stack named {name} in the namespace {}, found none",
                    self.namespace
                )
            };
            objects.push(found.ok_or_else(missing)?);
        }
        if names.is_empty() {
            objects = limited(self.api.list(&kube::api::ListParams::default())).await?.items;
            anyhow::ensure!(
                !objects.is_empty(),
                "expected stacks in the namespace {}, found none",
                self.namespace
            );
        }
        Ok(objects.iter().map(read_object).collect())
    }

    /// Sets an annotation of a stack whose spec and annotations are as they were read.
    ///
    /// # Errors
    /// Where they are others by now, or the API server does not allow it.
    pub async fn annotate(&self, stack: &Read, annotation: &str, value: &str) -> anyhow::Result<()> {
        let parameters =
            PatchParams { field_manager: Some(format!("{MANAGER}-cli")), ..PatchParams::default() };
        let (mut version, name) = (stack.version.clone(), &stack.key.name);
        loop {
            let patch = json!({
                "metadata": { "resourceVersion": version, "annotations": { annotation: value } },
            });
            match limited(self.api.patch(name, &parameters, &Patch::Merge(patch))).await {
                Err(error) if error.is_conflict() => {
                    // Another status is no other stack.
                    let object = limited(self.api.get(name)).await?;
                    let now = read_object(&object);
                    anyhow::ensure!(
                        (&now.uid, now.generation, &now.annotations)
                            == (&stack.uid, stack.generation, &stack.annotations),
                        "{}: expected it to be as it was a moment ago, found it changed; say it again",
                        stack.key
                    );
                    version = now.version;
                }
                patched => return Ok(patched.map(drop)?),
            }
        }
    }

    /// The plan that waits, in full.
    ///
    /// # Errors
    /// Where the API server does not tell it.
    pub async fn plan(&self, config_map: &str) -> anyhow::Result<Value> {
        super::plans::read(self.client.clone(), &self.namespace, config_map).await
    }
}

fn read_object(object: &DynamicObject) -> Read {
    Read {
        key: key_of(object),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        status: status_of(object),
        generation: object.metadata.generation,
        annotations: object.metadata.annotations.clone().unwrap_or_default(),
        version: object.metadata.resource_version.clone(),
    }
}
