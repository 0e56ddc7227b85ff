//! Parses the command line, sets up the log and the clock, and runs the service.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use jiff::Timestamp;
use tasktracker_backend::{
    clock::Clock,
    docs,
    metrics::Metrics,
    router,
    settings::{Command, CommandLine, Settings},
    state::AppState,
    storage::Storage,
};
use tasktracker_service::{
    healthcheck, log,
    server::{self, Drained, Draining},
    settings,
};
use tokio::{net::TcpListener, time::timeout};

/// How long statements that still run may hold up the end of the process.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

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
    let _ = writeln!(io::stderr(), "backend: {error:#}");
    ExitCode::FAILURE
}

fn run(line: CommandLine) -> anyhow::Result<()> {
    match line.command.unwrap_or(Command::Serve) {
        Command::Serve => tokio::runtime::Runtime::new()?.block_on(serve(line.settings)),
        Command::Healthcheck => Ok(healthcheck::run(line.settings.listen, "/health/ready")?),
        Command::Openapi => Ok(io::stdout().write_all(docs::json()?.as_bytes())?),
    }
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let _log = log::install(settings.log)?;
    let draining = Draining::default();
    server::drain_on_signal(draining.clone()).context("cannot listen to signals")?;
    let state = AppState {
        storage: Storage::open(&settings.place(), settings.request_timeout).await?,
        clock: Clock::new(system_time),
        metrics: Metrics::new(&docs::document())?,
        draining: draining.clone(),
        revision: settings.revision.as_str().into(),
    };
    let storage = state.storage.clone();
    let router = router::build(state, settings.router_options())?;
    let listen = settings.listen;
    let taken = || format!("cannot listen on {listen}; choose another address with LISTEN or --listen");
    let listener = TcpListener::bind(listen).await.with_context(taken)?;

    tracing::info!(%listen, revision = settings.revision, "serving");
    let drained = server::serve(listener, router, draining, settings.drain_timeout).await?;
    if drained == Drained::TimedOut {
        tracing::warn!(drain_timeout_s = settings.drain_timeout.as_secs(), "requests in flight were cut off");
    }
    let closed = timeout(CLOSE_TIMEOUT, storage.close()).await.is_ok();
    tracing::info!(database_closed = closed, "stopped");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
fn system_time() -> Timestamp {
    Timestamp::now()
}
