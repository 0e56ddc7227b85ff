//! The command line. It calls the same engine as `run`; only this room prints.

mod apply;
mod approve;
mod arguments;
mod cluster;
mod commands;
mod delete;
mod history;
mod hosts;
mod import;
mod logs;
mod plan;
mod printer;
mod request;
mod retry;
mod rollback;
mod status;
mod text_diff;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, slice};

use anyhow::{bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tasktracker_crds::Deletion;

use crate::{
    plan::Approval,
    telemetry::{self, LogFormat},
};
use arguments::{
    ComponentArguments, ControllerArguments, RootArguments, SecretArguments, Selection, SourceArguments,
    StateArguments,
};
use cluster::{Asked, ClusterArguments};
use printer::Printer;
use request::Request;

/// Keeps Docker hosts equal to a `TaskTrackerStack`, over SSH and without an agent.
///
/// Exit codes: 0 in sync, 2 drift or change, 1 error.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// What is printed.
    #[arg(long, global = true, value_enum, default_value = "text", env = "TASKTRACKER_OUTPUT")]
    output: OutputFormat,
    /// Colour on a terminal.
    #[arg(long, global = true, value_enum, default_value = "auto")]
    color: Color,
    /// How logs are written (to standard error).
    #[arg(long, global = true, value_enum, default_value = "human", env = "TASKTRACKER_LOG_FORMAT")]
    log_format: LogFormat,
    /// Which logs are written: error, warn, info, debug, trace, or a filter of `tracing`.
    #[arg(long, global = true, default_value = "info,russh=error", env = "TASKTRACKER_LOG_LEVEL")]
    log_level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow a folder of stacks, or those of an API server, and keep their hosts equal to them.
    Run {
        #[command(flatten)]
        source: SourceArguments,
        #[command(flatten)]
        state: StateArguments,
        #[command(flatten)]
        controller: ControllerArguments,
        /// Where /metrics, /livez and /readyz are served.
        #[arg(long, env = "TASKTRACKER_LISTEN", default_value = "127.0.0.1:9464")]
        listen: SocketAddr,
    },
    /// Tell every mistake in stack files.
    Validate {
        /// Files, or folders of files.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        roots: RootArguments,
    },
    /// Print what would be on the hosts, without asking them.
    Render(Selection),
    /// Print what differs, what would be done and why, and do nothing.
    Plan(Selection),
    /// Do it now: repairs, and changes that wait for a person.
    Apply {
        #[command(flatten)]
        selection: Selection,
        /// Do exactly this plan, or refuse.
        #[arg(long, value_name = "HASH")]
        plan: Option<String>,
        /// Let services begin without the data that they had, where the spec or the host has it no longer. Nothing is
        /// removed.
        #[arg(long)]
        leave_data: bool,
    },
    /// As `apply`, and take over what is there without a ledger, or what carries the mark of another owner: of a stack
    /// that was made anew or renamed.
    Adopt(Selection),
    /// Take a stack from its hosts: containers, network, secrets. Its file must be gone from the source; its volumes
    /// stay unless you say otherwise.
    Delete {
        #[command(flatten)]
        source: SourceArguments,
        #[command(flatten)]
        state: StateArguments,
        /// Name of the stack, or NAMESPACE/NAME.
        stack: String,
        /// Only from these hosts, which the stack must name no longer.
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// Remove its volumes, too: the data is gone for good.
        #[arg(long)]
        volumes: bool,
        /// Only forget the hosts, which are there no longer: nothing is written to them.
        #[arg(long, requires = "hosts", conflicts_with = "volumes")]
        forget: bool,
    },
    /// Print how the hosts are, and since when what differs.
    Status {
        #[command(flatten)]
        selection: Selection,
        /// Check every second, and print again when something is another way.
        #[arg(long)]
        watch: bool,
    },
    /// Go back to a release that the hosts keep, and hold it until the spec changes.
    Rollback {
        #[command(flatten)]
        source: SourceArguments,
        #[command(flatten)]
        state: StateArguments,
        #[command(flatten)]
        components: ComponentArguments,
        /// Name of the stack.
        stack: String,
        /// ID of the release, as `history` tells; the one before the current one where none is given.
        release: Option<String>,
    },
    /// Try again what failed, or did not hold: `run` takes it up at its next check.
    Retry {
        #[command(flatten)]
        source: SourceArguments,
        #[command(flatten)]
        state: StateArguments,
        #[command(flatten)]
        components: ComponentArguments,
        /// Name of the stack.
        stack: String,
    },
    /// Let the plan that waits for a person be carried out, and no other: `run` takes it up at its next check.
    Approve {
        #[command(flatten)]
        source: SourceArguments,
        #[command(flatten)]
        state: StateArguments,
        #[command(flatten)]
        components: ComponentArguments,
        /// Name of the stack.
        stack: String,
        /// Hash of its plan, as `plan` with the same options shows.
        #[arg(value_name = "HASH")]
        plan: String,
    },
    /// Print the rollouts that each host remembers, newest first.
    History(Selection),
    /// Print what services of a stack have written: from its log store, or from its Docker hosts where it has none.
    Logs {
        #[command(flatten)]
        source: SourceArguments,
        #[command(flatten)]
        state: StateArguments,
        /// Name of the stack.
        stack: String,
        #[command(flatten)]
        lines: logs::LogArguments,
    },
    /// With --kubernetes: have everything checked now.
    Reconcile(Selection),
    /// Write a stack file from a Compose project of this app that was made by hand, so that it can be taken over.
    Import {
        #[command(flatten)]
        import: import::ImportArguments,
        #[command(flatten)]
        secrets: SecretArguments,
    },
    /// Print the public keys that a host shows, to be compared and pinned.
    Hostkey {
        /// ADDRESS or ADDRESS:PORT.
        address: String,
    },
    /// Print the definition of the custom resource.
    Crd,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    InSync,
    Differs,
    Failed,
}

