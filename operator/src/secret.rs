//! A value that no message, log, plan or file of ours shows, and the form in which it may be remembered. Pure.

mod form;

use std::{collections::BTreeMap, fmt};

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tasktracker_crds::{SecretKeySpec, scalars::SecretName};
use zeroize::Zeroizing;

pub use form::Form;

use crate::model::{hexadecimal, sha256};

/// Bytes of a seal key.
const KEY_BYTES: usize = 32;

/// Shortest part of a value that is looked for in texts of others, in bytes: a shorter one is in every text.
const SHORTEST: usize = 4;

/// A value that no message, log or file of ours shows; wiped from memory when it is not needed any more.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes a value.
    pub fn new(value: Vec<u8>) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value, for the one place that needs it.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// The random key of a stack on a host. What is hashed with it tells whether a value is the same as before, and to
/// whoever does not have the key, nothing of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealKey(Secret);

impl SealKey {
    /// A key from the operating system's source of randomness.
    ///
    /// # Errors
    /// When there is none.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *bytes)?;
        Ok(Self(Secret::new(bytes.to_vec())))
    }

    /// Reads the file of a key: hexadecimal digits. Anything else is none.
    pub fn read(text: &[u8]) -> Option<Self> {
        let digits = text.trim_ascii();
        let is_key = digits.len() == 2 * KEY_BYTES && digits.iter().all(u8::is_ascii_hexdigit);
        let pairs = is_key.then(|| digits.chunks_exact(2))?;
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        Some(Self(Secret::new(pairs.map(byte).collect::<Option<_>>()?)))
    }

    /// What to write into its file.
    pub fn text(&self) -> Secret {
        Secret::new(format!("{}\n", hexadecimal(self.0.reveal())).into_bytes())
    }

    /// The keyed hash by which the content of a file is remembered: HMAC-SHA-256 over its path and its SHA-256, in
    /// hexadecimal digits. From the host's own listing of hashes it can be told without the content.
    pub fn seal(&self, path: &str, sha256: &str) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.reveal()) else { return String::new() };
        mac.update(path.as_bytes());
        mac.update(b"\0");
        mac.update(sha256.as_bytes());
        hexadecimal(&mac.finalize().into_bytes())
    }
}

/// Keyed hashes of the secret files of a project, by path from its folder.
pub type Seals = BTreeMap<String, String>;

/// Where the content of a secret file comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretSource {
    /// Name of the Secret.
    pub secret: SecretName,
    /// Key in it.
    pub key: String,
    /// What is made of its value, unless the file has it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
}

impl From<SecretKeySpec> for SecretSource {
    fn from(SecretKeySpec { secret, key }: SecretKeySpec) -> Self {
        Self { secret, key, form: None }
    }
}

/// Where the secret files of a project come from, by path from its folder.
pub type References = BTreeMap<String, SecretSource>;

/// Secrets as their source has them now. Releases may have other references at the same paths: what is asked for is told
/// by the reference, not by the path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// Those that could be had.
    pub known: BTreeMap<SecretSource, Secret>,
    /// What is wrong with the others.
    pub missing: BTreeMap<SecretSource, String>,
}

impl Values {
    /// The values that could be had of some references, by path.
    pub fn of<'a>(&'a self, references: &'a References) -> BTreeMap<&'a String, &'a Secret> {
        let value = |(path, reference)| Some((path, self.known.get(reference)?));
        references.iter().filter_map(value).collect()
    }

    /// What is wrong with the others, by path.
    pub fn missing_of<'a>(
        &'a self,
        references: &'a References,
    ) -> impl Iterator<Item = (&'a String, &'a String)> {
        references.iter().filter_map(|(path, reference)| Some((path, self.missing.get(reference)?)))
    }

    /// A text without any of the values, line by line of those.
    pub fn redacted(&self, text: &str) -> String {
        // Of what is made of a value, the rest is no secret.
        let plain = self.known.iter().filter(|(source, _)| source.form.is_none());
        let values = plain.filter_map(|(_, value)| std::str::from_utf8(value.reveal()).ok());
        let parts = values.flat_map(str::lines).map(str::trim).filter(|part| part.len() >= SHORTEST);
        // One may be part of another: that one goes first.
        let mut parts: Vec<&str> = parts.collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
        parts.into_iter().fold(text.to_owned(), |text, part| text.replace(part, "…"))
    }

    /// The keyed hashes of those that could be had.
    pub fn sealed(&self, references: &References, key: &SealKey) -> Seals {
        let values = self.of(references).into_iter();
        values.map(|(path, value)| (path.clone(), key.seal(path, &sha256(value.reveal())))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str) -> SecretSource {
        SecretSource { secret: name.parse().unwrap(), key: "k".to_owned(), form: None }
    }

    #[test]
    fn the_same_path_from_another_secret_is_another_value() {
        let value = |name: &str| (reference(name), Secret::new(name.as_bytes().to_vec()));
        let values = Values {
            known: BTreeMap::from([value("one"), value("other")]),
            missing: BTreeMap::from([(reference("gone"), "it is not there".to_owned())]),
        };
        let path = "secrets/backend/A".to_owned();
        let from = |name: &str| References::from([(path.clone(), reference(name))]);
        assert_eq!(values.of(&from("other"))[&path].reveal(), b"other");
        assert!(values.of(&from("gone")).is_empty());
        assert_eq!(values.missing_of(&from("gone")).count(), 1);
        let key = SealKey::random().unwrap();
        assert_ne!(values.sealed(&from("one"), &key), values.sealed(&from("other"), &key));
    }

    #[test]
    fn a_value_in_a_text_of_others_is_not_told() {
        let known = BTreeMap::from([(
            reference("one"),
            Secret::new(b"canary-1\nab\ncanary-2\ncanary-1-and-more\n".to_vec()),
        )]);
        let values = Values { known, ..Values::default() };
        assert_eq!(values.redacted("url=x:canary-1@y canary-2 ab"), "url=x:…@y … ab");
        assert_eq!(values.redacted("canary-1-and-more"), "…", "the longest first");
    }

    #[test]
    fn debug_shows_nothing() {
        let key = SealKey::read(&[b'a'; 64]).unwrap();
        let values = Values {
            known: BTreeMap::from([(reference("one"), Secret::new(b"canary".to_vec()))]),
            ..Values::default()
        };
        let shown = format!("{key:?} {values:?}");
        assert!(!shown.contains("canary") && !shown.contains("170") && !shown.contains("aa"), "{shown}");
    }

    #[test]
    fn a_key_survives_its_file_and_nothing_else_is_one() {
        let key = SealKey::random().unwrap();
        assert_eq!(SealKey::read(key.text().reveal()), Some(key.clone()));
        assert_ne!(SealKey::random().unwrap(), key);
        for text in [&b""[..], b"xyz", &[b'g'; 64], &[b'a'; 63], &[0xff; 64]] {
            assert_eq!(SealKey::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_seal_is_of_one_key_one_place_and_one_content() {
        let (one, other) = (SealKey::random().unwrap(), SealKey::random().unwrap());
        let seal = one.seal("secrets/backend/A", "00");
        assert_eq!(seal, one.seal("secrets/backend/A", "00"));
        let others = [
            one.seal("secrets/backend/B", "00"),
            one.seal("secrets/backend/A", "01"),
            other.seal("secrets/backend/A", "00"),
        ];
        assert!(!others.contains(&seal) && seal.len() == 64);
    }
}
