//! What a test can ask of a sandbox host.

use crate::packages::{self, newer};
use anyhow::Result;
use std::path::PathBuf;

/// How a sandbox host differs from the plain one. `HostOptions::default()` is the plain one.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// Which Docker Engine runs.
    pub engine: Engine,
    /// Which Compose plugin is installed.
    pub compose: Compose,
    /// Keeps images in the cache folder under this name, for the next start with the same name. Containers, volumes and
    /// networks of earlier runs are removed at the start. Only one host at a time can use a name; others wait.
    pub reuse: Option<String>,
    /// Makes the project folder a file system of its own of this many MiB, so that it can be filled.
    pub project_disk_mib: Option<u32>,
    /// More arguments for `dockerd`.
    pub dockerd_arguments: Vec<String>,
}

/// Which Docker Engine runs on a sandbox host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Engine {
    /// The one installed on the machine (Debian 12: 20.10).
    #[default]
    Distribution,
    /// 26.1 from Debian 13, unpacked into the cache folder at its first use.
    Newer,
    /// 29.5, built with Go into the cache folder at its first use: some minutes.
    Current,
    /// The programs in `sbin` and `bin` of a folder, in front of the machine's.
    Prefix(PathBuf),
}

/// Which Compose plugin is installed on a sandbox host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Compose {
    /// The one installed on the machine (Debian 12 with `packages`: 2.26).
    #[default]
    Distribution,
    /// 2.40, built with Go into the cache folder at its first use: some minutes.
    Newer,
    /// 5.6, built with Go into the cache folder at its first use: some minutes.
    Current,
    /// A program of one's own.
    Plugin(PathBuf),
}

impl Engine {
    pub(super) fn prefix(&self) -> Result<PathBuf> {
        match self {
            Self::Distribution => Ok(PathBuf::new()),
            Self::Newer => newer::engine(&mut packages::quietly),
            Self::Current => newer::current_engine(&mut packages::quietly),
            Self::Prefix(folder) => Ok(folder.canonicalize()?),
        }
    }
}

impl Compose {
    pub(super) fn plugin(&self) -> Result<PathBuf> {
        match self {
            Self::Distribution => Ok(PathBuf::new()),
            Self::Newer => newer::compose(&mut packages::quietly),
            Self::Current => newer::current_compose(&mut packages::quietly),
            Self::Plugin(program) => Ok(program.canonicalize()?),
        }
    }
}

/// The algorithm of a host key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyKind {
    /// `ssh-ed25519`
    Ed25519,
    /// `ecdsa-sha2-nistp256`
    Ecdsa,
    /// `ssh-rsa`, 3072 bits
    Rsa,
}

impl HostKeyKind {
    /// As `ssh-keygen -t` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Ecdsa => "ecdsa",
            Self::Rsa => "rsa",
        }
    }
}
