//! Image references, logins and what a registry refuses. Pure.

use std::{collections::BTreeMap, fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE};
use serde::Deserialize;
use serde_json::json;
use tasktracker_crds::conditions::reasons;

use crate::secret::Secret;

/// Docker's own registry, as references leave it out and as logins name it.
const DOCKER_HUB: (&str, &str) = ("docker.io", "https://index.docker.io/v1/");
/// User by which a credential helper says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// A login to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// User.
    pub username: String,
    /// Password, or a token.
    pub password: Secret,
}

impl Login {
    /// The header with which Docker is told of a login, for the one request that needs it: `X-Registry-Auth`.
    pub(crate) fn header(&self) -> Secret {
        let password = String::from_utf8_lossy(self.password.reveal());
        let text = if self.username == TOKEN_USER {
            json!({ "identitytoken": password })
        } else {
            json!({ "username": self.username, "password": password })
        };
        let text = text.to_string();
        Secret::new(URL_SAFE.encode(text).into_bytes())
    }

    /// Reads what a credential helper of Docker prints.
    ///
    /// # Errors
    /// What is wrong with it; nothing of it is told.
    pub fn of_helper(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Printed {
            username: String,
            secret: String,
        }
        let read: Printed = serde_json::from_slice(text)
            .map_err(|_| "expected JSON with Username and Secret, found something else".to_owned())?;
        Ok(Self { username: read.username, password: Secret::new(read.secret.into_bytes()) })
    }
}

/// Where Docker's own configuration of a user says that a login is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nowhere.
    Nowhere,
    /// In the configuration itself.
    Here(Login),
    /// With a credential helper.
    Helper {
        /// Its name without `docker-credential-`.
        helper: String,
        /// What it is asked for.
        key: String,
    },
}

/// Reads a `config.json` of Docker for a login to a registry.
///
/// # Errors
/// What is wrong with it; nothing of it is told.
pub fn kept_login(config: &[u8], registry: &str) -> Result<Kept, String> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Config {
        auths: BTreeMap<String, Auth>,
        cred_helpers: BTreeMap<String, String>,
        creds_store: Option<String>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Auth {
        auth: String,
        #[serde(rename = "identitytoken")]
        identity_token: String,
    }
    let unreadable = || "expected a config.json of Docker, found something else".to_owned();
    let config: Config = serde_json::from_slice(config).map_err(|_| unreadable())?;
    let is_it = |key: &&String| host_of_key(key) == host_of_key(registry_key(registry));
    if let Some((key, helper)) = config.cred_helpers.iter().find(|(key, _)| is_it(key)) {
        return Ok(Kept::Helper { helper: helper.clone(), key: key.clone() });
    }
    let Some((key, auth)) = config.auths.iter().find(|(key, _)| is_it(key)) else {
        // As Docker's own client does, the store is asked for a registry that has no entry, too.
        let store = config.creds_store.filter(|store| !store.is_empty());
        let key = registry_key(registry).to_owned();
        return Ok(store.map_or(Kept::Nowhere, |helper| Kept::Helper { helper, key }));
    };
    match config.creds_store.filter(|store| !store.is_empty()) {
        Some(helper) => Ok(Kept::Helper { helper, key: key.clone() }),
        None if !auth.identity_token.is_empty() => {
            let password = Secret::new(auth.identity_token.clone().into_bytes());
            Ok(Kept::Here(Login { username: TOKEN_USER.to_owned(), password }))
        }
        None if auth.auth.is_empty() => Ok(Kept::Nowhere),
        None => {
            let text = STANDARD.decode(&auth.auth).map_err(|_| unreadable())?;
            let text = String::from_utf8(text).map_err(|_| unreadable())?;
            let (username, password) = text.split_once(':').ok_or_else(unreadable)?;
            let password = Secret::new(password.as_bytes().to_vec());
            Ok(Kept::Here(Login { username: username.to_owned(), password }))
        }
    }
}

/// The registry of a reference, with its port.
pub fn registry_of(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => DOCKER_HUB.0,
    }
}

/// A registry as credential helpers are asked for it.
pub fn registry_key(registry: &str) -> &str {
    if registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { registry }
}

