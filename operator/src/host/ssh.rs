//! SSH: pinned host keys, deadlines, and channels that are always drained.

use std::{
    borrow::Cow,
    fmt,
    io::ErrorKind,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use russh::{
    Channel, ChannelMsg, ChannelStream, Disconnect, Preferred,
    client::{self, AuthResult, Handle, Msg},
    keys::{
        Algorithm, EcdsaCurve, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate,
    },
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::{
    Error, Target,
    traffic::{Counted, Traffic},
};

/// How long each step of connecting may take.
const STEP_LIMIT: Duration = Duration::from_secs(10);
/// Standard output and standard error kept of one program, each in bytes; the rest is read and dropped.
const OUTPUT_LIMIT: usize = 4 << 20;

/// A private key and the name it was given.
#[derive(Clone)]
pub struct Identity {
    key: Arc<PrivateKey>,
}

impl Identity {
    /// Reads a private key in OpenSSH's form.
    ///
    /// # Errors
    /// What is wrong with it, without any part of it.
    pub fn read(text: &str) -> Result<Self, String> {
        let key = PrivateKey::from_openssh(text).map_err(|error| error.to_string())?;
        if key.is_encrypted() {
            return Err("it is protected by a passphrase".to_owned());
        }
        Ok(Self { key: Arc::new(key) })
    }

    fn fingerprint(&self) -> String {
        self.key.public_key().fingerprint(HashAlg::Sha256).to_string()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity({})", self.fingerprint())
    }
}

/// How a program on the host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Exited(u32),
    /// By a signal.
    Signalled,
    /// Unknown: the session ended first.
    Lost,
}

/// What a program on the host left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// The beginning of its standard output.
    pub stdout: Vec<u8>,
    /// The beginning of its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Takes the output of a program that must have exited with 0.
    pub(super) fn success(self, doing: &str) -> Result<Self, Error> {
        if self.exit == Exit::Exited(0) {
            return Ok(self);
        }
        if self.exit == Exit::Lost {
            return Err(Error::ConnectionLost);
        }
        Err(super::files::failure(&self, doing))
    }

    /// The last lines of what it said, on one line.
    pub(super) fn last_words(&self) -> String {
        let text = if self.stderr.is_empty() { &self.stdout } else { &self.stderr };
        let text = String::from_utf8_lossy(text);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(4)..].join(" / ");
        last.chars().filter(|character| !character.is_control()).take(600).collect()
    }
}

/// One authenticated connection.
pub(super) struct Connection {
    handle: Handle<PinnedKeys>,
}

impl Connection {
    /// Opens, checks the host key, authenticates. Nothing is sent to a host that shows another key.
    pub(super) async fn open(target: &Target, traffic: Arc<Traffic>) -> Result<Self, Error> {
        let seen = SeenKey::default();
        let pinned: Vec<PublicKey> =
            target.host_keys.iter().filter_map(|key| PublicKey::from_openssh(key).ok()).collect();
        let algorithms = pinned.iter().flat_map(|key| offered(&key.algorithm())).collect();
        let handler = PinnedKeys { pinned: pinned.clone(), seen: seen.clone() };
        let mut handle = handshake(&target.endpoint(), algorithms, handler, traffic).await.map_err(
            |failure| match failure {
                Handshake::Refused => Error::HostKeyChanged {
                    address: target.endpoint(),
                    expected: fingerprints(&pinned),
                    found: seen
                        .take()
                        .map_or_else(|| "no key of a pinned type".to_owned(), |key| described(&key)),
                },
                Handshake::Failed(error) => error,
            },
        )?;
        authenticate(&mut handle, target).await?;
        Ok(Self { handle })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// A channel to a Unix socket of the host.
    pub(super) async fn socket(&self, path: &str) -> Result<ChannelStream<Msg>, Error> {
        let channel = timeout(STEP_LIMIT, self.handle.channel_open_direct_streamlocal(path))
            .await
            .map_err(|_| Error::TimedOut { doing: format!("opening {path}"), limit: STEP_LIMIT })?
            .map_err(|error| match error {
                russh::Error::ChannelOpenFailure(reason) => Error::DockerUnavailable {
                    found: format!("sshd refused a channel to {path} ({reason:?}): the daemon does not run, or sshd forbids stream-local forwarding"),
                },
                _ => Error::ConnectionLost,
            })?;
        Ok(channel.into_stream())
    }

    /// Runs a command line, feeds it `input`, and collects what it says until it ends.
    pub(super) async fn run(&self, command: &str, input: Vec<u8>, limit: Duration) -> Result<Output, Error> {
        let channel = self.session(command).await?;
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(drain(channel, input, sender));
        match timeout(limit, receiver).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(_)) => Err(Error::ConnectionLost),
            Err(_) => Err(Error::TimedOut { doing: "a program on the host".to_owned(), limit }),
        }
    }
}

