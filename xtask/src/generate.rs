//! Writes the generated files. Tests compare them, so that a stale one fails.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::{
    chart,
    progress::{cargo, root, say},
};

/// Package, program, its command, and the files that are what it prints.
const PRINTED: [(&str, &str, &str, &[&str]); 2] = [
    (
        "tasktracker-operator",
        "tasktracker-operator",
        "crd",
        &["crds/tasktrackerstacks.yaml", "charts/tasktracker-operator/files/tasktrackerstacks.yaml"],
    ),
    ("tasktracker-backend", "backend", "openapi", &["backend/openapi.json"]),
];

pub(crate) fn run() -> Result<()> {
    for (package, binary, command, paths) in PRINTED {
        let mut cargo = cargo();
        cargo.args(["run", "--quiet", "--package", package, "--bin", binary, "--", command]);
        let output = cargo.output().with_context(|| format!("running {binary} {command}"))?;
        ensure!(output.status.success(), "{binary} {command}: {}", String::from_utf8_lossy(&output.stderr));
        for path in paths {
            write(path, &output.stdout)?;
        }
    }
    let values = fs::read_to_string(root().join(chart::VALUES))?;
    write(chart::README, chart::readme(&values)?.as_bytes())
}

fn write(path: &str, content: &[u8]) -> Result<()> {
    fs::write(root().join(path), content).with_context(|| format!("writing {path}"))?;
    say(&format!("wrote {path}"));
    Ok(())
}
