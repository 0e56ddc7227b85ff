//! Parses the command line, and serves or carries out one command.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use tasktracker_echo::{
    config, reload,
    router::{self, Service},
    settings::{Command, CommandLine, Settings},
};
use tasktracker_service::{
    healthcheck, log,
    server::{self, Drained, Draining},
    settings,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

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
    let _ = writeln!(io::stderr(), "echo: {error:#}");
    ExitCode::FAILURE
}

fn run(line: CommandLine) -> anyhow::Result<()> {
    match line.command.unwrap_or(Command::Serve) {
        Command::Serve => tokio::runtime::Runtime::new()?.block_on(serve(&line.settings)),
        Command::Healthcheck => Ok(healthcheck::run(line.settings.listen, "/ready")?),
        Command::Reload => Ok(reload::run(line.settings.listen)?),
        Command::Validate { file } => Ok(config::load(&file).map(drop)?),
    }
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let _log = log::install(settings.log)?;
    let draining = Draining::default();
    server::drain_on_signal(draining.clone()).context("cannot listen to signals")?;
    let service = Arc::new(Service::new(settings, draining.clone()));
    reload_on_signal(service.clone()).context("cannot listen to signals")?;
    load(&service);
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}", settings.listen))?;
    tracing::info!(listen = %settings.listen, revision = settings.revision, "serving");
    let drained = server::serve(listener, router::build(service), draining, settings.drain_timeout).await?;
    tracing::info!(completely = drained == Drained::Completely, "stopped");
    Ok(())
}

/// Reloads the configuration at every SIGHUP.
fn reload_on_signal(service: Arc<Service>) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            load(&service);
        }
    });
    Ok(())
}

/// A configuration that cannot be loaded leaves the service as it is: not ready at start, as before later.
fn load(service: &Service) {
    match service.config.reload() {
        Ok(()) => tracing::info!("the configuration is loaded"),
        Err(error) => tracing::error!(%error, "the configuration is not loaded"),
    }
}
