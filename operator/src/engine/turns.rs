//! Whose turn it is: a change goes to one host of a stack first, then to as many at a time as may be unavailable; where
//! it failed on one of them, it goes to no other, and those that have it go back.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tasktracker_crds::conditions::reasons;
use tokio::sync::watch;

use super::Look;
use crate::{
    desired::Project,
    diff,
    plan::{self, Turn},
    secret::Seals,
    source::{Stack, StackKey},
};

/// What is known of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Hash of what the spec asks for there, whatever its secrets are.
    wanted: String,
    /// How far it came with that.
    progress: Progress,
    /// Whether users miss it: something was rolled out there, and does not serve.
    missed: bool,
    /// Whether nothing is rolled out there for a reason of its own: a hold, say, or a person who is waited for.
    held: bool,
    /// What it lacks for what is asked for, in words.
    unfit: Option<String>,
}

/// How far a host came with what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    /// It has something else.
    Before,
    /// It is being rolled out.
    Rolling,
    /// It has it, since a moment that is known where it was rolled out lately.
    Done(Option<Timestamp>),
    /// It was tried there, and failed; `first` where nothing was in force there before.
    Failed { message: String, when: Option<Timestamp>, first: bool },
}

/// The hosts of one stack.
type Hosts = BTreeMap<String, Standing>;

/// Where every host of every stack stands.
#[derive(Debug, Default)]
pub struct Turns {
    stacks: Mutex<BTreeMap<StackKey, Group>>,
}

/// How often each host came to stand otherwise than before.
type Changes = BTreeMap<String, u64>;

/// Of each component on each host.
type ByHost<T> = BTreeMap<String, BTreeMap<String, T>>;

#[derive(Debug, Default)]
struct Group {
    hosts: Hosts,
    /// The plan of each component on each host that was read.
    plans: ByHost<Planned>,
    /// Which plan of the stack the spec approved, and which plans of hosts that was.
    granted: Option<(String, ByHost<String>)>,
    news: watch::Sender<Changes>,
}

/// The plan of one component on a host.
#[derive(Debug)]
struct Planned {
    hash: String,
    needs_approval: bool,
}

/// A host whose turn it is, for as long as this is kept.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    turns: &'a Turns,
    stack: StackKey,
    host: String,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // Until it is looked at again, nothing is known of it: it may have failed.
        let mut stacks = self.turns.lock();
        let Some(group) = stacks.get_mut(&self.stack) else { return };
        if group.hosts.get(&self.host).is_some_and(|standing| standing.progress == Progress::Rolling) {
            group.hosts.remove(&self.host);
            group.changed(&self.host);
        }
    }
}

impl Group {
    /// Whether what the spec approves is the plan of the stack, as it is by all hosts that were read: then it is kept
    /// what that was for each host, though the plan of the stack is another one as soon as the first of them is done.
    fn grant(&mut self, stack: &Stack) -> bool {
        let named = stack.approved_plans();
        let is_named = |hash: &str| named.iter().any(|(_, named)| *named == hash);
        self.granted.take_if(|(granted, _)| !is_named(granted));
        if named.is_empty() {
            return false;
        }
        let plans = self.plans.iter().flat_map(|(host, components)| {
            components.iter().map(move |(component, plan)| (host.as_str(), component.as_str(), plan))
        });
        let hash = plan::hash_of(plans.map(|(host, component, plan)| (host, component, plan.hash.clone())));
        if !is_named(&hash) || self.granted.as_ref().is_some_and(|(granted, _)| *granted == hash) {
            return false;
        }
        let waiting = |components: &BTreeMap<String, Planned>| {
            let waiting = components.iter().filter(|(_, plan)| plan.needs_approval);
            waiting.map(|(component, plan)| (component.clone(), plan.hash.clone())).collect()
        };
        let granted: ByHost<String> =
            self.plans.iter().map(|(host, components)| (host.clone(), waiting(components))).collect();
        // All of them may go at once, in their order, whichever hears of it first.
        for (host, _) in granted.iter().filter(|(_, plans)| !plans.is_empty()) {
            self.hosts.entry(host.clone()).and_modify(|standing| standing.held = false);
        }
        self.granted = Some((hash, granted));
        true
    }