/// A key of Docker's configuration may be a whole address.
fn host_of_key(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// A reference in parts: repository, tag and digest.
pub fn parts(reference: &str) -> (&str, Option<&str>, Option<&str>) {
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (reference, None),
    };
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag), digest),
        _ => (name, None, digest),
    }
}

/// Repository and tag of a reference; without a tag, Docker takes `latest`.
pub fn tagged(reference: &str) -> (&str, &str) {
    let (repository, tag, _) = parts(reference);
    (repository, tag.unwrap_or("latest"))
}

/// The reference by which Docker knows an image for certain: the digest alone where there is one.
pub fn exact(reference: &str) -> String {
    match parts(reference) {
        (repository, _, Some(digest)) => format!("{repository}@{digest}"),
        _ => reference.to_owned(),
    }
}

/// A repository with everything that short names leave out.
fn whole_name(repository: &str) -> String {
    let registry = registry_of(repository);
    let path =
        repository.strip_prefix(registry).and_then(|path| path.strip_prefix('/')).unwrap_or(repository);
    if registry == DOCKER_HUB.0 && !path.contains('/') {
        format!("{registry}/library/{path}")
    } else {
        format!("{registry}/{path}")
    }
}

/// The digest under which an image was pulled from the repository of a reference, of those that Docker remembers.
pub fn digest_of<'a>(reference: &str, repo_digests: &'a [String]) -> Option<&'a str> {
    let wanted = whole_name(parts(reference).0);
    let mut known = repo_digests.iter().filter_map(|known| known.split_once('@'));
    known.find(|(repository, _)| whole_name(repository) == wanted).map(|(_, digest)| digest)
}

/// Whether a text is a digest that may stand in a reference.
pub fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Why an image cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of refusal.
    pub kind: RefusalKind,
    /// What Docker, or whoever was asked, said.
    pub found: String,
}

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The registry does not answer, or not in time.
    Unavailable,
    /// It asks to be left alone for a while.
    RateLimited,
    /// It shows a certificate for which nobody vouches on the host.
    UnknownAuthority,
    /// It speaks plain HTTP where the host wants TLS.
    PlainHttp,
    /// It does not accept the login.
    WrongLogin,
    /// It does not let this login have the image, or there is no login.
    Denied,
    /// It does not have the image.
    Missing,
    /// It does not have the image for the host's processor.
    OtherPlatform,
    /// What it sends is not what its digest says.
    Mismatch,
    /// The host has no room for the image.
    NoSpace,
}

/// What Docker says, in lower case, and what it means: the first that is found counts.
const WORDS: &[(&str, RefusalKind)] = &[
    ("verification failed", RefusalKind::Mismatch),
    ("digest mismatch", RefusalKind::Mismatch),
    ("unexpected commit digest", RefusalKind::Mismatch),
    ("does not match", RefusalKind::Mismatch),
    ("no space left on device", RefusalKind::NoSpace),
    ("disk quota exceeded", RefusalKind::NoSpace),
    ("no matching manifest", RefusalKind::OtherPlatform),
    ("no match for platform", RefusalKind::OtherPlatform),
    ("does not provide the specified platform", RefusalKind::OtherPlatform),
    ("toomanyrequests", RefusalKind::RateLimited),
    ("too many requests", RefusalKind::RateLimited),
    ("rate limit", RefusalKind::RateLimited),
    ("parsing http 429 response", RefusalKind::RateLimited),
    ("x509: ", RefusalKind::UnknownAuthority),
    ("server gave http response to https client", RefusalKind::PlainHttp),
    ("first record does not look like a tls handshake", RefusalKind::PlainHttp),
    ("no basic auth credentials", RefusalKind::Denied),
    // What Harbor says where a login is right and may not see the image.
    ("unauthorized to access", RefusalKind::Denied),
    ("unauthorized", RefusalKind::WrongLogin),
    ("incorrect username or password", RefusalKind::WrongLogin),
    ("authentication required", RefusalKind::WrongLogin),
    ("denied", RefusalKind::Denied),
    ("not found", RefusalKind::Missing),
    ("manifest unknown", RefusalKind::Missing),
    ("name unknown", RefusalKind::Missing),
    ("does not exist", RefusalKind::Missing),
];

