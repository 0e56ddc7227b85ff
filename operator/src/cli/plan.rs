//! `plan`: what differs, what would be done about it, why that and nothing bigger. Does nothing.

use std::collections::BTreeMap;

use serde_json::json;
use tasktracker_crds::{Answer, DriftItem, DriftKind};

use super::{
    Selection, Verdict,
    hosts::{CheckedProject, Reach, check_all, hashes, verdict},
    printer::{Printer, Tone},
    text_diff,
};
use crate::{
    engine::Evaluation,
    host::Host,
    observe::{self, Depth},
    plan::{Approval, Repair},
    project::File,
    release::COMPOSE_FILE,
};

/// Differences of files, as lines, by path.
type FileDiffs = BTreeMap<String, Vec<String>>;

/// `plan`
pub(super) async fn plan(printer: &Printer, selection: &Selection) -> anyhow::Result<Verdict> {
    let reach = Reach::default();
    let all = check_all(selection, &reach, Approval::Policy, Depth::Slow).await?;
    let hashes = hashes(&all);
    let mut documents = Vec::new();
    let mut titled = None;
    for checked in &all {
        let (key, host) = (&checked.stack.key, &checked.spec.name);
        let hash = &hashes[key];
        if !printer.is_json() && titled.as_ref() != Some(key) {
            printer.line(Tone::Plain, &format!("{key}: plan {hash}"));
            titled = Some(key.clone());
        }
        let stack = key.to_string();
        match &checked.result {
            Err(error) => {
                printer.error(&checked.error_line(error));
                documents.push(json!({ "stack": stack, "host": host, "error": error.to_string(), "reason": error.reason() }));
            }
            Ok(evaluation) => {
                let files = file_diffs(checked, evaluation).await;
                documents.push(json!({
                    "stack": stack, "host": host, "component": checked.project.component, "hash": hash,
                    "busy": evaluation.observed.busy, "drift": evaluation.drift, "files": files,
                    "plan": evaluation.plan,
                }));
                if !printer.is_json() {
                    print_evaluation(printer, host.as_str(), evaluation, &files);
                }
            }
        }
    }
    if printer.is_json() {
        printer.json(&documents);
    }
    Ok(verdict(&all))
}

/// What changes in files: on the host against the applied release, and by the change against that release.
async fn file_diffs(checked: &CheckedProject, evaluation: &Evaluation) -> FileDiffs {
    let mut diffs = FileDiffs::new();
    let Some(applied) = &evaluation.observed.applied else { return diffs };
    if let Some(change) = evaluation.plan.change() {
        for path in change
            .items
            .iter()
            .map(|item| &item.path)
            .filter(|path| evaluation.project.files.contains_key(*path))
        {
            let text = |files: &BTreeMap<String, File>| {
                files.get(path).map(|file| file.content.clone()).unwrap_or_default()
            };
            let (before, after) = (text(&applied.project.files), text(&evaluation.project.files));
            diffs.insert(path.clone(), text_diff::unified(&before, &after, ("applied release", "asked for")));
        }
    }
    if let Some(host) = &checked.host {
        diffs.extend(drifted_files(host, evaluation).await);
    }
    diffs
}

async fn drifted_files(host: &Host, evaluation: &Evaluation) -> FileDiffs {
    let Some(applied) = &evaluation.observed.applied else { return FileDiffs::new() };
    let changed = evaluation.drift.iter().filter(|item| item.kind == DriftKind::FileChanged);
    let paths = changed.filter_map(|item| item.path.clone());
    let paths: Vec<String> = paths.filter(|path| applied.files.contains_key(path)).collect();
    // Without the texts, the plan is as good: the items tell what differs.
    let contents = observe::contents(host, &evaluation.project, applied, &paths).await.unwrap_or_default();
    let shown = |path: &str, text: String| {
        // A Compose file holds the environment.
        if path == COMPOSE_FILE { text_diff::without_environment(&text) } else { text }
    };
    contents
        .into_iter()
        .map(|(path, (wanted, found))| {
            let (wanted, found) = (shown(&path, wanted), shown(&path, found));
            let lines = text_diff::unified(&wanted, &found, ("applied release", "on the host"));
            (path, lines)
        })
        .collect()
}

