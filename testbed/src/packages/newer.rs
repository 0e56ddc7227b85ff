//! A newer Docker Engine and a newer Compose, beside those of the machine.

use super::{go::GoProgram, unpack};
use anyhow::Result;
use std::path::PathBuf;

/// The version that [`compose`] builds.
pub const COMPOSE_VERSION: &str = "2.40.3";

const COMPOSE: GoProgram = GoProgram {
    name: "docker-compose",
    module: "github.com/docker/compose/v2",
    version: COMPOSE_VERSION,
    package: "cmd",
    values: &["github.com/docker/compose/v2/internal.Version=v2.40.3"],
    staging: None,
};

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
    COMPOSE.built(say)
}
