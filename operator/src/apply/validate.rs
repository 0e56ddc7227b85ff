//! What is asked of a release before anything of it is in force.

use std::path::Path;

use super::{Context, Error, QUICK_LIMIT, rollout::refusal};
use crate::{
    host::{self, Exit, Host, Step},
    observe::Observed,
    project::{FILES_FOLDER, Service, Validation, is_below, service_of},
    release::{COMPOSE_FILE, Prepared, Release},
    text::printable,
};

/// Asks Compose whether it understands a release, and services whether they accept their files. Only copies are written,
/// which nothing reads.
pub(super) async fn validate(
    host: &Host,
    prepared: &Prepared,
    observed: &Observed,
    context: &Context<'_>,
) -> Result<(), Error> {
    compose(host, prepared, context).await?;
    let release = &prepared.release;
    let mut programs = Vec::new();
    for (name, service) in &release.project.services {
        if is_other(name, observed.applied.as_ref(), release) {
            let steps =
                service.validations.iter().map(|one| program(host, (name, service), one, observed, prepared));
            programs.extend(service.validations.iter().zip(steps).map(|(one, step)| (name, one, step)));
        }
    }
    if programs.is_empty() {
        return Ok(());
    }
    let mut copies: Vec<Step> = prepared.stored().into_iter().map(Step::Place).collect();
    copies.push(Step::Sync);
    host.carry_out(context.lock, &context.project.folder, &copies).await?;
    for (name, Validation { argv, .. }, step) in programs {
        let done = host.carry_out(context.lock, &context.project.folder, &[step]).await.map_err(refusal);
        done.map_err(|error| match error {
            Error::Refused { found } => Error::NotValid {
                program: format!("{name}: {}", argv.join(" ")),
                found: printable(&observed.secrets.redacted(&found)),
            },
            other => other,
        })?;
    }
    Ok(())
}

/// Whether a service has another image or other files than it had. Which containers have the traffic is no configuration.
fn is_other(service: &str, before: Option<&Release>, after: &Release) -> bool {
    let Some(before) = before else { return true };
    let files = |release: &Release| -> Vec<(String, String)> {
        let is_read = |path: &str| service_of(path) == Some(service) && !release.project.is_upstream(path);
        let files = release.files.iter().filter(|(path, _)| is_read(path));
        files.map(|(path, record)| (path.clone(), record.sha256.clone())).collect()
    };
    before.images.get(service) != after.images.get(service) || files(before) != files(after)
}

/// A throw-away container of the new image, that sees the copies of the new files where the service will see them.
fn program(
    host: &Host,
    (name, service): (&str, &Service),
    Validation { argv, limit }: &Validation,
    observed: &Observed,
    prepared: &Prepared,
) -> Step {
    let (release, compose) = (&prepared.release, &service.compose);
    let folder = format!("{}/{}", host.target().directory, release.project.folder);
    let mut words: Vec<String> = "run --rm --pull never --network none --read-only --no-healthcheck \
                                  --security-opt no-new-privileges:true --cap-drop ALL"
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("--memory", compose.limits.mem_limit.to_string());
    option("--pids-limit", compose.limits.pids_limit.to_string());
    if let Some(user) = &compose.user {
        option("--user", user.clone());
    }
    for (key, value) in &compose.environment {
        option("--env", format!("{key}={}", value.replace("$$", "$")));
    }
    for mount in &compose.volumes {
        let Some(source) = mount.project_folder() else { continue };
        let is_there = |path: &&String| is_below(path, source);
        let source = if source == FILES_FOLDER || Path::new(source).starts_with(FILES_FOLDER) {
            release.stored(source)
        } else if observed.files.keys().any(|path| is_there(&path)) {
            source.to_owned()
        } else {
            continue;
        };
        option("--mount", format!("type=bind,src={folder}/{source},dst={},readonly", mount.target));
    }
    let (program, arguments) =
        argv.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    option("--entrypoint", program.to_owned());
    words.push(release.images.get(name).cloned().unwrap_or_default());
    words.extend(arguments.iter().cloned());
    Step::docker(&words.iter().map(String::as_str).collect::<Vec<_>>(), *limit)
}

/// Asks Compose whether it understands a release.
async fn compose(host: &Host, prepared: &Prepared, context: &Context<'_>) -> Result<(), Error> {
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
