//! A newer Docker Engine and a newer Compose, beside those of the machine.

use super::unpack;
use crate::cache;
use crate::process::run;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The version that [`compose`] builds.
pub const COMPOSE_VERSION: &str = "2.40.3";

/// A Go that is new enough for it.
const GO: super::Package =
    super::Package { name: "golang-go/trixie", files: &["/usr/local/go/bin/go", "/usr/bin/go"] };

/// Debian 13's Docker Engine (26.1), for [`crate::Engine::Newer`]: a folder with `sbin` and `bin`, in the cache folder.
/// `runc` stays the machine's, as Debian 13's wants a newer C library.
///
/// # Errors
/// Where `apt-get` cannot download from Debian 13.
pub fn engine(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let tree = unpack::unpacked("engine-trixie", &["docker.io/trixie", "containerd/trixie"], say)?;
    Ok(tree.join("usr"))
}

/// Compose [`COMPOSE_VERSION`] as a plugin, for [`crate::Compose::Newer`]: built with Go into the cache folder at its
/// first use, which takes some minutes.
///
/// # Errors
/// When Go cannot be installed, or the build fails.
pub fn compose(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let parent = cache::make(&crate::cache_folder()?.join("packages"))?;
    let program = parent.join(format!("docker-compose-{COMPOSE_VERSION}"));
    if !program.exists() {
        super::ensure(&[GO], say)?;
        say(&format!("building Compose {COMPOSE_VERSION} with Go: some minutes"));
        let draft = tempfile::tempdir_in(&parent)?;
        build_compose(draft.path()).with_context(|| format!("building Compose {COMPOSE_VERSION}"))?;
        unpack::finish(&draft.path().join("docker-compose"), &program)?;
    }
    Ok(program)
}

/// As a dependency of a module of ours: `go install` refuses modules that exclude versions.
fn build_compose(folder: &std::path::Path) -> Result<()> {
    let module = "github.com/docker/compose/v2";
    fs::write(
        folder.join("go.mod"),
        format!("module compose\n\ngo 1.24\n\nrequire {module} v{COMPOSE_VERSION}\n"),
    )?;
    fs::write(
        folder.join("tools.go"),
        format!("//go:build tools\n\npackage tools\n\nimport _ \"{module}/cmd\"\n"),
    )?;
    let go = || {
        let mut command = Command::new("go");
        command.current_dir(folder).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod");
        command
    };
    run(go().args(["get", &format!("{module}/cmd@v{COMPOSE_VERSION}")]))?;
    let version = format!("-s -w -X {module}/internal.Version=v{COMPOSE_VERSION}");
    run(go().args([
        "build",
        "-trimpath",
        "-ldflags",
        &version,
        "-o",
        "docker-compose",
        &format!("{module}/cmd"),
    ]))
    .map(drop)
}
