//! What wakes a check before its time: Docker's events, and once a second a sweep over the files.
//!
//! Both only say that something may have happened: a cached answer about it is removed. Where they are late or miss
//! something, the interval finds it.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout_at};

use super::{
    Error, Host, Link,
    docker::{Events, Origin, Subject},
};

/// How often files are swept.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// How long after a stream of events ended the next one is asked for.
const EVENTS_PAUSE: Duration = Duration::from_secs(1);
/// How long foreign events are collected before they wake: a busy host has many, and one may have taken a port of ours.
const FOREIGN_PAUSE: Duration = Duration::from_secs(1);

impl Host {
    /// Begins to watch over the present connection, where that is not done yet. What happens from then on wakes
    /// whoever waits at [`Host::hints`]; so a check that begins now misses nothing.
    ///
    /// # Errors
    /// When the host cannot be reached, or Docker does not tell its events.
    pub async fn watch(self: &Arc<Self>) -> Result<(), Error> {
        let link = self.link().await?;
        if link.watched.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        match link.docker.events(&link.connection).await {
            Ok(events) => {
                link.cache().subscribed();
                let tasks = [
                    tokio::spawn(hear(events, Arc::downgrade(self), Arc::downgrade(&link))),
                    tokio::spawn(sweep(Arc::downgrade(self), Arc::downgrade(&link))),
                ];
                link.keep(tasks.map(|task| task.abort_handle()));
                Ok(())
            }
            Err(error) => {
                link.watched.store(false, Ordering::Release);
                self.forget_broken(&link, Err(error)).await
            }
        }
    }

    /// Wakes whoever waits at [`Host::hints`].
    pub fn wake(&self) {
        self.hints.send_modify(|hints| *hints = Instant::now());
    }
}

/// Wakes at every event of ours, and once for all foreign ones within a second. When the stream ends, whoever checks
/// next asks for another one.
async fn hear(mut events: Events, host: Weak<Host>, link: Weak<Link>) {
    let receive = |subject: Subject<'_>| {
        if let Some(link) = link.upgrade() {
            link.cache().invalidate(subject);
        }
        let is_ours = host.upgrade().is_some_and(|host| {
            let mut known = host.known();
            known.count(subject);
            known.has(subject)
        });
        if is_ours { Origin::Ours } else { Origin::Foreign }
    };
    let mut due: Option<Instant> = None;
    loop {
        let next = events.next(&receive);
        let event = match due {
            None => next.await,
            Some(due) => timeout_at(due, next).await.unwrap_or(Some(Origin::Foreign)),
        };
        let Some(origin) = event else { break };
        let now = Instant::now();
        let wakes_at = match origin {
            Origin::Ours => now,
            Origin::Foreign => *due.get_or_insert(now + FOREIGN_PAUSE),
        };
        if wakes_at <= now {
            due = None;
            let Some(host) = host.upgrade() else { return };
            host.wake();
        }
    }
    if let Some(link) = link.upgrade() {
        link.cache().unsubscribed();
    }
    tokio::time::sleep(EVENTS_PAUSE).await;
    let (Some(host), Some(link)) = (host.upgrade(), link.upgrade()) else { return };
    link.end_tasks();
    link.watched.store(false, Ordering::Release);
    host.wake();
}

/// Wakes when a file changed; a failure is left to the check that follows.
async fn sweep(host: Weak<Host>, link: Weak<Link>) {
    let mut ticks = interval_at(Instant::now() + SWEEP_PAUSE, SWEEP_PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (Some(host), Some(link)) = (host.upgrade(), link.upgrade()) else { return };
        let mut helper = link.helper.lock().await;
        let Some(running) = helper.as_mut() else { continue };
        let unchanged = running.unchanged().await;
        if unchanged.is_err() {
            *helper = None;
        }
        drop(helper);
        if !matches!(host.forget_broken(&link, unchanged).await, Ok(true)) {
            host.wake();
        }
    }
}
