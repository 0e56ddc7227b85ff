//! Who may read metrics: whoever the API server knows by its token, and lets read the path.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::Instant;

use super::{ApiError, limited};
use crate::{
    model::sha256,
    server::{Access, Answer},
};

/// How long an answer is believed.
const HOLDS: Duration = Duration::from_mins(1);
/// Answers that are kept.
const KEPT: usize = 100;

/// Asks the API server, and believes its answers for a while.
pub struct Reviews {
    client: Client,
    known: Mutex<BTreeMap<String, (Instant, Answer)>>,
}

impl Reviews {
    /// Asks with a client.
    pub fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    async fn ask(&self, token: &str, path: &str) -> Result<Answer, ApiError> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: None },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let status = limited(api.create(&PostParams::default(), &review)).await?.status.unwrap_or_default();
        let Some(user) = status.user.filter(|_| status.authenticated == Some(true)) else {
            return Ok(Answer::Unknown);
        };
        let attributes = NonResourceAttributes { path: Some(path.to_owned()), verb: Some("get".to_owned()) };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                groups: user.groups,
                uid: user.uid,
                extra: user.extra,
                non_resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let allowed = limited(api.create(&PostParams::default(), &review)).await?.status;
        Ok(if allowed.is_some_and(|status| status.allowed) { Answer::Allowed } else { Answer::Denied })
    }
}

impl Access for Reviews {
    fn may_read<'a>(&'a self, token: &'a str, path: &'a str) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let key = sha256(format!("{path} {token}").as_bytes());
            let known = {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.retain(|_, (until, _)| Instant::now() < *until);
                known.get(&key).map(|(_, answer)| *answer)
            };
            if let Some(answer) = known {
                return answer;
            }
            match self.ask(token, path).await {
                Ok(answer) => {
                    let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                    if known.len() < KEPT {
                        known.insert(key, (Instant::now() + HOLDS, answer));
                    }
                    answer
                }
                Err(error) => {
                    tracing::warn!(%error, "who asks for metrics cannot be found out");
                    Answer::Unavailable
                }
            }
        })
    }
}