impl Refusal {
    /// Judges an answer of Docker by its status and its words: the words of a pull come without a status.
    pub fn judge(status: Option<u16>, found: &str) -> Self {
        let words = found.to_lowercase();
        let by_words = WORDS.iter().find(|(one, _)| words.contains(one)).map(|(_, kind)| *kind);
        let by_status = match status {
            Some(401) => Some(RefusalKind::WrongLogin),
            Some(403) => Some(RefusalKind::Denied),
            Some(404) => Some(RefusalKind::Missing),
            Some(429) => Some(RefusalKind::RateLimited),
            _ => None,
        };
        let kind = by_words.or(by_status).unwrap_or(RefusalKind::Unavailable);
        Self { kind, found: crate::text::printable(found) }
    }

    /// Whether another try with the same login is in vain.
    pub fn is_of_login(&self) -> bool {
        self.kind == RefusalKind::WrongLogin
    }

    /// The same, where nobody had logged in: no login is wrong.
    pub(crate) fn without_login(self) -> Self {
        let kind = if self.is_of_login() { RefusalKind::Denied } else { self.kind };
        Self { kind, ..self }
    }

    /// Whether the registry does not have the image, or does not tell whether it has.
    pub fn is_without_image(&self) -> bool {
        matches!(self.kind, RefusalKind::Missing | RefusalKind::Denied)
    }

    /// How long its registry is not asked again after so many failures in a row: longer and longer.
    ///
    /// Docker passes on no `Retry-After`: where a registry limits requests, the pause begins with what is usual there.
    pub fn pause(&self, failures: u32) -> Duration {
        let minutes = Duration::from_mins;
        let (first, longest) = match self.kind {
            RefusalKind::RateLimited => (minutes(5), minutes(60)),
            // The same login is not used again anyway: another one is used at once.
            RefusalKind::WrongLogin => (Duration::from_secs(10), Duration::from_secs(10)),
            RefusalKind::Missing => (Duration::from_secs(10), minutes(1)),
            RefusalKind::Unavailable | RefusalKind::Denied => (Duration::from_secs(10), minutes(5)),
            RefusalKind::UnknownAuthority
            | RefusalKind::PlainHttp
            | RefusalKind::OtherPlatform
            | RefusalKind::Mismatch
            | RefusalKind::NoSpace => (Duration::from_secs(30), minutes(10)),
        };
        (first * 2_u32.saturating_pow(failures.saturating_sub(1).min(10))).min(longest)
    }

    /// Nobody answered.
    pub fn unavailable(found: impl fmt::Display) -> Self {
        Self { kind: RefusalKind::Unavailable, found: crate::text::printable(&found.to_string()) }
    }

    /// There is no login to ask with.
    pub fn denied(found: impl fmt::Display) -> Self {
        Self { kind: RefusalKind::Denied, found: crate::text::printable(&found.to_string()) }
    }

