//! `import`: writes a stack file from a Compose project made by hand.

use std::{fs, os::unix::fs::OpenOptionsExt, path::PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::{
    Verdict,
    printer::{Printer, Tone},
};
use crate::{
    host::{Container, Host, Limits, Settings, Target},
    import::{Found, Imported, Named, stack},
    project::compose::COMPOSE_PROJECT,
    source::Secrets,
};

/// What `import` looks at, and what comes out.
#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// USER@ADDRESS or USER@ADDRESS:PORT.
    host: String,
    /// Name of the Compose project there.
    #[arg(long)]
    project: String,
    /// A public key of the host; see `hostkey`. May be given again.
    #[arg(long, required = true, value_name = "KEY")]
    host_key: Vec<String>,
    /// Secret with the private key for the host.
    #[arg(long, value_name = "SECRET")]
    identity_secret: String,
    /// Name of the stack. Default: that of the project.
    #[arg(long, value_name = "STACK")]
    name: Option<String>,
    /// Environment of the stack.
    #[arg(long)]
    environment: String,
    /// The folder on the host that is to be the operator's.
    #[arg(long, default_value = "/opt/tasktracker", value_name = "DIR")]
    directory: String,
    /// Where the stack file is written; a file that is there is not replaced. Default: standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// `import`
pub(super) async fn import(
    printer: &Printer,
    secrets: &Secrets,
    arguments: &ImportArguments,
) -> anyhow::Result<Verdict> {
    let named = named(arguments)?;
    let identity =
        arguments.identity_secret.parse().map_err(|error| anyhow::anyhow!("--identity-secret: {error}"))?;
    let host = Host::new(Target {
        name: named.address.clone(),
        address: named.address.clone(),
        port: named.port,
        user: named.user.clone(),
        host_keys: named.host_keys.clone(),
        identities: vec![secrets.identity(&identity).await?],
        unusable_identities: Vec::new(),
        directory: named.directory.clone(),
        limits: Limits::default(),
    });
    let containers = inspected(&host, &named.project).await?;
    let found: Vec<Found<'_>> =
        containers.iter().map(|(container, settings, image)| Found { container, settings, image }).collect();
    let Imported { text, notes } =
        stack(&named, &found).map_err(|faults| anyhow::anyhow!("{}", faults.join("\n")))?;
    match &arguments.out {
        None => printer.text(&text),
        Some(path) => {
            let shown = path.display();
            let mut options = fs::OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(path);
            let mut file = file.with_context(|| format!("--out: writing {shown}"))?;
            std::io::Write::write_all(&mut file, text.as_bytes())?;
            printer.line(Tone::Good, &format!("wrote {shown}"));
        }
    }
    for note in &notes {
        printer.error_note(note);
    }
    Ok(Verdict::InSync)
}

fn named(arguments: &ImportArguments) -> anyhow::Result<Named> {
    let Some((user, address)) =
        arguments.host.split_once('@').filter(|(user, address)| !user.is_empty() && !address.is_empty())
    else {
        bail!("HOST: expected USER@ADDRESS or USER@ADDRESS:PORT, found {}", arguments.host);
    };
    let bare = |address: &str| address.trim_matches(['[', ']']).to_owned();
    let (address, port) = match address.rsplit_once(':') {
        Some((address, port)) if !address.contains(':') || address.ends_with(']') => {
            (bare(address), port.parse().with_context(|| format!("HOST: expected a port, found {port}"))?)
        }
        _ => (bare(address), 22),
    };
    Ok(Named {
        stack: arguments.name.clone().unwrap_or_else(|| arguments.project.replace('_', "-")),
        environment: arguments.environment.clone(),
        project: arguments.project.clone(),
        address,
        port,
        user: user.to_owned(),
        host_keys: arguments.host_key.clone(),
        identity_secrets: vec![arguments.identity_secret.clone()],
        directory: arguments.directory.clone(),
    })
}

/// The containers of a project, what each is like, and what its image brings along.
async fn inspected(host: &Host, project: &str) -> anyhow::Result<Vec<(Container, Settings, Settings)>> {
    let mut containers = host.containers().await?;
    containers.retain(|container| container.has_label(COMPOSE_PROJECT, project));
    containers.sort_by(|one, other| one.name.cmp(&other.name));
    let ids: Vec<String> = containers.iter().map(|container| container.id.clone()).collect();
    let mut details = host.details(&ids).await?;
    let mut all = Vec::new();
    for container in containers {
        let Some(details) = details.remove(&container.id) else { continue };
        let image = host.image_config(&container.image_id).await?;
        let image = image.map(|image| image.settings.clone()).unwrap_or_default();
        all.push((container, details.settings, image));
    }
    if all.is_empty() {
        bail!(
            "--project: expected containers of the Compose project {project}, found none; see `docker compose ls` on the host"
        );
    }
    Ok(all)
}
