//! Files of the state folder: versioned JSON, replaced as a whole. Reads and writes files.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{StateError, VERSION};
use crate::json;

/// How the names of files begin that are written, and were not put in their place yet.
const DRAFT: &str = ".draft-";
/// Whoever replaces a file holds its lock: `run` and a person's commands both write.
const WRITE_LOCK: &str = "write.lock";

/// What a file keeps, and the version of its format.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Versioned<T> {
    pub(super) version: u64,
    #[serde(flatten)]
    pub(super) content: T,
}

/// Reads a file. None where it is not there, or was damaged: then it is beside under another name.
///
/// # Errors
/// Where it cannot be read, or has another version: it is left as it is.
pub(super) fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>, StateError> {
    let path = folder.join(name);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|source| StateError::Unreadable { path: path.clone(), source })?,
    };
    let value: Value = serde_json::from_slice(&text).unwrap_or_default();
    match value.get("version").and_then(Value::as_u64) {
        Some(found) if found != VERSION => return Err(StateError::UnknownVersion { path, found }),
        Some(_) => match serde_json::from_value(value) {
            Ok(content) => return Ok(Some(content)),
            Err(error) => set_aside(&path, &error)?,
        },
        None => set_aside(&path, &"no JSON with a version")?,
    }
    Ok(None)
}

/// Keeps a damaged file beside under another name.
fn set_aside(path: &Path, found: &dyn std::fmt::Display) -> Result<(), StateError> {
    let beside = path.with_added_extension("damaged");
    fs::rename(path, &beside).map_err(|source| StateError::Unwritable { path: beside.clone(), source })?;
    tracing::error!(
        "{}: expected JSON of version {VERSION}, found: {found}; it is kept as {}, and begun anew from what hosts tell",
        path.display(),
        beside.display()
    );
    Ok(())
}

/// Replaces a file; whoever reads it finds the old one or the new one, also after a power failure.
///
/// # Errors
/// Where the folder cannot be written: the old one is still there.
pub(super) fn replace(folder: &Path, name: &str, text: &[u8]) -> Result<(), StateError> {
    let path = folder.join(name);
    let replaced = || -> io::Result<()> {
        // Others may read it: a person's command may run as another user.
        let readable = Permissions::from_mode(0o644);
        let mut draft = tempfile::Builder::new().prefix(DRAFT).permissions(readable).tempfile_in(folder)?;
        draft.write_all(text)?;
        draft.as_file().sync_all()?;
        draft.persist(&path)?;
        File::open(folder)?.sync_all()
    };
    replaced().map_err(|source| StateError::Unwritable { path: path.clone(), source })
}

/// The text of a versioned file.
pub(super) fn text(content: &impl Serialize) -> Vec<u8> {
    json::to_vec(&Versioned { version: VERSION, content })
}

/// Makes the folder, and waits for the lock that whoever replaces a file of it holds.
///
/// # Errors
/// Where the folder cannot be written.
pub(super) fn lock(folder: &Path) -> Result<File, StateError> {
    let path = folder.join(WRITE_LOCK);
    let locked = || -> io::Result<File> {
        fs::create_dir_all(folder)?;
        let file = File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    locked().map_err(|source| StateError::Unwritable { path: path.clone(), source })
}

/// Removes what an operator that was killed had not put in its place yet.
///
/// # Errors
/// Where the folder cannot be written.
pub(super) fn remove_drafts(folder: &Path) -> Result<(), StateError> {
    let _lock = lock(folder)?;
    let removed = || -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(DRAFT) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    removed().map_err(|source| StateError::Unwritable { path: folder.to_owned(), source })
}

/// What tells a file from one that replaced it: inode, size, and time of modification.
pub(super) type Stamp = (u64, u64, i64, i64);

/// The stamp of a file, where it is there.
pub(super) fn stamp(path: &PathBuf) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}
