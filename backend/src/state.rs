//! What every handler can reach.

use std::sync::Arc;

use tasktracker_service::server::Draining;

use crate::{clock::Clock, metrics::Metrics, storage::Storage};

/// Shared by all handlers. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The tasks.
    pub storage: Storage,
    /// The time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether the service is on its way out.
    pub draining: Draining,
    /// The revision this was built from, as the image says it.
    pub revision: Arc<str>,
}
