//! Where stacks come from. Reads files, knows nothing of hosts.

mod checks;
mod secrets;
mod standalone;

use std::{fmt, path::PathBuf};

use futures::future::{BoxFuture, join_all};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use tasktracker_crds::{Deletion, HostSpec, TaskTrackerStack, TaskTrackerStackSpec};

pub use checks::{mistakes, rivals};
pub use secrets::{Data, Refused, SecretError, SecretStore, Secrets};
pub use standalone::{Folder, FolderError, Skipped, StackFile, StackFiles, Stamp};

use crate::{
    host::{Identity, Limits, Target},
    model::{ComponentName, Hold, sha256},
};

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

/// One project: a component of a stack on a host. The unit of work.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ProjectKey {
    /// Its stack.
    pub stack: StackKey,
    /// Name of the host.
    pub host: String,
    /// Its component.
    pub component: ComponentName,
}

impl fmt::Display for ProjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stack, host, component } = self;
        write!(formatter, "{stack} on {host}, component {component}")
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
    /// A stack from a file that passed validation; what an API server may have written into it is left out.
    pub fn new(mut resource: TaskTrackerStack, origin: PathBuf) -> Self {
        resource.metadata.uid = None;
        resource.metadata.generation = None;
        Self::of_object(resource, origin)
    }

    /// A stack from an object that passed validation. Of what only the API server writes, it keeps UID and generation.
    pub fn of_object(mut resource: TaskTrackerStack, origin: PathBuf) -> Self {
        resource.status = None;
        let metadata = std::mem::take(&mut resource.metadata);
        resource.metadata = ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            generation: metadata.generation,
            creation_timestamp: metadata.creation_timestamp,
            annotations: metadata.annotations.map(|mut all| {
                all.retain(|name, _| name.starts_with(ANNOTATIONS));
                all
            }),
            ..ObjectMeta::default()
        };
        let namespace = resource.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let key = StackKey { namespace, name: resource.metadata.name.clone().unwrap_or_default() };
        Self { key, origin, spec: resource.spec.clone(), resource }
    }

    /// Who owns what this stack puts on a host: a fixed hash of namespace and name, and of the object's UID where an API
    /// server gave it one.
    pub fn owner(&self) -> String {
        let StackKey { namespace, name } = &self.key;
        let uid = self.resource.metadata.uid.as_ref().map(|uid| format!("/{uid}")).unwrap_or_default();
        let mut hash = sha256(format!("tasktracker.dev/{namespace}/{name}{uid}").as_bytes());
        hash.truncate(32);
        hash
    }

    /// The plans that may be executed although changes wait for approval.
    pub fn approved_plans(&self) -> Vec<ApprovedPlan<'_>> {
        let in_spec = self.spec.approved_plan.as_deref().map(|value| ("spec.approvedPlan", value));
        let annotation = self.annotation(APPROVE_ANNOTATION).map(|value| (APPROVE_ANNOTATION, value));
        let all = [in_spec, annotation].into_iter().flatten().map(|(place, value)| {
            let (components, hash) = scoped(value);
            ApprovedPlan { place, components, hash }
        });
        all.filter(|plan| !plan.hash.is_empty()).collect()
    }

    /// The value of an annotation, where it has one.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        let value = self.resource.metadata.annotations.as_ref()?.get(name)?;
        (!value.is_empty()).then_some(value.as_str())
    }

    /// The value of an annotation, where it concerns a component: `COMPONENT,COMPONENT:VALUE` concerns those, any other
    /// value all of them.
    pub fn annotation_for(&self, name: &str, component: ComponentName) -> Option<&str> {
        let (components, rest) = scoped(self.annotation(name)?);
        (components.is_empty() || components.contains(&component)).then_some(rest)
    }

    /// Whether a person wrote onto this very spec that services of a component may begin without the data that they had.
    pub fn is_leaving_data(&self, component: ComponentName) -> bool {
        let generation = self.resource.metadata.generation.map(|generation| generation.to_string());
        let value = self.annotation_for(LEAVE_DATA_ANNOTATION, component);
        value.is_some_and(|value| Some(value) == generation.as_deref())
    }

    /// Whether a person wrote onto this very spec of this very object that what is there of a component may be taken over.
    pub fn is_adopting(&self, component: ComponentName) -> bool {
        let value = self.annotation_for(ADOPT_ANNOTATION, component);
        self.this().is_some_and(|this| value == Some(this.as_str()))
    }

    /// What a person wrote onto this very spec of this very object that is to become of what is on a host that it names no
    /// longer.
    pub fn deletion_of(&self, host: &str) -> Option<Deletion> {
        let (hosts, rest) = self.annotation(DELETE_HOST_ANNOTATION)?.split_once('@')?;
        let suffix = rest.strip_prefix(&self.this()?)?;
        let (deletion, _) = DELETE_HOST_SUFFIXES.into_iter().find(|(_, known)| *known == suffix)?;
        hosts.split(',').any(|named| named == host).then_some(deletion)
    }

    /// This very spec of this very object: `UID@GENERATION`.
    fn this(&self) -> Option<String> {
        let metadata = &self.resource.metadata;
        Some(format!("{}@{}", metadata.uid.as_ref()?, metadata.generation?))
    }
}

