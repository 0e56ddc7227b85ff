//! HTTP to the services of a host, as the host reaches them: through channels of the SSH connection.

use std::{fmt, future::Future, net::SocketAddr, pin::pin, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use zeroize::Zeroizing;

use super::{Error, Host, HostLock, ssh::Tunnel, tls};
use crate::{secret::Secret, text::printable};

/// Largest body that is read, in bytes.
const BODY_LIMIT: usize = 1 << 20;
/// How samples are written.
const SAMPLES: [(&str, &str); 3] = [
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];
/// Largest head of an answer, in bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// Where a service is.
#[derive(Clone, Copy, Debug)]
pub struct ServiceAddress<'a> {
    /// As the host reaches it: a container's in a Docker network, or `127.0.0.1`.
    pub address: SocketAddr,
    /// Name of the host that is asked for over TLS; none where it is asked without. Who vouches for the certificate is not
    /// asked: the way there is the SSH connection's.
    pub tls_name: Option<&'a str>,
}

impl From<SocketAddr> for ServiceAddress<'_> {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls_name: None }
    }
}

/// What a service answers.
#[derive(Clone, PartialEq, Eq)]
pub enum HttpAnswer {
    /// An answer, whatever its status. A redirect is not followed.
    Answered {
        /// Status code.
        status: u16,
        /// The whole body.
        body: Vec<u8>,
    },
    /// None that can be used, and why. A request other than GET may have been carried out nevertheless.
    NoAnswer(String),
    /// The service cannot be asked: sshd forbids TCP forwarding.
    Forbidden,
}

impl fmt::Debug for HttpAnswer {
    /// Of a body, only its length: services return secrets, too.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { status, body } => write!(formatter, "Answered({status}, {} bytes)", body.len()),
            Self::NoAnswer(reason) => write!(formatter, "NoAnswer({reason})"),
            Self::Forbidden => formatter.write_str("Forbidden"),
        }
    }
}

/// User and password for HTTP's Basic authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// The user, without a colon.
    pub user: String,
    /// The password.
    pub password: Secret,
}

impl BasicAuth {
    fn header(&self) -> Result<HeaderValue, String> {
        if self.user.contains(':') {
            return Err("credentials: expected a user without a colon".to_owned());
        }
        let pair = Zeroizing::new([self.user.as_bytes(), b":", self.password.reveal()].concat());
        let text = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(&*pair)));
        let mut value = HeaderValue::from_str(&text).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// The method of a request that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMethod {
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
}

impl From<WriteMethod> for Method {
    fn from(method: WriteMethod) -> Self {
        match method {
            WriteMethod::Post => Self::POST,
            WriteMethod::Put => Self::PUT,
            WriteMethod::Delete => Self::DELETE,
        }
    }
}

impl Host {
    /// Sends a GET request to a service.
    ///
    /// `path` may have a query. The answer has a body of at most 1 MiB. Connecting and answering have a deadline each,
    /// [`Limits::service`](super::Limits::service).
    ///
    /// # Errors
    /// When the host cannot be reached. A service that does not answer is no error: see [`HttpAnswer`].
    pub async fn http_get(
        &self,
        service: impl Into<ServiceAddress<'_>>,
        path: &str,
        credentials: Option<&BasicAuth>,
    ) -> Result<HttpAnswer, Error> {
        let service = service.into();
        self.exchange(service, request(Method::GET, service, path, credentials, &[])).await
    }

    /// Sends a request that changes something to a service, under the host's lock.
    ///
    /// A `body` is JSON; an empty one is none. The rest is as with [`Host::http_get`].
    ///
    /// # Errors
    /// When the lock is lost, or the host cannot be reached.
    pub async fn http_send(
        &self,
        lock: &HostLock,
        method: WriteMethod,
        service: impl Into<ServiceAddress<'_>>,
        path: &str,
        credentials: Option<&BasicAuth>,
        body: &[u8],
    ) -> Result<HttpAnswer, Error> {
        lock.check()?;
        let service = service.into();
        self.exchange(service, request(method.into(), service, path, credentials, body)).await
    }

