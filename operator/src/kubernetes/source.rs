//! What the engine needs of Kubernetes: a source to be asked anew, and a listener of results.

use std::sync::Arc;

use futures::future::BoxFuture;
use kube::{
    Client,
    api::{DynamicObject, ListParams},
};

use super::{
    api::{read, stacks_api},
    events::Events,
    generations::Generations,
    lease::Leadership,
    limited,
    triggers::Triggers,
};
use crate::{
    engine::Listener,
    report::events::StackEvent,
    source::{Source, Stack, StackKey, WriteScope},
};

/// The API server as a source.
pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) leadership: Arc<Leadership>,
    pub(super) history: Arc<Generations>,
}

impl Source for Cluster {
    fn is_current<'a>(&'a self, stack: &'a Stack) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let api = stacks_api(self.client.clone(), Some(&stack.key.namespace));
            // By a list of one: the operator needs no right to get what it lists and watches.
            let parameters = ListParams::default().fields(&format!("metadata.name={}", stack.key.name));
            let objects = limited(api.list(&parameters)).await;
            let is_it = |object: &DynamicObject| read(object).is_ok_and(|read| read == *stack);
            objects.is_ok_and(|objects| objects.items.iter().any(is_it))
        })
    }

    fn write_scope(&self, stack: &StackKey) -> WriteScope {
        match (self.leadership.write_scope(), self.history.bar(stack)) {
            (WriteScope::Full, Some(bar)) => WriteScope::HealOnly(bar),
            (authority, _) => authority,
        }
    }
}

/// Receives changes of status and events of stacks.
pub(super) struct StatusListener {
    pub(super) events: Arc<Events>,
    pub(super) triggers: Arc<Triggers>,
}

impl Listener for StatusListener {
    fn status_changed(&self, stack: &StackKey) {
        self.triggers.add(stack);
    }

    fn record(&self, stack: &Stack, event: StackEvent) {
        self.events.record(stack, event);
    }
}
