//! Where the values of secrets come from: a folder of files, or a program that knows another place.

use std::{
    collections::BTreeMap,
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use tasktracker_crds::scalars::SecretName;
use tokio::{
    io::AsyncReadExt,
    process::Command,
    sync::Mutex,
    time::{Instant, timeout},
};

use super::StackKey;
use crate::{
    host::Identity,
    secret::{References, Secret, SecretSource, Values},
};

/// Largest secret that is read, in bytes.
const MAX_SECRET_BYTES: u64 = 1 << 20;
/// Key of a private SSH key, as in Kubernetes' own Secrets of that type.
const SSH_KEY: &str = "ssh-privatekey";
/// How long a program may take to tell a secret.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// How long what a program told is believed.
const COMMAND_HOLDS: Duration = Duration::from_secs(30);
/// How long what a store returned is kept after that, for when it cannot be asked.
const STORE_KEEPS: Duration = Duration::from_hours(1);
/// How long it is not asked again after it failed.
const COMMAND_RESTS: Duration = Duration::from_secs(5);

/// What is wrong with a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There is nowhere to look.
    #[error(
        "secret {name}: expected a folder of secrets or a program that knows them, found none; start the operator with --secrets-dir or --secret-command"
    )]
    NoSource {
        /// Name of the secret.
        name: String,
    },
    /// The file is not there or cannot be read.
    #[error("secret {name}: expected {place}, found: {found}")]
    Unreadable {
        /// Name of the secret.
        name: String,
        /// Where it should be.
        place: String,
        /// Why it cannot be read.
        found: String,
    },
    /// Other users can read the file.
    #[error("secret {name}: expected {} to be readable by its owner alone, found mode {mode:o}; chmod 600 it, or, where Kubernetes or Docker mounted it so, start the operator with --secrets-mounted", .path.display())]
    Exposed {
        /// Name of the secret.
        name: String,
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The value is not what it should be.
    #[error("secret {name}: expected {expected} in {place}, found something else: {found}")]
    Unusable {
        /// Name of the secret.
        name: String,
        /// What it should be.
        expected: &'static str,
        /// Where it is.
        place: String,
        /// What is wrong with it; nothing of the value.
        found: String,
    },
}

/// Where secrets are looked up.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Origin);

/// Keys and values of one secret, read from a store of a cluster.
pub trait SecretStore: fmt::Debug + Send + Sync {
    /// Everything in a secret of a namespace.
    fn read<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Data, Refused>>;
}

/// The values of a secret, by key.
pub type Data = BTreeMap<String, Secret>;

/// Why a store does not tell a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Whether the store cannot be asked at present, so that what it told before still counts.
    pub is_passing: bool,
    /// What was found, in words; nothing of a value.
    pub found: String,
}

/// A store, and what it returned lately, by namespace and name.
#[derive(Debug)]
struct Shelf {
    store: Arc<dyn SecretStore>,
    cache: Cache<Data, Refused>,
}

/// What was returned lately. What is not asked for any more is forgotten, since it is secret.
#[derive(Debug)]
struct Cache<T, E> {
    entries: std::sync::Mutex<BTreeMap<CacheKey, CacheEntry<T, E>>>,
    /// How long a result is kept after it is to be asked for again.
    keeps: Duration,
}

type CacheKey = (String, String);

/// A result, and a lock for whoever asks for it.
type CacheEntry<T, E> = Arc<Mutex<Option<Cached<T, E>>>>;

#[derive(Debug)]
struct Cached<T, E> {
    until: Instant,
    result: Result<T, E>,
}

impl<T: Clone, E: Clone> Cache<T, E> {
    fn new(keeps: Duration) -> Self {
        Self { entries: std::sync::Mutex::default(), keeps }
    }

