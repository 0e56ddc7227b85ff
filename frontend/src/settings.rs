//! The command line and the settings.

use std::{net::SocketAddr, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand};
use tasktracker_service::settings::{LogSettings, address, seconds};

use crate::backend_url::BackendUrl;

/// The task page's server.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "frontend",
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
    /// Serve the page until SIGTERM or SIGINT.
    Serve,
    /// Ask the service on this machine whether it is well; exit 0 if it is, 1 if not.
    Healthcheck,
}

/// The settings of the service.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// The address and port to listen on.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080", global = true, value_name = "ADDRESS",
          value_parser = address)]
    pub listen: SocketAddr,

    /// Where browsers find the API, such as <https://api.example>; empty means below /api on the page's own
    /// origin.
    #[arg(long, env = "BACKEND_URL", default_value = "", global = true, value_name = "URL")]
    pub backend_url: BackendUrl,

    /// The log.
    #[command(flatten)]
    pub log: LogSettings,

    /// How long requests in flight may take after SIGTERM, in seconds.
    #[arg(long, env = "DRAIN_TIMEOUT", default_value = "25", global = true, value_name = "SECONDS",
          value_parser = seconds)]
    pub drain_timeout: Duration,
}
