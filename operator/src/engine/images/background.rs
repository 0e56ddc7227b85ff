//! Work beside the checks, such as pulls and questions to registries.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{host::Host, registry::Refusal};

/// Runs work beside the checks. Its result is recorded by a guard: also where the work panics, nothing stays marked as
/// under way, whoever waits for `done` goes on, and the host is checked again.
pub(super) fn spawn_recorded<T: Send + 'static>(
    host: Arc<Host>,
    done: watch::Sender<()>,
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    record: impl FnOnce(Result<T, Refusal>) + Send + 'static,
) {
    let defect = Refusal::unavailable("a defect of the operator; see its log");
    let mut guard = Recorded { work: Some((Err(defect), record)), done: Some(done), host };
    tokio::spawn(async move {
        let result = work.await;
        if let Some((recorded, _)) = &mut guard.work {
            *recorded = result;
        }
    });
}

/// Records a result when it is dropped.
struct Recorded<T, R: FnOnce(Result<T, Refusal>)> {
    work: Option<(Result<T, Refusal>, R)>,
    done: Option<watch::Sender<()>>,
    host: Arc<Host>,
}

impl<T, R: FnOnce(Result<T, Refusal>)> Drop for Recorded<T, R> {
    fn drop(&mut self) {
        if let Some((result, record)) = self.work.take() {
            record(result);
        }
        self.done = None;
        self.host.wake();
    }
}
