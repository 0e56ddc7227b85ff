//! Builds with Cargo, whose messages name what it built.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::progress::output_of;

/// One executable with tests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    /// The folder of its package, and its target where that is not the library.
    pub(crate) name: String,
    /// The file.
    pub(crate) path: PathBuf,
    /// The package's folder, where its tests run.
    pub(crate) folder: PathBuf,
    /// Whether its tests start hosts of their own, which takes them long.
    pub(crate) on_hosts: bool,
}

/// What one call of Cargo built.
pub(crate) struct Built {
    messages: Vec<Value>,
}

/// Runs `cargo build` or `cargo test --no-run`; progress and diagnostics go to the terminal.
pub(crate) fn build(command: &mut Command) -> Result<Built> {
    Built::parse(&output_of(command.arg("--message-format=json-render-diagnostics"))?)
}

impl Built {
    fn parse(messages: &str) -> Result<Self> {
        let messages: Result<Vec<Value>, _> = messages.lines().map(serde_json::from_str).collect();
        Ok(Self { messages: messages.context("the messages of Cargo")? })
    }

    fn artifacts(&self) -> impl Iterator<Item = &Value> {
        self.messages.iter().filter(|message| message["reason"] == "compiler-artifact")
    }

    /// How much of it was compiled, for the table of times.
    pub(crate) fn compiled(&self) -> String {
        let compiled = self.artifacts().filter(|artifact| artifact["fresh"] == false).count();
        match (compiled, self.artifacts().count()) {
            (0, _) => "warm".to_owned(),
            (compiled, all) if compiled == all => format!("cold: {all} compiled"),
            (compiled, all) => format!("{compiled} of {all} compiled"),
        }
    }

    /// The executables with tests.
    pub(crate) fn executables(&self) -> Result<Vec<Executable>> {
        let tests = self.artifacts().filter(|artifact| artifact["profile"]["test"] == true);
        let found: Result<Vec<_>> = tests.filter_map(|test| executable(test).transpose()).collect();
        let found = found?;
        ensure!(!found.is_empty(), "cargo test --no-run built no executable");
        Ok(found)
    }
}

fn executable(artifact: &Value) -> Result<Option<Executable>> {
    let Some(path) = artifact["executable"].as_str() else { return Ok(None) };
    let manifest = Path::new(artifact["manifest_path"].as_str().context("an artifact has a manifest")?);
    let folder = manifest.parent().context("a manifest is in a folder")?;
    let target = artifact["target"]["name"].as_str().context("a target has a name")?;
    let kind = artifact["target"]["kind"][0].as_str().unwrap_or_default();
    let package = folder.file_name().context("a folder has a name")?.to_string_lossy();
    let name = if kind == "lib" { package.into_owned() } else { format!("{package} {target}") };
    let on_hosts = kind == "test" && target == "sandbox";
    Ok(Some(Executable { name, path: path.into(), folder: folder.to_owned(), on_hosts }))
}

impl Executable {
    /// Ready to run in its package's folder, with what Cargo would set.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        // Tests end with us, however we end; their hosts end with them.
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.path);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }

    /// The names of its tests that contain `filter`, without the ignored ones.
    pub(crate) fn tests(&self, filter: &str) -> Result<Vec<String>> {
        let ignored = self.list(&["--ignored"])?;
        let mut tests = self.list(&[])?;
        tests.retain(|test| test.contains(filter) && !ignored.contains(test));
        Ok(tests)
    }

    fn list(&self, more: &[&str]) -> Result<Vec<String>> {
        let output = self.command().args(["--list", "--format", "terse"]).args(more).output();
        let output = output.with_context(|| format!("cannot start {}", self.path.display()))?;
        ensure!(output.status.success(), "{}: --list ended with {}", self.name, output.status);
        let text = String::from_utf8(output.stdout).context("names of tests")?;
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = r#"{"reason":"compiler-artifact","fresh":true,"manifest_path":"/r/a/Cargo.toml","target":{"kind":["lib"],"name":"tasktracker_a"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","fresh":true,"manifest_path":"/r/a/Cargo.toml","target":{"kind":["bin"],"name":"a"},"profile":{"test":false},"executable":"/t/a"}
{"reason":"build-script-executed","package_id":"a"}
{"reason":"compiler-artifact","fresh":false,"manifest_path":"/r/a/Cargo.toml","target":{"kind":["lib"],"name":"tasktracker_a"},"profile":{"test":true},"executable":"/t/deps/a-1"}
{"reason":"compiler-artifact","fresh":true,"manifest_path":"/r/a/Cargo.toml","target":{"kind":["test"],"name":"sandbox"},"profile":{"test":true},"executable":"/t/deps/sandbox-2"}
{"reason":"build-finished","success":true}"#;

    #[test]
    fn messages_name_the_executables_of_tests_alone() {
        let found: Vec<(String, bool)> = Built::parse(MESSAGES)
            .unwrap()
            .executables()
            .unwrap()
            .into_iter()
            .map(|executable| (executable.name, executable.on_hosts))
            .collect();
        assert_eq!(found, [("a".to_owned(), false), ("a sandbox".to_owned(), true)]);
        assert!(Built::parse("{\"reason\":\"build-finished\"}").unwrap().executables().is_err());
    }

    #[test]
    fn the_compiled_part_of_a_build_is_counted() {
        let compiled = |messages: &str| Built::parse(messages).unwrap().compiled();
        assert_eq!(compiled(MESSAGES), "1 of 4 compiled");
        assert_eq!(compiled(&MESSAGES.replace("\"fresh\":false", "\"fresh\":true")), "warm");
        assert_eq!(compiled(&MESSAGES.replace("\"fresh\":true", "\"fresh\":false")), "cold: 4 compiled");
    }

    #[test]
    fn this_executable_lists_its_own_tests_without_the_ignored() {
        let this = Executable {
            name: "xtask".to_owned(),
            path: std::env::current_exe().unwrap(),
            folder: std::env::current_dir().unwrap(),
            on_hosts: false,
        };
        let tests = this.tests("compiler::").unwrap();
        assert!(tests.contains(&"compiler::tests::messages_name_the_executables_of_tests_alone".to_owned()));
        assert!(!tests.contains(&"compiler::tests::never_run".to_owned()));
    }

    #[test]
    #[ignore = "a name for the test above"]
    fn never_run() {}
}