    /// Sends samples to a service that takes them by Prometheus' remote write protocol: nothing of the stack is changed by
    /// that, and no lock is needed. The rest is as with [`Host::http_get`].
    ///
    /// # Errors
    /// When the host cannot be reached.
    pub async fn send_samples(
        &self,
        service: impl Into<ServiceAddress<'_>>,
        path: &str,
        credentials: &BasicAuth,
        body: &[u8],
    ) -> Result<HttpAnswer, Error> {
        let service = service.into();
        let request = request(Method::POST, service, path, Some(credentials), body);
        let request = request.map(|mut request| {
            for (name, value) in SAMPLES {
                request.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            request
        });
        self.exchange(service, request).await
    }

    /// Sends a line of JSON to a service that keeps it: nothing of the stack is changed by that, and no lock is needed. The
    /// rest is as with [`Host::http_get`].
    ///
    /// # Errors
    /// When the host cannot be reached.
    pub async fn send_line(
        &self,
        service: impl Into<ServiceAddress<'_>>,
        path: &str,
        line: &[u8],
    ) -> Result<HttpAnswer, Error> {
        let service = service.into();
        self.exchange(service, request(Method::POST, service, path, None, line)).await
    }

    async fn exchange(
        &self,
        service: ServiceAddress<'_>,
        request: Result<Request<Full<Bytes>>, String>,
    ) -> Result<HttpAnswer, Error> {
        let ServiceAddress { address: endpoint, tls_name } = service;
        let request = match request {
            Ok(request) => request,
            Err(reason) => return Ok(HttpAnswer::NoAnswer(reason)),
        };
        let limit = self.target.limits.service;
        let link = self.link().await?;
        // A task of its own goes on after the deadline, and so closes a channel that opens too late.
        let opener = link.clone();
        let opening = tokio::spawn(async move { opener.connection.tunnel(endpoint).await });
        let Ok(opened) = timeout(limit, opening).await else {
            return Ok(HttpAnswer::NoAnswer(late(endpoint, "connection", limit)));
        };
        let answer = match opened.map_err(|_| Error::ConnectionLost)?? {
            Tunnel::Open(stream) => match tls_name {
                None => answer(stream, endpoint, request, limit).await,
                Some(name) => match timeout(limit, tls::connect(*stream, name)).await {
                    Ok(Ok(stream)) => answer(stream, endpoint, request, limit).await,
                    Ok(Err(found)) => HttpAnswer::NoAnswer(format!("{endpoint}: TLS: {found}")),
                    Err(_) => HttpAnswer::NoAnswer(late(endpoint, "TLS handshake", limit)),
                },
            },
            Tunnel::Refused => return Ok(HttpAnswer::NoAnswer(format!("{endpoint}: connection refused"))),
            Tunnel::Forbidden => return Ok(HttpAnswer::Forbidden),
        };
        // The end of the SSH connection says nothing about the service.
        if matches!(answer, HttpAnswer::NoAnswer(_)) && link.connection.is_ending().await {
            return Err(Error::ConnectionLost);
        }
        Ok(answer)
    }
}

fn late(endpoint: SocketAddr, step: &str, limit: Duration) -> String {
    format!("{endpoint}: no {step} within {} s", limit.as_secs_f32())
}

/// A request, or why there can be none.
fn request(
    method: Method,
    service: ServiceAddress<'_>,
    path: &str,
    credentials: Option<&BasicAuth>,
    body: &[u8],
) -> Result<Request<Full<Bytes>>, String> {
    if !path.starts_with('/') {
        return Err(format!("path: expected a `/` at the beginning of {}", printable(path)));
    }
    let name = service.tls_name.map_or_else(|| service.address.to_string(), str::to_owned);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, name)
        .header(header::CONNECTION, "close");
    if let Some(credentials) = credentials {
        request = request.header(header::AUTHORIZATION, credentials.header()?);
    }
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = Full::new(Bytes::copy_from_slice(body));
    request.body(body).map_err(|error| format!("path {}: {error}", printable(path)))
}

/// Sends a request through a stream and reads the answer.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin,
    endpoint: SocketAddr,
    request: Request<Full<Bytes>>,
    limit: Duration,
) -> HttpAnswer {
    match timeout(limit, exchange(stream, request)).await {
        Ok(Ok((status, body))) => HttpAnswer::Answered { status, body: body.into() },
        Ok(Err(reason)) => HttpAnswer::NoAnswer(format!("{endpoint}: {reason}")),
        Err(_) => HttpAnswer::NoAnswer(late(endpoint, "answer", limit)),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin,
    request: Request<Full<Bytes>>,
) -> Result<(u16, Bytes), String> {
    let broken = |error: hyper::Error| printable(&error.to_string());
    let mut client = http1::Builder::new();
    client.max_buf_size(HEAD_LIMIT);
    let (mut sender, driver) = client.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let received = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return format!("expected a body of {BODY_LIMIT} bytes at most, found a larger one");
            }
            printable(&error.to_string())
        })?;
        Ok((status, body.to_bytes()))
    };
    driven(received, driver).await
}

