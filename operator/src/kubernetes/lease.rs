//! Which of several operators acts: the one that holds a lease, renewed by PUTs of the version that was read.
//!
//! Time is told by this process's own monotonic clock alone: a lease is over when its record did not change for as long as
//! it is good for, whatever it says of the time. Whoever holds it gives up acting before others may take it. It is no
//! fence: that is each host's lock, with its epoch.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use tasktracker_crds::conditions::reasons;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{ApiError, MANAGER, limited};
use crate::{engine::now, model::Hold, source::WriteScope};

/// How long others wait before they take a lease that is not renewed.
const GOOD_FOR: Duration = Duration::from_secs(12);
/// How long after the last renewal its holder acts as such.
const ACTS_FOR: Duration = Duration::from_secs(8);
/// How often it is renewed, or checked.
const PAUSE: Duration = Duration::from_secs(2);

/// Where the holder stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LeaseState {
    /// Another one acts, or nobody yet.
    #[default]
    Waiting,
    /// It was renewed then.
    Held(Instant),
    /// It was held, and another one has it now.
    Lost,
}

/// The lease of the operators of the same stacks.
pub(super) struct Leadership {
    api: Api<Lease>,
    name: String,
    /// Who we are: another one for each process.
    identity: String,
    state: Mutex<LeaseState>,
    /// The newest version of the lease that was seen.
    newest: AtomicU64,
    went_back: Notify,
}

/// What was last seen of the lease, and when that was new.
struct Seen {
    record: (Option<String>, Option<MicroTime>, Option<i32>),
    since: Instant,
    good_for: Duration,
}

impl Leadership {
    pub(super) fn new(api: Api<Lease>, name: String, identity: String) -> Self {
        let (state, newest, went_back) = (Mutex::default(), AtomicU64::new(0), Notify::new());
        Self { api, name, identity, state, newest, went_back }
    }

    /// Waits until the API server has older data than it had: versions only grow, but for a restore. A watch that goes on
    /// from a version that is in the future by then would hear nothing.
    pub(super) async fn went_back(&self) {
        self.went_back.notified().await;
    }

    fn saw(&self, lease: &Lease) {
        let version = lease.metadata.resource_version.as_ref().and_then(|text| text.parse::<u64>().ok());
        let Some(version) = version else { return };
        if version < self.newest.swap(version, Ordering::Relaxed) {
            self.went_back.notify_one();
        }
    }

    fn set(&self, state: LeaseState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn get(&self) -> LeaseState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may be written now.
    pub(super) fn write_scope(&self) -> WriteScope {
        match self.get() {
            LeaseState::Held(renewed) if renewed.elapsed() < ACTS_FOR => WriteScope::Full,
            LeaseState::Held(_) => WriteScope::HealOnly(Hold {
                reason: reasons::LEADERSHIP_UNKNOWN,
                message: format!(
                    "the lease {} could not be renewed, so that it is not known whether this operator is the one that acts: it repairs, and begins nothing",
                    self.name
                ),
            }),
            LeaseState::Waiting | LeaseState::Lost => WriteScope::Nothing,
        }
    }

    /// Waits until the lease is ours. `beat` is called again and again meanwhile.
    pub(super) async fn acquire(&self, beat: impl Fn(bool)) {
        let mut seen: Option<Seen> = None;
        loop {
            let started = Instant::now();
            let tried = self.try_to_take(&mut seen, started).await;
            beat(tried.is_ok());
            match tried {
                Ok(true) => {
                    self.set(LeaseState::Held(started));
                    return;
                }
                Ok(false) => {}
                Err(error) if error.is_conflict() => {}
                Err(error) => tracing::warn!(%error, lease = %self.name, "the lease cannot be asked for"),
            }
            sleep(PAUSE).await;
        }
    }

    async fn try_to_take(&self, seen: &mut Option<Seen>, now: Instant) -> Result<bool, ApiError> {
        let Some(lease) = limited(self.api.get_opt(&self.name)).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(0)) };
            limited(self.api.create(&parameters(), &lease)).await?;
            return Ok(true);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let record = (spec.holder_identity.clone(), spec.renew_time.clone(), spec.lease_transitions);
        let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
        if seen.as_ref().is_none_or(|seen| seen.record != record) {
            *seen = Some(Seen { record, since: Instant::now(), good_for: Duration::from_secs(seconds) });
        }
        let is_free = spec.holder_identity.as_deref().is_none_or(str::is_empty);
        let is_over = seen.as_ref().is_some_and(|seen| now.duration_since(seen.since) > seen.good_for);
        if !is_free && !is_over {
            return Ok(false);
        }
        let lease = Lease { spec: Some(self.spec(spec.lease_transitions.unwrap_or_default() + 1)), ..lease };
        limited(self.api.replace(&self.name, &parameters(), &lease)).await?;
        Ok(true)
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(GOOD_FOR.as_secs()).ok(),
            acquire_time: Some(MicroTime(now())),
            renew_time: Some(MicroTime(now())),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Renews the lease for as long as it is ours; returns once another one has it. What cannot be renewed because the API
    /// server does not answer stays ours until that is known.
    pub(super) async fn keep(&self, beat: impl Fn(bool)) {
        loop {
            sleep(PAUSE).await;
            let started = Instant::now();
            let renewed = self.renew().await;
            beat(renewed.is_ok());
            match renewed {
                Ok(true) => self.set(LeaseState::Held(started)),
                Ok(false) => {
                    self.set(LeaseState::Lost);
                    tracing::error!(lease = %self.name, "another operator holds the lease: this one ends");
                    return;
                }
                Err(error) => tracing::warn!(%error, lease = %self.name, "the lease cannot be renewed"),
            }
        }
    }

