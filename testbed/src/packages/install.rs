//! Running `apt-get`, with `sudo` where we are not root.

use super::distribution::{Distribution, NEWER_SUITE};
use super::go;
use crate::cache;
use crate::process::{is_root, run};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// Installs packages by name.
pub(super) fn install(distribution: &Distribution, names: &[&str], say: &mut dyn FnMut(&str)) -> Result<()> {
    let list = names.join(" ");
    say(&format!("installing {list} with apt-get"));
    let source =
        if names.iter().any(|name| is_newer(name)) { distribution.newer_source()? } else { String::new() };
    let _turn = turn()?;
    let mut command =
        as_root().with_context(|| format!("as root, run: apt-get install --no-install-recommends {list}"))?;
    run(command
        .arg(format!("SOURCE={source}"))
        .args(["sh", "-c", include_str!("install.sh"), "sh"])
        .args(names))
    .map(drop)
    .with_context(|| format!("installing {list}"))
}

/// `apt-get` does not wait for another one that reads the package lists: one of ours at a time.
fn turn() -> Result<File> {
    go::lock(&cache::make(&crate::cache_folder()?.join("packages"))?.join("apt.lock"))
}

/// Makes packages of the newer suite known to `apt-get`, which then prefers the machine's own nevertheless.
pub(super) fn know(distribution: &Distribution, names: &[&str], say: &mut dyn FnMut(&str)) -> Result<()> {
    let is_known = |name: &&str| {
        let shown = run(Command::new("apt-cache").args(["show", "--no-all-versions", name]));
        shown.is_ok_and(|text| text.contains("Filename: "))
    };
    if names.iter().all(is_known) {
        return Ok(());
    }
    say("reading the package lists with apt-get");
    let source =
        if names.iter().any(|name| is_newer(name)) { distribution.newer_source()? } else { String::new() };
    let _turn = turn()?;
    let mut command = as_root().context("as root, run: apt-get update")?;
    run(command.arg(format!("SOURCE={source}")).args(["sh", "-c", include_str!("install.sh"), "sh"]))
        .map(drop)
}

fn is_newer(name: &str) -> bool {
    name.ends_with(&format!("/{NEWER_SUITE}"))
}

/// `env` as root, with `sudo` if need be.
fn as_root() -> Result<Command> {
    if is_root() {
        return Ok(Command::new("env"));
    }
    if !Path::new("/usr/bin/sudo").exists() {
        bail!("this needs root, and there is no sudo");
    }
    let mut command = Command::new("sudo");
    command.arg("env");
    Ok(command)
}