/// The host's lock. It ends when this is released or dropped, and with the connection.
#[derive(Debug)]
pub struct HostLock {
    end: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl HostLock {
    /// Refuses to go on with a lock that ended under way.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.ended.is_finished() { Err(Error::ConnectionLost) } else { Ok(()) }
    }

    /// Lets the lock go, and waits until the host has.
    pub async fn release(self) {
        drop(self.end);
        if timeout(STEP_LIMIT, self.ended).await.is_err() {
            tracing::debug!("the host did not confirm the end of its lock");
        }
    }
}

impl Connection {
    /// Starts a program that says a line when it holds something, and holds it until its input ends.
    pub(super) async fn hold(&self, command: &str, limit: Duration) -> Result<HostLock, Error> {
        let channel = self.session(command).await?;
        let (mut reader, writer) = channel.split();
        let held = async {
            while let Some(message) = reader.wait().await {
                match message {
                    ChannelMsg::Data { .. } => return Ok(()),
                    ChannelMsg::ExitStatus { exit_status: 75 } => return Err(Error::Locked),
                    ChannelMsg::ExitStatus { exit_status } => {
                        let found = format!("exit status {exit_status}");
                        return Err(Error::Failed { doing: "locking the host".to_owned(), found });
                    }
                    _ => {}
                }
            }
            Err(Error::ConnectionLost)
        };
        let doing = "locking the host".to_owned();
        timeout(limit, held).await.map_err(|_| Error::TimedOut { doing, limit })??;
        let (end, asked) = oneshot::channel();
        let ended = tokio::spawn(async move {
            let read_out = async { while reader.wait().await.is_some() {} };
            tokio::pin!(read_out);
            tokio::select! {
                () = &mut read_out => return,
                _ = asked => {}
            }
            if writer.eof().await.is_ok() {
                read_out.await;
            }
        });
        Ok(HostLock { end, ended })
    }

    async fn session(&self, command: &str) -> Result<Channel<Msg>, Error> {
        let open = async {
            let channel = self.handle.channel_open_session().await?;
            channel.exec(true, command).await?;
            Ok::<_, russh::Error>(channel)
        };
        timeout(STEP_LIMIT, open)
            .await
            .map_err(|_| Error::TimedOut { doing: "opening a session".to_owned(), limit: STEP_LIMIT })?
            .map_err(|_| Error::ConnectionLost)
    }
}

/// Answers of a program that are waiting to be taken, in pieces; whoever says more unasked is cut off.
const PIECES: usize = 256;

/// A program on the host that answers questions until it is dropped.
pub(super) struct Dialogue {
    questions: mpsc::Sender<Vec<u8>>,
    pieces: mpsc::Receiver<Vec<u8>>,
}