    /// Renews the lease until `work` is done, so that no other operator acts meanwhile. It waits for `work` also where
    /// another one has the lease already.
    pub(super) async fn keep_during(&self, work: impl Future<Output = ()>) {
        let mut work = std::pin::pin!(work);
        if self.get() != LeaseState::Lost {
            tokio::select! {
                () = &mut work => return,
                () = self.keep(|_| ()) => {}
            }
        }
        work.await;
    }

    /// Whether it is still ours.
    async fn renew(&self) -> Result<bool, ApiError> {
        let Some(mut lease) = limited(self.api.get_opt(&self.name)).await? else {
            // Somebody removed it: whoever makes it first has it.
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let made =
                limited(self.api.create(&parameters(), &Lease { metadata, spec: Some(self.spec(0)) })).await;
            return match made {
                Err(error) if error.is_conflict() => Ok(false),
                made => made.map(|_| true),
            };
        };
        self.saw(&lease);
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(false);
        }
        spec.renew_time = Some(MicroTime(now()));
        // Whoever was faster is seen at the next try.
        limited(self.api.replace(&self.name, &parameters(), &lease)).await.map(|_| true)
    }

    /// Gives the lease up, so that another one need not wait.
    pub(super) async fn release(&self) {
        if !matches!(self.get(), LeaseState::Held(_)) {
            return;
        }
        self.set(LeaseState::Lost);
        let mut released = self.try_to_release().await;
        if released.as_ref().is_err_and(ApiError::is_conflict) {
            // A renewal that was under way came first.
            released = self.try_to_release().await;
        }
        if let Err(error) = released {
            tracing::warn!(%error, lease = %self.name, "the lease cannot be given up");
        }
    }

    async fn try_to_release(&self) -> Result<(), ApiError> {
        let mut lease = limited(self.api.get(&self.name)).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            spec.holder_identity = None;
            limited(self.api.replace(&self.name, &parameters(), &lease)).await?;
        }
        Ok(())
    }
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use tokio::time::timeout;

    use super::{super::fake::FakeApi, *};

    const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases/operator";
    const RENEWAL: &str = "PUT /apis/coordination.k8s.io/v1/namespaces/system/leases/operator";

    async fn leadership(api: &FakeApi) -> Leadership {
        let leases = Api::namespaced(api.client(), "system");
        let leadership = Leadership::new(leases, "operator".to_owned(), "us".to_owned());
        leadership.acquire(|_| ()).await;
        leadership
    }

    fn holder(api: &FakeApi) -> Option<String> {
        api.object(PATH)?["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    /// Ends once the lease was renewed as often.
    async fn renewed(api: &FakeApi, times: usize) {
        loop {
            let answered = api.answered.notified();
            if api.count(RENEWAL) >= times {
                return;
            }
            answered.await;
        }
    }

    #[tokio::test]
    async fn the_lease_is_renewed_until_the_work_is_done() {
        let api = FakeApi::default();
        let leadership = leadership(&api).await;
        assert_eq!(api.count(RENEWAL), 0);
        let work = renewed(&api, 2);
        timeout(Duration::from_mins(1), leadership.keep_during(work)).await.expect("it is renewed");
        assert_eq!(leadership.write_scope(), WriteScope::Full);
        assert_eq!(holder(&api).as_deref(), Some("us"));
        leadership.release().await;
        assert_eq!(holder(&api), None);
    }

    #[tokio::test]
    async fn work_is_waited_for_though_another_one_has_the_lease() {
        let api = FakeApi::default();
        let leadership = leadership(&api).await;
        let mut lease = api.object(PATH).unwrap();
        lease["spec"]["holderIdentity"] = "another".into();
        api.store(PATH, &lease);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let work = async {
            // Longer than until that is seen.
            while leadership.write_scope() != WriteScope::Nothing {
                api.answered.notified().await;
                tokio::task::yield_now().await;
            }
            end.send(()).unwrap();
        };
        timeout(Duration::from_mins(1), leadership.keep_during(work)).await.expect("it ends");
        ended.await.expect("the work was done");
        leadership.release().await;
        assert_eq!(holder(&api).as_deref(), Some("another"), "it is not ours to give up");
    }

    #[tokio::test]
    async fn the_lease_is_released_though_a_renewal_comes_between() {
        let api = FakeApi::default();
        let leadership = leadership(&api).await;
        let renewing = api.clone();
        api.before(&Method::PUT, move || {
            let lease = renewing.object(PATH).unwrap();
            renewing.store(PATH, &lease);
        });
        leadership.release().await;
        assert_eq!(holder(&api), None);
    }
}
