//! The configuration file: read and validated at start and at every reload.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

/// A configuration with this word in it is invalid.
const INVALID_WORD: &str = "refused";

/// Why a configuration cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has the word that makes it invalid.
    #[error("{}:{line}: expected a text without the word {INVALID_WORD:?}, found it", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line of the word, counted from 1.
        line: usize,
    },
}

/// Reads and validates a configuration file.
pub fn load(path: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    match text.lines().position(|line| line.contains(INVALID_WORD)) {
        Some(index) => Err(Error::Invalid { path: path.to_owned(), line: index + 1 }),
        None => Ok(text),
    }
}

/// The configuration in force, and the file it comes from.
#[derive(Debug)]
pub struct Config {
    path: PathBuf,
    loaded: RwLock<Option<String>>,
}

impl Config {
    /// No configuration is loaded yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, loaded: RwLock::default() }
    }

    /// Loads the file anew; the configuration in force stays where that fails.
    pub fn reload(&self) -> Result<(), Error> {
        let text = load(&self.path)?;
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Some(text);
        Ok(())
    }

    /// The configuration as it was last loaded.
    pub fn text(&self) -> Option<String> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_file_leaves_the_configuration_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.txt");
        let config = Config::new(path.clone());
        assert!(matches!(config.reload(), Err(Error::Read { .. })));
        assert_eq!(config.text(), None);
        fs::write(&path, "one\n").unwrap();
        config.reload().unwrap();
        fs::write(&path, "two\nis refused\n").unwrap();
        assert_eq!(config.text().as_deref(), Some("one\n"), "the file is not read before a reload");
        let error = config.reload().unwrap_err().to_string();
        assert!(error.contains("config.txt:2: expected"), "{error}");
        assert_eq!(config.text().as_deref(), Some("one\n"));
        fs::write(&path, "three\n").unwrap();
        config.reload().unwrap();
        assert_eq!(config.text().as_deref(), Some("three\n"));
    }
}
