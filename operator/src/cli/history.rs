//! `history`: the rollouts that each host remembers.

use serde_json::json;

use super::{
    Selection, Verdict,
    hosts::{Reach, check_all},
    printer::{Printer, Tone, table},
};
use crate::{
    ledger::{Ledger, Rollout},
    observe::Depth,
    plan::Approval,
    text::printable,
};

/// `history`
pub(super) async fn history(printer: &Printer, selection: &Selection) -> anyhow::Result<Verdict> {
    let all = check_all(selection, &Reach::default(), Approval::Policy, Depth::Woken).await?;
    let mut verdict = Verdict::InSync;
    let (mut rows, mut documents) = (Vec::new(), Vec::new());
    for checked in &all {
        let (stack, host) = (checked.stack.key.to_string(), checked.spec.name.to_string());
        let evaluation = match &checked.result {
            Ok(evaluation) => evaluation,
            Err(error) => {
                printer.error(&checked.error_line(&error.to_string()));
                documents.push(json!({ "stack": stack, "host": host, "error": error.to_string() }));
                verdict = Verdict::Failed;
                continue;
            }
        };
        let component = checked.project.component.to_string();
        let ledger = evaluation.observed.ledger.as_ref();
        for rollout in ledger.map_or(&[][..], |ledger| &ledger.history) {
            let kept = ledger.is_some_and(|ledger| ledger.kept().contains(&rollout.release));
            rows.push(row([&stack, &host, &component], rollout, state(ledger, rollout, kept)));
            documents.push(json!({ "stack": stack, "host": host, "component": component, "rollout": rollout, "kept": kept }));
        }
    }
    if printer.is_json() {
        printer.json(&documents);
        return Ok(verdict);
    }
    let heads = [
        "STACK",
        "HOST",
        "COMPONENT",
        "WHEN",
        "RELEASE",
        "REVISION",
        "RESULT",
        "TOOK",
        "WHO",
        "APPROVED",
        "STATE",
    ];
    for (tone, line) in table(&heads, &rows) {
        printer.line(tone, &line);
    }
    Ok(verdict)
}

/// Whether a release is in force, could be gone back to, or is gone.
fn state(ledger: Option<&Ledger>, rollout: &Rollout, kept: bool) -> &'static str {
    let current = ledger.and_then(|ledger| ledger.current.as_ref());
    match kept {
        true if current == Some(&rollout.release) => "current",
        true => "kept",
        false => "-",
    }
}

fn row(place: [&String; 3], rollout: &Rollout, state: &str) -> (Tone, Vec<String>) {
    let tone = if rollout.result == "Succeeded" { Tone::Plain } else { Tone::Bad };
    let Rollout { release, revision, when, who, result, approved, milliseconds, .. } = rollout;
    let took = format!("{}.{} s", milliseconds / 1_000, milliseconds % 1_000 / 100);
    let approved = approved.as_deref().unwrap_or("-");
    let told = [when, release, revision, result, &took, who, approved].map(printable);
    (tone, place.into_iter().cloned().chain(told).chain([state.to_owned()]).collect())
}