    /// The reason for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self.kind {
            RefusalKind::Unavailable
            | RefusalKind::RateLimited
            | RefusalKind::UnknownAuthority
            | RefusalKind::PlainHttp => reasons::REGISTRY_UNAVAILABLE,
            RefusalKind::WrongLogin | RefusalKind::Denied => reasons::REGISTRY_DENIED,
            RefusalKind::Missing | RefusalKind::OtherPlatform => reasons::IMAGE_MISSING,
            RefusalKind::Mismatch => reasons::DIGEST_MISMATCH,
            RefusalKind::NoSpace => reasons::PREFLIGHT_FAILED,
        }
    }

    /// What is to be told of an image.
    pub fn message(&self, reference: &str) -> String {
        let (expected, remedy) = match self.kind {
            RefusalKind::Unavailable => {
                ("an answer of its registry", "see whether it runs and whether the host reaches it")
            }
            RefusalKind::RateLimited => (
                "an answer of its registry",
                "wait, or log in: registries limit who is not known to them more",
            ),
            RefusalKind::UnknownAuthority => (
                "a registry that the host trusts",
                "put its authority into /etc/docker/certs.d/REGISTRY/ca.crt on the host",
            ),
            RefusalKind::PlainHttp => (
                "a registry that speaks TLS",
                "give it a certificate, or name it in `insecure-registries` of the host's daemon.json",
            ),
            RefusalKind::WrongLogin => (
                "its registry to accept the login",
                "see app.registryAuth, or `docker login` on the host; it is not used again before it changes",
            ),
            RefusalKind::Denied => {
                ("its registry to accept the login", "see app.registryAuth, or `docker login` on the host")
            }
            RefusalKind::OtherPlatform => {
                ("it for the host's platform", "build and push it for that one, too (`docker buildx`)")
            }
            RefusalKind::NoSpace => {
                ("room for it on the host", "make room there; `docker system df` shows what Docker has")
            }
            RefusalKind::Missing => {
                ("it on the host or in the registry", "push it, or `docker load` it on the host")
            }
            RefusalKind::Mismatch => ("what its digest says", "push it anew, or name another digest"),
        };
        format!("image {reference}: expected {expected}, found: {}; {remedy}", self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn references_are_taken_apart() {
        let pinned = format!("t/backend:r1@{DIGEST}");
        let digest_alone = format!("localhost:5000/t/backend@{DIGEST}");
        let table = [
            ("caddy", "caddy", None, None, "docker.io"),
            ("caddy:2", "caddy", Some("2"), None, "docker.io"),
            ("caddy/caddy", "caddy/caddy", None, None, "docker.io"),
            ("docker.io/library/caddy:2.6", "docker.io/library/caddy", Some("2.6"), None, "docker.io"),
            ("a.example/t:r", "a.example/t", Some("r"), None, "a.example"),
            ("localhost/t", "localhost/t", None, None, "localhost"),
            ("127.0.0.1:5000/t", "127.0.0.1:5000/t", None, None, "127.0.0.1:5000"),
            ("a.example:5000/t/backend", "a.example:5000/t/backend", None, None, "a.example:5000"),
            ("a.example:5000/t/backend:r1", "a.example:5000/t/backend", Some("r1"), None, "a.example:5000"),
            (&pinned, "t/backend", Some("r1"), Some(DIGEST), "docker.io"),
            (&digest_alone, "localhost:5000/t/backend", None, Some(DIGEST), "localhost:5000"),
            // What Docker reports of a container may be the ID of an image, or nothing.
            (DIGEST, "sha256", Some(&DIGEST[7..]), None, "docker.io"),
            ("", "", None, None, "docker.io"),
        ];
        for (reference, repository, tag, digest, registry) in table {
            assert_eq!(parts(reference), (repository, tag, digest), "{reference}");
            assert_eq!(tagged(reference), (repository, tag.unwrap_or("latest")), "{reference}");
            assert_eq!(registry_of(reference), registry, "{reference}");
        }
        assert_eq!(exact(&pinned), format!("t/backend@{DIGEST}"));
        assert_eq!(exact("caddy:2"), "caddy:2");
    }

    #[test]
    fn a_digest_counts_for_its_own_repository_only() {
        let known = vec![format!("caddy@{DIGEST}"), "a.example/t@sha256:b".to_owned()];
        assert_eq!(digest_of("docker.io/library/caddy:2.6", &known), Some(DIGEST));
        assert_eq!(digest_of("docker.io/caddy:2.6", &known), Some(DIGEST));
        assert_eq!(digest_of("a.example/t:r1", &known), Some("sha256:b"));
        assert_eq!(digest_of("b.example/t:r1", &known), None);
        assert!(is_digest(DIGEST) && !is_digest("sha256:b") && !is_digest(&DIGEST.replace("aa", "AA")));
    }

    #[test]
    fn a_login_is_where_dockers_configuration_says() {
        let config =
            br#"{"auths": {"https://index.docker.io/v1/": {"auth": "dXNlcjpwYTpzcw=="}, "b.example": {}},
            "credHelpers": {"c.example:5000": "ecr-login"}}"#;
        let login = Login { username: "user".to_owned(), password: Secret::new(b"pa:ss".to_vec()) };
        assert_eq!(kept_login(config, "docker.io"), Ok(Kept::Here(login)));
        assert_eq!(kept_login(config, "b.example"), Ok(Kept::Nowhere));
        let helper =
            |helper: &str, key: &str| Ok(Kept::Helper { helper: helper.to_owned(), key: key.to_owned() });
        assert_eq!(kept_login(config, "c.example:5000"), helper("ecr-login", "c.example:5000"));
        assert_eq!(kept_login(config, "d.example"), Ok(Kept::Nowhere));
        let store = br#"{"auths": {"https://b.example/v1/": {}}, "credsStore": "pass"}"#;
        assert_eq!(kept_login(store, "b.example"), helper("pass", "https://b.example/v1/"));
        let alone = br#"{"credsStore": "pass"}"#;
        assert_eq!(kept_login(alone, "c.example:5000"), helper("pass", "c.example:5000"));
        assert_eq!(kept_login(alone, "docker.io"), helper("pass", "https://index.docker.io/v1/"));
        assert_eq!(kept_login(br#"{"credsStore": ""}"#, "b.example"), Ok(Kept::Nowhere));
        let token = br#"{"auths": {"b.example": {"auth": "dTpw", "identitytoken": "t"}}}"#;
        let Ok(Kept::Here(token)) = kept_login(token, "b.example") else { panic!("a token is a login") };
        assert_eq!(URL_SAFE.decode(token.header().reveal()).unwrap(), br#"{"identitytoken":"t"}"#);
        assert_eq!(kept_login(b"{}", "b.example"), Ok(Kept::Nowhere));
        let told = kept_login(br#"{"auths": {"b.example": {"auth": "canary"}}}"#, "b.example").unwrap_err();
        assert!(!told.contains("canary"), "{told}");
    }

    #[test]
    fn what_a_helper_prints_is_a_login_and_is_not_told_otherwise() {
        let login = Login::of_helper(br#"{"ServerURL": "x", "Username": "u", "Secret": "p"}"#).unwrap();
        assert_eq!((login.username.as_str(), login.password.reveal()), ("u", &b"p"[..]));
        assert!(!Login::of_helper(b"canary").unwrap_err().contains("canary"));
        let header = login.header();
        assert_eq!(URL_SAFE.decode(header.reveal()).unwrap(), br#"{"password":"p","username":"u"}"#);
    }

    #[test]
    fn pauses_grow_and_a_registry_that_limits_requests_has_its_peace() {
        let seconds = |status: u16, failures: u32| Refusal::judge(Some(status), "").pause(failures).as_secs();
        assert_eq!([1, 2, 3, 6, 99].map(|failures| seconds(500, failures)), [10, 20, 40, 300, 300]);
        assert_eq!([1, 2, 9].map(|failures| seconds(429, failures)), [300, 600, 3_600]);
        assert_eq!([1, 3, 9].map(|failures| seconds(404, failures)), [10, 40, 60]);
    }

    #[test]
    fn refusals_are_told_apart_by_what_docker_says() {
        let kind = |status, found| Refusal::judge(status, found).kind;
        assert_eq!(kind(Some(401), "x"), RefusalKind::WrongLogin);
        assert_eq!(kind(None, "unauthorized: incorrect username or password"), RefusalKind::WrongLogin);
        assert_eq!(kind(Some(403), "x"), RefusalKind::Denied);
        assert_eq!(kind(None, "pull access denied for a, repository does not exist"), RefusalKind::Denied);
        assert_eq!(
            kind(None, "no matching manifest for linux/amd64 in the manifest list entries"),
            RefusalKind::OtherPlatform
        );
        assert_eq!(
            kind(None, "failed to register layer: write /usr/bin/caddy: no space left on device"),
            RefusalKind::NoSpace
        );
        assert_eq!(
            kind(Some(500), "Get \"https://a/v2/\": x509: certificate signed by unknown authority"),
            RefusalKind::UnknownAuthority
        );
        assert_eq!(
            kind(Some(500), "Get \"https://a/v2/\": http: server gave HTTP response to HTTPS client"),
            RefusalKind::PlainHttp
        );
        assert_eq!(kind(Some(429), "x"), RefusalKind::RateLimited);
        assert_eq!(
            kind(None, "toomanyrequests: You have reached your pull rate limit"),
            RefusalKind::RateLimited
        );
        assert_eq!(kind(None, "Head \"https://a/v2/\": no basic auth credentials"), RefusalKind::Denied);
        assert_eq!(kind(Some(404), "manifest for a:r1 not found: manifest unknown"), RefusalKind::Missing);
        assert_eq!(
            kind(Some(500), "dial tcp 127.0.0.1:5000: connect: connection refused"),
            RefusalKind::Unavailable
        );
        assert_eq!(kind(None, "manifest verification failed for digest sha256:aa"), RefusalKind::Mismatch);
    }
}
