//! `run --kubernetes`: waits until this operator is the one that acts, then follows the stacks of an API server.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::bail;
use futures::{
    Stream, StreamExt,
    future::{BoxFuture, join_all},
    stream,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
    runtime::{
        Controller, WatchStreamExt, controller, predicates,
        reflector::{self, ObjectRef, Store},
        utils::{Predicate, PredicateConfig},
        watcher,
    },
};
use tokio::time::{Instant, interval};

use super::{
    Reviews, Where,
    api::{key_of, resource, stacks_api},
    backoff, connect,
    events::Events,
    generations::Generations,
    lease::Leadership,
    limited,
    reconcile::{Context, reconcile, retry},
    secrets::ClusterSecrets,
    source::{Cluster, StatusListener},
    triggers::Triggers,
};
use crate::{
    engine::{Memory, Parts, Stacks},
    metrics::Metrics,
    model::sha256,
    server::{self, Health, ServerState},
    source::{Secrets, StackKey, WriteScope},
};

/// How long a watch lasts: shorter than whatever is between ends idle connections.
const WATCH_SECONDS: u32 = 200;
/// How often it is checked whether stacks are gone.
const POLL: Duration = Duration::from_secs(5);
/// How often it is reported whether the stacks can be read at all, and how long a watch that failed counts as one that does.
const PROBE: Duration = Duration::from_mins(1);
/// How long what must go on may stand still before that is a defect.
const STUCK: Duration = Duration::from_mins(2);

/// What `run --kubernetes` needs.
pub struct Settings {
    /// Which cluster, and where the lease is.
    pub place: Where,
    /// Namespaces whose stacks are followed; all where none is named.
    pub namespaces: Vec<String>,
    /// Labels that a stack must have to be followed.
    pub selector: Option<String>,
    /// Name of the lease; by default one for each choice of namespaces and labels.
    pub lease: Option<String>,
    /// Folders of hosts below which a stack's `directory` may lie.
    pub roots: Vec<PathBuf>,
    /// Objects that are worked on at a time.
    pub concurrency: u16,
    /// How long a host that cannot be reached keeps a deleted stack.
    pub deletion_limit: Duration,
    /// Whether only those may read metrics whom the API server lets.
    pub reviews: bool,
    /// Where metrics and health are served.
    pub listen: SocketAddr,
}

impl Settings {
    fn lease_name(&self) -> String {
        if let Some(name) = &self.lease {
            return name.clone();
        }
        if self.namespaces.is_empty() && self.selector.is_none() {
            return super::MANAGER.to_owned();
        }
        let choice = format!("{:?} {:?}", self.namespaces.iter().collect::<BTreeSet<_>>(), self.selector);
        format!("{}-{}", super::MANAGER, &sha256(choice.as_bytes())[..8])
    }
}

/// Runs until `stop` resolves, or another operator acts.
///
/// # Errors
/// Where there is no cluster, metrics cannot be served, or another operator took over.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new()?);
    let (client, namespace) = connect(&settings.place, Some(metrics.api_requests())).await?;
    let ready = Arc::new(AtomicBool::new(false));
    let health = Arc::new(Health::new(STUCK));
    let access = settings.reviews.then(|| Arc::new(Reviews::new(client.clone())) as Arc<dyn server::Access>);
    let state =
        ServerState { metrics: metrics.clone(), ready: ready.clone(), health: health.clone(), access };
    let server = tokio::spawn(server::serve(settings.listen, state));
    let identity = identity();
    let lease: Api<Lease> = Api::namespaced(client.clone(), &namespace);
    let leadership = Arc::new(Leadership::new(lease, settings.lease_name(), identity.clone()));
    let runner = KubernetesRunner {
        client,
        identity,
        settings,
        metrics,
        ready,
        health,
        leadership: leadership.clone(),
        unheard: Arc::default(),
    };
    tokio::pin!(stop);
    tokio::select! {
        result = server => { result??; }
        () = runner.wait_for_leadership() => {
            let context = Arc::new(runner.open()?);
            let ended = tokio::select! {
                () = runner.follow(context.clone()) => "the watch of stacks",
                () = runner.keep_leadership() => "the lease",
                () = &mut stop => "",
            };
            tracing::info!("stopping: what is being done is finished");
            let ending = context.stacks().end();
            leadership.keep_during(ending).await;
            leadership.release().await;
            if !ended.is_empty() {
                bail!("expected to go on until asked to end, found the end of {ended}");
            }
        }
        () = &mut stop => {}
    }
    Ok(())
}

/// Another name for each process: the pod's, and something random.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| super::MANAGER.to_owned());
    format!("{host}_{}", Memory::none().writer())
}

