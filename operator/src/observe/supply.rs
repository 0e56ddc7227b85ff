//! What is known of the images that a project asks for.

use std::collections::BTreeMap;

/// What is known of the images that a project asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// Why it is not known what a tag means: reason and message.
    pub unresolved: Option<(&'static str, String)>,
    /// IDs of images on the host, by service; looked up where there is a change.
    pub there: BTreeMap<String, String>,
    /// References of images that are not on the host; looked up where there is a change.
    pub missing: Vec<String>,
    /// Why they are not: reason and message.
    pub awaited: Option<(&'static str, String)>,
    /// Tags that mean another image in their registry than was rolled out.
    pub moved: Vec<MovedTag>,
}

impl Supply {
    /// Whether images are all that is waited for, with this reason.
    pub fn is_awaited(&self, reason: &str) -> bool {
        self.unresolved.is_none() && self.awaited.as_ref().is_some_and(|(awaited, _)| *awaited == reason)
    }
}

/// A tag that means another image in its registry than was rolled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedTag {
    /// Service that runs the image.
    pub service: String,
    /// The reference, with the tag alone.
    pub reference: String,
    /// Digest of what was rolled out.
    pub applied: String,
    /// Digest of what the tag means now.
    pub found: String,
}
