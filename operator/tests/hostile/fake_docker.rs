//! A fake Docker API: HTTP by hand, so that anything at all can be said instead.

use std::sync::Arc;

use russh::{ChannelStream, server::Msg};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::{
    fake_sshd::{Goes, Said, Seen, Then, Twist, say},
    good,
};

/// Answers requests in one channel until it ends.
pub(crate) async fn serve(mut stream: ChannelStream<Msg>, twist: Twist, seen: Arc<Seen>) -> Goes {
    loop {
        let Some(head) = read_head(&mut stream).await else { return Goes::Ended };
        let line = head.lines().next().unwrap_or_default().to_owned();
        seen.requests.lock().unwrap().push(line.clone());
        let path = line.split(' ').nth(1).unwrap_or_default();
        // The version of the API that comes first is none of the tests' business.
        let path = path.get(1..).and_then(|rest| rest.find('/')).map_or(path, |end| &path[end + 1..]);
        let said = twist(path, good::docker(path));
        match say(&mut stream, said).await {
            Goes::On => {}
            other => return other,
        }
    }
}

pub(crate) async fn read_head(stream: &mut ChannelStream<Msg>) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// An answer with a body, of which everything fits.
pub(crate) fn answer(status: &str, body: &[u8]) -> Said {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Said::new([head.as_bytes(), body].concat(), Then::Listen)
}

pub(crate) fn json(value: &Value) -> Said {
    answer("200 OK", value.to_string().as_bytes())
}

/// The JSON of a good answer.
pub(crate) fn body(said: &Said) -> Value {
    let text = said.text();
    serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap_or_default()
}

/// The beginning of an answer whose body has no end.
pub(crate) fn endless_head() -> &'static str {
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
}

/// A piece of such a body.
pub(crate) fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}