/// A plan that may be executed although changes wait for approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovedPlan<'a> {
    /// Field or annotation that approves it.
    pub place: &'static str,
    /// Components whose part of it is approved; all where none is named.
    pub components: Vec<ComponentName>,
    /// Hash of the plan of the whole stack.
    pub hash: &'a str,
}

impl ApprovedPlan<'_> {
    /// Whether the part of a component is approved.
    pub fn covers(&self, component: ComponentName) -> bool {
        self.components.is_empty() || self.components.contains(&component)
    }
}

/// The components that a value is limited to, none for all of them, and the value itself.
fn scoped(value: &str) -> (Vec<ComponentName>, &str) {
    let Some((scope, rest)) = value.split_once(':') else { return (Vec::new(), value) };
    let components: Result<Vec<ComponentName>, String> = scope.split(',').map(str::parse).collect();
    components.map_or_else(|_| (Vec::new(), value), |components| (components, rest))
}

/// How the names of our annotations begin. Values of those about rollback, retry, adoption and data may begin with the
/// components that they concern, as in `app:VALUE`.
const ANNOTATIONS: &str = "tasktracker.dev/";
/// Annotation that names the plan that may be carried out.
pub const APPROVE_ANNOTATION: &str = "tasktracker.dev/approve";
/// Annotation that names the release to go back to, or `previous`, and the generation of the spec that is left so:
/// `RELEASE@GENERATION`, and after a `/` anything that tells one wish from another.
pub const ROLLBACK_ANNOTATION: &str = "tasktracker.dev/rollback";
/// Annotation by whose every new value what failed is tried again.
pub const RETRY_ANNOTATION: &str = "tasktracker.dev/retry";
/// Annotation by whose every new value everything is checked now.
pub const RECONCILE_ANNOTATION: &str = "tasktracker.dev/reconcile";
/// Annotation with UID and generation of its object, `UID@GENERATION`: for that spec, what another owner of that name had,
/// or what is there without a ledger, is taken over.
pub const ADOPT_ANNOTATION: &str = "tasktracker.dev/adopt";

/// Annotation with the generation of its object: for that spec, services may begin without the data that they had.
pub const LEAVE_DATA_ANNOTATION: &str = "tasktracker.dev/leave-data";

/// Annotation with hosts that the spec names no longer, and UID and generation of their object, `HOST,HOST@UID@GENERATION`:
/// what is there is taken away, with its volumes where `/volumes` follows; where `/forget` follows, the hosts are gone and
/// only forgotten.
pub const DELETE_HOST_ANNOTATION: &str = "tasktracker.dev/delete-host";

