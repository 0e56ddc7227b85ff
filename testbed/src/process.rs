//! Running programs and saying clearly what went wrong.

use anyhow::{Context, Result, bail};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Output, Stdio};

/// Runs a command to its end and returns what it printed. A failure names the command and carries its error output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("{} failed ({}): {}", shown(command), output.status, said(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a command succeeds; what it prints is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    output(command).is_ok_and(|output| output.status.success())
}

/// Sends a program a signal, by the signal's name.
pub(crate) fn signal(child: &Child, name: &str) -> Result<()> {
    run(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()])).map(drop)
}

/// Whether this process may make namespaces and mounts.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.output().with_context(|| format!("starting {}", shown(command)))
}

/// A command as a person would type it, shortened.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    }
}

fn said(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let text = if stderr.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { stderr };
    text.trim().to_owned()
}