impl Verdict {
    /// The worse of two.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Failed, _) | (_, Self::Failed) => Self::Failed,
            (Self::Differs, _) | (_, Self::Differs) => Self::Differs,
            _ => Self::InSync,
        }
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        Self::from(match verdict {
            Verdict::InSync => 0,
            Verdict::Failed => 1,
            Verdict::Differs => 2,
        })
    }
}

/// Runs one command.
pub async fn main(arguments: Arguments) -> ExitCode {
    let Global { output, color, log_format, log_level } = arguments.global;
    let printer = Printer::new(output, color);
    let level = if matches!(arguments.command, Command::Run { .. }) {
        log_level
    } else {
        "error,russh=off".to_owned()
    };
    if let Err(error) = telemetry::start(log_format, &level) {
        printer.error(&format!("--log-level: {error}"));
        return Verdict::Failed.into();
    }
    let result = match arguments.command.in_cluster() {
        Ok(Some((cluster, names, asked))) => cluster::run(&printer, cluster, names, asked).await,
        Ok(None) => Box::pin(carry_out(&printer, arguments.command)).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(verdict) => verdict.into(),
        Err(error) => {
            printer.error(&format!("{error:#}"));
            Verdict::Failed.into()
        }
    }
}

impl Command {
    /// What is asked of an API server: which one, about which stacks, and what. None where a folder of stacks is asked.
    ///
    /// # Errors
    /// Where that cannot be asked of an API server.
    fn in_cluster(&self) -> anyhow::Result<Option<(&ClusterArguments, &[String], Asked<'_>)>> {
        fn of(selection: &Selection) -> (&SourceArguments, &[String]) {
            (&selection.source, &selection.names)
        }
        let ((source, names), asked) = match self {
            Self::Plan(selection) | Self::Render(selection) => {
                (of(selection), Asked::Plan(&selection.components))
            }
            Self::Status { selection, .. } => (of(selection), Asked::Status(&selection.components)),
            Self::History(selection) => (of(selection), Asked::History(&selection.components)),
            Self::Adopt(selection) => (of(selection), Asked::request(Request::Adopt, &selection.components)),
            Self::Reconcile(selection) => {
                (of(selection), Asked::request(Request::Reconcile, &selection.components))
            }
            Self::Apply { selection, .. } => {
                (of(selection), Asked::request(Request::LeaveData, &selection.components))
            }
            Self::Approve { source, components, stack, plan, .. } => {
                ((source, slice::from_ref(stack)), Asked::request(Request::Approve(plan), components))
            }
            Self::Retry { source, components, stack, .. } => {
                ((source, slice::from_ref(stack)), Asked::request(Request::Retry, components))
            }
            Self::Rollback { source, components, stack, release, .. } => {
                let request = Request::Rollback(release.as_deref());
                ((source, slice::from_ref(stack)), Asked::request(request, components))
            }
            Self::Delete { source, stack, hosts, volumes, forget, .. } => {
                let deletion = match (volumes, forget) {
                    (_, true) => Deletion::Retain,
                    (true, false) => Deletion::DownAndVolumes,
                    (false, false) => Deletion::Down,
                };
                let request = Request::DeleteHosts(hosts, deletion);
                ((source, slice::from_ref(stack)), Asked::request(request, &ComponentArguments::default()))
            }
            _ => return Ok(None),
        };
        if !source.cluster.kubernetes {
            return Ok(None);
        }
        self.check_in_cluster()?;
        Ok(Some((&source.cluster, names, asked)))
    }

