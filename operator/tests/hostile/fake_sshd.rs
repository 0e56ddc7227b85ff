//! A fake SSH server in this process, and what it makes of the channels that are opened.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelStream,
    keys::{PrivateKey, ssh_key::private::Ed25519Keypair},
    server::{self, Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey},
};
use tasktracker_testbed::wait::elapse_async;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{AbortHandle, JoinSet},
};

use crate::{fake_docker, fake_programs, services, stage::LIMIT};

/// Between pieces of what drips, and until what was said has left.
const PAUSE: Duration = Duration::from_millis(20);

/// What a fake says, and what it does after that.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) bytes: Vec<u8>,
    pub(crate) then: Then,
}

/// What a fake does after it spoke.
#[derive(Clone, Debug)]
pub(crate) enum Then {
    /// Waits for the next question.
    Listen,
    /// Closes the channel.
    Close,
    /// Says nothing more and keeps the channel until the other side closes it.
    Hang,
    /// Says nothing more and closes the channel when it is notified.
    CloseOn(Arc<Notify>),
    /// Says this again and again, as fast as it is taken.
    Repeat(Vec<u8>),
    /// Says this again and again, slowly.
    Drip(Vec<u8>),
    /// Cuts the whole connection.
    Cut,
    /// Keeps the whole connection and says nothing more over it, like a host without a network.
    Freeze,
}

impl Said {
    pub(crate) fn new(bytes: impl Into<Vec<u8>>, then: Then) -> Self {
        Self { bytes: bytes.into(), then }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes.clone()).unwrap()
    }
}

/// Changes an answer: what was asked, and what a good host says to it.
pub(crate) type Twist = Arc<dyn Fn(&str, Said) -> Said + Send + Sync>;

/// Everything that a fake host says.
#[derive(Clone)]
pub(crate) struct Script {
    /// Answers of the fake Docker API, by path with its query.
    pub(crate) docker: Twist,
    /// Answers of the fake helper by its question, of the fake probe to `probe`, of the program that holds the lock to
    /// `lock`; to an empty text, what is said unasked.
    pub(crate) programs: Twist,
    /// Answers of a service in the host's network, by the request's head.
    pub(crate) services: Twist,
    /// Opens every channel to a service late.
    pub(crate) slow_services: bool,
    /// Kinds of channels that are refused: `session`, `socket`, `service`, `forwarding`.
    pub(crate) refused: &'static [&'static str],
    /// Sessions that a connection may have, as `MaxSessions` of sshd.
    pub(crate) max_sessions: usize,
    /// What the login shell says before each program, with the line by which the program begins.
    pub(crate) greeting: &'static str,
}

/// The line by which each program begins.
pub(crate) const BEGINS: &str = "tasktracker-begins\n";

impl Default for Script {
    fn default() -> Self {
        let as_is: Twist = Arc::new(|_, said| said);
        Self {
            docker: as_is.clone(),
            programs: as_is.clone(),
            services: as_is,
            slow_services: false,
            refused: &[],
            max_sessions: 10,
            greeting: BEGINS,
        }
    }
}

/// What was seen of whoever connected.
pub(crate) struct Seen {
    /// First lines of requests to the fake Docker API.
    pub(crate) requests: Mutex<Vec<String>>,
    /// Endpoints of services to which a channel was asked for.
    pub(crate) endpoints: Mutex<Vec<String>>,
    /// Channels to services that ended.
    pub(crate) ended_services: tokio::sync::Semaphore,
    /// Connections that were opened.
    pub(crate) connections: AtomicUsize,
    /// Sessions that are open.
    pub(crate) sessions: AtomicUsize,
    /// Channels to the fake Docker API that are open.
    pub(crate) sockets: AtomicUsize,
    /// Programs that wait for the host's lock or hold it.
    pub(crate) locks: AtomicUsize,
    /// The most of them at once.
    pub(crate) most_locks: AtomicUsize,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            requests: Mutex::default(),
            endpoints: Mutex::default(),
            ended_services: tokio::sync::Semaphore::new(0),
            connections: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            locks: AtomicUsize::new(0),
            most_locks: AtomicUsize::new(0),
        }
    }
}

/// A fake SSH server; it ends when this is dropped.
pub(crate) struct FakeSshd {
    pub(crate) port: u16,
    pub(crate) seen: Arc<Seen>,
    accepting: AbortHandle,
}

impl Drop for FakeSshd {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The fake's host key, which is also the key that its user has.
pub(crate) fn key() -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]))
}

impl FakeSshd {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Seen>::default();
        let accepting = tokio::spawn(accept(listener, script, seen.clone())).abort_handle();
        Self { port, seen, accepting }
    }
}

async fn accept(listener: TcpListener, script: Script, seen: Arc<Seen>) {
    let config = Arc::new(server::Config { keys: vec![key()], nodelay: true, ..server::Config::default() });
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        seen.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(serve(stream, config.clone(), script.clone(), seen.clone()));
    }
}

