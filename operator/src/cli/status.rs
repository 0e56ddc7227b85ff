//! `status`: how the hosts are, once, or again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::json;
use tasktracker_crds::{Answer, DriftItem, DriftKind};

use super::{
    Selection, Verdict,
    hosts::{CheckedProject, Reach, check_all, verdict},
    plan::headline,
    printer::{Printer, Tone, table},
};
use crate::{
    engine::{self, Memory, now},
    observe::Depth,
    plan::Approval,
    report::ProjectReport,
    source::StackKey,
};

/// How often `--watch` checks.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// A line and its tone.
type Line = (Tone, String);

/// `status`
pub(super) async fn status(printer: &Printer, selection: &Selection, watch: bool) -> anyhow::Result<Verdict> {
    let reach = Reach::default();
    let mut depth = Depth::Slow;
    let mut shown = Vec::new();
    loop {
        let all = check_all(selection, &reach, Approval::Policy, depth).await?;
        // `run` dates what came since the last check.
        let memory = selection.state.share()?;
        let reports = reports(&all, &memory);
        if !watch {
            print(printer, &reports);
            return Ok(verdict(&all));
        }
        let lines = lines(&reports, None);
        if lines != shown {
            printer.clear();
            print(printer, &reports);
            shown = lines;
        }
        depth = Depth::Woken;
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

/// Reports of every host, with the times that `run` keeps.
fn reports(all: &[CheckedProject], memory: &Memory) -> Vec<(String, ProjectReport)> {
    let dated = |checked: &CheckedProject, mut report: ProjectReport| {
        let stack = checked.stack.key.to_string();
        memory.date(&stack, checked.spec.name.as_str(), &mut report.drift);
        (stack, report)
    };
    let mut reports: Vec<_> = all.iter().map(|checked| dated(checked, checked.report())).collect();
    let stacks: BTreeMap<&StackKey, &CheckedProject> =
        all.iter().map(|checked| (&checked.stack.key, checked)).collect();
    for checked in stacks.into_values() {
        let left = engine::retained(&checked.stack, memory);
        reports.extend(left.into_iter().map(|report| (checked.stack.key.to_string(), report)));
    }
    reports
}

fn print(printer: &Printer, reports: &[(String, ProjectReport)]) {
    if printer.is_json() {
        let documents = reports.iter().map(|(stack, report)| json!({ "stack": stack, "report": report }));
        printer.json(&documents.collect::<Vec<_>>());
        return;
    }
    for (tone, line) in lines(reports, Some(now())) {
        printer.line(tone, &line);
    }
}

/// The whole status; ages only where it is known what time it is.
fn lines(reports: &[(String, ProjectReport)], now: Option<Timestamp>) -> Vec<Line> {
    let rows: Vec<_> = reports.iter().map(|(stack, report)| row(stack, report)).collect();
    let mut lines =
        table(&["STACK", "HOST", "COMPONENT", "REVISION", "REACHABLE", "HEALTHY", "STATE"], &rows);
    for (_, report) in reports {
        let host = &report.host;
        if let Some(failure) = &report.failure {
            lines.push((Tone::Bad, format!("  {host}: {}", failure.message)));
        }
        lines.extend(certificate(report, now));
        if let Some(retained) = &report.retained {
            lines.push((Tone::Attention, format!("  {host}: {retained}")));
        }
        if let Some(hold) = &report.hold {
            lines.push((Tone::Attention, format!("  {host}: nothing is written: {}", hold.message)));
        }
        if let Some(waiting) = &report.waiting {
            lines.push((Tone::Attention, format!("  {host}: a change waits: {}", waiting.message)));
        }
    }
    let drift: Vec<_> =
        reports.iter().flat_map(|(_, report)| &report.drift).map(|item| drift_row(item, now)).collect();
    if !drift.is_empty() {
        lines.push((Tone::Plain, String::new()));
        lines.extend(table(&["HOST", "LAYER", "AGE", "DRIFT", "WANTED", "FOUND"], &drift));
    }
    let reported = reports.iter().flat_map(|(_, report)| &report.drift);
    let reported: BTreeSet<DriftKind> =
        reported.filter(|item| item.answer == Answer::Report).map(|item| item.kind).collect();
    let remedies = reported.into_iter().filter_map(|kind| Some((kind, kind.remedy()?)));
    lines.extend(remedies.map(|(kind, remedy)| (Tone::Dim, format!("  {}: {remedy}", kind.as_str()))));
    lines
}

/// What is wrong with the certificate that users are shown.
fn certificate(report: &ProjectReport, now: Option<Timestamp>) -> Option<Line> {
    let host = &report.host;
    if let Some((found, _)) = &report.uncertified {
        return Some((Tone::Bad, format!("  {host}: users are shown no certificate: {found}")));
    }
    let (certificate, now) = report.certificate.as_ref().zip(now)?;
    let line = |words: &str| {
        format!("  {host}: the certificate for {} {words} {}", certificate.name, certificate.not_after)
    };
    if let Some(fault) = certificate.fault(now) {
        return Some((Tone::Bad, format!("  {host}: the certificate for {} is {fault}", certificate.name)));
    }
    certificate.is_late(now).then(|| (Tone::Attention, line("is not renewed yet, and ends")))
}

fn drift_row(item: &DriftItem, now: Option<Timestamp>) -> (Tone, Vec<String>) {
    let since = item.first_seen.as_ref().and_then(|first| first.parse::<Timestamp>().ok());
    let age = since.zip(now).map_or_else(|| "-".to_owned(), |(since, now)| age(since, now));
    let layer = item.kind.layer().as_str().to_owned();
    let row = vec![item.host.clone(), layer, age, headline(item), item.wanted.clone(), item.found.clone()];
    (Tone::Attention, row)
}

/// A length of time in its largest unit.
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn row(stack: &str, report: &ProjectReport) -> (Tone, Vec<String>) {
    let (tone, words) = match &report.failure {
        Some(failure) => (Tone::Bad, failure.reason.to_owned()),
        None if report.retained.is_some() => (Tone::Attention, "Retained".to_owned()),
        None if report.busy => (Tone::Attention, "another writer".to_owned()),
        None if !report.drift.is_empty() => (Tone::Attention, format!("{} drifted", report.drift.len())),
        None if report.waiting.is_some() => (Tone::Attention, "change waits".to_owned()),
        None if !report.in_sync() => (Tone::Attention, "change".to_owned()),
        None if !report.healthy => (Tone::Attention, "in sync, not healthy".to_owned()),
        None if report.drained => (Tone::Attention, "in sync, drained".to_owned()),
        None => (Tone::Good, "in sync".to_owned()),
    };
    let yes = |value: bool| if value { "yes" } else { "no" }.to_owned();
    let revision = report.revision.clone().unwrap_or_else(|| "-".to_owned());
    let row = vec![
        stack.to_owned(),
        report.host.clone(),
        report.component.to_string(),
        revision,
        yes(report.reachable()),
        yes(report.healthy),
        words,
    ];
    (tone, row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_their_largest_unit() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let told: Vec<String> = [-5, 59, 61, 7_300, 200_000].map(|seconds| age(at(0), at(seconds))).to_vec();
        assert_eq!(told, ["0s", "59s", "1m", "2h", "2d"]);
    }
}
