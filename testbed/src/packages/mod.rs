//! What the machine must have: installed with `apt-get` where it is missing, on Debian and Ubuntu.
//!
//! Whatever is there already is left alone, wherever it came from; then nothing is asked of the network. Services of
//! newly installed packages are neither started nor enabled: the sandbox starts its own.

mod distribution;
mod go;
mod install;
pub mod kubernetes;
pub mod logging;
pub mod monitoring;
pub mod newer;
pub mod schemas;
mod unpack;

use anyhow::Result;
use distribution::Distribution;
use std::path::{Path, PathBuf};

/// A package, and the files by which it is known to be there: any one of them.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    /// Its name for `apt-get install`, with `/SUITE` when it is not from the machine's own release.
    pub name: &'static str,
    /// Where what it brings may be.
    pub files: &'static [&'static str],
}

const COMPOSE_PLUGINS: &[&str] =
    &["/usr/libexec/docker/cli-plugins/docker-compose", "/usr/lib/docker/cli-plugins/docker-compose"];

const ALWAYS: [Package; 5] = [
    Package { name: "docker.io", files: &["/usr/sbin/dockerd", "/usr/bin/dockerd"] },
    Package { name: "iptables", files: &["/usr/sbin/iptables"] },
    Package { name: "iproute2", files: &["/usr/sbin/ip", "/usr/bin/ip"] },
    Package { name: "openssh-server", files: &["/usr/sbin/sshd"] },
    Package { name: "openssh-client", files: &["/usr/bin/ssh"] },
];

const BROWSER: [Package; 2] = [
    Package {
        name: "chromium",
        files: &["/usr/bin/chromium", "/usr/bin/google-chrome", "/snap/bin/chromium"],
    },
    Package { name: "chromium-driver", files: &["/usr/bin/chromedriver", "/snap/bin/chromium.chromedriver"] },
];

const BUSYBOX: Package = Package { name: "busybox-static", files: &["/usr/bin/busybox", "/bin/busybox"] };
const POSTGRES: Package = Package { name: "postgresql", files: &["/usr/share/postgresql-common/pg_wrapper"] };
const REGISTRY: Package = Package { name: "docker-registry", files: &["/usr/bin/docker-registry"] };
/// A login shell that is not like `sh`, as some hosts have it.
const TCSH: Package = Package { name: "tcsh", files: &["/usr/bin/tcsh", "/bin/tcsh"] };
const OPENSSL: Package = Package { name: "openssl", files: &["/usr/bin/openssl"] };

/// A Go that is new enough; it fetches a newer one where a module wants that.
const GO: Package = Package { name: "golang-go/trixie", files: &["/usr/local/go/bin/go", "/usr/bin/go"] };

/// Installs those packages that are missing. Progress goes to `say`, line by line.
///
/// # Errors
/// On other systems than Debian and Ubuntu, without root and `sudo`, or when `apt-get` fails. The error says what to
/// install by hand.
pub fn ensure(packages: &[Package], say: &mut dyn FnMut(&str)) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|package| !package.is_there()).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    install::install(&Distribution::of_this_machine()?, &missing, say)
}

/// Installs what [`crate::SandboxHost`] needs: Docker Engine, Compose v2, an SSH server, `ip` and `iptables`.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_docker_host(say: &mut dyn FnMut(&str)) -> Result<()> {
    ensure(&docker_host(), say)
}

/// Installs a browser and its `WebDriver` server.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_browser(say: &mut dyn FnMut(&str)) -> Result<()> {
    ensure(&BROWSER, say)
}

/// Unpacks Caddy and the libraries it needs into the cache folder and returns the root folder of that tree. Nothing is
/// installed: Debian's package would start a server on port 80.
///
/// # Errors
/// On other systems than Debian and Ubuntu, or when `apt-get` cannot download.
pub fn ensure_caddy(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    unpack::unpacked("caddy", &["caddy", "libc6", "libzstd1", "busybox-static"], say)
}

/// The names of the missing packages.
pub(crate) fn missing_for_docker_host() -> Vec<&'static str> {
    docker_host().iter().filter(|package| !package.is_there()).map(|package| package.name).collect()
}

/// Installs busybox, whose shell and utilities a host may have.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_busybox(say: &mut dyn FnMut(&str)) -> Result<()> {
    ensure(&[BUSYBOX], say)
}

/// Installs a `PostgreSQL` server, for [`crate::PostgresServer`].
///
/// # Errors
/// As [`ensure`].
pub fn ensure_postgres(say: &mut dyn FnMut(&str)) -> Result<()> {
    ensure(&[POSTGRES], say)
}

/// Installs a registry, for [`crate::RegistryServer`].
///
/// # Errors
/// As [`ensure`].
pub fn ensure_registry(say: &mut dyn FnMut(&str)) -> Result<()> {
    ensure(&[REGISTRY], say)
}

/// Installs and unpacks every package that any test needs. What is built from source comes after it:
/// [`newer::compose`], [`monitoring::prometheus`], [`ensure_control_plane`].
///
/// # Errors
/// As [`ensure`].
pub fn ensure_for_tests(say: &mut dyn FnMut(&str)) -> Result<()> {
    let mut packages = docker_host();
    packages.extend(BROWSER);
    packages.extend([POSTGRES, REGISTRY, BUSYBOX, OPENSSL, TCSH, GO, monitoring::ALERTMANAGER]);
    // In one call: each reads the package lists anew.
    ensure(&packages, say)?;
    ensure_caddy(say)?;
    newer::engine(say)?;
    kubernetes::etcd(say)?;
    kubernetes::kubectl(say)?;
    monitoring::of_debian(say)?;
    monitoring::prometheus_2(say).map(drop)
}

/// Has what [`crate::ControlPlane`] starts, and what checks charts and alerts: some of it is built with Go, which takes a
/// quarter of an hour at its first use.
///
/// # Errors
/// As [`ensure`], or where something cannot be built or downloaded.
pub fn ensure_control_plane(say: &mut dyn FnMut(&str)) -> Result<()> {
    ensure(&[OPENSSL], say)?;
    kubernetes::etcd(say)?;
    kubernetes::kubectl(say)?;
    kubernetes::api_server(say)?;
    kubernetes::helm(say)?;
    kubernetes::kubeconform(say)?;
    monitoring::prometheus_2(say)?;
    monitoring::prometheus(say)?;
    monitoring::alertmanager(say)?;
    schemas::schemas(say)?;
    Ok(())
}

/// For callers without a place for progress.
pub(crate) fn quietly(_: &str) {}

impl Package {
    fn is_there(&self) -> bool {
        self.files.iter().any(|file| Path::new(file).exists())
    }
}

fn docker_host() -> Vec<Package> {
    let distribution = Distribution::of_this_machine().unwrap_or_default();
    let client = Package { name: distribution.docker_client(), files: &["/usr/bin/docker"] };
    let compose = Package { name: distribution.compose(), files: COMPOSE_PLUGINS };
    ALWAYS.into_iter().chain([client, compose]).collect()
}
