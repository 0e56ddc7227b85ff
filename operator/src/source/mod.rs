//! Where stacks come from. Reads files, knows nothing of hosts.

mod secrets;
mod standalone;

use std::{fmt, path::PathBuf};

use futures::future::try_join_all;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tasktracker_crds::{HostSpec, Role, TaskTrackerStack, TaskTrackerStackSpec};

pub use secrets::{SecretError, Secrets};
pub use standalone::{Folder, FolderError, StackFile, Stamp};

use crate::host::{Limits, Target};

/// Namespace and name of a stack.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct StackKey {
    /// Namespace; `default` where a file names none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for StackKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A valid stack and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Stack {
    /// Namespace and name.
    pub key: StackKey,
    /// The file, in standalone mode.
    pub origin: PathBuf,
    /// What it asks for.
    pub spec: TaskTrackerStackSpec,
    /// The resource as it came, for rules that compare it with an earlier one.
    pub resource: TaskTrackerStack,
}

impl Stack {
    /// A stack from a resource that passed validation.
    pub fn new(resource: TaskTrackerStack, origin: PathBuf) -> Self {
        let namespace = resource.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let key = StackKey { namespace, name: resource.metadata.name.clone().unwrap_or_default() };
        Self { key, origin, spec: resource.spec.clone(), resource }
    }

    /// Who owns what this stack puts on a host: a fixed hash of namespace and name.
    pub fn owner(&self) -> String {
        let hash = Sha256::digest(format!("tasktracker.dev/{}/{}", self.key.namespace, self.key.name));
        hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Hash of the plan that may be carried out though changes wait for a person, and where it stands.
    pub fn approved_plan(&self) -> Option<(&'static str, &str)> {
        let in_spec = self.spec.approved_plan.as_deref().map(|hash| ("spec.approvedPlan", hash));
        let annotations = self.resource.metadata.annotations.as_ref();
        let annotation = annotations.and_then(|annotations| annotations.get(APPROVE_ANNOTATION));
        let annotation = annotation.map(|hash| (APPROVE_ANNOTATION, hash.as_str()));
        [in_spec, annotation].into_iter().flatten().find(|(_, hash)| !hash.is_empty())
    }

    /// The hosts on which this version of the operator has something to do.
    pub fn app_hosts(&self) -> impl Iterator<Item = &HostSpec> {
        let deployed = self.spec.app.is_some();
        self.spec.hosts_with(Role::App).filter(move |_| deployed)
    }
}

/// Annotation that names the plan that may be carried out.
pub const APPROVE_ANNOTATION: &str = "tasktracker.dev/approve";

/// Where and how a host of a stack is reached, with the identities that the stack's secrets hold.
///
/// # Errors
/// When a secret is missing, readable by others, or no private key.
pub async fn target(stack: &Stack, host: &HostSpec, secrets: &Secrets) -> Result<Target, SecretError> {
    let names = &stack.spec.ssh.identity_secrets;
    let identities = try_join_all(names.iter().map(|name| secrets.identity(name))).await?;
    Ok(Target {
        name: host.name.to_string(),
        address: host.address.to_string(),
        port: host.port.0,
        user: stack.spec.ssh.user.to_string(),
        host_keys: host.host_keys.iter().map(ToString::to_string).collect(),
        identities,
        directory: host.directory.to_string(),
        limits: Limits::default(),
    })
}
