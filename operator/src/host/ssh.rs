//! SSH: pinned host keys, and deadlines on everything.

use std::{
    borrow::Cow,
    fmt,
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};

use russh::{
    Channel, ChannelOpenFailure, ChannelStream, Disconnect, Preferred,
    client::{self, AuthResult, Handle, Msg},
    keys::{
        self, Algorithm, EcdsaCurve, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey,
        PublicKeyOrCertificate, decode_secret_key,
    },
};
use tokio::{
    net::{TcpStream, lookup_host},
    sync::Mutex as AsyncMutex,
    time::{sleep, timeout},
};

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
/// How long the end of a connection may come after that of its channels, and how often it is looked for.
const ENDING: Duration = Duration::from_millis(200);
const ENDING_POLL: Duration = Duration::from_millis(5);

/// How long an address may stay silent before the next one of the same name is tried beside it.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// Connections beside the first one, for a host whose sshd opens few sessions on each: the operator uses up to seven at a
/// time.
const MORE_CONNECTIONS: usize = 7;

/// A private key and the name it was given.
#[derive(Clone)]
pub struct Identity {
    key: Arc<PrivateKey>,
}

impl Identity {
    /// Reads a private key in any form that `ssh -i` takes: OpenSSH's own, PKCS#1, PKCS#8 and SEC1.
    ///
    /// # Errors
    /// What it is instead, without any part of it.
    pub fn read(text: &str) -> Result<Self, String> {
        if let Some(found) = no_private_key(text) {
            return Err(found.to_owned());
        }
        let key = decode_secret_key(text, None).map_err(|error| match error {
            keys::Error::KeyIsEncrypted => PASSPHRASE.to_owned(),
            error => format!("a private key that is cut or damaged ({error})"),
        })?;
        if key.is_encrypted() {
            return Err(PASSPHRASE.to_owned());
        }
        Ok(Self { key: Arc::new(key) })
    }

    pub(super) fn fingerprint(&self) -> String {
        self.key.public_key().fingerprint(HashAlg::Sha256).to_string()
    }
}

const PASSPHRASE: &str =
    "a private key with a passphrase; take it off a copy with `ssh-keygen -p`, or make one for the operator";

/// What a text is that looks like no private key at all.
fn no_private_key(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let begins = |what: &str| first.is_some_and(|line| line.starts_with(what));
    if first.is_none() {
        Some("nothing")
    } else if begins("PuTTY-User-Key-File") {
        Some("PuTTY's own form; `puttygen KEY -O private-openssh -o FILE` converts it")
    } else if text.contains("-----BEGIN DSA PRIVATE KEY-----") {
        Some("a DSA key, which SSH servers refuse; `ssh-keygen -t ed25519` makes another one")
    } else if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || text.contains("Proc-Type: 4,ENCRYPTED")
    {
        Some(PASSPHRASE)
    } else if text.contains(" PRIVATE KEY-----") || text.contains("-----BEGIN PRIVATE KEY-----") {
        None
    } else if first.is_some_and(|line| line.contains("-cert-v01@openssh.com ")) {
        Some("a certificate; the private key is the file without `-cert.pub`")
    } else if first.is_some_and(is_public_key) || text.contains(" PUBLIC KEY-----") {
        Some("a public key; the private key is the file without `.pub`")
    } else if text.contains("-----BEGIN CERTIFICATE-----") {
        Some("an X.509 certificate")
    } else if begins("/") || begins("~/") || begins("./") {
        Some("the path of a file; the secret has to have what is in it")
    } else {
        Some("no lines `-----BEGIN … PRIVATE KEY-----`")
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity({})", self.fingerprint())
    }
}

/// Authenticated connections to one host: one, and more where its sshd opens too few sessions on each.
pub(super) struct Connection {
    target: Target,
    traffic: Arc<Traffic>,
    handle: Handle<PinnedKeys>,
    more: AsyncMutex<Vec<Arc<Handle<PinnedKeys>>>>,
}

impl Connection {
    /// Opens one.
    pub(super) async fn open(target: &Target, traffic: Arc<Traffic>) -> Result<Self, Error> {
        let handle = Self::connect(target, traffic.clone()).await?;
        Ok(Self { target: target.clone(), traffic, handle, more: AsyncMutex::default() })
    }

