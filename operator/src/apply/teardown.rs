//! Takes a project from a host: its containers, its network and its secrets; its data only where a person said so.

use super::{ACTION_LIMIT, Context, Error, adopted::start_again};
use crate::{
    host::{FileFact, Host, Step},
    ledger::Ledger,
    observe::Observed,
    project::labels,
};

/// Takes the project of the context from the host, and says in words what was done. The ledger says first that it is
/// gone: whoever is cut goes on, and nobody repairs it.
///
/// # Errors
/// The first thing that went wrong.
pub async fn teardown(
    host: &Host,
    observed: &Observed,
    context: &Context<'_>,
    with_volumes: bool,
) -> Result<Vec<String>, Error> {
    let (steps, done) = steps(observed, context, with_volumes);
    host.carry_out(context.lock, &context.project.folder, &steps).await?;
    Ok(done)
}

/// What is done, in this order, and in words.
fn steps(observed: &Observed, context: &Context<'_>, with_volumes: bool) -> (Vec<Step>, Vec<String>) {
    let project = context.project;
    let why = if with_volumes { "removed with its volumes" } else { "removed, its volumes stay" };
    let ledger = observed.ledger.clone().unwrap_or_else(|| Ledger::empty(&context.owner, &context.stack));
    let mut volumes = ledger.all_volumes();
    volumes.extend(project.volumes.iter().map(|(inside, volume)| (inside.clone(), volume.name.clone())));
    let ledger = ledger.removed(observed.applied.as_ref(), with_volumes, &context.signature(why));
    let mut steps = vec![Step::Place(ledger.placement()), Step::Sync];
    let mut done = Vec::new();
    // Secrets first: what follows may fail, and is tried again without them.
    let is_secret =
        |(path, fact): &(&String, &FileFact)| path.starts_with("secrets/") && fact.sha256().is_some();
    for (path, _) in observed.files.iter().filter(is_secret) {
        steps.push(Step::Remove { path: path.clone() });
        done.push(format!("remove {path}"));
    }
    let mut docker = |words: String, before: &[&str], name: &str| {
        let arguments: Vec<&str> = before.iter().copied().chain([name]).collect();
        steps.push(Step::docker(&arguments, ACTION_LIMIT));
        done.push(words);
    };
    for container in &observed.containers {
        docker(format!("stop {}", container.name), &["stop"], &container.name);
    }
    for container in &observed.containers {
        docker(format!("remove {}", container.name), &["rm", "-f"], &container.name);
    }
    let is_shared = observed.others.iter().any(|other| other.networks.contains(&project.network));
    if !is_shared && observed.networks.get(&project.network).is_some_and(Option::is_some) {
        docker(format!("remove network {}", project.network), &["network", "rm"], &project.network);
    }
    // What nothing was ever rolled out to is not ours by its name alone.
    let known: Vec<String> =
        observed.ledger.iter().flat_map(|ledger| ledger.all_volumes().into_values()).collect();
    let label = format!("labels/{}", labels::OWNER);
    let is_ours = |name: &&String| {
        let made = observed.volumes.get(*name).and_then(Option::as_ref);
        made.is_some_and(|made| known.contains(name) || made.settings.get(&label) == Some(&project.owner))
    };
    for name in volumes.values().filter(|_| with_volumes).filter(is_ours) {
        docker(format!("remove volume {name}"), &["volume", "rm"], name);
    }
    let cut = observed.ledger.as_ref().and_then(|ledger| ledger.intent.as_ref());
    if let Some(intent) = cut {
        steps.extend(start_again(&intent.stopped, &observed.others));
        done.extend(intent.stopped.keys().map(|name| format!("start {name} again")));
    }
    (steps, done)
}
