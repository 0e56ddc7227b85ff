//! `delete`: takes a stack from its hosts, as a person's wish.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::bail;
use serde_json::json;

use super::{
    SourceArguments, Verdict,
    apply::person,
    printer::{Printer, Tone},
};
use crate::{
    engine::{DeployedHost, Deployment, Hosts, Memory, Removal, Retired},
    source::{Stack, StackKey},
};

/// What a person wants to be gone.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) stack: &'a str,
    /// Only from these hosts; from all where there is none.
    pub(super) hosts: &'a [String],
    pub(super) with_volumes: bool,
    /// Only to be forgotten: the hosts are there no longer.
    pub(super) forget: bool,
}

impl Asked<'_> {
    fn is_host(&self, name: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|host| host == name)
    }
}

/// `delete`
pub(super) async fn delete(
    printer: &Printer,
    source: &SourceArguments,
    memory: &Memory,
    asked: Asked<'_>,
) -> anyhow::Result<Verdict> {
    let (stack, deployment) = known(memory, asked.stack)?;
    if let Some(unknown) = asked.hosts.iter().find(|name| !deployment.hosts.contains_key(*name)) {
        let known: Vec<&str> = deployment.hosts.keys().map(String::as_str).collect();
        bail!(
            "--host: expected a host on which {} is deployed ({}), found {unknown}",
            stack.key,
            known.join(", ")
        );
    }
    let chosen = left_by_the_source(source, &stack.key, &deployment, asked)?;
    let (hosts, secrets, writer, who) =
        (Hosts::default(), source.secrets(), Memory::none().writer(), person());
    let removal = Removal { writer: &writer, who: &who, with_volumes: asked.with_volumes };
    let mut verdict = Verdict::InSync;
    let mut documents = Vec::new();
    for (name, host) in &chosen {
        let retired = Retired { stack: &stack, host, secrets: &secrets, memory };
        if asked.forget {
            retired.forget(&who);
            if !printer.is_json() {
                printer.line(Tone::Good, &format!("{} on {name}: forgotten; what is there stays", stack.key));
            }
            documents.push(
                json!({ "stack": stack.key.to_string(), "host": name, "done": ["forget what is there"] }),
            );
            continue;
        }
        match retired.remove(&hosts, removal).await {
            Ok(done) => {
                for words in done.iter().filter(|_| !printer.is_json()) {
                    printer.line(Tone::Good, &format!("{} on {name}: done: {words}", stack.key));
                }
                documents.push(json!({ "stack": stack.key.to_string(), "host": name, "done": done }));
            }
            Err(error) => {
                printer.error(&format!("{} {name}: {error}", stack.key));
                let error = error.to_string();
                documents.push(json!({ "stack": stack.key.to_string(), "host": name, "error": error }));
                verdict = Verdict::Failed;
            }
        }
    }
    if printer.is_json() {
        printer.json(&documents);
    } else if verdict == Verdict::InSync && !asked.with_volumes && !asked.forget {
        printer.line(Tone::Plain, "volumes stay where they are; a stack of the same name finds them again");
    }
    Ok(verdict)
}

/// What the state folder knows of a stack.
fn known(memory: &Memory, name: &str) -> anyhow::Result<(Stack, Deployment)> {
    let all = memory.stacks();
    let fits = |key: &&String| *key == name || key.split_once('/').is_some_and(|(_, last)| last == name);
    let found: Vec<&str> = all.iter().filter(fits).map(String::as_str).collect();
    if found.len() > 1 {
        bail!("expected one stack named {name}, found {}: say which one", found.join(", "));
    }
    let Some(deployment) = found.first().and_then(|key| memory.deployed(key)) else {
        let found = if all.is_empty() { "none at all".to_owned() } else { all.join(", ") };
        bail!(
            "expected a stack named {name} in the state folder, found {found}; see --state-dir, or let `run` or `apply` see it once"
        );
    };
    Ok((Stack::new(deployment.resource.clone(), PathBuf::new()), deployment))
}

/// What the source asks for no longer on the chosen hosts. What it asks for would be deployed again: it is taken from
/// there first.
fn left_by_the_source(
    source: &SourceArguments,
    key: &StackKey,
    deployment: &Deployment,
    asked: Asked<'_>,
) -> anyhow::Result<BTreeMap<String, DeployedHost>> {
    let chosen = deployment.hosts.iter().filter(|(name, _)| asked.is_host(name));
    let mut chosen: BTreeMap<String, DeployedHost> =
        chosen.map(|(name, host)| (name.clone(), host.clone())).collect();
    for file in source.folder().read()?.files {
        let shown = file.path.display();
        let stack = match file.content {
            Ok(stack) if stack.key == *key => stack,
            Ok(_) => continue,
            Err(_) => bail!(
                "expected stack files without mistakes, found some in {shown}, which may be this stack's; see `validate`"
            ),
        };
        for (name, host) in &mut chosen {
            // A host alone may be chosen for the components that left it.
            let left = host.left_by(&stack).filter(|left| !asked.hosts.is_empty() || left == host);
            let Some(left) = left else {
                bail!(
                    "expected {key} to ask for nothing on the machine of {name} any more, found it in {shown}: take it from there first, or it is deployed again"
                );
            };
            *host = left;
        }
    }
    Ok(chosen)
}
