//! A reason not to write.

use serde::Serialize;

/// Why nothing is written at present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Reason, as in conditions.
    pub reason: &'static str,
    /// Who holds it, why, until when, and how it ends.
    pub message: String,
}
