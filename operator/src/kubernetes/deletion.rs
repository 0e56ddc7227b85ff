//! A stack that is deleted: what is on its hosts stays or goes, as its policy says, before the object goes.
//!
//! Only a policy that takes something away needs that: with `Retain` there is no finalizer, and `kubectl delete` waits for
//! nobody.

use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::json;
use tasktracker_crds::Deletion;
use tokio::time::Instant;

use super::{
    ApiError, FINALIZER, MANAGER,
    api::{self, key_of, stacks_api},
    limited,
    reconcile::{Context, Next},
};
use crate::{
    report::events::StackEvent,
    source::{Stack, WriteScope},
};

/// Reason of the event that tells of hosts that were left as they are.
const ABANDONED: &str = "DeletionAbandoned";
/// Reason of the event that tells what was done.
const REMOVED: &str = "Removed";

fn has_finalizer(object: &DynamicObject) -> bool {
    object.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER)
}

fn needs_finalizer(stack: &Stack) -> bool {
    stack.spec.policy.deletion != Deletion::Retain
}

/// Adds the finalizer that the policy of a stack needs, before anything is done for it on a host: an object that is deleted
/// without it goes at once, and leaves its hosts as they are.
///
/// # Errors
/// Where the API server does not take it.
pub(super) async fn add_finalizer(
    context: &Context,
    object: &DynamicObject,
    stack: &Stack,
) -> Result<(), ApiError> {
    if !needs_finalizer(stack) || has_finalizer(object) {
        return Ok(());
    }
    set_finalizer(context, object, true).await
}

/// Removes the finalizer where the policy of a stack does not need it any more.
///
/// # Errors
/// Where the API server does not take it.
pub(super) async fn remove_finalizer(
    context: &Context,
    object: &DynamicObject,
    stack: &Stack,
) -> Result<(), ApiError> {
    if needs_finalizer(stack) || !has_finalizer(object) {
        return Ok(());
    }
    set_finalizer(context, object, false).await
}

async fn set_finalizer(context: &Context, object: &DynamicObject, wanted: bool) -> Result<(), ApiError> {
    let key = key_of(object);
    let others = object.metadata.finalizers.iter().flatten().filter(|name| *name != FINALIZER);
    let ours = wanted.then(|| FINALIZER.to_owned());
    let finalizers: Vec<String> = others.cloned().chain(ours).collect();
    // With the version that was read: what others changed meanwhile is not written over.
    let patch = json!({ "metadata": {
        "resourceVersion": object.metadata.resource_version,
        "finalizers": finalizers,
    }});
    let api = stacks_api(context.client.clone(), Some(&key.namespace));
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match limited(api.patch(&key.name, &parameters, &Patch::Merge(patch))).await {
        Err(error) if error.is_missing() => Ok(()),
        patched => patched.map(drop),
    }
}

/// Does what the policy of a deleted stack says, and lets the object go once that is done, or has lasted for too long.
///
/// # Errors
/// Where the API server does not take that it is done.
pub(super) async fn delete(context: &Context, object: &DynamicObject) -> Result<Next, ApiError> {
    let key = key_of(object);
    if !has_finalizer(object) {
        context.stacks().forget(&key);
        context.forget_deleted(&key);
        return Ok(Next::WaitForChange);
    }
    let asked = api::read(object).ok();
    let followed = context.stacks().get(&key).map(|stack| Stack::clone(stack));
    let Some(stack) = asked.or(followed) else {
        context.stacks().forget(&key);
        tracing::error!(stack = %key, "deleted with a spec that cannot be read: what is on its hosts is left running");
        set_finalizer(context, object, false).await?;
        return Ok(Next::WaitForChange);
    };
    if context.leadership.write_scope() != WriteScope::Full {
        return Ok(Next::Soon);
    }
    let since = context.deleted_since(&key);
    let left = {
        let mut stacks = context.stacks();
        stacks.remove(&stack, &api::status_of(object));
        stacks.left(&key)
    };
    let limit = context.deletion_limit;
    let event = if left.is_empty() {
        let volumes = match stack.spec.policy.deletion {
            Deletion::Retain => "everything is left running",
            Deletion::Down => "what was of this stack is gone from its hosts; volumes stay",
            Deletion::DownAndVolumes => "what was of this stack is gone from its hosts, volumes as well",
        };
        StackEvent { reason: REMOVED, is_warning: false, host: None, note: volumes.to_owned() }
    } else if Instant::now().duration_since(since) > limit {
        let note = format!(
            "what is on {} is left as it is: it could not be removed within {} s; see the operator's log",
            left.join(", "),
            limit.as_secs()
        );
        StackEvent { reason: ABANDONED, is_warning: true, host: None, note }
    } else {
        return Ok(Next::Soon);
    };
    tracing::warn!(stack = %key, reason = event.reason, "{}", event.note);
    context.events.record(&stack, event);
    set_finalizer(context, object, false).await?;
    context.stacks().forget(&key);
    context.forget_deleted(&key);
    Ok(Next::WaitForChange)
}
