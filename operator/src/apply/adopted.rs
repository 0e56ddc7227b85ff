//! Containers made by hand that a rollout replaces: stopped on its way, started again where nothing comes of it.

use std::collections::BTreeMap;

use super::{ACTION_LIMIT, Context, Error, QUICK_LIMIT, actions::start, rollout::ours_and_others};
use crate::{
    host::{Container, Host, State, Step},
    observe::Observed,
};

/// Stops containers made by hand. Docker would start some of them again by itself, at its own next start.
pub(super) fn stop(containers: &[String]) -> Vec<Step> {
    let on_all = |words: &[&str]| {
        let names = containers.iter().map(String::as_str);
        Step::docker(&words.iter().copied().chain(names).collect::<Vec<_>>(), ACTION_LIMIT)
    };
    vec![on_all(&["update", "--restart=no"]), on_all(&["stop"])]
}

/// The running ones among the containers that are to be replaced, and their restart policies; where a rollout was cut,
/// those that it found running.
pub(super) fn to_be_stopped(adopted: &[String], observed: &Observed) -> BTreeMap<String, String> {
    let intent = observed.ledger.as_ref().and_then(|ledger| ledger.intent.as_ref());
    let mut stopped = intent.map(|intent| intent.stopped.clone()).unwrap_or_default();
    stopped.retain(|name, _| observed.others.iter().any(|other| other.name == *name));
    let running = observed.others.iter().filter(|container| container.state == State::Running);
    for container in running.filter(|container| adopted.contains(&container.name)) {
        let restart = container.details.as_ref().and_then(|details| details.settings.get("restart"));
        let restart = restart.map_or("no", String::as_str).to_owned();
        stopped.entry(container.name.clone()).or_insert(restart);
    }
    stopped
}

/// Takes away the containers that do not serve, and starts again what they should have replaced; says so in words.
pub(super) async fn restore(
    host: &Host,
    stopped: &BTreeMap<String, String>,
    context: &Context<'_>,
) -> Result<Vec<String>, Error> {
    if stopped.is_empty() {
        return Ok(Vec::new());
    }
    let (ours, others) = ours_and_others(host, context).await?;
    let mut steps = Vec::new();
    for words in [&["stop"][..], &["rm", "-f"]] {
        let names = ours.iter().map(|container| container.name.as_str());
        let all: Vec<&str> = words.iter().copied().chain(names).collect();
        steps.extend((!ours.is_empty()).then(|| Step::docker(&all, ACTION_LIMIT)));
    }
    steps.extend(start_again(stopped, &others));
    host.carry_out(context.lock, &context.project.folder, &steps).await?;
    Ok(stopped.keys().map(|name| format!("start {name} again")).collect())
}

/// Starts containers made by hand again, those of them that are there still, with the restart policies that they had.
pub(super) fn start_again(stopped: &BTreeMap<String, String>, others: &[Container]) -> Vec<Step> {
    let is_there = |name: &String| others.iter().any(|other| other.name == *name);
    let there: Vec<_> = stopped.iter().filter(|(name, _)| is_there(name)).collect();
    let policy = |restart: &String| format!("--restart={restart}");
    let update = |name: &str, restart| Step::docker(&["update", &policy(restart), name], QUICK_LIMIT);
    let updates = there.iter().map(|(name, restart)| update(name, restart));
    let all = (!there.is_empty()).then(|| start(there.iter().map(|(name, _)| name.as_str())));
    updates.chain(all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::Details,
        ledger::{Intent, Ledger},
    };

    #[test]
    fn what_is_started_again_is_what_ran_before_the_first_cut_as_it_was() {
        let container = |name: &str, state: State, restart: &str| Container {
            name: name.to_owned(),
            state,
            details: Some(Details {
                settings: BTreeMap::from([("restart".to_owned(), restart.to_owned())]),
                ..Details::default()
            }),
            ..Container::default()
        };
        let adopted = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let others = vec![
            container("a", State::Running, "always"),
            container("b", State::Other("created".to_owned()), "always"),
            container("c", State::Running, "on-failure:3"),
            container("stranger", State::Running, "always"),
        ];
        let first = to_be_stopped(&adopted, &Observed { others, ..Observed::default() });
        let expected =
            [("a", "always"), ("c", "on-failure:3")].map(|(name, policy)| (name.into(), policy.into()));
        assert_eq!(first, BTreeMap::from(expected));
        // Cut after `a` was stopped: its policy is "no" by then.
        let intent = Intent { plan: String::new(), desired_hash: None, stopped: first.clone() };
        let ledger = Some(Ledger { intent: Some(intent), ..Ledger::empty("o", "s") });
        let others = vec![
            container("a", State::Other("created".to_owned()), "no"),
            container("c", State::Running, "no"),
        ];
        assert_eq!(to_be_stopped(&adopted, &Observed { ledger, others, ..Observed::default() }), first);
    }
}
