//! The command line and the settings: every flag is also an environment variable.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tasktracker_service::settings::{LogSettings, address, seconds};

/// A service for tests: it shows what it was given.
#[derive(Debug, Clone, Parser)]
#[command(name = "echo", version, args_override_self = true)]
pub struct CommandLine {
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,

    /// What to do; `serve` unless told.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the binary can do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM or SIGINT.
    Serve,
    /// Ask the service on this machine whether it is ready; exit 0 if it is, 1 if not.
    Healthcheck,
    /// Ask the service on this machine to reload its configuration; exit 0 if it did, 1 if not.
    Reload,
    /// Validate a configuration file; exit 0 if it is valid, 1 if not.
    Validate {
        /// The file.
        file: PathBuf,
    },
}

/// A way to fail on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Failure {
    /// The service never becomes ready.
    NeverReady,
}

/// The settings of the service.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// The address and port to listen on.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:7000", global = true, value_name = "ADDRESS",
          value_parser = address)]
    pub listen: SocketAddr,

    /// The configuration file.
    #[arg(
        long,
        env = "CONFIG_PATH",
        default_value = "/etc/echo/config.txt",
        global = true,
        value_name = "FILE"
    )]
    pub config_path: PathBuf,

    /// The folder of the data volume.
    #[arg(long, env = "DATA_PATH", default_value = "/data", global = true, value_name = "FOLDER")]
    pub data_path: PathBuf,

    /// The file with the password of the API; without the file, the API needs none.
    #[arg(
        long,
        env = "PASSWORD_PATH",
        default_value = "/run/secrets/password",
        global = true,
        value_name = "FILE"
    )]
    pub password_path: PathBuf,

    /// The revision the image was built from, as `/` shows it.
    #[arg(long, env = "REVISION", default_value = "unknown", global = true, value_name = "TEXT")]
    pub revision: String,

    /// How to fail on purpose.
    #[arg(long, env = "FAIL", global = true, value_name = "FAILURE")]
    pub fail: Option<Failure>,

    /// How long requests in flight may take after SIGTERM, in seconds.
    #[arg(long, env = "DRAIN_TIMEOUT", default_value = "5", global = true, value_name = "SECONDS",
          value_parser = seconds)]
    pub drain_timeout: Duration,

    /// The log.
    #[command(flatten)]
    pub log: LogSettings,
}