struct KubernetesRunner {
    client: Client,
    identity: String,
    settings: Settings,
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
    health: Arc<Health>,
    leadership: Arc<Leadership>,
    /// When a watch last failed.
    unheard: Arc<Mutex<Option<Instant>>>,
}

impl KubernetesRunner {
    async fn wait_for_leadership(&self) {
        let beat = self.health.watch("lease");
        let name = self.settings.lease_name();
        self.metrics.leads(&name, false);
        tracing::info!(lease = %name, identity = %self.identity, "waiting for the lease");
        self.leadership
            .acquire(|answered| {
                beat.now();
                // A standby is ready once the API server answers it.
                if answered {
                    self.ready.store(true, Ordering::Relaxed);
                }
            })
            .await;
        tracing::info!(lease = %name, "this operator acts");
        // Now it is of use only once it has read the stacks.
        self.ready.store(false, Ordering::Relaxed);
        self.metrics.leads(&name, true);
    }

    async fn keep_leadership(&self) {
        let beat = self.health.watch("lease");
        self.leadership.keep(|_| beat.now()).await;
        self.metrics.leads(&self.settings.lease_name(), false);
    }

    /// The engine, with Kubernetes as its source and its listener.
    fn open(&self) -> anyhow::Result<Context> {
        let triggers = Arc::<Triggers>::default();
        let generations = Arc::<Generations>::default();
        let events = Arc::new(Events::start(self.client.clone(), self.identity.clone()));
        let stacks = Stacks::new(Parts {
            source: Arc::new(Cluster {
                client: self.client.clone(),
                leadership: self.leadership.clone(),
                history: generations.clone(),
            }),
            secrets: Secrets::from_store(Arc::new(ClusterSecrets(self.client.clone()))),
            memory: Arc::new(Memory::none()),
            metrics: self.metrics.clone(),
            listener: Some(Arc::new(StatusListener { events: events.clone(), triggers: triggers.clone() })),
        });
        let Settings { roots, deletion_limit, concurrency, .. } = &self.settings;
        let controller = self.metrics.controller(*concurrency)?;
        let reporting = (events, self.leadership.clone(), generations);
        let limits = (roots.clone(), *deletion_limit);
        let metrics = (controller, self.metrics.clone());
        Ok(Context::new(self.client.clone(), stacks, reporting, triggers, metrics, limits))
    }

    /// Follows the stacks of every namespace that is chosen; anew where the API server's data went back.
    async fn follow(&self, context: Arc<Context>) {
        loop {
            tokio::select! {
                () = self.follow_on(context.clone()) => return,
                () = self.leadership.went_back() => {
                    tracing::error!("the API server has older data than before, as after a restore: everything is read anew");
                    context.written.retain(|_| false);
                }
            }
        }
    }

    async fn follow_on(&self, context: Arc<Context>) {
        let (stores, controllers): (Vec<_>, Vec<_>) = self
            .namespaces()
            .into_iter()
            .map(|namespace| self.controller(namespace, context.clone()))
            .unzip();
        let all = async { drop(join_all(controllers).await) };
        tokio::select! {
            () = all => {}
            () = self.look_after(&context, &stores) => {}
        }
    }

    fn controller(
        &self,
        namespace: Option<&str>,
        context: Arc<Context>,
    ) -> (Store<DynamicObject>, BoxFuture<'static, ()>) {
        let api = stacks_api(self.client.clone(), namespace);
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
        if let Some(selector) = &self.settings.selector {
            config = config.labels(selector);
        }
        let writer = reflector::store::Writer::new(resource());
        let store = writer.as_reader();
        let queue = context.metrics.clone();
        let changes = predicates::generation
            .combine(predicates::finalizers)
            .combine(predicates::annotations)
            .combine(predicates::labels);
        let objects = watcher(api, config)
            .backoff(backoff::of_watches())
            .modify(|object: &mut DynamicObject| object.metadata.managed_fields = None)
            .reflect(writer)
            .applied_objects()
            .predicate_filter(changes, PredicateConfig::default())
            .inspect(move |object| {
                if let Ok(object) = object {
                    queue.added(&key_of(object));
                }
            });
        let limits = controller::Config::default().concurrency(self.settings.concurrency);
        let running = Controller::for_stream_with(objects, store.clone(), resource())
            .with_config(limits)
            .trigger_backoff(backoff::of_watches())
            .reconcile_on(triggered(context.clone(), namespace.map(str::to_owned)))
            .run(reconcile, |object, error, context| retry(&object, error, &context), context);
        let unheard = self.unheard.clone();
        let running = running.for_each(move |result| {
            let unheard = unheard.clone();
            async move {
                match result {
                    Err(controller::Error::QueueError(error)) => {
                        *unheard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                        tracing::warn!(%error, "the stacks cannot be read; what is known stays in force");
                    }
                    Err(controller::Error::RunnerError(error)) => {
                        tracing::error!(%error, "a reconciliation cannot be run");
                    }
                    // Told where it happened, or an object that is gone by now.
                    Err(_) | Ok(_) => {}
                }
            }
        });
        (store, Box::pin(running))
    }

