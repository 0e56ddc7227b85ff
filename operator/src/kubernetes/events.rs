//! Events of the stacks: one recorder for all, beside everything else.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::MANAGER;
use crate::{report::events::StackEvent, source::Stack};

/// Events that may wait to be written.
const WAITING: usize = 1000;
/// Longest note, in bytes, as the API server wants it.
const LONGEST: usize = 1000;
/// Longest action, in bytes.
const LONGEST_ACTION: usize = 128;
/// How long one may take, and how long it is tried.
const CALL_LIMIT: Duration = Duration::from_secs(10);
const TRIED_FOR: Duration = Duration::from_mins(5);
/// Time between two tries.
const PAUSE: Duration = Duration::from_secs(5);

/// Where events are handed over.
pub(super) struct Events(mpsc::Sender<(ObjectReference, StackEvent)>);

impl Events {
    /// Starts the task that writes them; it ends with this.
    pub(super) fn start(client: Client, instance: String) -> Self {
        let (sender, mut receiver) = mpsc::channel::<(ObjectReference, StackEvent)>(WAITING);
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(instance) };
        let recorder = Recorder::new(client, reporter);
        tokio::spawn(async move {
            while let Some((object, event)) = receiver.recv().await {
                write(&recorder, &object, event).await;
            }
        });
        Self(sender)
    }

    /// Hands an event over; where too many wait, it is dropped.
    pub(super) fn record(&self, stack: &Stack, event: StackEvent) {
        let reason = event.reason;
        if self.0.try_send((reference(stack), event)).is_err() {
            tracing::warn!(stack = %stack.key, reason, "an event is dropped: {WAITING} others wait");
        }
    }
}

/// The object that an event is about.
fn reference(stack: &Stack) -> ObjectReference {
    ObjectReference {
        api_version: Some(tasktracker_crds::API_VERSION.to_owned()),
        kind: Some(tasktracker_crds::KIND.to_owned()),
        name: Some(stack.key.name.clone()),
        namespace: Some(stack.key.namespace.clone()),
        uid: stack.resource.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

async fn write(recorder: &Recorder, object: &ObjectReference, event: StackEvent) {
    let StackEvent { reason, is_warning, note, .. } = event;
    let event = Event {
        type_: if is_warning { EventType::Warning } else { EventType::Normal },
        reason: reason.to_owned(),
        note: Some(cut(&note, LONGEST)),
        // Events that have this alike, too, are one with a count: only what is the same in all is counted so.
        action: cut(&note, LONGEST_ACTION),
        secondary: None,
    };
    let started = Instant::now();
    loop {
        let written = timeout(CALL_LIMIT, recorder.publish(&event, object)).await;
        match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) if is_final(&error) || started.elapsed() > TRIED_FOR => {
                tracing::warn!(%error, reason, "an event cannot be written");
                return;
            }
            Err(_) if started.elapsed() > TRIED_FOR => {
                tracing::warn!(reason, "an event cannot be written: the API server does not answer");
                return;
            }
            _ => sleep(PAUSE).await,
        }
    }
}

/// Whether the API server does not want it, now or later.
fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

/// A text that is not too long, cut between characters.
fn cut(note: &str, longest: usize) -> String {
    let end = (0..=longest.min(note.len())).rev().find(|end| note.is_char_boundary(*end)).unwrap_or_default();
    note[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_cut_between_characters() {
        assert_eq!(cut("short", 1000), "short");
        let long = cut(&"ä".repeat(600), 1000);
        assert_eq!((long.len(), long.chars().count()), (1000, 500));
        assert_eq!(cut(&format!("x{}", "ä".repeat(600)), 1000).len(), 999);
    }
}
