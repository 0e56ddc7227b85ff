//! The mounted secret: the password of the API, and what a test wants to know of its file.

use std::{fs, io, os::unix::fs::MetadataExt, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The only user of the API.
const USER: &str = "admin";

/// The file with the password.
#[derive(Debug)]
pub struct Secret(PathBuf);

impl Secret {
    /// A secret in a file, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Owner, mode and hash of the file; none where there is no file.
    pub fn facts(&self) -> io::Result<Option<Value>> {
        let Some(content) = self.content()? else { return Ok(None) };
        let metadata = fs::metadata(&self.0)?;
        let hash: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        let mode = format!("{:04o}", metadata.mode() & 0o7777);
        Ok(Some(json!({"uid": metadata.uid(), "gid": metadata.gid(), "mode": mode, "sha256": hash})))
    }

    /// Whether a request with this `Authorization` header is permitted: everybody is, where there is no file.
    pub fn permits(&self, authorization: Option<&str>) -> io::Result<bool> {
        let Some(content) = self.content()? else { return Ok(true) };
        let password = content.strip_suffix(b"\n").unwrap_or(&content);
        let expected = [USER.as_bytes(), b":", password].concat();
        let given = authorization.and_then(|header| header.strip_prefix("Basic "));
        Ok(given.and_then(|given| STANDARD.decode(given).ok()).is_some_and(|given| given == expected))
    }

    fn content(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(&self.0) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_password_is_required_where_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let secret = Secret::new(path.clone());
        assert!(secret.permits(None).unwrap() && secret.facts().unwrap().is_none());
        fs::write(&path, "pass:word\n").unwrap();
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for (header, is_permitted) in [
            (basic("admin:pass:word"), true),
            (basic("admin:pass:word\n"), false),
            (basic("root:pass:word"), false),
            (basic("admin:"), false),
            ("Basic !".to_owned(), false),
            ("Bearer x".to_owned(), false),
        ] {
            assert_eq!(secret.permits(Some(&header)).unwrap(), is_permitted, "{header}");
        }
        assert!(!secret.permits(None).unwrap());
    }

    #[test]
    fn facts_are_those_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, "abc").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        let owner = fs::metadata(&path).unwrap();
        let expected = json!({
            "uid": owner.uid(),
            "gid": owner.gid(),
            "mode": "0400",
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        });
        assert_eq!(Secret::new(path).facts().unwrap(), Some(expected));
    }
}
