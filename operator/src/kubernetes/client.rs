//! A client of an API server, on which nothing waits for ever.

use std::{future::Future, sync::Arc, time::Duration};

use http::{Request, Response};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
    config::KubeConfigOptions,
};
use tokio::time::timeout;
use tower::{Layer, Service};

use crate::metrics::ApiRequests;

/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long nothing may come of a request that was begun; watches are ended by the server before that.
const READ_LIMIT: Duration = Duration::from_mins(4);

/// What came of a call.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There is no answer.
    #[error("the API server: expected an answer within {} s, found none", CALL_LIMIT.as_secs())]
    Late,
    /// The answer, or what kept it from coming.
    #[error("the API server: {0}")]
    Call(#[from] kube::Error),
    /// There is nothing that says which cluster.
    #[error("expected a kubeconfig or a pod's own service account, found neither: {0}")]
    NoCluster(String),
    /// A check of a stack ended in a defect.
    #[error("a reconciliation ended in a defect; see the log")]
    Defect,
}

impl ApiError {
    /// The HTTP status of an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Call(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// Whether there is no such object.
    pub fn is_missing(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether the object is another one by now.
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }
}

/// Which cluster, and where in it.
#[derive(Clone, Debug, Default)]
pub struct Where {
    /// Context of the kubeconfig; the current one where none is given.
    pub context: Option<String>,
    /// Namespace; that of the context, or of the pod, where none is given.
    pub namespace: Option<String>,
}

/// A client, and the namespace that is meant where none is named.
///
/// # Errors
/// Without a kubeconfig or a service account, or where it cannot be used.
pub async fn connect(
    place: &Where,
    requests: Option<Arc<ApiRequests>>,
) -> Result<(Client, String), ApiError> {
    let unknown = |error: &dyn std::fmt::Display| ApiError::NoCluster(error.to_string());
    let mut config = match &place.context {
        Some(context) => {
            let options =
                KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
            Config::from_kubeconfig(&options).await.map_err(|error| unknown(&error))?
        }
        None => Config::infer().await.map_err(|error| unknown(&error))?,
    };
    config.connect_timeout = Some(CONNECT_LIMIT);
    config.read_timeout = Some(READ_LIMIT);
    config.reset_reader_on_write = true;
    config.default_retry = false;
    let namespace = place.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let host = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
    let counted = Counted { requests, host: host.into() };
    Ok((ClientBuilder::try_from(config)?.with_layer(&counted).build(), namespace))
}

/// What a call comes to, within the time that a call may take.
///
/// # Errors
/// What the call says, or that it says nothing.
pub async fn limited<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiError> {
    Ok(timeout(CALL_LIMIT, call).await.map_err(|_| ApiError::Late)??)
}

/// Counts requests by what came of them.
#[derive(Clone)]
struct Counted {
    requests: Option<Arc<ApiRequests>>,
    host: Arc<str>,
}

#[derive(Clone)]
struct Counting<S> {
    inner: S,
    counted: Counted,
}

impl<S> Layer<S> for Counted {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counting { inner, counted: self.clone() }
    }
}

impl<S, B> Service<Request<Body>> for Counting<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.method().to_string();
        let Counted { requests, host } = self.counted.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            if let Some(requests) = requests {
                let code = answer
                    .as_ref()
                    .map_or("<error>".to_owned(), |answer| answer.status().as_str().to_owned());
                requests.count(&code, &method, &host);
            }
            answer
        })
    }
}
