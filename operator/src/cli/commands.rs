//! The commands that ask no managed host: `run`, `validate`, `render`, `hostkey`, `crd`.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::json;
use tasktracker_crds::validation::Mistake;

use super::{
    ControllerArguments, Selection, SourceArguments, StateArguments, Verdict,
    printer::{Printer, Tone},
};
use crate::{
    component,
    engine::{self, Settings},
    host, kubernetes,
    project::compose,
    release::COMPOSE_FILE,
    source::{Folder, Stack},
};

/// `run`
pub(super) async fn run(
    source: &SourceArguments,
    state: &StateArguments,
    listen: SocketAddr,
) -> anyhow::Result<Verdict> {
    source.folder().stamp()?;
    let settings =
        Settings { folder: source.folder(), secrets: source.secrets(), memory: state.take()?, listen };
    engine::run(settings, stop_asked()).await.with_context(|| format!("serving on {listen}"))?;
    Ok(Verdict::InSync)
}

/// `run --kubernetes`
pub(super) async fn run_in_cluster(
    source: &SourceArguments,
    controller: ControllerArguments,
    listen: SocketAddr,
) -> anyhow::Result<Verdict> {
    let settings = kubernetes::Settings {
        place: source.cluster.place(),
        namespaces: controller.namespaces,
        selector: controller.selector,
        lease: controller.lease,
        roots: source.roots.host_roots.clone(),
        concurrency: controller.concurrency.max(1),
        deletion_limit: Duration::from_secs(controller.deletion_timeout),
        reviews: controller.metrics_reviews,
        listen,
    };
    kubernetes::run(settings, stop_asked()).await?;
    Ok(Verdict::InSync)
}

/// SIGTERM or Ctrl-C.
async fn stop_asked() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => if result.is_err() { std::future::pending::<()>().await },
    }
}

/// `validate`
pub(super) fn validate(printer: &Printer, paths: &[PathBuf], roots: &[PathBuf]) -> anyhow::Result<Verdict> {
    #[derive(Serialize)]
    struct Row {
        file: String,
        stack: Option<String>,
        mistakes: Vec<Mistake>,
    }
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    for path in paths {
        let read = Folder::new(path.clone(), roots.to_vec()).read()?;
        skipped.extend(read.skipped);
        for file in read.files {
            let (stack, mistakes) = match file.content {
                Ok(stack) => (Some(stack.key.to_string()), Vec::new()),
                Err(mistakes) => (None, mistakes),
            };
            rows.push(Row { file: file.path.display().to_string(), stack, mistakes });
        }
    }
    if rows.is_empty() {
        let others: Vec<String> = skipped.iter().map(|one| format!("\n{one}")).collect();
        bail!("expected a stack in a file that ends in .yaml or .yml, found none{}", others.concat());
    }
    let good = rows.iter().all(|row| row.mistakes.is_empty());
    if printer.is_json() {
        printer.json(&rows);
    } else {
        for one in &skipped {
            printer.line(Tone::Plain, &one.to_string());
        }
        for row in &rows {
            match &row.stack {
                Some(stack) => printer.line(Tone::Good, &format!("{}: {stack} is valid", row.file)),
                None => row
                    .mistakes
                    .iter()
                    .for_each(|mistake| printer.line(Tone::Bad, &format!("{}:{mistake}", row.file))),
            }
        }
    }
    Ok(if good { Verdict::InSync } else { Verdict::Failed })
}

/// The chosen stacks; mistakes in any file that could be one of them are an error.
pub(super) fn stacks(selection: &Selection) -> anyhow::Result<Vec<Stack>> {
    let mut stacks = Vec::new();
    let mut mistakes = Vec::new();
    for file in selection.source.folder().read()?.files {
        match file.content {
            Ok(stack) if selection.names.is_empty() || selection.names.contains(&stack.key.name) => {
                stacks.push(stack);
            }
            Ok(_) => {}
            Err(found) => {
                mistakes
                    .extend(found.into_iter().map(|mistake| format!("{}:{mistake}", file.path.display())));
            }
        }
    }
    let missing = selection.names.iter().find(|name| !stacks.iter().any(|stack| stack.key.name == **name));
    if !mistakes.is_empty() && (selection.names.is_empty() || missing.is_some()) {
        bail!("{}", mistakes.join("\n"));
    }
    if let Some(name) = missing {
        bail!("expected a stack named {name} in {}, found none", selection.source.path().display());
    }
    if stacks.is_empty() {
        bail!("expected stack files in {}, found none", selection.source.path().display());
    }
    Ok(stacks)
}

/// `render`
pub(super) fn render(printer: &Printer, selection: &Selection) -> anyhow::Result<Verdict> {
    let mut rendered = Vec::new();
    for stack in stacks(selection)? {
        for host in &stack.spec.hosts {
            for project in component::for_host(&stack, host) {
                let services = project.services.iter();
                let services =
                    services.map(|(name, service)| (name.clone(), service.compose.clone())).collect();
                let files = project.files.iter().map(|(path, file)| (path.clone(), file.content.clone()));
                let compose_file = (COMPOSE_FILE.to_owned(), compose::render(&project, &services));
                let files: BTreeMap<String, String> = files.chain([compose_file]).collect();
                for (path, content) in files {
                    let path = format!("{}/{}/{path}", host.directory, project.folder);
                    rendered.push(json!({ "stack": stack.key.to_string(), "host": host.name, "path": path, "content": content }));
                }
            }
        }
    }
    if printer.is_json() {
        printer.json(&rendered);
        return Ok(Verdict::InSync);
    }
    for file in &rendered {
        let field = |key: &str| file[key].as_str().unwrap_or_default().to_owned();
        printer.line(Tone::Dim, &format!("# {} {}:{}", field("stack"), field("host"), field("path")));
        printer.text(&field("content"));
    }
    Ok(Verdict::InSync)
}

/// `hostkey`
pub(super) async fn hostkey(printer: &Printer, address: &str) -> anyhow::Result<Verdict> {
    let full = match address.matches(':').count() {
        0 => format!("{address}:22"),
        1 => address.to_owned(),
        _ if address.contains("]:") => address.to_owned(),
        _ => format!("[{}]:22", address.trim_matches(['[', ']'])),
    };
    let keys = host::host_keys(&full).await?;
    if keys.is_empty() {
        bail!("expected a host key of type ed25519, ecdsa or rsa from {full}, found none");
    }
    if printer.is_json() {
        printer.json(
            &keys
                .iter()
                .map(|key| json!({ "key": key.key, "fingerprint": key.fingerprint }))
                .collect::<Vec<_>>(),
        );
        return Ok(Verdict::InSync);
    }
    for key in &keys {
        printer.line(Tone::Plain, &key.key);
    }
    for key in &keys {
        let kind = key.key.split(' ').next().unwrap_or_default();
        printer.error_note(&format!(
            "{} {kind}: compare it with what `ssh-keygen -lf` says on the host before you pin it",
            key.fingerprint
        ));
    }
    Ok(Verdict::InSync)
}

/// `crd`
pub(super) fn crd(printer: &Printer) -> anyhow::Result<Verdict> {
    printer.text(&tasktracker_crds::crd_yaml()?);
    Ok(Verdict::InSync)
}
