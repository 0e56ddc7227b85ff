//! Packages that are used without being installed: downloaded and unpacked into the cache folder.

use super::distribution::Distribution;
use super::install;
use crate::cache;
use crate::process::run;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tree of some packages under a name of the cache folder, made at its first use.
pub(super) fn unpacked(name: &str, packages: &[&str], say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let parent = cache::make(&crate::cache_folder()?.join("packages"))?;
    let tree = parent.join(name);
    if tree.exists() {
        return Ok(tree);
    }
    install::know(&Distribution::of_this_machine()?, packages, say)?;
    say(&format!("unpacking {} into {}", packages.join(" "), tree.display()));
    let draft = tempfile::tempdir_in(&parent)?;
    unpack(packages, draft.path()).with_context(|| format!("unpacking {}", packages.join(" ")))?;
    finish(&draft.path().join("tree"), &tree)?;
    Ok(tree)
}

/// Puts a finished folder in its place. Whoever came first wins.
pub(super) fn finish(draft: &Path, place: &Path) -> Result<()> {
    match fs::rename(draft, place) {
        Err(_) if place.exists() => Ok(()),
        result => result.with_context(|| format!("moving to {}", place.display())),
    }
}

fn unpack(packages: &[&str], draft: &Path) -> Result<()> {
    let tree = draft.join("tree");
    fs::create_dir(&tree)?;
    run(Command::new("apt-get")
        .args(["download", "-q", "-o", "APT::Sandbox::User=root"])
        .args(packages)
        .current_dir(draft))?;
    for entry in fs::read_dir(draft)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").args([&path, &tree]))?;
        }
    }
    Ok(())
}
