//! Stacks to reconcile again: a queue that holds each of them once, so that it cannot outgrow the number of stacks.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::source::StackKey;

/// Stacks that wait to be reconciled again.
#[derive(Debug, Default)]
pub(super) struct Triggers {
    waiting: Mutex<BTreeSet<StackKey>>,
    added: Notify,
}

impl Triggers {
    /// Adds a stack; one that waits already does not wait twice.
    pub(super) fn add(&self, key: &StackKey) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        self.added.notify_waiters();
    }

    /// Waits for a stack of a namespace, or of any, and takes it.
    pub(super) async fn next(&self, namespace: Option<&str>) -> StackKey {
        loop {
            let mut added = std::pin::pin!(self.added.notified());
            // What is added from now on wakes this, also before it waits.
            added.as_mut().enable();
            if let Some(key) = self.take(namespace) {
                return key;
            }
            added.await;
        }
    }

    fn take(&self, namespace: Option<&str>) -> Option<StackKey> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |key: &&StackKey| namespace.is_none_or(|namespace| namespace == key.namespace);
        let key = waiting.iter().find(is_wanted).cloned()?;
        waiting.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;

    use super::*;

    fn key(namespace: &str, name: &str) -> StackKey {
        StackKey { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    #[tokio::test]
    async fn a_stack_waits_once_however_often_it_is_added() {
        let triggers = Triggers::default();
        for _ in 0..1000 {
            triggers.add(&key("a", "one"));
            triggers.add(&key("a", "two"));
        }
        assert_eq!(triggers.waiting.lock().unwrap().len(), 2);
        assert_eq!(triggers.next(None).await, key("a", "one"));
        triggers.add(&key("a", "two"));
        assert_eq!(triggers.next(None).await, key("a", "two"));
        assert!(triggers.next(None).now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_stack_wakes_whoever_waits_for_its_namespace() {
        let triggers = Arc::new(Triggers::default());
        triggers.add(&key("a", "one"));
        assert!(triggers.next(Some("b")).now_or_never().is_none());
        let waiting = tokio::spawn({
            let triggers = triggers.clone();
            async move { triggers.next(Some("b")).await }
        });
        tokio::task::yield_now().await;
        triggers.add(&key("b", "two"));
        assert_eq!(waiting.await.unwrap(), key("b", "two"));
        assert_eq!(triggers.next(Some("a")).await, key("a", "one"));
    }
}
