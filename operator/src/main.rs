//! Keeps Docker hosts equal to a `TaskTrackerStack`.

use std::process::ExitCode;

use clap::Parser;
use tasktracker_operator::cli::{self, Arguments};

#[tokio::main]
async fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => Box::pin(cli::main(arguments)).await,
        Err(told) => {
            let printed = told.print();
            // Clap's own status for mistakes is 2, which means drift here.
            if told.use_stderr() || printed.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}