    /// The entry of a key; those that nobody asks for any more are gone.
    fn entry(&self, key: CacheKey, now: Instant) -> CacheEntry<T, E> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let is_kept = |cached: &Cached<T, E>| now < cached.until + self.keeps;
        entries.retain(|_, entry| {
            let is_in_use = Arc::strong_count(entry) > 1;
            is_in_use || entry.try_lock().is_ok_and(|cached| cached.as_ref().is_some_and(is_kept))
        });
        entries.entry(key).or_default().clone()
    }

    /// What `read` returns, or returned at most half a minute ago; where it fails in passing, what it returned before.
    async fn get(
        &self,
        key: CacheKey,
        is_passing: impl FnOnce(&E) -> bool,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let entry = self.entry(key, Instant::now());
        // Whoever asks for the same meanwhile waits for the one answer; others do not wait.
        let mut cached = entry.lock().await;
        if let Some(cached) = cached.as_ref().filter(|cached| Instant::now() < cached.until) {
            return cached.result.clone();
        }
        let result = read.await;
        let holds = if result.is_ok() { COMMAND_HOLDS } else { COMMAND_RESTS };
        let before = cached.take().map(|cached| cached.result).filter(Result::is_ok);
        let result = match result {
            Err(error) if is_passing(&error) => before.unwrap_or(Err(error)),
            result => result,
        };
        *cached = Some(Cached { until: Instant::now() + holds, result: result.clone() });
        result
    }
}

#[derive(Clone, Debug, Default)]
enum Origin {
    #[default]
    Nowhere,
    /// A folder for each name, a file for each key; and who may read them.
    Folder(PathBuf, FileAccess),
    /// A program that is given name and key, and prints the value.
    Program(Arc<Program>),
    /// A store that knows secrets by namespace and name; those of one namespace, once it is known which.
    Store(Arc<Shelf>, Option<String>),
}

/// Who may read the files of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileAccess {
    /// Their owner and nobody else: others are refused.
    OwnerAlone,
    /// Whoever the mount lets.
    Mounted,
}

/// A program, and what it printed lately, by name and key.
#[derive(Debug)]
struct Program {
    words: Vec<String>,
    cache: Cache<Secret, SecretError>,
}

impl Secrets {
    /// Secrets from a folder, or none at all.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self(folder.map_or(Origin::Nowhere, |folder| Origin::Folder(folder, FileAccess::OwnerAlone)))
    }

    /// Secrets from a folder that Kubernetes or Docker mounted: they give files modes of their own, such as 0444, and keep
    /// everybody else out by the container.
    pub fn mounted(folder: PathBuf) -> Self {
        Self(Origin::Folder(folder, FileAccess::Mounted))
    }

    /// Secrets from a program and its first arguments; name and key follow them, and it prints exactly the value.
    pub fn from_program(words: Vec<String>) -> Self {
        Self(Origin::Program(Arc::new(Program { words, cache: Cache::new(Duration::ZERO) })))
    }

    /// Secrets from a store: each stack has those of its own namespace.
    pub fn from_store(store: Arc<dyn SecretStore>) -> Self {
        Self(Origin::Store(Arc::new(Shelf { store, cache: Cache::new(STORE_KEEPS) }), None))
    }

    /// The secrets that a stack may use.
    #[must_use]
    pub fn of(&self, stack: &StackKey) -> Self {
        match &self.0 {
            Origin::Store(shelf, _) => Self(Origin::Store(shelf.clone(), Some(stack.namespace.clone()))),
            other => Self(other.clone()),
        }
    }

    /// One key of a secret.
    ///
    /// # Errors
    /// When it is missing, too large, or readable by others.
    pub async fn get(&self, name: &SecretName, key: &str) -> Result<Secret, SecretError> {
        match &self.0 {
            Origin::Nowhere | Origin::Store(_, None) => Err(SecretError::NoSource { name: name.to_string() }),
            Origin::Folder(folder, access) => from_file(name, folder.join(name.as_str()).join(key), *access),
            Origin::Program(program) => program.get(name, key).await,
            Origin::Store(shelf, Some(namespace)) => shelf.get(namespace, name, key).await,
        }
    }

    /// The private SSH key of a secret.
    ///
    /// # Errors
    /// As for [`Secrets::get`], and when it is no private key.
    pub async fn identity(&self, name: &SecretName) -> Result<Identity, SecretError> {
        let value = self.get(name, SSH_KEY).await?;
        let text = std::str::from_utf8(value.reveal()).map_err(|_| "bytes that are not UTF-8".to_owned());
        text.and_then(Identity::read).map_err(|found| SecretError::Unusable {
            name: name.to_string(),
            expected: "a private SSH key",
            place: self.place(name, SSH_KEY),
            found,
        })
    }

    /// Adds the values of references that are not there yet.
    pub async fn add(&self, values: &mut Values, wanted: &References) {
        for reference in wanted.values() {
            if values.known.contains_key(reference) || values.missing.contains_key(reference) {
                continue;
            }
            match self.content(reference).await {
                Ok(value) => drop(values.known.insert(reference.clone(), value)),
                Err(error) => drop(values.missing.insert(reference.clone(), error.to_string())),
            }
        }
    }

    /// What a file with a secret contains.
    async fn content(&self, source: &SecretSource) -> Result<Secret, SecretError> {
        let SecretSource { secret, key, form } = source;
        let value = self.get(secret, key).await?;
        let Some(form) = form else { return Ok(value) };
        form.of(&value).map_err(|found| SecretError::Unusable {
            name: secret.to_string(),
            expected: "what can be made a file of",
            place: self.place(secret, key),
            found,
        })
    }

    /// Where a value is looked up, in words.
    fn place(&self, name: &SecretName, key: &str) -> String {
        match &self.0 {
            Origin::Nowhere => String::new(),
            Origin::Folder(folder, _) => folder.join(name.as_str()).join(key).display().to_string(),
            Origin::Program(program) => program.call(name, key),
            Origin::Store(_, namespace) => shelved(namespace.as_deref().unwrap_or_default(), name, key),
        }
    }
}

