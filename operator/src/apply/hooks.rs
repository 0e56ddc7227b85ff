//! Hooks: one-shot containers of a new release, on the way of its rollout.

use tasktracker_crds::{HookSpec, scalars::Line};

use super::{Context, Error, QUICK_LIMIT, compose::Compose, rollout::refusal};
use crate::{
    host::{self, Host, Placement, Step},
    project::Project,
    release::{COMPOSE_FILE, Prepared},
    secret::Values,
    text::printable,
};

/// The new release's Compose file while a hook runs: the one in force may still be another one.
const FILE: &str = ".hook.yaml";

/// The field of the spec that has a hook.
pub(super) fn name(project: &Project, hook: &str) -> String {
    format!("{}.{hook}", project.hooks.as_ref().map_or("hooks", |hooks| hooks.field))
}

/// Runs a hook in a container of its own, with the image, the environment, the secrets and the data of the new release of
/// a service. Whatever comes of it, nothing of the hook is left.
///
/// # Errors
/// [`Error::HookFailed`] when it did not succeed within its time limit; what went wrong beside it.
pub(super) async fn run(
    host: &Host,
    (name, service): (String, &str),
    hook: &HookSpec,
    (prepared, secrets): (&Prepared, &Values),
    context: &Context<'_>,
) -> Result<(), Error> {
    let folder = &context.project.folder;
    let container = format!("{}-hook", context.project.name);
    // One of an apply that was cut, or that was ended by its time limit.
    let remove = async || {
        let all = host.containers().await?;
        let is_left = all.iter().any(|one| one.name == container);
        Ok::<_, host::Error>(is_left.then(|| Step::docker(&["rm", "-f", &container], QUICK_LIMIT)))
    };
    let file = prepared.placements().into_iter().find(|placement| placement.path == COMPOSE_FILE);
    let file = file.map(|placement| Step::Place(Placement { path: FILE.to_owned(), ..placement }));
    let words: Vec<&str> = hook.command.iter().map(Line::as_str).collect();
    let compose = Compose::of_file(host, context.project, FILE);
    let once = compose.once(&container, service, &words, hook.timeout.duration());
    let steps: Vec<Step> = remove().await?.into_iter().chain(file).chain([once]).collect();
    let done = host.carry_out(context.lock, folder, &steps).await.map_err(refusal);
    if matches!(done, Ok(()) | Err(Error::Refused { .. })) {
        let gone = remove().await?.into_iter().chain([Step::Remove { path: FILE.to_owned() }]);
        host.carry_out(context.lock, folder, &gone.collect::<Vec<_>>()).await?;
    }
    done.map_err(|error| match error {
        Error::Refused { found } => {
            Error::HookFailed { hook: name, found: printable(&secrets.redacted(&found)) }
        }
        other => other,
    })
}
