//! Repeated requests: a key that the caller chooses, and a fingerprint of what it asked for.

use sha2::{Digest, Sha256};

use super::NewTask;

/// Header with the key of a request that makes a task.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Fewest and most characters of a key: short ones are guessed, or chosen twice.
const LENGTH: std::ops::RangeInclusive<usize> = 16..=128;

/// The key of one request that may be sent several times: 16 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl TryFrom<&[u8]> for IdempotencyKey {
    type Error = String;

    fn try_from(written: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(written).unwrap_or_default();
        if LENGTH.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("must have {} to {} visible ASCII characters", LENGTH.start(), LENGTH.end()))
    }
}

impl AsRef<str> for IdempotencyKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl NewTask {
    /// SHA-256 of all fields, as hexadecimal digits. It is stored: its form never changes.
    pub fn fingerprint(&self) -> String {
        let Self { title, description, completed } = self;
        // Neither text can contain NUL.
        let text = format!("{}\0{}\0{completed}", title.as_ref(), description.as_ref());
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::NewTaskBody;

    #[test]
    fn keys() {
        for accepted in ["0123456789abcdef", "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", &"~".repeat(128)] {
            assert_eq!(IdempotencyKey::try_from(accepted.as_bytes()).unwrap().as_ref(), accepted);
        }
        let refused = ["", "0123456789abcde", "0123456789 abcdef", "0123456789äabcdef", &"x".repeat(129)];
        for written in refused.map(str::as_bytes).into_iter().chain([&[0xff; 16][..]]) {
            assert!(IdempotencyKey::try_from(written).is_err(), "{written:?}");
        }
    }

    #[test]
    fn fingerprints_cover_each_field_and_keep_their_form() {
        let fingerprint = |title: &str, description: &str, completed: bool| {
            let (title, description) = (Some(title.to_owned()), Some(description.to_owned()));
            NewTask::try_from(NewTaskBody { title, description, completed: Some(completed) })
                .unwrap()
                .fingerprint()
        };
        let one = fingerprint("a", "b", false);
        assert_eq!(one, "fe8863edc5a518239779bbbead86a0690d300b9991dec8c960f6cfe893a5925a");
        for other in [fingerprint("ab", "", false), fingerprint("a", "c", false), fingerprint("a", "b", true)]
        {
            assert_ne!(one, other);
        }
    }
}