fn from_file(name: &SecretName, path: PathBuf, access: FileAccess) -> Result<Secret, SecretError> {
    let place = || format!("a file {}", path.display());
    let unreadable = |found: std::io::Error| SecretError::Unreadable {
        name: name.to_string(),
        place: place(),
        found: found.to_string(),
    };
    let metadata = fs::metadata(&path).map_err(unreadable)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 && access == FileAccess::OwnerAlone {
        return Err(SecretError::Exposed { name: name.to_string(), path, mode });
    }
    if metadata.len() > MAX_SECRET_BYTES {
        return Err(too_large(name, place(), &metadata.len()));
    }
    fs::read(&path).map(Secret::new).map_err(unreadable)
}

fn too_large(name: &SecretName, place: String, found: &impl fmt::Display) -> SecretError {
    let found = format!("{found} bytes");
    SecretError::Unusable { name: name.to_string(), expected: "at most 1 MiB", place, found }
}

/// A key of a Secret in a namespace, in words.
fn shelved(namespace: &str, name: &SecretName, key: &str) -> String {
    format!("the key {key} of the Secret {namespace}/{name}")
}

impl Shelf {
    async fn get(&self, namespace: &str, name: &SecretName, key: &str) -> Result<Secret, SecretError> {
        let place = shelved(namespace, name, key);
        let unreadable =
            |found: String| SecretError::Unreadable { name: name.to_string(), place: place.clone(), found };
        let data = self.data(namespace, name.as_str()).await.map_err(|refused| unreadable(refused.found))?;
        let value = data.get(key).cloned();
        value.ok_or_else(|| {
            let keys: Vec<&str> = data.keys().map(String::as_str).collect();
            unreadable(if keys.is_empty() {
                "no keys".to_owned()
            } else {
                format!("only {}", keys.join(", "))
            })
        })
    }

    /// The whole secret, as it was told at most half a minute ago; where the store cannot be asked, as it was told last.
    async fn data(&self, namespace: &str, name: &str) -> Result<Data, Refused> {
        let key = (namespace.to_owned(), name.to_owned());
        let read = async { self.store.read(namespace, name).await };
        self.cache.get(key, |refused| refused.is_passing, read).await
    }
}

