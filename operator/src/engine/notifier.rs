//! Notifies people of rollouts: a task for each webhook posts to it, never faster than people can read.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

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
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, sleep, timeout},
};

use crate::{
    metrics::{Metrics, StackLabels},
    report::notifications::{Notification, escaped},
    source::{Secrets, Stack, StackKey},
};

/// Messages that may wait for one webhook.
const WAITING: usize = 100;
/// Messages of one stack to one webhook that go out at once; after those, one in each [`REST`].
const AT_ONCE: u32 = 5;
/// Time after which one more message may go out.
const REST: Duration = Duration::from_mins(1);
/// How long the task of a webhook, and the allowance of a stack, is kept without a message.
const IDLE: Duration = Duration::from_hours(1);
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

/// A webhook: the namespace and the name of the secret with its address.
type Webhook = (String, String);

/// Queues messages for webhooks.
pub(super) struct Notifier {
    sender: Arc<Sender>,
    /// The queue of each webhook; its task ends when this goes, or is idle.
    queues: Mutex<BTreeMap<Webhook, mpsc::Sender<Message>>>,
}

impl Notifier {
    /// Nothing is sent yet.
    pub(super) fn start(secrets: Secrets, metrics: Arc<Metrics>) -> Self {
        // A container image may have no certificates of its own.
        let roots = HttpsConnectorBuilder::new().with_native_roots();
        let roots = roots.unwrap_or_else(|_| HttpsConnectorBuilder::new().with_webpki_roots());
        let connector = roots.https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { sender: Arc::new(Sender { secrets, client, metrics }), queues: Mutex::default() }
    }

    /// Queues what is new of a stack for everybody who wants to know it.
    pub(super) fn notify(&self, stack: &Stack, notifications: &[Notification]) {
        for NotificationSpec { slack, events } in &stack.spec.notifications {
            for notification in notifications.iter().filter(|one| events.contains(&one.event)) {
                self.queue(Message {
                    stack: stack.key.clone(),
                    labels: StackLabels::of(stack),
                    to: slack.clone(),
                    text: notification.text.clone(),
                });
            }
        }
    }