async fn serve(stream: TcpStream, config: Arc<server::Config>, script: Script, seen: Arc<Seen>) {
    let (cut, frozen) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let fake = FakeSession {
        script,
        seen,
        sessions: BTreeMap::new(),
        open: Arc::default(),
        tasks: JoinSet::new(),
        cut: cut.clone(),
        frozen: frozen.clone(),
    };
    // The server's own task would outlive this one; a wire in between is cut with it.
    let (mut outer, inner) = (stream, tokio::io::duplex(1 << 16));
    let (mut near, far) = inner;
    let session = server::run_stream(config, far, fake);
    let wire = tokio::io::copy_bidirectional(&mut outer, &mut near);
    let run = async {
        if let Ok(session) = session.await {
            let _: Result<(), russh::Error> = session.await;
        }
    };
    tokio::select! {
        _ = wire => {}
        () = run => {}
        () = cut.notified() => {}
        () = frozen.notified() => std::future::pending().await,
    }
}

/// One connection to the fake.
struct FakeSession {
    script: Script,
    seen: Arc<Seen>,
    sessions: BTreeMap<ChannelId, Channel<Msg>>,
    /// Sessions of this connection that are open.
    open: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
    cut: Arc<Notify>,
    frozen: Arc<Notify>,
}

impl server::Handler for FakeSession {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let is_full = self.open.load(Ordering::SeqCst) >= self.script.max_sessions;
        if is_full || self.script.refused.contains(&"session") {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.open.fetch_add(1, Ordering::SeqCst);
        self.seen.sessions.fetch_add(1, Ordering::SeqCst);
        self.sessions.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.script.refused.contains(&"socket") {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        }
        reply.accept().await;
        let fake = fake_docker::serve(channel.into_stream(), self.script.docker.clone(), self.seen.clone());
        let (cut, frozen, seen) = (self.cut.clone(), self.frozen.clone(), self.seen.clone());
        self.tasks.spawn(async move {
            seen.sockets.fetch_add(1, Ordering::SeqCst);
            let goes_on = fake.await;
            seen.sockets.fetch_sub(1, Ordering::SeqCst);
            end(goes_on, &cut, &frozen);
        });
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.seen.endpoints.lock().unwrap().push(format!("{address} {port}"));
        for (kind, reason) in [
            ("service", ChannelOpenFailure::ConnectFailed),
            ("forwarding", ChannelOpenFailure::AdministrativelyProhibited),
        ] {
            if self.script.refused.contains(&kind) {
                reply.reject(reason).await;
                return Ok(());
            }
        }
        let (script, seen) = (self.script.clone(), self.seen.clone());
        let (cut, frozen) = (self.cut.clone(), self.frozen.clone());
        self.tasks.spawn(async move {
            if script.slow_services {
                elapse_async(2 * LIMIT).await;
            }
            reply.accept().await;
            end(services::serve(channel.into_stream(), script.services, &seen).await, &cut, &frozen);
            seen.ended_services.add_permits(1);
        });
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let command = String::from_utf8_lossy(command).into_owned();
        let Some(channel) = self.sessions.remove(&id) else { return session.channel_failure(id) };
        session.channel_success(id)?;
        let (script, open) = (self.script.clone(), self.open.clone());
        let (cut, frozen, seen) = (self.cut.clone(), self.frozen.clone(), self.seen.clone());
        self.tasks.spawn(async move {
            let goes_on = fake_programs::run(&command, channel, &script, &seen).await;
            open.fetch_sub(1, Ordering::SeqCst);
            seen.sessions.fetch_sub(1, Ordering::SeqCst);
            end(goes_on, &cut, &frozen);
        });
        Ok(())
    }
}

fn end(goes_on: Goes, cut: &Notify, frozen: &Notify) {
    match goes_on {
        Goes::Cut => cut.notify_one(),
        Goes::Frozen => frozen.notify_one(),
        Goes::On | Goes::Ended => {}
    }
}

/// Whether a fake goes on after what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goes {
    On,
    Ended,
    Cut,
    Frozen,
}

/// Says something in a channel, and does what is to be done then.
pub(crate) async fn say(stream: &mut ChannelStream<Msg>, said: Said) -> Goes {
    if stream.write_all(&said.bytes).await.is_err() || stream.flush().await.is_err() {
        return Goes::Ended;
    }
    match said.then {
        Then::Listen => return Goes::On,
        Then::Close => {}
        Then::Freeze => return Goes::Frozen,
        Then::Cut => {
            elapse_async(PAUSE).await;
            return Goes::Cut;
        }
        Then::Hang => {
            while stream.read_u8().await.is_ok() {}
            return Goes::Ended;
        }
        Then::CloseOn(notify) => notify.notified().await,
        Then::Repeat(piece) => while stream.write_all(&piece).await.is_ok() {},
        Then::Drip(piece) => {
            while stream.write_all(&piece).await.is_ok() && stream.flush().await.is_ok() {
                elapse_async(PAUSE).await;
            }
        }
    }
    let _: std::io::Result<()> = stream.shutdown().await;
    Goes::Ended
}