    fn changed(&self, host: &str) {
        self.news.send_modify(|changes| *changes.entry(host.to_owned()).or_default() += 1);
    }
}

/// What one host hears of the others.
#[derive(Debug)]
pub(super) struct News {
    changes: watch::Receiver<Changes>,
    host: String,
    known: u64,
}

impl News {
    fn of_others(&mut self) -> u64 {
        let changes = self.changes.borrow_and_update();
        changes.iter().filter(|(host, _)| **host != self.host).map(|(_, times)| times).sum()
    }

    /// What happened until now is known.
    pub(super) fn catch_up(&mut self) {
        self.known = self.of_others();
    }

    /// Waits until another host stands otherwise.
    pub(super) async fn changed(&mut self) {
        while self.of_others() == self.known {
            if self.changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// What the spec asks for, whatever its secrets are on a host.
fn wanted(project: &Project) -> String {
    project.hash(&Seals::new())
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<StackKey, Group>> {
        self.stacks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears whenever another host of a stack stands otherwise than before.
    pub(super) fn news(&self, stack: &StackKey, host: &str) -> News {
        let changes = self.lock().entry(stack.clone()).or_default().news.subscribe();
        News { changes, host: host.to_owned(), known: 0 }
    }

    /// A look at a host shows where it stands.
    pub(super) fn saw(&self, stack: &Stack, host: &str, look: &Look) {
        // What was approved while it was looked does not keep it back.
        let held = standing(look).held && !self.grants(stack, host, look);
        self.tell(&stack.key, host, Some(&Standing { held, ..standing(look) }));
        let mut stacks = self.lock();
        let group = stacks.entry(stack.key.clone()).or_default();
        let planned = Planned { hash: look.plan.hash(), needs_approval: look.plan.needs_approval() };
        group.plans.entry(host.to_owned()).or_default().insert(look.project.component.clone(), planned);
        group.plans.retain(|name, _| stack.app_hosts().any(|host| host.name.as_str() == name));
        if group.grant(stack) {
            group.changed(host);
        }
    }

    /// Hash of the plan that the spec approves for a component on a host.
    pub(super) fn granted(&self, stack: &Stack, host: &str, component: &str) -> Option<String> {
        let named = stack.approved_plans();
        let stacks = self.lock();
        let granted = stacks.get(&stack.key).and_then(|group| group.granted.as_ref());
        let plans = granted
            .filter(|(hash, _)| named.iter().any(|(_, named)| named == hash))
            .and_then(|(_, hosts)| hosts.get(host));
        plans?.get(component).cloned()
    }

    /// Whether a change that waits for approval has it by now.
    pub(super) fn grants(&self, stack: &Stack, host: &str, look: &Look) -> bool {
        look.plan.needs_approval()
            && self.granted(stack, host, &look.project.component) == Some(look.plan.hash())
    }

    /// A stack goes.
    pub(super) fn end(&self, stack: &StackKey) {
        self.lock().remove(stack);
    }

    /// A host cannot be looked at, or not any more.
    pub(super) fn missed(&self, stack: &StackKey, host: &str) {
        self.tell(stack, host, None);
    }

    fn tell(&self, stack: &StackKey, host: &str, standing: Option<&Standing>) {
        let mut stacks = self.lock();
        let group = stacks.entry(stack.clone()).or_default();
        let before = if let Some(standing) = standing {
            group.hosts.insert(host.to_owned(), standing.clone())
        } else {
            group.plans.remove(host);
            group.hosts.remove(host)
        };
        if before.as_ref() != standing {
            group.changed(host);
        }
    }

    /// What a host may do about what is asked of it.
    pub(super) fn of(&self, stack: &Stack, host: &str, project: &Project) -> Turn {
        let stacks = self.lock();
        let empty = Hosts::new();
        let hosts = stacks.get(&stack.key).map_or(&empty, |group| &group.hosts);
        decide(&order(stack), hosts, host, &wanted(project), most(stack))
    }

    /// Begins what is not to be put off, a way back or the end of what was cut: as many at a time as may be unavailable.
    pub(super) fn slot(&self, stack: &Stack, host: &str, look: &Look) -> Option<Taken<'_>> {
        let mut stacks = self.lock();
        let group = stacks.entry(stack.key.clone()).or_default();
        let is_rolling =
            |(name, one): &(&String, &Standing)| *name != host && one.progress == Progress::Rolling;
        let rolling = group.hosts.iter().filter(is_rolling).count();
        (rolling < most(stack)).then(|| self.begin(group, stack, host, look))
    }

    /// Begins the turn of a host, where it is its turn still.
    pub(super) fn take(&self, stack: &Stack, host: &str, look: &Look) -> Option<Taken<'_>> {
        if look.observed.is_under_way() {
            return self.slot(stack, host, look);
        }
        let mut stacks = self.lock();
        let group = stacks.entry(stack.key.clone()).or_default();
        let wanted = wanted(&look.project);
        if decide(&order(stack), &group.hosts, host, &wanted, most(stack)) != Turn::Now {
            return None;
        }
        Some(self.begin(group, stack, host, look))
    }

    fn begin(&self, group: &mut Group, stack: &Stack, host: &str, look: &Look) -> Taken<'_> {
        let rolling = Standing { progress: Progress::Rolling, ..standing(look) };
        group.hosts.insert(host.to_owned(), rolling);
        group.changed(host);
        Taken { turns: self, stack: stack.key.clone(), host: host.to_owned() }
    }
}

fn order(stack: &Stack) -> Vec<String> {
    stack.app_hosts().map(|host| host.name.to_string()).collect()
}

fn most(stack: &Stack) -> usize {
    stack.spec.policy.rollout.max_unavailable as usize
}

fn standing(look: &Look) -> Standing {
    let Look { project, observed, plan, .. } = look;
    let (ledger, applied) = (observed.ledger.as_ref(), observed.applied.as_ref());
    let wanted = wanted(project);
    let time = |when: &str| when.parse().ok();
    // The host's own hashes know the values of secrets: another value is another thing to be tried.
    let change = plan.change();
    let failed = ledger.and_then(|ledger| ledger.failed.as_ref()).filter(|failed| {
        change.is_some_and(|change| change.desired_hash == failed.desired_hash) && failed.wanted == wanted
    });
    let progress = match failed {
        Some(failed) => Progress::Failed {
            message: failed.message.clone(),
            when: time(&failed.when),
            first: failed.first,
        },
        None if applied.is_some() && change.is_none() && !observed.is_under_way() => {
            let last = ledger.and_then(|ledger| ledger.history.first());
            Progress::Done(last.and_then(|last| time(&last.when)))
        }
        None => Progress::Before,
    };
    let goes_on = [reasons::ROLLING_OUT, reasons::PULLING_IMAGES];
    let waits = plan.waiting.as_ref().is_some_and(|waiting| !goes_on.contains(&waiting.reason));
    Standing {
        wanted,
        progress,
        missed: applied.is_some_and(|applied| !diff::serving(applied, observed)),
        held: waits || plan.hold.is_some(),
        unfit: plan.lacking().map(str::to_owned),
    }
}

/// Why nothing is begun yet: not all that can be looked at know of it and have what they need for it.
fn obstacle<'a>(
    mut others: impl Iterator<Item = (&'a String, &'a Standing)>,
    wanted: &str,
) -> Option<String> {
    others.find_map(|(name, standing)| match &standing.unfit {
        _ if standing.wanted != wanted => Some(format!("{name} is looked at first")),
        Some(found) => Some(format!("nothing is begun before {name} has what it needs: {found}")),
        None => None,
    })
}

