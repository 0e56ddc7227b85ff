//! Prometheus and Alertmanager, as programs.

use super::{Package, go::GoProgram, unpack};
use crate::cache;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;

/// The version of [`prometheus`].
pub const PROMETHEUS_VERSION: &str = "3.16.0";

/// Targets are found by DNS alone: the libraries of every cloud would take most of the time and of the memory of a build.
const PROMETHEUS: GoProgram = GoProgram {
    name: "prometheus",
    module: "github.com/prometheus/prometheus",
    version: "0.316.0",
    package: "cmd/prometheus",
    values: &["github.com/prometheus/common/version.Version=3.16.0"],
    staging: None,
    tags: "remove_all_sd enable_dns_sd",
    has_c: false,
};
const PROMTOOL: GoProgram = GoProgram { name: "promtool", package: "cmd/promtool", ..PROMETHEUS };

pub(super) const ALERTMANAGER: Package =
    Package { name: "prometheus-alertmanager/trixie", files: &["/usr/bin/prometheus-alertmanager"] };

/// Today's Prometheus with `promtool`: the folder of both, built with Go into the cache folder at their first use, which takes
/// some minutes. Its pages are not in it.
///
/// # Errors
/// When Go cannot be installed, or a build fails.
pub fn prometheus(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let packages = cache::make(&crate::cache_folder()?.join("packages"))?;
    let place = packages.join(format!("prometheus-{PROMETHEUS_VERSION}"));
    if place.exists() {
        return Ok(place);
    }
    let draft = tempfile::tempdir_in(&packages)?;
    let folder = draft.path().join("programs");
    fs::create_dir(&folder)?;
    for program in [&PROMTOOL, &PROMETHEUS] {
        let built = program.built(say)?;
        fs::copy(&built, folder.join(program.name))
            .with_context(|| format!("copying {}", built.display()))?;
    }
    unpack::finish(&folder, &place)?;
    Ok(place)
}

/// Debian 13's Prometheus (2.53) with `promtool`, unpacked and not installed: the folder of programs.
///
/// # Errors
/// Where `apt-get` cannot download from Debian 13.
pub fn prometheus_2(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    Ok(unpack::unpacked("prometheus-trixie", &["prometheus/trixie", "promtool/trixie"], say)?.join("usr/bin"))
}

/// Alertmanager, installed: it reads templates that come with it from where they belong.
///
/// # Errors
/// As [`super::ensure`].
pub fn alertmanager(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    super::ensure(&[ALERTMANAGER], say)?;
    Ok(PathBuf::from(ALERTMANAGER.files[0]))
}

/// What images are made of: Debian 13's Prometheus, its tools, Alertmanager, and the exporters, with the C library that they
/// need, unpacked into the cache folder: the root folder of that tree.
///
/// # Errors
/// As [`super::ensure_caddy`].
pub fn of_debian(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let packages = [
        "prometheus/trixie",
        "promtool/trixie",
        "prometheus-alertmanager/trixie",
        "prometheus-node-exporter/trixie",
        "prometheus-blackbox-exporter/trixie",
        "libc6/trixie",
        "busybox-static",
    ];
    unpack::unpacked("monitoring-and-probe-trixie", &packages, say)
}
