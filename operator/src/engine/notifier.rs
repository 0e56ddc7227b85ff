//! Tells people about rollouts: posts to webhooks, beside everything else, never faster than people can read.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Uri, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;
use tasktracker_crds::{NotificationSpec, SlackSpec};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::{
    metrics::{Metrics, StackLabels},
    report::news::{News, escaped},
    source::{Secrets, Stack, StackKey},
};
use std::sync::Arc;

/// Messages that may wait to be sent.
const WAITING: usize = 100;
/// Messages of one stack to one webhook that go out at once; after those, one in each [`REST`].
const AT_ONCE: u32 = 5;
/// Time after which one more message may go out.
const REST: Duration = Duration::from_mins(1);
/// How long a webhook may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Waits before a message that was not taken is sent again.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// One message on its way.
struct Message {
    stack: StackKey,
    labels: StackLabels,
    to: SlackSpec,
    text: String,
}

/// Where messages are handed over.
pub(super) struct Notifier(mpsc::Sender<Message>);

impl Notifier {
    /// Starts the task that sends; it ends with this.
    pub(super) fn start(secrets: Secrets, metrics: Arc<Metrics>) -> Self {
        // A container image may have no certificates of its own.
        let roots = HttpsConnectorBuilder::new().with_native_roots();
        let roots = roots.unwrap_or_else(|_| HttpsConnectorBuilder::new().with_webpki_roots());
        let connector = roots.https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(send_all(receiver, Sender { secrets, client, metrics }));
        Self(sender)
    }

    /// Hands over what is new of a stack, for everybody who wants to know it.
    pub(super) fn tell(&self, stack: &Stack, news: &[News]) {
        for NotificationSpec { slack, events } in &stack.spec.notifications {
            for news in news.iter().filter(|news| events.contains(&news.event)) {
                let message = Message {
                    stack: stack.key.clone(),
                    labels: StackLabels::of(stack),
                    to: slack.clone(),
                    text: news.text.clone(),
                };
                if self.0.try_send(message).is_err() {
                    tracing::warn!(stack = %stack.key, "a notification is dropped: {WAITING} others wait");
                }
            }
        }
    }
}

struct Sender {
    secrets: Secrets,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    metrics: Arc<Metrics>,
}

/// How many messages may go out now, and how many did not.
struct Allowance {
    left: u32,
    since: Instant,
    dropped: u32,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, since: now, dropped: 0 }
    }

    /// Takes one, where there is one: how many did not go out before.
    fn take(&mut self, now: Instant) -> Option<u32> {
        while self.left < AT_ONCE && now >= self.since + REST {
            self.left += 1;
            self.since += REST;
        }
        if self.left == AT_ONCE {
            self.since = now;
        }
        if self.left == 0 {
            self.dropped += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

async fn send_all(mut messages: mpsc::Receiver<Message>, sender: Sender) {
    let mut allowances: BTreeMap<(String, String), Allowance> = BTreeMap::new();
    while let Some(message) = messages.recv().await {
        let now = Instant::now();
        let key = (message.stack.to_string(), message.to.webhook_secret.to_string());
        let allowance = allowances.entry(key).or_insert_with(|| Allowance::new(now));
        let Some(dropped) = allowance.take(now) else {
            sender.metrics.notified(&message.labels, "dropped");
            tracing::warn!(stack = %message.stack, "a notification is dropped: there were too many");
            continue;
        };
        let more = if dropped > 0 {
            format!(" ({dropped} messages before this were dropped)")
        } else {
            String::new()
        };
        let sent = sender.send(&message, &more).await;
        sender.metrics.notified(&message.labels, if sent.is_ok() { "sent" } else { "failed" });
        if let Err(found) = sent {
            tracing::warn!(
                stack = %message.stack,
                "notification: expected the webhook of secret {} to take it, found: {found}; see its key url",
                message.to.webhook_secret
            );
        }
    }
}

impl Sender {
    /// Sends one message; the address of the webhook is a secret, and stands in no error.
    async fn send(&self, message: &Message, more: &str) -> Result<(), String> {
        let url = self.secrets.of(&message.stack).get(&message.to.webhook_secret, "url").await;
        let url = url.map_err(|error| error.to_string())?;
        let url: Uri = url.reveal().trim_ascii().try_into().map_err(|_| "no URL".to_owned())?;
        let mut body = json!({ "text": escaped(&format!("{}{more}", message.text)) });
        if let Some(channel) = &message.to.channel {
            body["channel"] = json!(channel);
        }
        let mut waits = AGAIN.iter();
        loop {
            match self.post(&url, body.to_string()).await {
                Ok(()) => return Ok(()),
                Err(found) => match waits.next() {
                    Some(wait) => sleep(*wait).await,
                    None => return Err(found),
                },
            }
        }
    }

    async fn post(&self, url: &Uri, body: String) -> Result<(), String> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(url.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| "no URL".to_owned())?;
        let response = timeout(ANSWER_LIMIT, self.client.request(request)).await;
        let response = response.map_err(|_| format!("no answer within {} s", ANSWER_LIMIT.as_secs()))?;
        let status = response.map_err(|_| "no connection to it".to_owned())?.status();
        if status.is_success() { Ok(()) } else { Err(format!("status {status}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_messages_go_out_at_once_and_then_one_a_minute() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let sent = |allowance: &mut Allowance, after: u64| allowance.take(start + Duration::from_secs(after));
        for _ in 0..AT_ONCE {
            assert_eq!(sent(&mut allowance, 0), Some(0));
        }
        assert_eq!((sent(&mut allowance, 1), sent(&mut allowance, 59)), (None, None));
        assert_eq!(sent(&mut allowance, 60), Some(2), "how many were dropped is told");
        assert_eq!(sent(&mut allowance, 61), None);
        assert_eq!(sent(&mut allowance, 120), Some(1));
        assert_eq!((0..9).filter(|_| sent(&mut allowance, 3600).is_some()).count(), AT_ONCE as usize);
    }
}
