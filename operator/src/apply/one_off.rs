//! One-off containers: hooks and validations.

use super::{Context, Error, QUICK_LIMIT};
use crate::host::{self, DockerFault, Host, Step};

/// Carries out the steps that run a one-off container, removes the container, and carries out the steps `after` it. A
/// container that an interrupted apply left, or one that outlived its time limit, is removed too.
///
/// # Errors
/// [`Error::Refused`] when the container failed; else what went wrong besides it.
pub(super) async fn run_once(
    host: &Host,
    container: &str,
    steps: impl IntoIterator<Item = Step>,
    after: impl IntoIterator<Item = Step>,
    context: &Context<'_>,
) -> Result<(), Error> {
    let folder = &context.project.folder;
    let remove = async || {
        let all = host.containers().await?;
        let is_left = all.iter().any(|one| one.name == container);
        Ok::<_, host::Error>(is_left.then(|| Step::docker(&["rm", "-f", container], QUICK_LIMIT)))
    };
    let steps: Vec<Step> = remove().await?.into_iter().chain(steps).collect();
    let done = host.carry_out(context.lock, folder, &steps).await.map_err(refusal_of_program);
    if matches!(done, Ok(()) | Err(Error::Refused { .. })) {
        let steps: Vec<Step> = remove().await?.into_iter().chain(after).collect();
        host.carry_out(context.lock, folder, &steps).await?;
    }
    done
}

/// What Docker or the program says, apart from what went wrong beside them.
fn refusal_of_program(error: host::Error) -> Error {
    match error {
        host::Error::Docker { found, .. } if !DockerFault::of_program(&found).is_of_host() => {
            Error::Refused { found }
        }
        other => other.into(),
    }
}
