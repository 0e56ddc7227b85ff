//! Parses the command line, sets up the log, and serves the page.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use tasktracker_frontend::{
    router,
    settings::{Command, CommandLine, Settings},
};
use tasktracker_service::{
    healthcheck, log,
    server::{self, Drained, Draining},
    settings,
};
use tokio::net::TcpListener;

fn main() -> ExitCode {
    match settings::parse(env::args_os(), |name| env::var_os(name)) {
        Ok(line) => exit(run(line)),
        Err(settings::Error::CommandLine(told)) if !told.use_stderr() => {
            exit(told.print().map_err(Into::into))
        }
        Err(error) => exit(Err(error.into())),
    }
}

fn exit(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    // If not even standard error can be written to, the exit code has to tell it all.
    let _ = writeln!(io::stderr(), "frontend: {error:#}");
    ExitCode::FAILURE
}

fn run(line: CommandLine) -> anyhow::Result<()> {
    match line.command.unwrap_or(Command::Serve) {
        Command::Serve => tokio::runtime::Runtime::new()?.block_on(serve(line.settings)),
        Command::Healthcheck => Ok(healthcheck::run(line.settings.listen, "/health")?),
    }
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let _log = log::install(settings.log)?;
    let draining = Draining::default();
    server::drain_on_signal(draining.clone()).context("cannot listen to signals")?;
    let router = router::build(&settings.backend_url, draining.clone());
    let listen = settings.listen;
    let taken = || format!("cannot listen on {listen}; choose another address with LISTEN or --listen");
    let listener = TcpListener::bind(listen).await.with_context(taken)?;

    tracing::info!(%listen, backend_url = %settings.backend_url, "serving");
    let drained = server::serve(listener, router, draining, settings.drain_timeout).await?;
    if drained == Drained::TimedOut {
        tracing::warn!(drain_timeout_s = settings.drain_timeout.as_secs(), "requests in flight were cut off");
    }
    tracing::info!("stopped");
    Ok(())
}