impl Dialogue {
    /// Sends a line and reads lines until one begins with `END `; that one is the last.
    pub(super) async fn ask(&mut self, question: &str, limit: Duration) -> Result<String, Error> {
        if self.pieces.try_recv().is_ok() {
            return Err(Error::ConnectionLost); // it speaks unasked
        }
        let asked = async {
            let line = format!("{question}\n").into_bytes();
            self.questions.send(line).await.map_err(|_| Error::ConnectionLost)?;
            let mut answer = Vec::new();
            while !is_complete(&answer) {
                let piece = self.pieces.recv().await.ok_or(Error::ConnectionLost)?;
                if answer.len() + piece.len() > OUTPUT_LIMIT {
                    let found = format!("more than {OUTPUT_LIMIT} bytes");
                    return Err(Error::Failed {
                        doing: format!("asking the host for its {question}"),
                        found,
                    });
                }
                answer.extend_from_slice(&piece);
            }
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        let doing = format!("asking the host for its {question}");
        timeout(limit, asked).await.map_err(|_| Error::TimedOut { doing, limit })?
    }
}

/// Whether the last line is whole and begins with `END `.
fn is_complete(answer: &[u8]) -> bool {
    let Some(lines) = answer.strip_suffix(b"\n") else { return false };
    let start = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    lines[start..].starts_with(b"END ")
}

impl Connection {
    /// Starts a program that answers questions. A task of its own reads whatever it says, so that it never blocks the
    /// connection; the end of the program's input ends it.
    pub(super) async fn converse(&self, command: &str) -> Result<Dialogue, Error> {
        let (mut reader, writer) = self.session(command).await?.split();
        let (questions, mut asked) = mpsc::channel::<Vec<u8>>(1);
        tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                if writer.data_bytes(question).await.is_err() {
                    break;
                }
            }
            let _: Result<(), russh::Error> = writer.eof().await;
            let _: Result<(), russh::Error> = writer.close().await;
        });
        let (sender, pieces) = mpsc::channel(PIECES);
        tokio::spawn(async move {
            while let Some(message) = reader.wait().await {
                let ChannelMsg::Data { data } = message else { continue };
                if sender.try_send(data.to_vec()).is_err() {
                    break;
                }
            }
            drop(sender);
            while reader.wait().await.is_some() {}
        });
        Ok(Dialogue { questions, pieces })
    }
}

/// Reads a channel to its end, whoever still waits for the answer.
async fn drain(channel: Channel<Msg>, input: Vec<u8>, mut answer: oneshot::Sender<Output>) {
    let (mut reader, writer) = channel.split();
    let feed = async {
        let fed = writer.data_bytes(input).await.is_ok() && writer.eof().await.is_ok();
        if !fed {
            tracing::debug!("a program ended before it read its input");
        }
        futures::future::pending::<()>().await;
    };
    let mut output = Output { exit: Exit::Lost, stdout: Vec::new(), stderr: Vec::new() };
    let collect = async {
        while let Some(message) = reader.wait().await {
            match message {
                ChannelMsg::Data { data } => keep(&mut output.stdout, &data),
                ChannelMsg::ExtendedData { data, .. } => keep(&mut output.stderr, &data),
                ChannelMsg::ExitStatus { exit_status } => output.exit = Exit::Exited(exit_status),
                ChannelMsg::ExitSignal { .. } => output.exit = Exit::Signalled,
                _ => {}
            }
        }
    };
    tokio::select! {
        () = feed => {}
        () = collect => {}
        () = answer.closed() => {}
    }
    if answer.is_closed() {
        let _: Result<(), russh::Error> = writer.close().await;
        return;
    }
    let _: Result<(), Output> = answer.send(output);
}

fn keep(kept: &mut Vec<u8>, data: &[u8]) {
    let room = OUTPUT_LIMIT.saturating_sub(kept.len());
    kept.extend_from_slice(&data[..data.len().min(room)]);
}

enum Handshake {
    /// The shown host key is not wanted.
    Refused,
    Failed(Error),
}

async fn handshake(
    address: &str,
    algorithms: Vec<Algorithm>,
    handler: PinnedKeys,
    traffic: Arc<Traffic>,
) -> Result<Handle<PinnedKeys>, Handshake> {
    let unreachable =
        |found: String| Handshake::Failed(Error::Unreachable { address: address.to_owned(), found });
    let stream = match timeout(STEP_LIMIT, TcpStream::connect(address)).await {
        Err(_) => {
            return Err(unreachable(format!("no answer within {} s", STEP_LIMIT.as_secs())));
        }
        Ok(Err(error)) => return Err(unreachable(described_io(&error))),
        Ok(Ok(stream)) => stream,
    };
    let config = client::Config {
        preferred: Preferred { key: Cow::Owned(algorithms), ..Preferred::default() },
        keepalive_interval: Some(Duration::from_secs(10)),
        keepalive_max: 3,
        nodelay: true,
        ..client::Config::default()
    };
    let _: Result<(), _> = stream.set_nodelay(true);
    let stream = Counted { stream, traffic };
    match timeout(STEP_LIMIT, client::connect_stream(Arc::new(config), stream, handler)).await {
        Err(_) => Err(Handshake::Failed(Error::Silent { address: address.to_owned(), limit: STEP_LIMIT })),
        Ok(Ok(handle)) => Ok(handle),
        Ok(Err(
            russh::Error::UnknownKey | russh::Error::NoCommonAlgo { kind: russh::AlgorithmKind::Key, .. },
        )) => Err(Handshake::Refused),
        Ok(Err(error)) => {
            Err(Handshake::Failed(Error::NotSsh { address: address.to_owned(), found: error.to_string() }))
        }
    }
}