/// What `me` may do, by where all hosts stand; `order` has every host that the spec names.
fn decide(order: &[String], hosts: &Hosts, me: &str, wanted: &str, most: usize) -> Turn {
    let others = || order.iter().filter(|name| *name != me).map(|name| (name, hosts.get(name)));
    let same = |standing: &&Standing| standing.wanted == wanted;
    let mine = hosts.get(me).filter(same).map(|standing| &standing.progress);
    for (name, standing) in others() {
        let Some(Progress::Failed { message, when, first }) = standing.filter(same).map(|one| &one.progress)
        else {
            continue;
        };
        // Whoever has it since a person insisted keeps it, and what serves elsewhere is not bad for a new host's sake.
        let is_older = |since: &Option<Timestamp>| since.zip(*when).is_none_or(|(since, when)| since < when);
        if !matches!(mine, Some(Progress::Done(since)) if *first || !is_older(since)) {
            // What was taken back there says where it failed first.
            let first = message.strip_prefix("on ").map(str::to_owned);
            return Turn::Failed(first.unwrap_or_else(|| format!("{name}: {message}")));
        }
    }
    let rolling: Vec<&String> = others()
        .filter(|(_, standing)| standing.is_some_and(|one| one.progress == Progress::Rolling))
        .map(|(name, _)| name)
        .collect();
    let is_done = |one: &Standing| matches!(one.progress, Progress::Done(_)) && !one.missed;
    let is_proved = others().any(|(_, standing)| standing.filter(same).is_some_and(is_done));
    let is_missed = hosts.get(me).is_some_and(|mine| mine.missed);
    if !is_proved {
        let known = others().filter_map(|(name, standing)| Some((name, standing?)));
        if let Some(obstacle) = obstacle(known, wanted).filter(|_| !is_missed) {
            return Turn::Later(obstacle);
        }
        // The one that is first in the spec's order among those that can be looked at shows whether it is any good.
        // One that does not know of it yet is about to.
        let is_before = |name: &&String| {
            let is_before = |one: &Standing| one.wanted != wanted || one.progress == Progress::Before;
            hosts.get(*name).is_some_and(|one| !one.held && is_before(one))
        };
        let first = order.iter().find(|name| *name == me || is_before(name));
        if let Some(first) = rolling.first().copied().or(first.filter(|first| *first != me)) {
            return Turn::Later(format!("{first} comes first"));
        }
    }
    if let Some(name) = rolling.first().filter(|_| rolling.len() >= most) {
        return Turn::Later(format!("{name} is being rolled out"));
    }
    if is_missed {
        return Turn::Now;
    }
    // The spec's order counts among the others, too: whoever comes late to a look would be passed by.
    let is_next = |name: &&String| {
        let is_before = |one: &Standing| same(&one) && one.progress == Progress::Before;
        hosts.get(*name).is_some_and(|one| !one.held && !one.missed && is_before(one))
    };
    let earlier: Vec<&String> = order.iter().take_while(|name| *name != me).filter(is_next).collect();
    if let Some(name) = earlier.first().filter(|_| earlier.len() + rolling.len() >= most) {
        return Turn::Later(format!("{name} comes first"));
    }
    let missed: Vec<&String> = others()
        .filter(|(_, standing)| standing.is_none_or(|one| one.missed))
        .map(|(name, _)| name)
        .collect();
    match missed.first() {
        Some(name) if missed.len() + rolling.len() >= most => Turn::Later(format!(
            "{name} does not serve or was not looked at yet, and at most {most} may be unavailable"
        )),
        _ => Turn::Now,
    }
}

#[cfg(test)]
mod tests;