fn print_evaluation(printer: &Printer, host: &str, evaluation: &Evaluation, files: &FileDiffs) {
    let title = format!("  {host} ({})", evaluation.project.component);
    let plan = &evaluation.plan;
    if evaluation.observed.busy {
        printer.line(
            Tone::Attention,
            &format!("{title}: another writer is at work; look again when it is done"),
        );
        return;
    }
    if evaluation.drift.is_empty() && plan.is_empty() {
        printer.line(Tone::Good, &format!("{title}: in sync, nothing to do"));
        return;
    }
    printer.line(Tone::Plain, &title);
    for item in &evaluation.drift {
        print_item(printer, item);
        print_file(printer, item.path.as_deref(), files);
    }
    for repair in &plan.repairs {
        print_repair(printer, repair);
    }
    if let Some(change) = plan.change() {
        let from = change.from_revision.as_deref().unwrap_or("nothing");
        printer.line(Tone::Attention, &format!("    change  revision {from} -> {}", change.to_revision));
        for item in &change.items {
            let service = item.service.as_deref().unwrap_or("-");
            let words = format!("            {service} {}: {} -> {}", item.path, item.from, item.to);
            printer.line(Tone::Dim, &words);
            print_file(printer, Some(&item.path), files);
        }
        if let Some(service) = &change.restarts {
            let words = format!(
                "    restart {service} itself is another one: nobody is answered while it is made anew"
            );
            printer.line(Tone::Attention, &words);
        }
    }
    if let Some(waiting) = &plan.waiting {
        printer.line(Tone::Attention, &format!("    waits   {}: {}", waiting.reason, waiting.message));
    }
    if let Some(hold) = &plan.hold {
        printer.line(Tone::Attention, &format!("    held    {}: {}", hold.reason, hold.message));
    }
}

fn print_item(printer: &Printer, item: &DriftItem) {
    printer.line(Tone::Attention, &format!("    drift   {}", headline(item)));
    print_details(printer, item);
}

/// Wanted and found of a difference, and what a person can do where the operator does nothing.
pub(super) fn print_details(printer: &Printer, item: &DriftItem) {
    printer.line(Tone::Dim, &format!("            wanted  {}", item.wanted));
    printer.line(Tone::Dim, &format!("            found   {}", item.found));
    if let Some(remedy) = item.kind.remedy().filter(|_| item.answer == Answer::Report) {
        printer.line(Tone::Dim, &format!("            remedy  {remedy}"));
    }
}

fn print_repair(printer: &Printer, repair: &Repair) {
    let later = if repair.later { " (left to a person: see `status`)" } else { "" };
    printer.line(Tone::Plain, &format!("    repair  {}{later}", repair.action.words()));
    for (kind, path) in &repair.because {
        let path = path.as_deref().unwrap_or_default();
        printer.line(Tone::Dim, &format!("            because {} {path}", kind.as_str()));
    }
    printer.line(Tone::Dim, &format!("            enough  {}", repair.why));
}

fn print_file(printer: &Printer, path: Option<&str>, files: &FileDiffs) {
    for line in path.and_then(|path| files.get(path)).into_iter().flatten() {
        let tone = match line.chars().next() {
            Some('+') => Tone::Good,
            Some('-') => Tone::Bad,
            _ => Tone::Dim,
        };
        printer.line(tone, &format!("            {line}"));
    }
}

/// Kind, place and answer of a difference.
pub(super) fn headline(item: &DriftItem) -> String {
    let place =
        [item.service.as_deref(), item.path.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let answer = match item.answer {
        Answer::Heal => "heal",
        Answer::Report => "report",
        Answer::Prune => "prune",
    };
    format!("{} {place} [{answer}]", item.kind.as_str())
}
