//! HTTP probes of containers, and their results.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use tokio::time::Instant;

/// One probe of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// Readiness.
    Ready,
    /// Whether the instance may be stopped, and the next one after it.
    Gate,
    /// Whether the container loaded the named file or setting.
    Loaded(String),
    /// Whether the API object at this path is as rolled out.
    Object(String),
}

/// Why a probe failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    /// The container did not answer.
    NoAnswer(String),
    /// The answer is not the expected one.
    Unexpected(String),
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NoAnswer(found) | Self::Unexpected(found)) = self;
        formatter.write_str(found)
    }
}

/// Probe results by container ID. A probe that cannot be sent has no result.
pub type ProbeResults = BTreeMap<(String, Probe), Result<(), ProbeFailure>>;

/// Something for users that they do not get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unserved {
    /// Port of the host and path, such as `3500/`; of a container that hangs, its name.
    pub path: String,
    /// The service at which the answer is lost.
    pub service: String,
    /// Name of the container that does not answer itself, where one does not.
    pub container: Option<String>,
    /// What was found, and at which hop.
    pub found: String,
    /// Whether the service itself says that it cannot serve, as where its database is away: no repair of it helps.
    pub is_own_word: bool,
    /// Whether it is the port in front of the service that does not lead there.
    pub is_port: bool,
}

/// What users did not get when it was last asked.
#[derive(Clone, Debug)]
pub struct LastPublished {
    /// When it was asked.
    pub asked: Instant,
    /// What containers and files were like then.
    pub state: String,
    /// What they did not get.
    pub unserved: Vec<Unserved>,
}

/// The probe results of a project's last check.
#[derive(Clone, Debug, Default)]
pub struct LastProbes {
    /// The results.
    pub results: ProbeResults,
    /// When each container was started, by the daemon's clock: the results are of the container that was started then.
    pub started: BTreeMap<String, Option<Timestamp>>,
}
