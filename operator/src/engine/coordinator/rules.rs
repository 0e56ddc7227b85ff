//! The rules by which one host of a component may roll out, in their order. Pure.

use jiff::Timestamp;

use super::{HostProgress, Hosts, Progress};
use crate::plan::{Decision, PeerFailure};

/// All hosts of a component, as one of them sees them.
pub(super) struct Fleet<'a> {
    /// Every host that the spec names for it, in its order.
    pub(super) order: &'a [String],
    /// Those of which something is known.
    pub(super) hosts: &'a Hosts,
    /// The one that asks.
    pub(super) me: &'a str,
    /// Generation that it is asked for.
    pub(super) generation: &'a str,
    /// How many may be unavailable at once.
    pub(super) most: usize,
}

/// A rule: what it decides, or nothing where it does not apply.
type Rule<'a> = fn(&Fleet<'a>) -> Option<Decision>;

impl<'a> Fleet<'a> {
    /// The rules; the first that applies decides.
    const RULES: [Rule<'a>; 7] = [
        Self::failed_on_a_peer,
        Self::waits_for_an_unknown_or_unfit_peer,
        Self::waits_for_the_first_host,
        Self::as_many_roll_out_as_may,
        Self::is_unavailable_itself,
        Self::earlier_hosts_come_first,
        Self::too_many_are_unavailable,
    ];

    pub(super) fn decide(&self) -> Decision {
        Self::RULES.iter().find_map(|rule| rule(self)).unwrap_or(Decision::Proceed)
    }

    fn peers(&self) -> impl Iterator<Item = (&String, Option<&HostProgress>)> {
        self.order.iter().filter(|name| *name != self.me).map(|name| (name, self.hosts.get(name)))
    }

    fn known_peers(&self) -> impl Iterator<Item = (&String, &HostProgress)> {
        self.peers().filter_map(|(name, host)| Some((name, host?)))
    }

    fn mine(&self) -> Option<&HostProgress> {
        self.hosts.get(self.me)
    }

    fn is_same(&self, host: &HostProgress) -> bool {
        host.generation == self.generation
    }

    fn rolling(&self) -> Vec<&String> {
        let rolling = self.known_peers().filter(|(_, host)| host.progress == Progress::Rolling);
        rolling.map(|(name, _)| name).collect()
    }

    /// Whether a peer has it, and serves.
    fn is_proved(&self) -> bool {
        let has_it =
            |host: &HostProgress| matches!(host.progress, Progress::Done { .. }) && !host.unavailable;
        self.known_peers().any(|(_, host)| self.is_same(host) && has_it(host))
    }

    fn unavailable(&self) -> bool {
        self.mine().is_some_and(|mine| mine.unavailable)
    }

    /// Whether this host keeps what failed on a peer: it has it since a person insisted, or was asked for nothing new, or
    /// the peer had nothing before, so that the peer itself may be at fault.
    fn keeps(&self, failed_at: Option<Timestamp>, first_on_peer: bool) -> bool {
        let Some(mine) = self.mine().filter(|mine| self.is_same(mine)) else { return false };
        let Progress::Done { since, by_this_generation } = &mine.progress else { return false };
        let is_newer = match (since, failed_at) {
            (Some(since), Some(failed_at)) => *since >= failed_at,
            _ => false,
        };
        first_on_peer || is_newer || !by_this_generation
    }

    fn failed_on_a_peer(&self) -> Option<Decision> {
        self.known_peers().filter(|(_, host)| self.is_same(host)).find_map(|(name, host)| {
            let Progress::Failed { origin, message, when, first } = &host.progress else { return None };
            // What was taken back there names the host on which it failed first.
            let host = origin.clone().unwrap_or_else(|| name.clone());
            let failure = PeerFailure { host, message: message.clone() };
            (!self.keeps(*when, *first)).then_some(Decision::Failed(failure))
        })
    }

    /// Nothing is begun before every host that can be checked knows of it and has what it needs for it.
    fn waits_for_an_unknown_or_unfit_peer(&self) -> Option<Decision> {
        if self.is_proved() || self.unavailable() {
            return None;
        }
        let obstacle = |(name, host): (&String, &HostProgress)| match &host.preflight_failure {
            _ if !self.is_same(host) => Some(format!("waiting for the first check of host {name}")),
            Some(found) => {
                Some(format!("waiting for host {name}, which lacks what the rollout needs: {found}"))
            }
            None => None,
        };
        self.known_peers().find_map(obstacle).map(Decision::Wait)
    }

    /// The host that is first in the spec's order among those that can be checked proves it.
    fn waits_for_the_first_host(&self) -> Option<Decision> {
        if self.is_proved() {
            return None;
        }
        if let Some(name) = self.rolling().first() {
            return Some(Decision::Wait(format!("{name} comes first")));
        }
        // One that does not know of it yet is about to.
        let is_before = |host: &HostProgress| !self.is_same(host) || host.progress == Progress::Before;
        let is_candidate = |name: &&String| {
            *name == self.me || self.hosts.get(*name).is_some_and(|host| !host.blocked && is_before(host))
        };
        let first = self.order.iter().find(is_candidate)?;
        (first != self.me).then(|| Decision::Wait(format!("{first} comes first")))
    }

    fn as_many_roll_out_as_may(&self) -> Option<Decision> {
        let rolling = self.rolling();
        let name = rolling.first().filter(|_| rolling.len() >= self.most)?;
        Some(Decision::Wait(format!("{name} is being rolled out")))
    }

    /// What does not serve is mended before anything else.
    fn is_unavailable_itself(&self) -> Option<Decision> {
        self.unavailable().then_some(Decision::Proceed)
    }

    /// The spec's order counts among the others, too: whichever is checked late would be passed by.
    fn earlier_hosts_come_first(&self) -> Option<Decision> {
        let is_next = |name: &&String| {
            self.hosts.get(*name).is_some_and(|host| {
                self.is_same(host) && host.progress == Progress::Before && !host.blocked && !host.unavailable
            })
        };
        let before_me = self.order.iter().take_while(|name| *name != self.me);
        let earlier: Vec<&String> = before_me.filter(is_next).collect();
        let name = earlier.first().filter(|_| earlier.len() + self.rolling().len() >= self.most)?;
        Some(Decision::Wait(format!("{name} comes first")))
    }

    fn too_many_are_unavailable(&self) -> Option<Decision> {
        let is_down = |host: Option<&HostProgress>| host.is_none_or(|host| host.unavailable);
        let down: Vec<&String> =
            self.peers().filter(|(_, host)| is_down(*host)).map(|(name, _)| name).collect();
        let name = down.first().filter(|_| down.len() + self.rolling().len() >= self.most)?;
        let most = self.most;
        Some(Decision::Wait(format!(
            "{name} does not serve or was not checked yet, and at most {most} may be unavailable"
        )))
    }
}