/// The result of a future that goes on only while another one is polled; both end with this.
async fn driven<T>(future: impl Future<Output = T>, driver: impl Future) -> T {
    let mut future = pin!(future);
    tokio::select! {
        biased;
        result = &mut future => result,
        _ = driver => future.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    fn endpoint() -> SocketAddr {
        "172.18.0.2:9200".parse().unwrap()
    }

    fn credentials() -> BasicAuth {
        BasicAuth { user: "elastic".to_owned(), password: Secret::new(b"canary".to_vec()) }
    }

    /// What comes of a GET that is answered by these bytes, after which the connection ends; and the request as it came.
    async fn answered_by(said: &[u8]) -> (HttpAnswer, String) {
        let (near, mut far) = duplex(1 << 16);
        let serve = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(far.read_u8().await.unwrap());
            }
            far.write_all(said).await.unwrap();
            drop(far);
            String::from_utf8(head).unwrap()
        };
        let request =
            request(Method::GET, endpoint().into(), "/_cat?h=a", Some(&credentials()), &[]).unwrap();
        tokio::join!(answer(near, endpoint(), request, LIMIT), serve)
    }

    fn body(text: &str, status: u16) -> HttpAnswer {
        HttpAnswer::Answered { status, body: text.as_bytes().to_vec() }
    }

    #[tokio::test]
    async fn a_request_has_its_host_and_credentials() {
        let (found, request) = answered_by(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(found, body("ok", 200));
        assert!(request.starts_with("GET /_cat?h=a HTTP/1.1\r\n"), "{request}");
        for line in ["host: 172.18.0.2:9200", "authorization: Basic ZWxhc3RpYzpjYW5hcnk="] {
            assert!(request.lines().any(|found| found == line), "{request}");
        }
    }

    #[tokio::test]
    async fn every_status_is_an_answer() {
        for (said, expected) in [
            ("HTTP/1.1 301 Moved\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n", body("", 301)),
            ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno", body("no", 401)),
            ("HTTP/1.0 503 Busy\r\n\r\nto the end", body("to the end", 503)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", body("ok", 200)),
        ] {
            assert_eq!(answered_by(said.as_bytes()).await.0, expected, "{said}");
        }
    }

    #[tokio::test]
    async fn half_an_answer_is_none() {
        for said in [
            "",
            "HTTP/1.1 200",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
            "SSH-2.0-OpenSSH\r\n",
        ] {
            let (found, _) = answered_by(said.as_bytes()).await;
            let HttpAnswer::NoAnswer(reason) = found else { panic!("{said}: {found:?}") };
            assert!(reason.starts_with("172.18.0.2:9200: "), "{reason}");
        }
    }

    #[test]
    fn a_request_that_cannot_be_sent_is_not_made() {
        let made = |path: &str, user: &str| {
            let credentials = BasicAuth { user: user.to_owned(), ..credentials() };
            request(Method::GET, endpoint().into(), path, Some(&credentials), &[]).map(drop)
        };
        assert_eq!(made("/a?b=c", "elastic"), Ok(()));
        for (path, user, wanted) in [
            ("http://other/", "elastic", "path: expected a `/` at the beginning of http://other/"),
            ("", "elastic", "path: expected"),
            ("/a b\r\nX: y", "elastic", "path /a b\\r\\nX: y: "),
            ("/", "a:b", "credentials: expected a user without a colon"),
        ] {
            let reason = made(path, user).unwrap_err();
            assert!(reason.starts_with(wanted) && !reason.contains("canary"), "{reason}");
        }
    }

    #[test]
    fn debug_shows_neither_credentials_nor_bodies() {
        let request = request(Method::GET, endpoint().into(), "/", Some(&credentials()), &[]).unwrap();
        let shown = format!("{request:?} {:?} {:?}", credentials(), body("canary", 200));
        assert!(!shown.contains("canary") && !shown.contains("Y2FuYXJ5"), "{shown}");
        assert!(!shown.contains("ZWxhc3RpYzpjYW5hcnk="), "{shown}");
        assert!(shown.ends_with("Answered(200, 6 bytes)"), "{shown}");
    }
}
