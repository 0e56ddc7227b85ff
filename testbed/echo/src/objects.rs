//! JSON objects, each in a file of the data volume.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tokio::fs;

/// Longest name of an object.
const LONGEST_NAME: usize = 100;

/// The name of an object, which is a file name too: letters, digits, `-`, `_` and dots, not first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl TryFrom<String> for Name {
    type Error = ();

    fn try_from(name: String) -> Result<Self, ()> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_valid = (1..=LONGEST_NAME).contains(&name.len()) && !name.starts_with('.');
        if is_valid && name.bytes().all(is_plain) { Ok(Self(name)) } else { Err(()) }
    }
}

/// Whether a write made an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// There was none of that name.
    Created,
    /// It took the place of another one.
    Replaced,
}

/// The folder of the objects.
#[derive(Debug)]
pub struct Objects(PathBuf);

impl Objects {
    /// The objects in the volume `data`; the folder appears with the first of them.
    pub fn new(data: &Path) -> Self {
        Self(data.join("objects"))
    }

    /// Reads an object.
    pub async fn get(&self, name: &Name) -> io::Result<Option<Value>> {
        match fs::read(self.0.join(&name.0)).await {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores an object, whole or not at all.
    pub async fn put(&self, name: &Name, object: &Value) -> io::Result<Written> {
        fs::create_dir_all(&self.0).await?;
        let (path, draft) = (self.0.join(&name.0), self.0.join(format!(".{}", name.0)));
        let written = if fs::try_exists(&path).await? { Written::Replaced } else { Written::Created };
        fs::write(&draft, object.to_string()).await?;
        fs::rename(&draft, &path).await?;
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names_of_the_folder() {
        let long = "a".repeat(LONGEST_NAME + 1);
        for (name, is_valid) in
            [("a-1_b.json", true), ("", false), (".a", false), ("..", false), ("a/b", false), (&long, false)]
        {
            assert_eq!(Name::try_from(name.to_owned()).is_ok(), is_valid, "{name}");
        }
    }
}