impl Program {
    fn call(&self, name: &SecretName, key: &str) -> String {
        format!("`{} {name} {key}`", self.words.join(" "))
    }

    async fn get(&self, name: &SecretName, key: &str) -> Result<Secret, SecretError> {
        let read = async {
            let limited = timeout(COMMAND_LIMIT, self.ask(name, key)).await;
            limited.unwrap_or_else(|_| {
                Err(self.failed(name, key, format!("no answer within {} s", COMMAND_LIMIT.as_secs())))
            })
        };
        self.cache.get((name.to_string(), key.to_owned()), |_| false, read).await
    }

    /// What it prints is the value; what it says beside that is not shown, for it may be one, too.
    async fn ask(&self, name: &SecretName, key: &str) -> Result<Secret, SecretError> {
        let failed = |found: String| self.failed(name, key, found);
        let Some((program, first)) = self.words.split_first() else {
            return Err(failed("no program".to_owned()));
        };
        let mut command = Command::new(program);
        command.args(first).args([name.as_str(), key]).stdin(Stdio::null()).stderr(Stdio::null());
        let spawned = command.stdout(Stdio::piped()).kill_on_drop(true).spawn();
        let mut child = spawned.map_err(|error| failed(error.to_string()))?;
        let mut value = Vec::new();
        if let Some(output) = child.stdout.take() {
            let read = output.take(MAX_SECRET_BYTES + 1).read_to_end(&mut value).await;
            read.map_err(|error| failed(error.to_string()))?;
        }
        if value.len() as u64 > MAX_SECRET_BYTES {
            return Err(too_large(name, self.call(name, key), &"more"));
        }
        let status = child.wait().await.map_err(|error| failed(error.to_string()))?;
        if status.success() { Ok(Secret::new(value)) } else { Err(failed(status.to_string())) }
    }

    fn failed(&self, name: &SecretName, key: &str, found: String) -> SecretError {
        let place = format!("{} to print it; run it to see what it says", self.call(name, key));
        SecretError::Unreadable { name: name.to_string(), place, found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(mode: u32, content: &[u8]) -> (tempfile::TempDir, Secrets, SecretName) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("key")).unwrap();
        let path = folder.path().join("key").join(SSH_KEY);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let secrets = Secrets::new(Some(folder.path().to_owned()));
        (folder, secrets, "key".parse().unwrap())
    }

    #[tokio::test]
    async fn a_secret_that_others_can_read_is_refused() {
        let (_folder, secrets, name) = written(0o640, b"x");
        assert!(matches!(secrets.get(&name, SSH_KEY).await, Err(SecretError::Exposed { mode: 0o640, .. })));
    }

    #[tokio::test]
    async fn secrets_that_were_mounted_have_the_modes_of_the_mount() {
        for mode in [0o440, 0o444, 0o600] {
            let (folder, _, name) = written(mode, b"x");
            let secrets = Secrets::mounted(folder.path().to_owned());
            assert_eq!(secrets.get(&name, SSH_KEY).await.unwrap().reveal(), b"x", "{mode:o}");
        }
    }

    #[tokio::test]
    async fn nothing_of_a_broken_key_is_told_and_any_bytes_are_a_value() {
        let (_folder, secrets, name) = written(0o600, b"-----BEGIN OPENSSH PRIVATE KEY-----\ncanary\n");
        let told = secrets.identity(&name).await.unwrap_err().to_string();
        assert!(!told.contains("canary"), "{told}");
        let (_folder, secrets, name) = written(0o600, &[0xff, 0xfe, 0, b'\n']);
        assert!(matches!(secrets.identity(&name).await, Err(SecretError::Unusable { .. })));
        assert_eq!(secrets.get(&name, SSH_KEY).await.unwrap().reveal(), [0xff, 0xfe, 0, b'\n']);
    }

    fn program(script: &str) -> (Secrets, SecretName) {
        let words = ["sh", "-c", script, "sh"].map(str::to_owned).to_vec();
        (Secrets::from_program(words), "db".parse().unwrap())
    }

