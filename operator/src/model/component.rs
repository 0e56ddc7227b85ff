//! Names of components.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Name of a component: one Compose project of it runs on each host that wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComponentName {
    /// Backend, frontend and the edge in front of them.
    #[default]
    App,
    /// What every host with a role runs so that others know how it is.
    Agents,
    /// The metrics store.
    Monitoring,
    /// The log store.
    Logging,
    /// A service that exists for tests alone.
    #[cfg(feature = "echo")]
    Echo,
}

impl ComponentName {
    /// Every component that this build knows.
    pub const ALL: &[Self] = &[
        Self::App,
        Self::Agents,
        Self::Monitoring,
        Self::Logging,
        #[cfg(feature = "echo")]
        Self::Echo,
    ];

    /// The name as it stands in paths, labels, metrics and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Agents => "agents",
            Self::Monitoring => "monitoring",
            Self::Logging => "logging",
            #[cfg(feature = "echo")]
            Self::Echo => "echo",
        }
    }
}

impl fmt::Display for ComponentName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for ComponentName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        let found = Self::ALL.iter().find(|name| name.as_str() == text);
        found.copied().ok_or_else(|| format!("expected a component ({}), found {text}", known()))
    }
}
