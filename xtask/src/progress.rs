//! Saying what happens, and running programs.
#![expect(clippy::print_stdout, reason = "this is the one place that prints")]

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// One line for the person who waits.
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// A step that takes a while.
pub(crate) fn step(text: &str) {
    println!("==> {text}");
}

/// The top of the repository that `cargo xtask` was asked in: where checkouts share what Cargo builds, the program itself
/// may be of another one.
pub(crate) fn root() -> PathBuf {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR");
    let folder = folder.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    folder.parent().map(PathBuf::from).unwrap_or_default()
}

/// Where Cargo builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The Cargo that runs this.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    forget_package(&mut command);
    command
}

/// Removes what `cargo run` says to us about our own package. The build script of `ring` watches these variables: with them
/// it runs anew, and a tenth of the dependencies is compiled twice.
pub(crate) fn forget_package(command: &mut Command) {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
        command.env_remove(name);
    }
}

/// A command as a person would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs a program to its end; what it says goes to the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    ensure!(status.success(), "{shown} ended with {status}");
    Ok(())
}

/// Runs a program to its end and returns what it printed; its errors go to the terminal.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {shown}"))?;
    ensure!(output.status.success(), "{shown} ended with {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("the output of {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_not_told_of_our_package() {
        let cargo = cargo();
        let mut removed = cargo.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name);
        assert!(removed.any(|name| name == "CARGO_MANIFEST_DIR"));
        assert!(removed.any(|name| name == "CARGO_PKG_NAME"));
        assert!(!cargo.get_envs().any(|(name, _)| name == "CARGO_TARGET_DIR" || name == "PATH"));
    }

    #[test]
    fn a_failure_shows_the_command_without_its_environment() {
        let failure = run(Command::new("sh").args(["-c", "exit 3"]).env("SECRET", "x").env_remove("HOME"));
        assert_eq!(failure.unwrap_err().to_string(), "sh -c exit 3 ended with exit status: 3");
    }
}