    /// Whether an API server can be asked for this.
    fn check_in_cluster(&self) -> anyhow::Result<()> {
        match self {
            Self::Apply { selection, leave_data: true, plan: None } => {
                ensure!(
                    !selection.names.is_empty(),
                    "apply --leave-data: expected names of stacks, found none"
                );
            }
            Self::Apply { .. } => bail!(
                "apply: expected a folder of stacks, or --leave-data alone; in Kubernetes `kubectl apply` changes the spec, and `approve` lets what waits be carried out"
            ),
            Self::Delete { hosts, .. } => ensure!(
                !hosts.is_empty(),
                "delete: expected --host, or a folder of stacks; in Kubernetes `kubectl delete` takes a stack from all its hosts, as policy.deletion says"
            ),
            Self::Render(_) => bail!("render: expected a folder of stacks, or a file: --stacks"),
            _ => {}
        }
        Ok(())
    }
}

async fn carry_out(printer: &Printer, command: Command) -> anyhow::Result<Verdict> {
    match command {
        Command::Run { source, controller, listen, .. } if source.cluster.kubernetes => {
            commands::run_in_cluster(&source, controller, listen).await
        }
        Command::Run { source, state, listen, .. } => commands::run(&source, &state, listen).await,
        Command::Validate { paths, roots } => commands::validate(printer, &paths, &roots.host_roots),
        Command::Render(selection) => commands::render(printer, &selection),
        Command::Plan(selection) => plan::plan(printer, &selection).await,
        Command::Apply { selection, plan, leave_data } => {
            let approval = if leave_data { Approval::LeavingData } else { Approval::Person };
            apply::apply(printer, &selection, plan.as_deref(), approval).await
        }
        Command::Status { selection, watch } => status::status(printer, &selection, watch).await,
        Command::Adopt(selection) => apply::apply(printer, &selection, None, Approval::Adopting).await,
        Command::Delete { source, state, stack, hosts, volumes, forget } => {
            let asked = delete::Asked { stack: &stack, hosts: &hosts, with_volumes: volumes, forget };
            let memory = state.share()?;
            let verdict = Box::pin(delete::delete(printer, &source, &memory, asked)).await;
            memory.flush().await;
            verdict
        }
        Command::Rollback { source, state, components, stack, release } => {
            let selection = Selection { source, state, components, names: vec![stack] };
            rollback::rollback(printer, &selection, release.as_deref()).await
        }
        Command::Retry { source, state, components, stack } => {
            retry::retry(printer, &Selection { source, state, components, names: vec![stack] }).await
        }
        Command::Approve { source, state, components, stack, plan } => {
            let selection = Selection { source, state, components, names: vec![stack] };
            Box::pin(approve::approve(printer, &selection, &plan)).await
        }
        Command::History(selection) => history::history(printer, &selection).await,
        Command::Logs { source, state, stack, lines } => {
            anyhow::ensure!(
                !source.cluster.kubernetes,
                "logs: expected a folder of stacks, or a file: --stacks; hosts and their log store are asked over SSH"
            );
            Box::pin(logs::logs(printer, source, state, stack, &lines)).await
        }
        Command::Reconcile(_) => {
            anyhow::bail!("reconcile: expected --kubernetes; `status` checks the hosts now")
        }
        Command::Import { import, secrets } => import::import(printer, &secrets.secrets(), &import).await,
        Command::Hostkey { address } => commands::hostkey(printer, &address).await,
        Command::Crd => commands::crd(printer),
    }
}