/// A failure of TCP in words that do not depend on the platform's error numbers.
fn described_io(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "no route to the host".to_owned(),
        _ => error.to_string(),
    }
}

async fn authenticate(handle: &mut Handle<PinnedKeys>, target: &Target) -> Result<(), Error> {
    for identity in &target.identities {
        let attempt = async {
            let hash = handle.best_supported_rsa_hash().await?.flatten().or(Some(HashAlg::Sha256));
            let key = PrivateKeyWithHashAlg::new(identity.key.clone(), hash);
            handle.authenticate_publickey(&target.user, key).await
        };
        match timeout(STEP_LIMIT, attempt).await {
            Err(_) => {
                return Err(Error::Silent { address: target.endpoint(), limit: STEP_LIMIT });
            }
            Ok(Ok(AuthResult::Success)) => return Ok(()),
            Ok(Ok(AuthResult::Failure { .. })) => {}
            Ok(Err(_)) => return Err(Error::ConnectionLost),
        }
    }
    let _: Result<(), russh::Error> = handle.disconnect(Disconnect::ByApplication, "", "en").await;
    let keys: Vec<String> = target.identities.iter().map(Identity::fingerprint).collect();
    Err(Error::AuthenticationFailed {
        address: target.endpoint(),
        user: target.user.clone(),
        keys: keys.join(", "),
    })
}

/// The algorithms to offer so that the host shows a key of this type.
fn offered(algorithm: &Algorithm) -> Vec<Algorithm> {
    match algorithm {
        Algorithm::Rsa { .. } => {
            [HashAlg::Sha512, HashAlg::Sha256].map(|hash| Algorithm::Rsa { hash: Some(hash) }).to_vec()
        }
        other => vec![other.clone()],
    }
}

fn described(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm().as_str(), key.fingerprint(HashAlg::Sha256))
}

fn fingerprints(keys: &[PublicKey]) -> String {
    keys.iter().map(described).collect::<Vec<_>>().join(" or ")
}

/// The key that a host showed.
#[derive(Clone, Default)]
struct SeenKey(Arc<Mutex<Option<PublicKey>>>);

impl SeenKey {
    fn keep(&self, key: &PublicKey) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
    }

    fn take(&self) -> Option<PublicKey> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Accepts the pinned keys and no other.
struct PinnedKeys {
    pinned: Vec<PublicKey>,
    seen: SeenKey,
}

impl client::Handler for PinnedKeys {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else {
            return Ok(false);
        };
        self.seen.keep(key);
        Ok(self.pinned.iter().any(|pinned| pinned.key_data() == key.key_data()))
    }
}

/// A host key as a host shows it to anybody: not proof of anything.
#[derive(Clone, Debug)]
pub struct HostKeyFound {
    /// The key in the form that `hostKeys` takes.
    pub key: String,
    /// Its fingerprint, to be compared with `ssh-keygen -lf` on the host.
    pub fingerprint: String,
}

/// Whether a text is a whole public key in OpenSSH's form.
pub fn is_public_key(text: &str) -> bool {
    PublicKey::from_openssh(text).is_ok()
}

/// Asks a host for its public keys, without authenticating.
///
/// # Errors
/// When no SSH server answers.
pub async fn host_keys(address: &str) -> Result<Vec<HostKeyFound>, Error> {
    let types = [
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    ];
    let mut found = Vec::new();
    for algorithm in types {
        let seen = SeenKey::default();
        let handler = PinnedKeys { pinned: Vec::new(), seen: seen.clone() };
        if let Err(Handshake::Failed(error)) =
            handshake(address, vec![algorithm], handler, Arc::default()).await
        {
            return Err(error);
        }
        let Some(key) = seen.take() else { continue };
        found.push(HostKeyFound {
            key: key.to_openssh().unwrap_or_default(),
            fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        });
    }
    Ok(found)
}
