//! The plan that waits for a person, in full: a `ConfigMap` beside the stack, named by the plan's hash and never changed.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client,
    api::{DeleteParams, ObjectMeta, PostParams},
};
use serde_json::Value;

use super::{ApiError, MANAGER, limited};
use crate::source::Stack;

/// Key of the plan.
const KEY: &str = "plan.json";
/// Largest plan that is kept, in bytes: the API server takes a MiB.
const LARGEST: usize = 900 << 10;

/// Name of the `ConfigMap` of a plan.
pub(super) fn name(stack: &Stack, hash: &str) -> String {
    format!("{}-plan-{hash}", stack.key.name)
}

/// Keeps a plan; what is there under its name is replaced, since anybody may have made that.
pub(super) async fn keep(client: Client, stack: &Stack, hash: &str, plan: &Value) -> Result<(), ApiError> {
    let mut text = crate::json::to_string_pretty(plan);
    if text.len() > LARGEST {
        text = format!("{{\"tooLarge\": {}}}", text.len());
    }
    let owner = OwnerReference {
        api_version: tasktracker_crds::API_VERSION.to_owned(),
        kind: tasktracker_crds::KIND.to_owned(),
        name: stack.key.name.clone(),
        uid: stack.resource.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let labels = [("app.kubernetes.io/managed-by", MANAGER), ("tasktracker.dev/stack", &stack.key.name)];
    let config_map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name(stack, hash)),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: Some(BTreeMap::from([(KEY.to_owned(), text)])),
        ..ConfigMap::default()
    };
    let api: Api<ConfigMap> = Api::namespaced(client, &stack.key.namespace);
    let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match limited(api.create(&parameters, &config_map)).await {
        Err(error) if error.is_conflict() => {
            limited(api.delete(&name(stack, hash), &DeleteParams::default())).await?;
            limited(api.create(&parameters, &config_map)).await.map(drop)
        }
        made => made.map(drop),
    }
}

/// Removes a plan that waits no longer.
pub(super) async fn remove(client: Client, namespace: &str, name: &str) -> Result<(), ApiError> {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    match limited(api.delete(name, &DeleteParams::default())).await {
        Err(error) if error.is_missing() => Ok(()),
        removed => removed.map(drop),
    }
}

/// A plan as it was kept.
pub(super) async fn read(client: Client, namespace: &str, name: &str) -> anyhow::Result<Value> {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let config_map = limited(api.get(name)).await?;
    let text = config_map.data.and_then(|mut data| data.remove(KEY));
    let text = text.with_context(|| format!("expected the key {KEY} in the ConfigMap {name}, found none"))?;
    serde_json::from_str(&text).with_context(|| format!("ConfigMap {name}"))
}
