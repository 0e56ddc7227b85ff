//! Secrets of a cluster, each by a GET of its own: none is listed, none is watched.

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1;
use kube::{Api, Client};

use super::{ApiError, limited};
use crate::{
    secret::Secret,
    source::{Data, Refused, SecretStore},
};

/// Where Secrets are read.
pub(super) struct ClusterSecrets(pub(super) Client);

impl std::fmt::Debug for ClusterSecrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ClusterSecrets")
    }
}

impl SecretStore for ClusterSecrets {
    fn read<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Data, Refused>> {
        Box::pin(async move {
            let api: Api<v1::Secret> = Api::namespaced(self.0.clone(), namespace);
            let secret = limited(api.get(name)).await.map_err(|error| refused(&error))?;
            let data = secret.data.unwrap_or_default();
            Ok(data.into_iter().map(|(key, value)| (key, Secret::new(value.0))).collect())
        })
    }
}

fn refused(error: &ApiError) -> Refused {
    match error.status() {
        Some(404) => Refused { is_passing: false, found: "no such Secret".to_owned() },
        Some(403) => Refused {
            is_passing: false,
            found: "the API server does not let the operator read it; see the chart's RBAC".to_owned(),
        },
        _ => Refused { is_passing: true, found: "the API server does not answer".to_owned() },
    }
}
