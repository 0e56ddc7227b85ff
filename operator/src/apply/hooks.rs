//! Hooks: one-shot containers of a new release, on the way of its rollout.

use tasktracker_crds::{HookSpec, scalars::Line};

use super::{Context, Error, compose::Compose, one_off::run_once};
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
    let container = format!("{}-hook", context.project.name);
    let file = prepared.live().into_iter().find(|placement| placement.path == COMPOSE_FILE);
    let file = file.map(|placement| Step::Place(Placement { path: FILE.to_owned(), ..placement }));
    let words: Vec<&str> = hook.command.iter().map(Line::as_str).collect();
    let compose = Compose::of_file(host, context.project, FILE);
    let once = compose.once(&container, service, &words, hook.timeout.duration());
    let steps: Vec<Step> = file.into_iter().chain([once]).collect();
    let after = [Step::Remove { path: FILE.to_owned() }];
    let done = run_once(host, &container, steps, after, context).await;
    done.map_err(|error| match error {
        Error::Refused { found } => {
            Error::HookFailed { hook: name, found: printable(&secrets.redacted(&found)) }
        }
        Error::Host(host::Error::Docker { fault, found }) => {
            let found = printable(&secrets.redacted(&found));
            Error::Host(host::Error::Docker { fault, found })
        }
        other => other,
    })
}
