//! Keeps Docker hosts equal to a `TaskTrackerStack`.

use std::process::ExitCode;

use clap::Parser;
use tasktracker_operator::cli::{self, Arguments};

#[tokio::main]
async fn main() -> ExitCode {
    cli::main(Arguments::parse()).await
}