    /// Connects, checks the host key, authenticates. Nothing is sent to a host that shows another key.
    async fn connect(target: &Target, traffic: Arc<Traffic>) -> Result<Handle<PinnedKeys>, Error> {
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
        Ok(handle)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Whether it is closed, or is known to be within a moment: the end of a channel is seen before that of its connection.
    pub(super) async fn is_ending(&self) -> bool {
        let ended = async {
            while !self.is_closed() {
                sleep(ENDING_POLL).await;
            }
        };
        timeout(ENDING, ended).await.is_ok()
    }

    /// The user on the host.
    pub(super) fn user(&self) -> &str {
        &self.target.user
    }

    /// A channel in which a command line runs: on the first connection, or where sshd opens no more there, on another.
    pub(super) async fn session(&self, command: &str) -> Result<Channel<Msg>, Error> {
        let refused = match session(&self.handle, command).await {
            Err(refused @ Error::ChannelRefused { .. }) => refused,
            result => return result,
        };
        // Whoever needs one more waits for whoever opens one.
        let mut more = self.more.lock().await;
        more.retain(|handle| !handle.is_closed());
        for handle in more.iter() {
            match session(handle, command).await {
                Err(Error::ChannelRefused { .. } | Error::ConnectionLost) => {}
                result => return result,
            }
        }
        if more.len() >= MORE_CONNECTIONS {
            return Err(refused);
        }
        let handle = Self::connect(&self.target, self.traffic.clone()).await?;
        let channel = session(&handle, command).await?;
        tracing::debug!(host = %self.target.name, connections = more.len() + 2, "sshd opens few sessions on a connection");
        more.push(Arc::new(handle));
        Ok(channel)
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
                russh::Error::ChannelOpenFailure(reason) => {
                    Error::SocketRefused { socket: path.to_owned(), found: format!("{reason:?}") }
                }
                _ => Error::ConnectionLost,
            })?;
        Ok(channel.into_stream())
    }
}

