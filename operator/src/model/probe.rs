//! HTTP probes of containers, and their results.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;

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

/// The probe results of a project's last check.
#[derive(Clone, Debug, Default)]
pub struct LastProbes {
    /// The results.
    pub results: ProbeResults,
    /// When each container was started, by the daemon's clock: the results are of the container that was started then.
    pub started: BTreeMap<String, Option<Timestamp>>,
}