    fn queue(&self, message: Message) {
        let webhook = (message.stack.namespace.clone(), message.to.webhook_secret.to_string());
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|_, queue| !queue.is_closed());
        let queue = queues.entry(webhook).or_insert_with(|| {
            let (queue, messages) = mpsc::channel(WAITING);
            tokio::spawn(send_all(messages, self.sender.clone()));
            queue
        });
        let refused = match queue.try_send(message) {
            Ok(()) => return,
            // Its task ended just now, idle: the next one begins with this message.
            Err(TrySendError::Closed(message)) => {
                drop(queues);
                return self.queue(message);
            }
            Err(TrySendError::Full(message)) => message,
        };
        self.sender.metrics.notified(&refused.labels, "dropped");
        tracing::warn!(stack = %refused.stack, "a notification is dropped: {WAITING} others wait for the webhook");
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
    used: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, since: now, dropped: 0, used: now }
    }

    /// Takes one, where there is one: how many did not go out before.
    fn take(&mut self, now: Instant) -> Option<u32> {
        self.used = now;
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

/// Sends the messages for one webhook, one after the other, until there are none for a while.
async fn send_all(mut messages: mpsc::Receiver<Message>, sender: Arc<Sender>) {
    let mut allowances = Allowances::default();
    loop {
        let message = match timeout(IDLE, messages.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(_) => {
                // What is queued by now is still sent.
                messages.close();
                continue;
            }
        };
        let Some(dropped) = allowances.take(&message.stack, Instant::now()) else {
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

/// Allowances of the stacks that send to one webhook.
#[derive(Default)]
struct Allowances(BTreeMap<StackKey, Allowance>);

impl Allowances {
    /// Takes one of a stack's, and forgets those of stacks that sent nothing for a while.
    fn take(&mut self, stack: &StackKey, now: Instant) -> Option<u32> {
        self.0.retain(|_, allowance| now < allowance.used + IDLE);
        let allowance = self.0.entry(stack.clone()).or_insert_with(|| Allowance::new(now));
        allowance.take(now)
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

    #[test]
    fn allowances_of_stacks_that_are_gone_are_forgotten() {
        let (mut allowances, now) = (Allowances::default(), Instant::now());
        let key = |name: &str| StackKey { namespace: "a".to_owned(), name: name.to_owned() };
        for number in 0..100 {
            allowances.take(&key(&number.to_string()), now);
        }
        allowances.take(&key("stays"), now + IDLE / 2);
        allowances.take(&key("new"), now + IDLE);
        assert!(allowances.0.keys().eq([&key("new"), &key("stays")]), "{:?}", allowances.0.keys());
    }

    /// A webhook, and the body of the first request that it gets; it answers where it is said so.
    async fn webhook(is_answering: bool) -> (u16, tokio::sync::oneshot::Receiver<String>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, body) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = String::new();
            while !request.ends_with('}') {
                let mut buffer = [0; 1024];
                let read = stream.read(&mut buffer).await.unwrap();
                request.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            }
            sender.send(request.split("\r\n\r\n").nth(1).unwrap().to_owned()).unwrap();
            if !is_answering {
                std::future::pending::<()>().await;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        });
        (port, body)
    }

    #[tokio::test]
    async fn a_webhook_that_does_not_answer_delays_no_other_one() {
        use std::{fs, os::unix::fs::PermissionsExt};
        let folder = tempfile::tempdir().unwrap();
        let secret = |name: &str, port: u16| {
            let path = folder.path().join(name).join("url");
            fs::create_dir(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("http://127.0.0.1:{port}/hook")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        let ((silent, asked), (good, told)) = (webhook(false).await, webhook(true).await);
        secret("silent", silent);
        secret("good", good);
        let text = include_str!("../../../examples/staging.yaml");
        let text = format!(
            "{text}\n  notifications:\n    - {{slack: {{webhookSecret: silent}}, events: [Succeeded]}}\n    - {{slack: {{webhookSecret: good}}, events: [Succeeded]}}\n"
        );
        let stack =
            Stack::new(tasktracker_crds::validation::read_stack(&text).unwrap(), "staging.yaml".into());
        let metrics = Arc::new(Metrics::new().unwrap());
        let notifier = Notifier::start(Secrets::new(Some(folder.path().to_owned())), metrics);
        let event = tasktracker_crds::NotificationEvent::Succeeded;
        notifier.notify(&stack, &[Notification { event, text: "one".to_owned() }]);
        assert_eq!(asked.await.unwrap(), r#"{"text":"one"}"#);
        // The silent one is being waited for: a queue for all would hold this back for its time limit.
        let limit = ANSWER_LIMIT / 2;
        assert_eq!(timeout(limit, told).await.expect("it waits for another").unwrap(), r#"{"text":"one"}"#);
        assert_eq!(notifier.queues.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_queue_is_bounded_and_one_that_ended_is_begun_again() {
        let text = include_str!("../../../examples/staging.yaml");
        let stack =
            Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), "staging.yaml".into());
        let metrics = Arc::new(Metrics::new().unwrap());
        let notifier = Notifier::start(Secrets::default(), metrics.clone());
        let to: SlackSpec = serde_json::from_value(json!({ "webhookSecret": "hook" })).unwrap();
        let message = || Message {
            stack: stack.key.clone(),
            labels: StackLabels::of(&stack),
            to: to.clone(),
            text: String::new(),
        };
        let webhook = (stack.key.namespace.clone(), "hook".to_owned());
        let (queue, mut messages) = mpsc::channel(WAITING);
        notifier.queues.lock().unwrap().insert(webhook.clone(), queue);
        (0..=WAITING).for_each(|_| notifier.queue(message()));
        assert!(
            messages.len() == WAITING && metrics.text().contains("result=\"dropped\""),
            "{}",
            metrics.text()
        );
        messages.close();
        notifier.queue(message());
        assert!(!notifier.queues.lock().unwrap()[&webhook].is_closed());
    }
}
