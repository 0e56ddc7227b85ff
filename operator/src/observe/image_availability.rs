//! Availability of a project's images on a host.

use std::collections::BTreeMap;

/// Availability of a project's images on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageAvailability {
    /// Why a tag is not resolved: reason and message.
    pub unresolved: Option<(&'static str, String)>,
    /// IDs of images on the host, by service; only where there is a change.
    pub present: BTreeMap<String, String>,
    /// References of images that are not on the host; only where there is a change.
    pub missing: Vec<String>,
    /// Why they are missing: reason and message.
    pub pending: Option<(&'static str, String)>,
    /// Tags that were moved to another image in their registry.
    pub moved: Vec<MovedTag>,
}

impl ImageAvailability {
    /// Whether a change waits for missing images alone, for this reason.
    pub fn is_pending(&self, reason: &str) -> bool {
        self.unresolved.is_none() && self.pending.as_ref().is_some_and(|(pending, _)| *pending == reason)
    }
}

/// A tag that was moved to another image in its registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedTag {
    /// Service that runs the image.
    pub service: String,
    /// The reference, with the tag alone.
    pub reference: String,
    /// Digest of what was rolled out.
    pub applied: String,
    /// Digest that the tag resolves to now.
    pub found: String,
}