    /// Keeps an eye on stacks that are gone, and on hosts that their stacks name no longer.
    async fn look_after(&self, context: &Context, stores: &[Store<DynamicObject>]) {
        let beat = self.health.watch("stacks");
        let mut ticks = interval(POLL);
        let mut probed: Option<Instant> = None;
        loop {
            ticks.tick().await;
            beat.now();
            context.metrics.longest_running();
            if probed.is_none_or(|probed| probed.elapsed() >= PROBE) {
                probed = Some(Instant::now());
                let is_heard = self.unheard().is_none_or(|since| since.elapsed() >= PROBE);
                self.metrics.source_synced(is_heard && self.can_read().await);
            }
            if !join_all(stores.iter().map(is_synced)).await.into_iter().all(|synced| synced) {
                continue;
            }
            self.ready.store(true, Ordering::Relaxed);
            let objects: Vec<Arc<DynamicObject>> = stores.iter().flat_map(Store::state).collect();
            let uids: BTreeSet<&str> =
                objects.iter().filter_map(|object| object.metadata.uid.as_deref()).collect();
            context.written.retain(|uid| uids.contains(uid));
            context.specs.retain(|uid| uids.contains(uid));
            let there: BTreeSet<StackKey> = objects.iter().map(|object| key_of(object)).collect();
            context.retain(&there);
            let followed: Vec<StackKey> =
                context.stacks().in_force().map(|stack| stack.key.clone()).collect();
            for key in followed.iter().filter(|key| !there.contains(key)) {
                self.let_go_if_gone(context, key).await;
            }
            let reliable = self.leadership.write_scope() == WriteScope::Full;
            context.stacks().reconcile_retained(reliable, Instant::now());
        }
    }

    /// When a watch last failed.
    fn unheard(&self) -> Option<Instant> {
        *self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The namespaces that are chosen; all where it is none.
    fn namespaces(&self) -> Vec<Option<&str>> {
        match &self.settings.namespaces[..] {
            [] => vec![None],
            names => names.iter().map(|name| Some(name.as_str())).collect(),
        }
    }

    /// Whether the API server lets the stacks be read.
    async fn can_read(&self) -> bool {
        let mut parameters = ListParams::default().limit(1);
        parameters.label_selector.clone_from(&self.settings.selector);
        let asked = self.namespaces().into_iter().map(async |namespace| {
            limited(stacks_api(self.client.clone(), namespace).list(&parameters)).await.is_ok()
        });
        join_all(asked).await.into_iter().all(|read| read)
    }

    /// What the cache does not have is asked for: neither an empty cache nor an error is a deletion. Whatever the policy
    /// says, nothing is taken from hosts then: only an object that is being deleted says so.
    async fn let_go_if_gone(&self, context: &Context, key: &StackKey) {
        let api = stacks_api(self.client.clone(), Some(&key.namespace));
        let mut parameters = ListParams::default().fields(&format!("metadata.name={}", key.name));
        parameters.label_selector.clone_from(&self.settings.selector);
        if limited(api.list(&parameters)).await.is_ok_and(|list| list.items.is_empty()) {
            tracing::warn!(stack = %key, "the API server has this stack no longer: it is no longer followed, and its hosts are left as they are");
            context.stacks().forget(key);
        }
    }
}

/// Stacks of a namespace that are to be reconciled though their objects did not change.
fn triggered(
    context: Arc<Context>,
    namespace: Option<String>,
) -> impl Stream<Item = ObjectRef<DynamicObject>> + Send + 'static {
    stream::unfold((context, namespace), async |(context, namespace)| {
        let key = context.triggers.next(namespace.as_deref()).await;
        context.metrics.added(&key);
        let object = ObjectRef::new_with(&key.name, resource()).within(&key.namespace);
        Some((object, (context, namespace)))
    })
}

async fn is_synced(store: &Store<DynamicObject>) -> bool {
    let ready = store.wait_until_ready();
    tokio::time::timeout(Duration::ZERO, ready).await.is_ok_and(|ready| ready.is_ok())
}
