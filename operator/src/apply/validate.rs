//! Validation of a release before anything of it is in force.

use super::{Context, Error, QUICK_LIMIT, one_off::run_once};
use crate::{
    host::{self, Exit, Host, Step},
    observe::Observed,
    project::{FILES_FOLDER, Service, Validation, compose::interpolated, is_below, service_of},
    release::{COMPOSE_FILE, Prepared, Release},
    text::printable,
};

/// Stores the release, then validates its Compose file and the files of services whose image or files changed. No container
/// mounts stored files.
pub(super) async fn validate(
    host: &Host,
    prepared: &Prepared,
    observed: &Observed,
    context: &Context<'_>,
) -> Result<(), Error> {
    let mut copies: Vec<Step> = prepared.stored().into_iter().map(Step::Place).collect();
    copies.push(Step::Sync);
    let stored = host.carry_out(context.lock, &context.project.folder, &copies);
    let (valid, stored) = tokio::join!(validate_compose_file(host, prepared, context), stored);
    valid?;
    stored?;
    let release = &prepared.release;
    let changed = release
        .project
        .services
        .iter()
        .filter(|(name, _)| is_changed(name, observed.applied.as_ref(), release));
    let validations: Vec<(&String, &Service, &Validation)> = changed
        .flat_map(|(name, service)| service.validations.iter().map(move |one| (name, service, one)))
        .collect();
    let container = format!("{}-validation", context.project.name);
    for (name, service, validation) in validations {
        let words = arguments(host, &container, (name, service), validation, observed, release);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let run = Step::docker(&words, validation.limit);
        run_once(host, &container, [run], [], context).await.map_err(|error| match error {
            Error::Refused { found } => Error::NotValid {
                program: format!("{name}: {}", validation.argv.join(" ")),
                found: printable(&observed.secrets.redacted(&found)),
            },
            other => other,
        })?;
    }
    Ok(())
}

/// Whether the image or the files of a service changed. The upstream files of the proxy are routing, not configuration.
fn is_changed(service: &str, before: Option<&Release>, after: &Release) -> bool {
    let Some(before) = before else { return true };
    let files = |release: &Release| -> Vec<(String, String)> {
        let is_configuration =
            |path: &str| service_of(path) == Some(service) && !release.project.is_upstream(path);
        let files = release.files.iter().filter(|(path, _)| is_configuration(path));
        files.map(|(path, record)| (path.clone(), record.sha256.clone())).collect()
    };
    before.images.get(service) != after.images.get(service) || files(before) != files(after)
}

/// The arguments of `docker` for a one-off container of the new image, without a network. It mounts the stored copies of the
/// new files where the service mounts its files, and the secrets that are on the host already.
fn arguments(
    host: &Host,
    container: &str,
    (name, service): (&str, &Service),
    validation: &Validation,
    observed: &Observed,
    release: &Release,
) -> Vec<String> {
    let compose = &service.compose;
    let folder = format!("{}/{}", host.target().directory, release.project.folder);
    let fixed = "run --rm --pull never --network none --read-only --no-healthcheck \
                 --security-opt no-new-privileges:true --cap-drop ALL";
    let mut words: Vec<String> = fixed.split_whitespace().map(str::to_owned).collect();
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("--name", container.to_owned());
    option("--memory", compose.limits.mem_limit.to_string());
    option("--pids-limit", compose.limits.pids_limit.to_string());
    if let Some(user) = &compose.user {
        option("--user", user.clone());
    }
    for (key, value) in &compose.environment {
        option("--env", format!("{key}={}", interpolated(value)));
    }
    for mount in &compose.volumes {
        let Some(source) = mount.project_folder() else { continue };
        let source = if is_below(source, FILES_FOLDER) {
            release.stored(source)
        } else if observed.files.keys().any(|path| is_below(path, source)) {
            source.to_owned()
        } else {
            continue;
        };
        option("--mount", format!("type=bind,src={folder}/{source},dst={},readonly", mount.target));
    }
    let mut program = validation.argv.iter().cloned();
    option("--entrypoint", program.next().unwrap_or_default());
    words.push(release.images.get(name).cloned().unwrap_or_default());
    words.extend(program);
    words
}

/// Validates the Compose file.
async fn validate_compose_file(host: &Host, prepared: &Prepared, context: &Context<'_>) -> Result<(), Error> {
    let Some(file) = prepared.contents.get(COMPOSE_FILE) else { return Ok(()) };
    let folder = format!("{}/{}", host.target().directory, context.project.folder);
    let program =
        "exec docker compose -p \"$1\" -f - --project-directory \"$2\" --env-file /dev/null config -q";
    let command = host::shell::command(program, &[&context.project.name, &folder]);
    let output = host.run(&command, file.clone().into_bytes(), QUICK_LIMIT).await?;
    match output.exit {
        Exit::Exited(0) => Ok(()),
        Exit::Exited(_) => Err(Error::Invalid { found: printable(&output.last_words()) }),
        Exit::Signalled | Exit::Lost => Err(host::Error::ConnectionLost.into()),
    }
}
