//! What several commands are told: which stacks, where secrets and state are.

use std::path::PathBuf;

use clap::Args;

use super::cluster::ClusterArguments;
use crate::{
    engine::Memory,
    model::ComponentName,
    source::{Folder, Secrets},
};

/// Where stacks and secrets are.
#[derive(Debug, Args)]
pub(super) struct SourceArguments {
    /// A folder of stack files, or one file.
    #[arg(
        long,
        env = "TASKTRACKER_STACKS",
        value_name = "PATH",
        required_unless_present = "kubernetes",
        conflicts_with = "kubernetes"
    )]
    pub(super) stacks: Option<PathBuf>,
    #[command(flatten)]
    pub(super) cluster: ClusterArguments,
    #[command(flatten)]
    pub(super) secrets: SecretArguments,
    #[command(flatten)]
    pub(super) roots: RootArguments,
}

/// Where secrets are.
#[derive(Debug, Args)]
pub(super) struct SecretArguments {
    /// A folder of secrets: a folder for each name, a file for each key, readable by their owner alone.
    #[arg(long, env = "TASKTRACKER_SECRETS_DIR", value_name = "DIR")]
    pub(super) secrets_dir: Option<PathBuf>,
    /// The folder was mounted by Kubernetes or Docker, which give files modes such as 0444: who else may read them is not
    /// asked then. Nobody but the operator should see that mount.
    #[arg(long, env = "TASKTRACKER_SECRETS_MOUNTED", requires = "secrets_dir")]
    pub(super) secrets_mounted: bool,
    /// A program that knows the secrets, with its first arguments: called with the name and the key of one, it prints
    /// exactly the value.
    #[arg(long, env = "TASKTRACKER_SECRET_COMMAND", value_name = "COMMAND", conflicts_with = "secrets_dir")]
    pub(super) secret_command: Option<String>,
}

impl SecretArguments {
    pub(super) fn secrets(&self) -> Secrets {
        match &self.secret_command {
            Some(command) => Secrets::from_program(command.split_whitespace().map(str::to_owned).collect()),
            None => match &self.secrets_dir {
                Some(folder) if self.secrets_mounted => Secrets::mounted(folder.clone()),
                folder => Secrets::new(folder.clone()),
            },
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct RootArguments {
    /// Folders of hosts below which a stack's `directory` may lie.
    #[arg(
        long,
        env = "TASKTRACKER_HOST_ROOTS",
        value_name = "DIRS",
        value_delimiter = ',',
        default_value = "/opt,/srv,/home"
    )]
    pub(super) host_roots: Vec<PathBuf>,
}

impl SourceArguments {
    pub(super) fn folder(&self) -> Folder {
        Folder::new(self.path(), self.roots.host_roots.clone())
    }

    /// The folder, or the file.
    pub(super) fn path(&self) -> PathBuf {
        self.stacks.clone().unwrap_or_default()
    }

    pub(super) fn secrets(&self) -> Secrets {
        self.secrets.secrets()
    }
}

/// Where the operator keeps what must survive its restart.
#[derive(Debug, Args)]
pub(super) struct StateArguments {
    /// The operator's own folder: what is deployed where, since when differences are there, what was written. Default:
    /// tasktracker-operator in the user's state folder.
    #[arg(long, env = "TASKTRACKER_STATE_DIR", value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
}

impl StateArguments {
    pub(super) fn folder(&self) -> Option<PathBuf> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let usual = || variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
        self.state_dir.clone().or_else(|| Some(usual()?.join("tasktracker-operator")))
    }

    /// The folder, for this operator alone.
    pub(super) fn take(&self) -> anyhow::Result<Memory> {
        Ok(self.folder().map_or_else(|| Ok(Memory::none()), |folder| Memory::take(&folder))?)
    }

    /// The folder, though another operator may have it.
    pub(super) fn share(&self) -> anyhow::Result<Memory> {
        Ok(self.folder().map_or_else(|| Ok(Memory::none()), |folder| Memory::share(&folder))?)
    }
}

/// How `run --kubernetes` works.
#[derive(Debug, Args)]
pub(super) struct ControllerArguments {
    /// Namespaces whose stacks are followed; all where none is named.
    #[arg(
        long,
        env = "TASKTRACKER_NAMESPACES",
        requires = "kubernetes",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    pub(super) namespaces: Vec<String>,
    /// Labels that a stack must have to be followed, as `kubectl -l` takes them.
    #[arg(long, env = "TASKTRACKER_SELECTOR", requires = "kubernetes", value_name = "LABELS")]
    pub(super) selector: Option<String>,
    /// Name of the lease by which one of several operators acts; by default another one for each choice of namespaces and
    /// labels.
    #[arg(long, env = "TASKTRACKER_LEASE", requires = "kubernetes", value_name = "NAME")]
    pub(super) lease: Option<String>,
    /// Objects of the API server that are worked on at a time. Hosts are worked on beside that.
    #[arg(long, env = "TASKTRACKER_CONCURRENCY", default_value_t = 8, value_name = "NUMBER")]
    pub(super) concurrency: u16,
    /// After how many seconds a deleted stack goes though a host could not be left as its policy says.
    #[arg(long, env = "TASKTRACKER_DELETION_TIMEOUT", default_value_t = 600, value_name = "SECONDS")]
    pub(super) deletion_timeout: u64,
    /// Let only those read /metrics whose token the API server knows and lets get that path.
    #[arg(long, env = "TASKTRACKER_METRICS_REVIEWS", requires = "kubernetes")]
    pub(super) metrics_reviews: bool,
}

/// Which of the stacks.
#[derive(Debug, Args)]
pub(super) struct Selection {
    #[command(flatten)]
    pub(super) source: SourceArguments,
    #[command(flatten)]
    pub(super) state: StateArguments,
    #[command(flatten)]
    pub(super) components: ComponentArguments,
    /// Names of stacks; all where none is given.
    #[arg(value_name = "STACK")]
    pub(super) names: Vec<String>,
}

/// Which of the components.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ComponentArguments {
    /// Component that this is about; all where none is given.
    #[arg(long = "component", value_name = "COMPONENT")]
    pub(super) components: Vec<ComponentName>,
}

impl ComponentArguments {
    /// Whether this is about a component.
    pub(super) fn have(&self, component: ComponentName) -> bool {
        self.components.is_empty() || self.components.contains(&component)
    }

    /// Whether this is about the component of a name.
    pub(super) fn names(&self, component: &str) -> bool {
        self.components.is_empty() || self.components.iter().any(|one| one.as_str() == component)
    }

    /// How the value of an annotation begins that is about these.
    pub(super) fn scope(&self) -> String {
        let names: Vec<&str> = self.components.iter().map(|component| component.as_str()).collect();
        if names.is_empty() { String::new() } else { format!("{}:", names.join(",")) }
    }
}
