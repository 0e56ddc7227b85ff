//! Secrets from a folder: a folder for each name, a file for each key, refused when others can read them.

use std::{
    fmt, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tasktracker_crds::scalars::SecretName;

use crate::host::Identity;

/// Largest secret that is read, in bytes.
const MAX_SECRET_BYTES: u64 = 1 << 20;
/// Key of a private SSH key, as in Kubernetes' own Secrets of that type.
const SSH_KEY: &str = "ssh-privatekey";

/// A value that no message, log or file of ours shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// What is wrong with a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is nowhere to look.
    #[error("secret {name}: expected a folder of secrets, found none; start the operator with --secrets-dir")]
    NoFolder {
        /// Name of the secret.
        name: String,
    },
    /// The file is not there or cannot be read.
    #[error("secret {name}: expected a file {}, found: {found}", .path.display())]
    Unreadable {
        /// Name of the secret.
        name: String,
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot be read.
        found: io::Error,
    },
    /// Other users can read the file.
    #[error("secret {name}: expected {} to be readable by its owner alone, found mode {mode:o}; chmod 600 it", .path.display())]
    Exposed {
        /// Name of the secret.
        name: String,
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not what it should be.
    #[error("secret {name}: expected {expected} in {}, found something else: {found}", .path.display())]
    Unusable {
        /// Name of the secret.
        name: String,
        /// What it should be.
        expected: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
}

/// Where secrets are looked up.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    folder: Option<PathBuf>,
}

impl Secrets {
    /// Secrets from a folder, or none at all.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    /// One key of a secret.
    ///
    /// # Errors
    /// When it is missing, too large, not text, or readable by others.
    pub fn get(&self, name: &SecretName, key: &str) -> Result<Secret, SecretError> {
        let path = self.path(name, key)?;
        let unreadable =
            |found| SecretError::Unreadable { name: name.to_string(), path: path.clone(), found };
        let metadata = fs::metadata(&path).map_err(unreadable)?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SecretError::Exposed { name: name.to_string(), path, mode });
        }
        if metadata.len() > MAX_SECRET_BYTES {
            return Err(unusable(name, &path, "at most 1 MiB", format!("{} bytes", metadata.len())));
        }
        let bytes = fs::read(&path).map_err(unreadable)?;
        String::from_utf8(bytes)
            .map(Secret)
            .map_err(|_| unusable(name, &path, "text", "bytes that are not UTF-8".to_owned()))
    }

    /// The private SSH key of a secret.
    ///
    /// # Errors
    /// As for [`Secrets::get`], and when it is no private key.
    pub fn identity(&self, name: &SecretName) -> Result<Identity, SecretError> {
        let text = self.get(name, SSH_KEY)?;
        Identity::read(text.reveal()).map_err(|found| {
            unusable(
                name,
                &self.path(name, SSH_KEY).unwrap_or_default(),
                "a private key in OpenSSH's form",
                found,
            )
        })
    }

    fn path(&self, name: &SecretName, key: &str) -> Result<PathBuf, SecretError> {
        let folder =
            self.folder.as_deref().ok_or_else(|| SecretError::NoFolder { name: name.to_string() })?;
        Ok(folder.join(name.as_str()).join(key))
    }
}

fn unusable(name: &SecretName, path: &Path, expected: &'static str, found: String) -> SecretError {
    SecretError::Unusable { name: name.to_string(), expected, path: path.to_owned(), found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(mode: u32, content: &[u8]) -> (tempfile::TempDir, Secrets, SecretName) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("key")).unwrap();
        let path = folder.path().join("key").join(SSH_KEY);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let secrets = Secrets::new(Some(folder.path().to_owned()));
        (folder, secrets, "key".parse().unwrap())
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let (_folder, secrets, name) = written(0o640, b"x");
        assert!(matches!(secrets.get(&name, SSH_KEY), Err(SecretError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn nothing_of_a_broken_key_is_told() {
        let (_folder, secrets, name) = written(0o600, b"-----BEGIN OPENSSH PRIVATE KEY-----\ncanary\n");
        let told = secrets.identity(&name).unwrap_err().to_string();
        assert!(!told.contains("canary"), "{told}");
        let (_folder, secrets, name) = written(0o600, &[0xff, 0xfe]);
        assert!(matches!(secrets.get(&name, SSH_KEY), Err(SecretError::Unusable { .. })));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret("canary".to_owned())), "Secret(…)");
    }
}