    #[tokio::test]
    async fn a_program_is_given_name_and_key_and_prints_exactly_the_value() {
        let (secrets, name) = program("printf '%s\\0%s\\n' \"$1\" \"$2\"");
        assert_eq!(secrets.get(&name, "url").await.unwrap().reveal(), b"db\0url\n");
        let (secrets, name) = program("head -c 1048577 /dev/zero");
        assert!(secrets.get(&name, "url").await.unwrap_err().to_string().contains("at most 1 MiB"));
    }

    #[tokio::test]
    async fn a_program_that_fails_is_told_without_what_it_printed() {
        let (secrets, name) = program("echo canary; echo canary >&2; exit 3");
        let told = secrets.get(&name, "url").await.unwrap_err().to_string();
        assert!(told.contains("exit status: 3") && told.contains("run it to see"), "{told}");
        assert!(!told.replace("echo canary", "").contains("canary"), "{told}");
    }

    #[tokio::test]
    async fn what_a_program_told_is_believed_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let count = folder.path().join("count");
        let (secrets, name) = program(&format!("echo x >>{0}; cat {0}", count.display()));
        for _ in 0..3 {
            assert_eq!(secrets.get(&name, "url").await.unwrap().reveal(), b"x\n");
        }
    }

    #[tokio::test]
    async fn what_a_program_printed_is_forgotten_when_nobody_asks_for_it() {
        let (secrets, name) = program("echo value");
        let Origin::Program(program) = &secrets.0 else { panic!("it is a program") };
        for key in ["one", "two"] {
            secrets.get(&name, key).await.unwrap();
        }
        let known =
            || program.cache.entries.lock().unwrap().keys().map(|(_, key)| key.clone()).collect::<Vec<_>>();
        let entry = |key: &str, now| drop(program.cache.entry(("db".to_owned(), key.to_owned()), now));
        entry("three", Instant::now());
        assert_eq!(known(), ["one", "three", "two"]);
        entry("four", Instant::now() + COMMAND_HOLDS);
        assert_eq!(known(), ["four"], "a secret is kept that nobody will get");
    }

    #[derive(Debug)]
    struct Store(std::sync::Mutex<Vec<Result<Data, Refused>>>);

    impl SecretStore for Store {
        fn read<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Data, Refused>> {
            let next = self.0.lock().unwrap().pop().expect("it is asked too often");
            Box::pin(std::future::ready(next))
        }
    }

    #[tokio::test]
    async fn what_a_store_returned_counts_while_it_cannot_be_asked() {
        let refused = |is_passing| Err(Refused { is_passing, found: "away".to_owned() });
        let value = |text: &str| Ok(Data::from([("k".to_owned(), Secret::new(text.as_bytes().to_vec()))]));
        let answers = vec![refused(false), refused(true), value("one")];
        let secrets = Secrets::from_store(Arc::new(Store(std::sync::Mutex::new(answers))));
        let Origin::Store(shelf, _) = &secrets.0 else { panic!("it is a store") };
        let secrets = secrets.of(&StackKey { namespace: "a".to_owned(), name: "s".to_owned() });
        let name: SecretName = "db".parse().unwrap();
        let expire = async || {
            let entry = shelf.cache.entry(("a".to_owned(), "db".to_owned()), Instant::now());
            entry.lock().await.as_mut().unwrap().until = Instant::now();
        };
        for _ in 0..2 {
            assert_eq!(secrets.get(&name, "k").await.unwrap().reveal(), b"one");
        }
        expire().await;
        assert_eq!(secrets.get(&name, "k").await.unwrap().reveal(), b"one");
        expire().await;
        assert!(secrets.get(&name, "k").await.is_err(), "it is there no longer");
        let later = Instant::now() + COMMAND_RESTS + STORE_KEEPS;
        drop(shelf.cache.entry(("a".to_owned(), "other".to_owned()), later));
        assert_eq!(shelf.cache.entries.lock().unwrap().len(), 1);
    }
}
