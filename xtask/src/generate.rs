//! Writes the generated files. Tests compare them, so that a stale one fails.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::progress::{cargo, root, say};

pub(crate) fn run() -> Result<()> {
    let files = [
        ("tasktracker-operator", "tasktracker-operator", "crd", "crds/tasktrackerstacks.yaml"),
        ("tasktracker-backend", "backend", "openapi", "backend/openapi.json"),
    ];
    for (package, binary, command, path) in files {
        let mut cargo = cargo();
        cargo.args(["run", "--quiet", "--package", package, "--bin", binary, "--", command]);
        let output = cargo.output().with_context(|| format!("running {binary} {command}"))?;
        ensure!(output.status.success(), "{binary} {command}: {}", String::from_utf8_lossy(&output.stderr));
        fs::write(root().join(path), output.stdout).with_context(|| format!("writing {path}"))?;
        say(&format!("wrote {path}"));
    }
    Ok(())
}
