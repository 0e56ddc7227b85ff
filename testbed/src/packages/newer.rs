//! Newer Docker Engines and Compose plugins, beside those of the machine.

use super::{Package, go::GoProgram, unpack};
use crate::cache;
use anyhow::{Context, Result};
use std::fs;
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
    tags: "",
    has_c: false,
};

/// The version of [`current_engine`].
pub const CURRENT_ENGINE: &str = "29.5.0";

const CURRENT_DOCKERD: GoProgram = GoProgram {
    name: "dockerd",
    module: "github.com/moby/moby/v2",
    version: "2.0.0-beta.24",
    package: "cmd/dockerd",
    values: &["github.com/moby/moby/v2/dockerversion.Version=29.5.0"],
    staging: None,
    tags: "exclude_graphdriver_btrfs exclude_graphdriver_zfs no_systemd",
    has_c: false,
};
const CURRENT_PROXY: GoProgram =
    GoProgram { name: "docker-proxy", package: "cmd/docker-proxy", values: &[], tags: "", ..CURRENT_DOCKERD };
/// Debian 12's is too old for it, and one without seccomp refuses every container.
const CURRENT_RUNC: GoProgram = GoProgram {
    name: "runc",
    module: "github.com/opencontainers/runc",
    version: "1.5.3",
    package: "",
    values: &[],
    staging: None,
    tags: "seccomp",
    has_c: true,
};
const CURRENT_COMPOSE: GoProgram = GoProgram {
    name: "docker-compose",
    module: "github.com/docker/compose/v5",
    version: "5.6.0",
    package: "cmd",
    values: &["github.com/docker/compose/v5/internal.Version=v5.6.0"],
    staging: None,
    tags: "",
    has_c: false,
};
/// What runc's C needs.
const FOR_C: [Package; 3] = [
    Package { name: "gcc", files: &["/usr/bin/gcc"] },
    Package { name: "pkg-config", files: &["/usr/bin/pkg-config"] },
    Package { name: "libseccomp-dev", files: &["/usr/include/seccomp.h"] },
];

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

/// Docker Engine [`CURRENT_ENGINE`], for [`crate::Engine::Current`]: built with Go into the cache folder at its first use,
/// which takes some minutes, with Debian 13's containerd. Its store of images is containerd's.
///
/// # Errors
/// When a compiler cannot be installed, a build fails, or `apt-get` cannot download from Debian 13.
pub fn current_engine(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let place = crate::cache_folder()?.join("packages").join(format!("engine-{CURRENT_ENGINE}"));
    if place.exists() {
        return Ok(place);
    }
    super::ensure(&FOR_C, say)?;
    let tree = engine(say)?;
    let debian = |name: &str| Ok((format!("bin/{name}"), tree.join("bin").join(name)));
    let programs: Vec<(String, PathBuf)> = [
        debian("containerd"),
        debian("containerd-shim-runc-v2"),
        debian("ctr"),
        CURRENT_RUNC.built(say).map(|program| ("bin/runc".to_owned(), program)),
        CURRENT_PROXY.built(say).map(|program| ("sbin/docker-proxy".to_owned(), program)),
        CURRENT_DOCKERD.built(say).map(|program| ("sbin/dockerd".to_owned(), program)),
    ]
    .into_iter()
    .collect::<Result<_>>()?;
    let draft = tempfile::tempdir_in(cache::make(&crate::cache_folder()?.join("packages"))?)?;
    let folder = draft.path().join("engine");
    for (name, program) in programs {
        // A link would lead to where a host sees nothing of the machine.
        let place = folder.join(name);
        fs::create_dir_all(place.parent().unwrap_or(&folder))?;
        fs::copy(&program, &place).with_context(|| format!("copying {}", program.display()))?;
    }
    unpack::finish(&folder, &place)?;
    Ok(place)
}

/// Today's Compose, for [`crate::Compose::Current`]: built with Go at its first use.
///
/// # Errors
/// When Go cannot be installed, or the build fails.
pub fn current_compose(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    CURRENT_COMPOSE.built(say)
}
