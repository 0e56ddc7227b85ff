//! SSH: pinned host keys, and deadlines on everything.

use std::{
    borrow::Cow,
    fmt,
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use russh::{
    Channel, ChannelOpenFailure, ChannelStream, Disconnect, Preferred,
    client::{self, AuthResult, Handle, Msg},
    keys::{
        Algorithm, EcdsaCurve, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate,
    },
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    Error, Target,
    traffic::{Counted, Traffic},
};

/// How long each step of connecting may take.
pub(super) const STEP_LIMIT: Duration = Duration::from_secs(10);
/// After so much silence, a server is asked to show that it is there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// After so much silence, it did not answer that either.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(13);

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

    pub(super) fn fingerprint(&self) -> String {
        self.key.public_key().fingerprint(HashAlg::Sha256).to_string()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity({})", self.fingerprint())
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

    /// A channel in which a command line runs.
    pub(super) async fn session(&self, command: &str) -> Result<Channel<Msg>, Error> {
        let open = async {
            let channel = self.handle.channel_open_session().await?;
            channel.exec(true, command).await?;
            Ok::<_, russh::Error>(channel)
        };
        timeout(STEP_LIMIT, open)
            .await
            .map_err(|_| Error::TimedOut { doing: "opening a session".to_owned(), limit: STEP_LIMIT })?
            .map_err(|error| match error {
                russh::Error::ChannelOpenFailure(reason) => {
                    Error::ChannelRefused { channel: "a session", found: format!("{reason:?}") }
                }
                _ => Error::ConnectionLost,
            })
    }

    /// A channel to a TCP port, from the host itself: its own, or one of its containers.
    pub(super) async fn tunnel(&self, endpoint: SocketAddr) -> Result<Tunnel, Error> {
        let (address, port) = (endpoint.ip().to_string(), endpoint.port().into());
        let opened = self.handle.channel_open_direct_tcpip(address, port, "127.0.0.1", 0);
        match opened.await {
            Ok(channel) => Ok(Tunnel::Open(Box::new(channel.into_stream()))),
            Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited)) => {
                Ok(Tunnel::Forbidden)
            }
            Err(russh::Error::ChannelOpenFailure(_)) => Ok(Tunnel::Refused),
            Err(_) => Err(Error::ConnectionLost),
        }
    }

    /// A channel to a Unix socket of the host.
    pub(super) async fn socket(&self, path: &str) -> Result<ChannelStream<Msg>, Error> {
        let channel = timeout(STEP_LIMIT, self.handle.channel_open_direct_streamlocal(path))
            .await
            .map_err(|_| Error::TimedOut { doing: format!("opening {path}"), limit: STEP_LIMIT })?
            .map_err(|error| match error {
                russh::Error::ChannelOpenFailure(reason) => Error::DockerUnavailable {
                    found: format!("sshd refused a channel to {path} ({reason:?}): the daemon does not run, or sshd forbids stream-local forwarding, as AllowTcpForwarding no does, too"),
                },
                _ => Error::ConnectionLost,
            })?;
        Ok(channel.into_stream())
    }
}

/// What came of asking for a TCP port.
pub(super) enum Tunnel {
    /// A channel to it.
    Open(Box<ChannelStream<Msg>>),
    /// Nothing listens there.
    Refused,
    /// sshd forbids TCP forwarding.
    Forbidden,
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
        keepalive_interval: Some(KEEPALIVE_INTERVAL),
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
