//! What is made of the value of a secret before a service finds it in a file. The same value gives the same content.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Secret;

/// Rounds of bcrypt, as a power of two: what Prometheus' documentation shows.
const COST: u32 = 10;
/// Longest password that bcrypt takes in full, in bytes.
const LONGEST: usize = 72;
/// Bytes of a salt.
const SALT: usize = 16;
/// Contents that are kept, since making one takes long.
const KEPT: usize = 1_000;

/// What is made of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// A configuration file of Prometheus' web toolkit that lets one user in with the value as password.
    WebConfig {
        /// The user.
        user: String,
        /// What the hash of the password is salted with: a text that nobody else has, such as the stack's name. It need not
        /// be secret.
        salt: String,
        /// Whether everybody comes over TLS: certificate and key are `tls.crt` and `tls.key` beside the file.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        tls: bool,
    },
    /// A line of Elasticsearch's file of users: one who is let in with the value as password.
    PasswordLine {
        /// The user.
        user: String,
        /// As of `WebConfig`.
        salt: String,
    },
    /// A file for Fluent Bit that sets a variable to the value.
    FluentBitVariable {
        /// Name of the variable.
        name: String,
        /// Whether the file is YAML, and not of the classic format.
        yaml: bool,
    },
}

/// What makes Prometheus' web toolkit speak TLS.
const TLS: &str = "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n";

/// What was made lately, by digest of form and value.
static MADE: LazyLock<Mutex<BTreeMap<[u8; 32], Secret>>> = LazyLock::new(Mutex::default);

impl Form {
    /// The content of the file.
    ///
    /// # Errors
    /// When nothing can be made of the value: why.
    pub fn of(&self, value: &Secret) -> Result<Secret, String> {
        let digest = self.digest(value);
        let known = MADE.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let made = self.make(value)?;
        let mut all = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(digest, made.clone());
        Ok(made)
    }

    fn make(&self, value: &Secret) -> Result<Secret, String> {
        let text = match self {
            Self::WebConfig { user, salt, tls } => {
                let hash = hashed(value, user, salt)?.format_for_version(bcrypt::Version::TwoB);
                format!("basic_auth_users:\n  {user}: {hash}\n{}", if *tls { TLS } else { "" })
            }
            Self::PasswordLine { user, salt } => {
                // The only one that it knows.
                let hash = hashed(value, user, salt)?.format_for_version(bcrypt::Version::TwoA);
                format!("{user}:{hash}\n")
            }
            Self::FluentBitVariable { name, yaml } => {
                let value = line(value)?;
                if *yaml {
                    format!("env:\n  {name}: {}\n", serde_json::Value::from(value))
                } else {
                    format!("@SET {name}={value}\n")
                }
            }
        };
        Ok(Secret::new(text.into_bytes()))
    }

    fn digest(&self, value: &Secret) -> [u8; 32] {
        let form = crate::json::to_vec(self);
        let mut digest = Sha256::new();
        digest.update(form.len().to_be_bytes());
        digest.update(form);
        digest.update(value.reveal());
        digest.finalize().into()
    }
}

/// A password as bcrypt keeps it.
fn hashed(password: &Secret, user: &str, salt: &str) -> Result<bcrypt::HashParts, String> {
    let password = password.reveal();
    if password.is_empty() || password.len() > LONGEST || password.contains(&0) {
        return Err(format!(
            "expected a password of 1 to {LONGEST} bytes, none of them 0, found {} bytes",
            password.len()
        ));
    }
    let mut bytes = [0; SALT];
    bytes.copy_from_slice(&Sha256::digest(format!("{salt}\0{user}"))[..SALT]);
    bcrypt::hash_with_salt(password, COST, bytes).map_err(|error| error.to_string())
}

/// A value that stands on a line of its own.
fn line(value: &Secret) -> Result<&str, String> {
    let expected = "expected a line of text without spaces around it";
    let text = std::str::from_utf8(value.reveal()).map_err(|_| format!("{expected}, found other bytes"))?;
    let found = match text {
        "" => "nothing",
        text if text.trim() != text => "spaces or a line break around it",
        text if text.contains(char::is_control) => "a control character in it",
        text => return Ok(text),
    };
    Err(format!("{expected}, found {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(salt: &str) -> Form {
        Form::WebConfig { user: "admin".to_owned(), salt: salt.to_owned(), tls: false }
    }

    fn text(form: &Form, password: &[u8]) -> Result<String, String> {
        let made = form.of(&Secret::new(password.to_vec()))?;
        Ok(String::from_utf8(made.reveal().to_vec()).unwrap())
    }

    #[test]
    fn a_password_is_hashed_alike_each_time_and_otherwise_in_another_stack() {
        let one = text(&web("default/staging"), b"canary").unwrap();
        assert_eq!(text(&web("default/staging"), b"canary"), Ok(one.clone()));
        assert_ne!(text(&web("default/production"), b"canary"), Ok(one.clone()));
        let hash = one.strip_prefix("basic_auth_users:\n  admin: ").unwrap().trim_end();
        assert!(hash.starts_with("$2b$10$") && !one.contains("canary"), "{one}");
        assert!(bcrypt::verify(b"canary", hash).unwrap() && !bcrypt::verify(b"other", hash).unwrap());
    }

    #[test]
    fn over_tls_it_names_the_certificate_beside_it() {
        let form =
            Form::WebConfig { user: "admin".to_owned(), salt: "default/staging".to_owned(), tls: true };
        let plain = text(&web("default/staging"), b"canary").unwrap();
        assert_eq!(text(&form, b"canary"), Ok(format!("{plain}{TLS}")));
    }

    #[test]
    fn what_bcrypt_would_cut_is_refused() {
        for wrong in [&b""[..], &[b'a'; 73], b"a\0b"] {
            assert!(text(&web("x"), wrong).unwrap_err().starts_with("expected a password of 1 to 72 bytes"));
        }
        assert!(text(&web("x"), &[b'a'; 72]).is_ok());
    }
}