/// How it ends for each policy: of what is retained, nothing more is known.
pub const DELETE_HOST_SUFFIXES: [(Deletion, &str); 3] =
    [(Deletion::Down, ""), (Deletion::DownAndVolumes, "/volumes"), (Deletion::Retain, "/forget")];

/// Where stacks come from, asked anew.
pub trait Source: Send + Sync {
    /// Whether the source, read anew, still has exactly this stack.
    fn is_current<'a>(&'a self, stack: &'a Stack) -> BoxFuture<'a, bool>;

    /// What may be written for a stack at present.
    fn write_scope(&self, _stack: &StackKey) -> WriteScope {
        WriteScope::Full
    }
}

/// What an operator may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteScope {
    /// Everything that is planned.
    Full,
    /// Repairs towards what was applied last, and nothing else; and why.
    HealOnly(Hold),
    /// Nothing: another operator acts.
    Nothing,
}

/// Where and how a host of a stack is reached, with the identities that the stack's secrets hold.
///
/// A secret that cannot be had keeps no other one from opening the door: it is told where none does.
///
/// # Errors
/// When no secret holds a private key: what is wrong with the first.
pub async fn target(stack: &Stack, host: &HostSpec, secrets: &Secrets) -> Result<Target, SecretError> {
    let (names, secrets) = (&stack.spec.ssh.identity_secrets, secrets.of(&stack.key));
    let found = join_all(names.iter().map(|name| secrets.identity(name))).await;
    let (good, bad): (Vec<_>, Vec<_>) = found.into_iter().partition(Result::is_ok);
    let identities: Vec<Identity> = good.into_iter().flatten().collect();
    let mut unusable = bad.into_iter().filter_map(Result::err);
    if identities.is_empty()
        && let Some(first) = unusable.next()
    {
        return Err(first);
    }
    Ok(Target {
        name: host.name.to_string(),
        address: host.address.to_string(),
        port: host.port.0,
        user: stack.spec.ssh.user.to_string(),
        host_keys: host.host_keys.iter().map(ToString::to_string).collect(),
        identities,
        unusable_identities: unusable.map(|error| error.to_string()).collect(),
        directory: host.directory.to_string(),
        limits: Limits::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_hosts_is_said_for_one_spec() {
        let text = include_str!("../../../examples/staging.yaml");
        let resource = tasktracker_crds::validation::read_stack(text).unwrap();
        let deletion = |wish: &str, host: &str, uid: &str, generation: i64| {
            let mut resource = resource.clone();
            resource.metadata.uid = Some(uid.to_owned());
            resource.metadata.generation = Some(generation);
            resource.metadata.annotations =
                Some([(DELETE_HOST_ANNOTATION.to_owned(), wish.to_owned())].into());
            let in_file = Stack::new(resource.clone(), PathBuf::new());
            assert_eq!(in_file.deletion_of(host), None, "a file is no object");
            Stack::of_object(resource, PathBuf::new()).deletion_of(host)
        };
        for (suffix, wanted) in
            [("", Deletion::Down), ("/volumes", Deletion::DownAndVolumes), ("/forget", Deletion::Retain)]
        {
            let wish = format!("a,b@u1@12{suffix}");
            assert_eq!(deletion(&wish, "a", "u1", 12), Some(wanted));
            assert_eq!(deletion(&wish, "b", "u1", 12), Some(wanted));
            for (host, uid, generation) in [("c", "u1", 12), ("a", "u2", 12), ("a", "u1", 13), ("a", "u1", 1)]
            {
                assert_eq!(deletion(&wish, host, uid, generation), None, "{host} {uid} {generation}");
            }
        }
        for wrong in ["a", "a@", "a@12", "a@u1@", "a@u1@12/", "a@u1@12/everything", "a@u1@x", "@@"] {
            assert_eq!(deletion(wrong, "a", "u1", 12), None, "{wrong}");
        }
    }
}
