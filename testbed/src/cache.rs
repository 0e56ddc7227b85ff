//! Where things live that are worth keeping between runs, outside the checkout.

use anyhow::{Context, Result};
use std::env;
use std::path::{Path, PathBuf};

/// `$TASKTRACKER_CACHE`, or `tasktracker` in the user's cache folder. The folder exists afterwards.
///
/// # Errors
/// When neither the variable nor a home folder is set, or the folder cannot be made.
pub fn cache_folder() -> Result<PathBuf> {
    let folder = configured().context("neither TASKTRACKER_CACHE, XDG_CACHE_HOME nor HOME is set")?;
    make(&folder)
}

fn configured() -> Option<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("TASKTRACKER_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("tasktracker")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/tasktracker")))
}

/// The folder itself, absolute, made if it is missing.
pub(crate) fn make(folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    folder.canonicalize().with_context(|| format!("resolving the folder {}", folder.display()))
}
