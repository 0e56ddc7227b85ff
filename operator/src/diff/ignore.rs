//! Differences that a stack's policy does not want to hear of, and what it wants done about the others.

use tasktracker_crds::{Answer, DriftItem, Heal, IgnoreSpec, PolicySpec};

/// Takes out what is to be ignored, and gives every other difference the answer that the policy allows.
pub fn judge(items: Vec<DriftItem>, policy: &PolicySpec) -> Vec<DriftItem> {
    let answered = |mut item: DriftItem| {
        let reported = match item.answer {
            Answer::Heal => policy.heal == Heal::Report,
            Answer::Prune => policy.prune == Heal::Report,
            Answer::Report => true,
        };
        if reported {
            item.answer = Answer::Report;
        }
        item
    };
    let heard = items.into_iter().filter(|item| !policy.ignore.iter().any(|rule| matches(rule, item)));
    heard.map(answered).collect()
}

/// Whether everything that a rule says is so; a rule that says nothing matches nothing.
fn matches(rule: &IgnoreSpec, item: &DriftItem) -> bool {
    let IgnoreSpec { component, service, kind, path } = rule;
    let same = |wanted: &Option<_>, found: Option<&str>| {
        wanted.as_ref().is_none_or(|wanted: &tasktracker_crds::scalars::Name| found == Some(wanted.as_str()))
    };
    let says_something = component.is_some() || service.is_some() || kind.is_some() || path.is_some();
    says_something
        && same(component, Some(&item.component))
        && same(service, item.service.as_deref())
        && kind.is_none_or(|kind| kind == item.kind)
        && path.as_ref().is_none_or(|path| is_at(path.as_str(), item))
}

/// Whether an item is at a path or below it. Of a container's field, the container may be left out.
fn is_at(path: &str, item: &DriftItem) -> bool {
    let Some(found) = &item.path else { return false };
    let begins =
        |found: &str| found == path || found.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    begins(found) || found.split_once('/').is_some_and(|(_, field)| item.service.is_some() && begins(field))
}

#[cfg(test)]
mod tests {
    use tasktracker_crds::DriftKind;

    use super::*;
    use crate::diff::drift::item;

    fn policy(text: &str) -> PolicySpec {
        serde_json::from_str(text).unwrap()
    }

    fn items() -> Vec<DriftItem> {
        let named = |kind, service, path| {
            let mut item = item(kind, service, Some(path), "a", "b");
            item.component = "app".to_owned();
            item
        };
        vec![
            named(DriftKind::ConfigChanged, Some("edge"), "tt-s-app-edge-1/mem_limit"),
            named(DriftKind::FileExtra, None, "notes/a.txt"),
            named(DriftKind::Orphan, Some("edge"), "tt-s-app-edge-9"),
        ]
    }

    #[test]
    fn all_that_a_rule_says_must_match() {
        for (rule, left) in [
            (r#"{"kind": "ConfigChanged", "path": "mem_limit"}"#, 2),
            (r#"{"kind": "ConfigChanged", "path": "mem"}"#, 3),
            (r#"{"path": "tt-s-app-edge-1"}"#, 2),
            (r#"{"path": "notes"}"#, 2),
            (r#"{"service": "edge"}"#, 1),
            (r#"{"component": "app"}"#, 0),
            (r#"{"component": "app", "service": "backend"}"#, 3),
            ("{}", 3),
        ] {
            let policy = policy(&format!(r#"{{"ignore": [{rule}]}}"#));
            assert_eq!(judge(items(), &policy).len(), left, "{rule}");
        }
    }

    #[test]
    fn what_is_only_to_be_reported_is_told_so() {
        let answers =
            |text: &str| judge(items(), &policy(text)).iter().map(|item| item.answer).collect::<Vec<_>>();
        assert_eq!(answers("{}"), [Answer::Heal, Answer::Report, Answer::Prune]);
        assert_eq!(answers(r#"{"heal": "Report"}"#), [Answer::Report, Answer::Report, Answer::Prune]);
        assert_eq!(answers(r#"{"prune": "Report"}"#), [Answer::Heal, Answer::Report, Answer::Report]);
    }
}
