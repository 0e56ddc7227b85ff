//! The command line and the settings: every flag is also an environment variable `NAME`, and the value may
//! stand in a file named by `NAME_FILE`.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use axum::http::{HeaderValue, Uri};
use clap::{ArgAction, Args, Parser, Subcommand};
use tasktracker_service::settings::{LogSettings, address, seconds};

use crate::{
    router,
    storage::{Place, ServerUrl},
};

/// The task API.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "backend",
    version,
    disable_version_flag = true,
    args_override_self = true,
    after_help = "Every variable NAME may instead be given as NAME_FILE: the value is read from that file."
)]
pub struct CommandLine {
    /// Print the version.
    #[arg(short = 'v', long = "version", action = ArgAction::Version)]
    version: Option<bool>,

    /// The settings.
    #[command(flatten)]
    pub settings: Settings,

    /// What to do; `serve` unless told.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the binary can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve the API until SIGTERM or SIGINT.
    Serve,
    /// Ask the service on this machine whether it is ready; exit 0 if it is, 1 if not.
    Healthcheck,
    /// Print the API's description (OpenAPI).
    Openapi,
}

/// The settings of the service.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// The address and port to listen on.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8000", global = true, value_name = "ADDRESS",
          value_parser = address)]
    pub listen: SocketAddr,

    /// The SQLite database file; made if there is none.
    #[arg(long, env = "DATABASE_PATH", default_value = "/data/tasks.db", global = true, value_name = "FILE")]
    pub database_path: PathBuf,

    /// The database on a PostgreSQL server that is used instead of a file:
    /// <postgres://USER:PASSWORD@HOST:PORT/DATABASE>.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true, value_name = "URL")]
    pub database_url: Option<ServerUrl>,

    /// The revision the image was built from, as /health shows it.
    #[arg(long, env = "REVISION", default_value = "unknown", global = true, value_name = "TEXT")]
    pub revision: String,

    /// The log.
    #[command(flatten)]
    pub log: LogSettings,

    /// The origins whose pages may call the API, separated by commas, such as <https://tasks.example>; empty
    /// means none.
    #[arg(long, env = "ALLOWED_ORIGINS", default_value = "", global = true, value_name = "ORIGINS")]
    pub allowed_origins: Origins,

    /// How long requests in flight may take after SIGTERM, in seconds.
    #[arg(long, env = "DRAIN_TIMEOUT", default_value = "25", global = true, value_name = "SECONDS",
          value_parser = seconds)]
    pub drain_timeout: Duration,

    /// How long a request may take, in seconds.
    #[arg(long, env = "REQUEST_TIMEOUT", default_value = "10", global = true, value_name = "SECONDS",
          value_parser = seconds)]
    pub request_timeout: Duration,
}

impl Settings {
    /// Where the tasks are kept.
    pub fn place(&self) -> Place {
        let server = self.database_url.clone().map(Place::Server);
        server.unwrap_or_else(|| Place::File(self.database_path.clone()))
    }

    /// What of the settings shapes the routes.
    pub fn router_options(&self) -> router::Options {
        router::Options {
            allowed_origins: self.allowed_origins.0.clone(),
            request_timeout: self.request_timeout,
        }
    }
}

/// A list of origins: scheme, host and port, as browsers send them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(pub Vec<HeaderValue>);

impl FromStr for Origins {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        let origins = written.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        origins.map(origin).collect::<Result<_, _>>().map(Self)
    }
}

fn origin(written: &str) -> Result<HeaderValue, String> {
    let expected = || format!("origins such as https://tasks.example, without path or *, not {written:?}");
    let uri: Uri = written.parse().map_err(|_| expected())?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(expected());
    };
    // What a browser sends is exactly this, in lower case; anything else would never match.
    let sent = format!("{scheme}://{authority}");
    if sent != written || authority.as_str().contains('@') || written.chars().any(char::is_uppercase) {
        return Err(expected());
    }
    HeaderValue::from_str(written).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_what_browsers_send() {
        let origins: Origins = " https://a.example , http://localhost:8080,".parse().unwrap();
        assert_eq!(origins.0, ["https://a.example", "http://localhost:8080"]);
        assert_eq!("".parse(), Ok(Origins::default()));
        for wrong in
            ["*", "a.example", "https://a.example/", "https://u@a.example", "ftp://a", "https://A.example"]
        {
            assert!(wrong.parse::<Origins>().is_err(), "{wrong}");
        }
    }
}