/// A channel of a connection in which a command line runs.
async fn session(handle: &Handle<PinnedKeys>, command: &str) -> Result<Channel<Msg>, Error> {
    let open = async {
        let channel = handle.channel_open_session().await?;
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
    let stream = tcp(address)
        .await
        .map_err(|found| Handshake::Failed(Error::Unreachable { address: address.to_owned(), found }))?;
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

/// Connects to the first address of a name that answers.
async fn tcp(endpoint: &str) -> Result<TcpStream, String> {
    let late = || format!("no answer within {} s", STEP_LIMIT.as_secs());
    let found =
        timeout(STEP_LIMIT, lookup_host(endpoint)).await.map_err(|_| format!("{} of its name", late()))?;
    let addresses: Vec<SocketAddr> = found.map_err(|error| described_io(&error))?.collect();
    first_to_answer(&addresses, |address| async move {
        let connected = timeout(STEP_LIMIT, TcpStream::connect(address)).await;
        connected.map_err(|_| late())?.map_err(|error| described_io(&error))
    })
    .await
}

/// Tries addresses in their order, each beside those before it when they fail or stay silent: a name may have an address
/// that nobody answers at, as an IPv6 one without a route.
///
/// # Errors
/// Why each failed; with several, each with its address.
async fn first_to_answer<T, F: Future<Output = Result<T, String>>>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, String> {
    let (mut waiting, mut trying, mut failures) = (addresses.iter(), FuturesUnordered::new(), Vec::new());
    loop {
        let next = waiting.next();
        if let Some(&address) = next {
            let attempt = connect(address);
            trying.push(async move { (address, attempt.await) });
        }
        let is_last = waiting.len() == 0;
        tokio::select! {
            ended = trying.next() => match ended {
                Some((_, Ok(connected))) => return Ok(connected),
                Some((address, Err(found))) => failures.push((address, found)),
                None if next.is_none() => break,
                None => {}
            },
            () = sleep(NEXT_ADDRESS), if !is_last => {}
        }
    }
    Err(match failures.as_slice() {
        [] => "no address of this name".to_owned(),
        [(_, found)] => found.clone(),
        several => {
            let each: Vec<String> =
                several.iter().map(|(address, found)| format!("{}: {found}", address.ip())).collect();
            each.join("; ")
        }
    })
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
    let mut keys: Vec<String> = target.identities.iter().map(Identity::fingerprint).collect();
    keys.extend(target.unusable_identities.iter().map(|found| format!("not tried: {found}")));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys that OpenSSH 9.2 and OpenSSL 3.0 made for this test and that open nothing, by name.
    const KEYS: [(&str, &str); 6] = [
        ("ed25519, OpenSSH", include_str!("../../tests/golden/keys/ed25519-openssh")),
        ("ed25519, PKCS#8", include_str!("../../tests/golden/keys/ed25519-pkcs8")),
        ("RSA, PKCS#1", include_str!("../../tests/golden/keys/rsa-pkcs1")),
        ("RSA, PKCS#8", include_str!("../../tests/golden/keys/rsa-pkcs8")),
        ("P-256, SEC1", include_str!("../../tests/golden/keys/p256-sec1")),
        ("P-256, PKCS#8", include_str!("../../tests/golden/keys/p256-pkcs8")),
    ];

    #[test]
    fn identities_are_read_in_every_form_that_ssh_takes() {
        let fingerprint = |text: &str| Identity::read(text).map(|identity| identity.fingerprint());
        for (name, text) in KEYS {
            let plain = fingerprint(text).unwrap_or_else(|found| panic!("{name}: {found}"));
            for changed in [
                format!("{text}\n"),
                format!("{text}\n\n  \n"),
                format!("\n# a comment\n{text}"),
                text.replace('\n', "\r\n"),
                text.trim_end().to_owned(),
            ] {
                assert_eq!(fingerprint(&changed).as_ref(), Ok(&plain), "{name}: {changed:?}");
            }
        }
        // One key in two forms is one key.
        for (one, other) in [(0, 1), (2, 3), (4, 5)] {
            let forms = [one, other].map(|index: usize| fingerprint(KEYS[index].1).unwrap());
            assert_eq!(forms[0] == forms[1], one != 0, "{}", KEYS[one].0);
        }
    }

    #[test]
    fn what_is_no_private_key_is_told_as_what_it_is() {
        let public = PublicKey::from_openssh(
            &KEYS[0].1.parse::<PrivateKey>().unwrap().public_key().to_openssh().unwrap(),
        );
        let public = public.unwrap().to_openssh().unwrap();
        let cut: String = KEYS[2].1.lines().take(6).map(|line| format!("{line}\n")).collect();
        for (text, expected) in [
            ("", "nothing"),
            (" \n\n", "nothing"),
            (public.as_str(), "a public key; the private key is the file without `.pub`"),
            ("-----BEGIN PUBLIC KEY-----\nMII=\n-----END PUBLIC KEY-----\n", "a public key"),
            ("ssh-ed25519-cert-v01@openssh.com AAAA x", "a certificate"),
            ("-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n", "an X.509 certificate"),
            ("PuTTY-User-Key-File-3: ssh-ed25519\n", "PuTTY's own form"),
            ("-----BEGIN DSA PRIVATE KEY-----\nMII=\n-----END DSA PRIVATE KEY-----\n", "a DSA key"),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMII=\n", "with a passphrase"),
            ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n", "with a passphrase"),
            (include_str!("../../tests/golden/keys/ed25519-passphrase"), "with a passphrase"),
            ("/home/deploy/.ssh/id_ed25519\n", "the path of a file"),
            ("hunter2", "no lines `-----BEGIN"),
            (cut.as_str(), "cut or damaged"),
        ] {
            let found = Identity::read(text).unwrap_err();
            assert!(found.contains(expected), "{text:?}: expected {expected}, found {found}");
        }
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 22))
    }

    #[tokio::test]
    async fn a_silent_address_does_not_hide_one_that_answers() {
        let addresses = [address(1), address(2), address(3)];
        let answered = first_to_answer(&addresses, |one| async move {
            if one == address(2) { Ok(one) } else { std::future::pending().await }
        });
        assert_eq!(answered.await, Ok(address(2)));
        let answered = first_to_answer(&addresses, |one| async move {
            if one == address(3) { Ok(one) } else { Err("connection refused".to_owned()) }
        });
        assert_eq!(answered.await, Ok(address(3)));
        // One that is slow is not given up for one that fails at once.
        let failed = &tokio::sync::Notify::new();
        let answered = first_to_answer(&addresses[..2], |one| async move {
            if one == address(1) {
                failed.notified().await;
                return Ok(one);
            }
            failed.notify_one();
            Err("no route".to_owned())
        });
        assert_eq!(answered.await, Ok(address(1)));
    }

    #[tokio::test]
    async fn every_address_that_failed_is_named_where_there_are_several() {
        let failing = |one: SocketAddr| async move { Err::<(), _>(format!("refused by {}", one.port())) };
        let told = async |addresses: &[SocketAddr]| first_to_answer(addresses, failing).await.unwrap_err();
        assert_eq!(told(&[address(1)]).await, "refused by 22");
        assert_eq!(
            told(&[address(1), address(2)]).await,
            "192.0.2.1: refused by 22; 192.0.2.2: refused by 22"
        );
        assert_eq!(told(&[]).await, "no address of this name");
    }
}
