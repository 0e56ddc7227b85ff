//! A fake sshd with a fake Docker API behind it: no host at all, for answers that no real one gives.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use russh::{
    Channel, ChannelId,
    keys::{Algorithm, PrivateKey, key::safe_rng},
    server::{self, Auth, ChannelOpenHandle, Handler, Msg, Session},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
};

/// What the fake Docker API says to one request.
#[derive(Clone)]
pub(crate) enum Reply {
    Json(Value),
    Status(u16, String),
    /// These bytes, whatever they are, and then the end of the connection.
    Raw(Vec<u8>),
    /// A head that promises a body without end, and that body.
    Endless,
    /// One byte now and then.
    Drip,
    /// Nothing at all.
    Silence,
}

/// What the fake helper program says to one question.
#[derive(Clone)]
pub(crate) enum Said {
    Lines(String),
    Endless,
    Silence,
    Gone,
}

type DockerFn = dyn Fn(&str) -> Reply + Send + Sync;
type HelperFn = dyn Fn(&str) -> Said + Send + Sync;

/// How a fake host behaves.
#[derive(Clone)]
pub(crate) struct Behaviour {
    pub(crate) docker: Arc<DockerFn>,
    pub(crate) helper: Arc<HelperFn>,
    pub(crate) probe: String,
}

/// A fake host that answers on loopback until it is dropped.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) host_key: String,
    /// First line of every request that the fake Docker API was sent.
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
    listener: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// A new private key.
pub(crate) fn key() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

impl Fake {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let key = key();
        let host_key = key.public_key().to_openssh().unwrap();
        let config = Arc::new(server::Config { keys: vec![key], ..server::Config::default() });
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let listener = tokio::spawn(async move {
            while let Ok((stream, _)) = tcp.accept().await {
                let caller =
                    Caller { behaviour: behaviour.clone(), requests: seen.clone(), channels: HashMap::new() };
                if let Ok(session) = server::run_stream(config.clone(), stream, caller).await {
                    tokio::spawn(session);
                }
            }
        });
        Self { address, host_key, requests, listener }
    }
}

struct Caller {
    behaviour: Behaviour,
    requests: Arc<Mutex<Vec<String>>>,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Handler for Caller {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: russh::server::VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        self.channels.insert(channel.id(), channel);
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        let (docker, requests) = (self.behaviour.docker.clone(), self.requests.clone());
        tokio::spawn(async move { serve_docker(channel.into_stream(), docker, requests).await });
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(id)?;
        let Some(channel) = self.channels.remove(&id) else { return Ok(()) };
        let command = String::from_utf8_lossy(data).into_owned();
        if command.contains("while read -r verb asked") {
            let helper = self.behaviour.helper.clone();
            tokio::spawn(async move { serve_helper(channel.into_stream(), helper).await });
        } else {
            let (handle, probe) = (session.handle(), self.behaviour.probe.clone());
            tokio::spawn(async move {
                let _: Result<(), _> = handle.data(id, probe.into_bytes()).await;
                let _: Result<(), _> = handle.exit_status_request(id, 0).await;
                let _: Result<(), _> = handle.eof(id).await;
                let _: Result<(), _> = handle.close(id).await;
                drop(channel);
            });
        }
        Ok(())
    }
}

async fn serve_helper(stream: impl AsyncRead + AsyncWrite + Unpin, helper: Arc<HelperFn>) {
    let mut stream = BufReader::new(stream);
    let mut question = String::new();
    while stream.read_line(&mut question).await.is_ok_and(|length| length > 0) {
        match helper(question.trim()) {
            Said::Lines(lines) => {
                if stream.write_all(lines.as_bytes()).await.is_err() {
                    return;
                }
            }
            Said::Endless => while stream.write_all(&[b'x'; 8192]).await.is_ok() {},
            Said::Silence => std::future::pending().await,
            Said::Gone => return,
        }
        question.clear();
    }
}

async fn serve_docker(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    docker: Arc<DockerFn>,
    requests: Arc<Mutex<Vec<String>>>,
) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if !stream.read_line(&mut line).await.is_ok_and(|length| length > 0) {
                return;
            }
            if line == "\r\n" {
                break;
            }
            head.push(line);
        }
        let first = head.first().cloned().unwrap_or_default();
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        requests.lock().unwrap().push(first);
        // Without the version in front.
        let path = path.splitn(3, '/').nth(2).map(|rest| format!("/{rest}")).unwrap_or_default();
        let (status, body) = match docker(&path) {
            Reply::Json(value) => (200, value.to_string()),
            Reply::Status(status, body) => (status, body),
            Reply::Raw(bytes) => {
                let _: std::io::Result<()> = stream.write_all(&bytes).await;
                let _: std::io::Result<()> = stream.shutdown().await;
                return;
            }
            Reply::Endless => {
                let _: std::io::Result<()> = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n[").await;
                while stream.write_all(&[b' '; 8192]).await.is_ok() {}
                return;
            }
            Reply::Drip => {
                let _: std::io::Result<()> =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n").await;
                while stream.write_all(b"[").await.is_ok() && stream.flush().await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                return;
            }
            Reply::Silence => std::future::pending().await,
        };
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}
