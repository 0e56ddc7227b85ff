//! Programs that no package has: built with Go into the cache folder at their first use, named by their version.

use super::unpack;
use crate::cache;
use crate::process::run;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program of a Go module.
pub(super) struct GoProgram {
    /// Name of the program.
    pub(super) name: &'static str,
    /// The module.
    pub(super) module: &'static str,
    /// Its version, without the `v`.
    pub(super) version: &'static str,
    /// Its package below the module.
    pub(super) package: &'static str,
    /// What the linker writes into it: `NAME=VALUE`.
    pub(super) values: &'static [&'static str],
    /// Modules below this path are not replaced by folders, as the module itself has it, but have this version.
    pub(super) staging: Option<(&'static str, &'static str)>,
    /// Which of its parts are built, by the tags of its files.
    pub(super) tags: &'static str,
    /// Whether parts of it are in C.
    pub(super) has_c: bool,
}

impl GoProgram {
    /// The program, built if it is not there. Of several callers one builds and the others wait.
    pub(super) fn built(&self, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        let Self { name, version, .. } = self;
        let parent = cache::make(&crate::cache_folder()?.join("packages"))?;
        let program = parent.join(format!("{name}-{version}"));
        if program.exists() {
            return Ok(program);
        }
        super::ensure(&[super::GO], say)?;
        let _lock = lock(&parent.join(format!("{name}.lock")))?;
        if !program.exists() {
            say(&format!("building {name} {version} with Go: some minutes"));
            let draft = tempfile::tempdir_in(&parent)?;
            self.build(draft.path()).with_context(|| format!("building {name} {version}"))?;
            unpack::finish(&draft.path().join(name), &program)?;
        }
        Ok(program)
    }

    /// As a dependency of a module of ours: `go install` refuses modules that exclude or replace others.
    fn build(&self, folder: &Path) -> Result<()> {
        let Self { name, module, version, package, tags, has_c, .. } = self;
        let replaced = self.replaced(folder)?;
        let text = format!("module build\n\ngo 1.24\n\nrequire {module} v{version}\n\n{replaced}");
        fs::write(folder.join("go.mod"), text)?;
        let path = format!("{module}/{package}");
        let path = path.trim_end_matches('/');
        fs::write(
            folder.join("tools.go"),
            format!("//go:build tools\n\npackage tools\n\nimport _ \"{path}\"\n"),
        )?;
        run(go(folder).args(["get", &format!("{path}@v{version}")]))?;
        let values: String = self.values.iter().map(|value| format!(" -X {value}")).collect();
        let flags = format!("-s -w{values}");
        let mut build = go(folder);
        build.args(["build", "-trimpath", "-tags", tags, "-ldflags", &flags, "-o", name, path]);
        run(build.env("CGO_ENABLED", if *has_c { "1" } else { "0" })).map(drop)
    }

    /// What the module replaces by folders of its own repository, replaced by what was published.
    fn replaced(&self, folder: &Path) -> Result<String> {
        let Some((prefix, version)) = self.staging else { return Ok(String::new()) };
        fs::write(folder.join("go.mod"), "module download\n\ngo 1.24\n")?;
        let named = format!("{}@v{}", self.module, self.version);
        let told = run(go(folder).args(["mod", "download", "-json", &named]))?;
        let told: serde_json::Value = serde_json::from_str(&told)?;
        let own = fs::read_to_string(told["GoMod"].as_str().context("go did not say where it is")?)?;
        let names = own
            .lines()
            .filter(|line| line.contains("=> ./"))
            .filter_map(|line| line.split_whitespace().next());
        let names = names.filter(|name| name.starts_with(prefix));
        Ok(names.map(|name| format!("replace {name} => {name} v{version}\n")).collect())
    }
}

/// A lock between processes, until the file is closed.
pub(super) fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Go in a folder. It leaves the processor to others, as it runs beside builds and tests that somebody waits for, and ends
/// with us.
pub(super) fn go(folder: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--", "nice", "-n", "10", "go"]);
    command.current_dir(folder).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod");
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    #[test]
    fn a_second_caller_waits_for_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("go.lock");
        let first = lock(&path).unwrap();
        assert!(File::open(&path).unwrap().try_lock().is_err());
        let (sender, locked) = channel();
        let second = thread::spawn(move || sender.send(lock(&path).map(drop)));
        drop(first);
        locked.recv().unwrap().unwrap();
        second.join().unwrap().unwrap();
    }
}
