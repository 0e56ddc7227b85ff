//! The plan that waits for a person, in full: a `ConfigMap` beside the stack, named by the plan's hash and never changed.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ObjectMeta, PostParams, Preconditions},
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

/// Keeps a plan. What the stack owns under its name is replaced, since its content may be another one.
///
/// # Errors
/// Where the API server does not take it, or something of somebody else has its name.
pub(super) async fn keep(client: Client, stack: &Stack, hash: &str, plan: &Value) -> Result<(), ApiError> {
    let config_map = config_map(stack, hash, plan);
    let api: Api<ConfigMap> = Api::namespaced(client, &stack.key.namespace);
    let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let made = limited(api.create(&parameters, &config_map)).await;
    let is_taken = made.as_ref().is_err_and(ApiError::is_conflict);
    if !is_taken || !delete(&api, stack, hash).await? {
        return made.map(drop);
    }
    limited(api.create(&parameters, &config_map)).await.map(drop)
}

fn config_map(stack: &Stack, hash: &str, plan: &Value) -> ConfigMap {
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
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name(stack, hash)),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: Some(BTreeMap::from([(KEY.to_owned(), text)])),
        ..ConfigMap::default()
    }
}

/// Removes a plan that waits no longer; what the stack does not own stays.
///
/// # Errors
/// Where the API server does not take it.
pub(super) async fn remove(client: Client, stack: &Stack, hash: &str) -> Result<(), ApiError> {
    let api: Api<ConfigMap> = Api::namespaced(client, &stack.key.namespace);
    delete(&api, stack, hash).await.map(drop)
}

/// Deletes the plan of a stack; whether its name is free now. Exactly what was read is deleted: the operator may delete
/// every `ConfigMap`, and whoever may only name one must not have it do so.
async fn delete(api: &Api<ConfigMap>, stack: &Stack, hash: &str) -> Result<bool, ApiError> {
    let name = name(stack, hash);
    let Some(config_map) = limited(api.get_opt(&name)).await? else {
        return Ok(true);
    };
    if !is_owned(&config_map, stack) {
        tracing::warn!(stack = %stack.key, config_map = %name, "expected the ConfigMap to be owned by the stack, found another owner: it stays");
        return Ok(false);
    }
    let preconditions = Preconditions { uid: config_map.uid(), resource_version: None };
    let parameters = DeleteParams::default().preconditions(preconditions);
    match limited(api.delete(&name, &parameters)).await {
        Err(error) if error.is_missing() => Ok(true),
        deleted => deleted.map(|_| true),
    }
}

/// Whether the stack, or one of its name before it, owns a `ConfigMap`.
fn is_owned(config_map: &ConfigMap, stack: &Stack) -> bool {
    config_map.owner_references().iter().any(|owner| {
        owner.api_version == tasktracker_crds::API_VERSION
            && owner.kind == tasktracker_crds::KIND
            && owner.name == stack.key.name
    })
}

/// A plan as it was kept.
pub(super) async fn read(client: Client, namespace: &str, name: &str) -> anyhow::Result<Value> {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let config_map = limited(api.get(name)).await?;
    let text = config_map.data.and_then(|mut data| data.remove(KEY));
    let text = text.with_context(|| format!("expected the key {KEY} in the ConfigMap {name}, found none"))?;
    serde_json::from_str(&text).with_context(|| format!("ConfigMap {name}"))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::{
        super::fake::{self, FakeApi, config_map_path},
        *,
    };

    const NAME: &str = "staging-plan-0123";

    fn stack() -> Stack {
        super::super::api::read(&fake::stack("staging")).unwrap()
    }

    fn kept(api: &FakeApi) -> Option<String> {
        let config_map = api.object(&config_map_path(NAME))?;
        Some(config_map["data"][KEY].as_str().unwrap_or_default().to_owned())
    }

    #[tokio::test]
    async fn a_plan_is_kept_and_removed() {
        let (api, stack) = (FakeApi::default(), stack());
        keep(api.client(), &stack, "0123", &json!("plan")).await.unwrap();
        assert_eq!(kept(&api).unwrap(), "\"plan\"");
        assert_eq!(read(api.client(), "default", NAME).await.unwrap(), json!("plan"));
        remove(api.client(), &stack, "0123").await.unwrap();
        assert_eq!(kept(&api), None);
        remove(api.client(), &stack, "0123").await.unwrap();
    }

    #[tokio::test]
    async fn a_config_map_of_somebody_else_is_not_deleted() {
        let (api, stack) = (FakeApi::default(), stack());
        let owners = [
            json!([]),
            json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "staging", "uid": "1"}]),
            json!([{"apiVersion": tasktracker_crds::API_VERSION, "kind": tasktracker_crds::KIND, "name": "other", "uid": "1"}]),
        ];
        for owners in owners {
            let theirs =
                json!({"metadata": {"name": NAME, "ownerReferences": owners}, "data": {KEY: "theirs"}});
            api.store(&config_map_path(NAME), &theirs);
            remove(api.client(), &stack, "0123").await.unwrap();
            assert!(keep(api.client(), &stack, "0123", &json!("plan")).await.unwrap_err().is_conflict());
            assert_eq!(kept(&api).unwrap(), "theirs");
        }
        assert_eq!(api.count(&format!("{} {}", Method::DELETE, config_map_path(NAME))), 0);
    }

    #[tokio::test]
    async fn another_plan_of_the_stack_is_replaced() {
        let (api, stack) = (FakeApi::default(), stack());
        keep(api.client(), &stack, "0123", &json!("before")).await.unwrap();
        keep(api.client(), &stack, "0123", &json!("after")).await.unwrap();
        assert_eq!(kept(&api).unwrap(), "\"after\"");
    }

    #[tokio::test]
    async fn only_the_config_map_that_was_read_is_deleted() {
        let (api, stack) = (FakeApi::default(), stack());
        keep(api.client(), &stack, "0123", &json!("plan")).await.unwrap();
        // Between reading and deleting, somebody puts another one there.
        let replaced = api.clone();
        api.before(&Method::DELETE, move || {
            replaced
                .store(&config_map_path(NAME), &json!({"metadata": {"name": NAME}, "data": {KEY: "theirs"}}));
        });
        assert!(remove(api.client(), &stack, "0123").await.unwrap_err().is_conflict());
        assert_eq!(kept(&api).unwrap(), "theirs");
    }
}
