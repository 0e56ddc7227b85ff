//! Users of the app: requests all the while, of which none may fail and no acknowledged write be lost.

use std::{
    collections::BTreeSet,
    fmt::Display,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{TlsClient, http, tls::TlsStream, wait::wait_until};

/// Users at the same time; every other one keeps its connection.
pub const USERS: usize = 8;
/// From the start of one request of a user to that of the next: 200 requests a second in all.
const PAUSE: Duration = Duration::from_millis(40);

/// The title of every task, page by page; `api` is where the API answers.
///
/// # Errors
/// When it does not, or with something else than tasks.
pub fn titles(api: SocketAddr) -> Result<BTreeSet<String>> {
    let mut titles = BTreeSet::new();
    let mut after = String::new();
    loop {
        let answer = http(api, &format!("GET /tasks?limit=200{after}"));
        let (status, body) = answer.context("nobody answered")?;
        ensure!(status == 200, "{status}: {body}");
        let page: Value = serde_json::from_str(&body)?;
        let items = page["items"].as_array().context("a page without items")?;
        titles.extend(items.iter().filter_map(|task| task["title"].as_str()).map(str::to_owned));
        match page["next"].as_i64() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(titles),
        }
    }
}

/// What users saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// How long each request took.
    pub latencies: Vec<Duration>,
    /// Requests that were not answered as they should be, in words, each with the seconds since its user began.
    pub failures: Vec<String>,
    /// Titles of tasks whose creation was acknowledged.
    pub created: BTreeSet<String>,
    /// When good answers came.
    pub answers: Vec<Instant>,
    /// Requests that were asked once more.
    pub asked_again: usize,
}

impl Seen {
    /// The latency that 99 of 100 requests stayed below.
    #[must_use]
    pub fn p99(&self) -> Duration {
        let mut latencies = self.latencies.clone();
        latencies.sort();
        latencies.get(latencies.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default()
    }

    /// The longest time in which nobody got a good answer.
    #[must_use]
    pub fn longest_silence(&self) -> Duration {
        let mut answers = self.answers.clone();
        answers.sort();
        let gaps = answers.iter().zip(answers.iter().skip(1)).map(|(one, next)| *next - *one);
        gaps.max().unwrap_or_default()
    }
}

/// Users at work.
#[derive(Debug)]
pub struct Users {
    stop: Arc<AtomicBool>,
    /// Requests that ended.
    ended: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Seen>>,
}

impl Users {
    /// Begins to ask page and API at the page's address; `name` is in the titles of the tasks that they make.
    #[must_use]
    pub fn start(page: SocketAddr, name: &str) -> Self {
        Self::begin(page, None, name)
    }

    /// The same over TLS. Like browsers, these ask once more where a connection ends before its answer begins: a proxy
    /// that takes up another certificate closes connections, even where a request has just been sent.
    #[must_use]
    pub fn start_over_tls(page: SocketAddr, client: &TlsClient, name: &str) -> Self {
        Self::begin(page, Some(client), name)
    }

    fn begin(page: SocketAddr, client: Option<&TlsClient>, name: &str) -> Self {
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..USERS).map(|number| {
            let user = User { page, client: client.cloned(), keeps: number % 2 == 0, connection: None };
            let (stop, ended, name) = (stop.clone(), ended.clone(), format!("{name}-{number}"));
            std::thread::spawn(move || user.work(&name, &stop, &ended))
        });
        let threads = threads.collect();
        Self { stop, ended, threads }
    }

    /// Waits until so many more requests ended, of all users together.
    ///
    /// # Panics
    /// When they do not in time.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize) {
        let before = self.ended.load(Ordering::Relaxed);
        wait_until(format_args!("{count} more requests ended"), || {
            self.ended.load(Ordering::Relaxed) >= before + count
        });
    }

    /// What they have seen until now.
    ///
    /// # Panics
    /// When one of them did.
    #[must_use]
    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for thread in self.threads {
            let seen = thread.join().expect("a user does not panic");
            all.latencies.extend(seen.latencies);
            all.failures.extend(seen.failures);
            all.created.extend(seen.created);
            all.answers.extend(seen.answers);
            all.asked_again += seen.asked_again;
        }
        all
    }
}

struct User {
    page: SocketAddr,
    /// How it asks over TLS, where it does.
    client: Option<TlsClient>,
    keeps: bool,
    connection: Option<BufReader<Connection>>,
}

/// A user's connection, with or without TLS.
enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Connection {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(data),
            Self::Tls(stream) => stream.write(data),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl User {
    fn work(mut self, name: &str, stop: &AtomicBool, ended: &AtomicUsize) -> Seen {
        let (mut seen, began) = (Seen::default(), Instant::now());
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let started = Instant::now();
            let title = format!("{name}-{number}");
            let body = format!("{{\"title\": \"{title}\"}}");
            let (request, wanted) = match number % 4 {
                0 => ("GET /".to_owned(), 200),
                1 => ("GET /api/tasks?limit=5".to_owned(), 200),
                2 => ("GET /api/health".to_owned(), 200),
                _ => (format!("POST /api/tasks\n{body}"), 201),
            };
            let mut answer = self.ask(&request);
            if self.client.is_some() && answer.as_ref().is_err_and(has_ended) {
                seen.asked_again += 1;
                answer = self.ask(&request);
            }
            let took = started.elapsed();
            let mut fail = |found: &dyn Display| {
                let (at, took) = ((started - began).as_secs_f32(), took.as_millis());
                seen.failures.push(format!("{at:.2} s: {request}: {found} after {took} ms"));
            };
            match answer {
                Ok(status) if status == wanted => {
                    seen.answers.push(Instant::now());
                    if wanted == 201 {
                        seen.created.insert(title);
                    }
                }
                Ok(status) => fail(&status),
                Err(error) => fail(&error),
            }
            seen.latencies.push(took);
            ended.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(PAUSE.saturating_sub(started.elapsed()));
        }
        seen
    }

    /// `METHOD PATH` and, after a newline, a body: the status of the answer.
    fn ask(&mut self, request: &str) -> std::io::Result<u16> {
        let (line, body) = request.split_once('\n').unwrap_or((request, ""));
        let mut connection = self.connection()?;
        let (keeps, length) = (if self.keeps { "keep-alive" } else { "close" }, body.len());
        let head = format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nConnection: {keeps}\r\nContent-Type: application/json\r\nContent-Length: {length}",
            self.page
        );
        connection.get_mut().write_all(format!("{head}\r\n\r\n{body}").as_bytes())?;
        let (mut status, mut size, mut goes_on) = (0, 0, self.keeps);
        for number in 0.. {
            let mut line = String::new();
            let read = connection.read_line(&mut line);
            match read {
                Ok(0) if number == 0 => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(0) => return Err(cut("closed")),
                Err(error) if number > 0 => return Err(cut(error)),
                read => drop(read?),
            }
            let line = line.trim().to_lowercase();
            if line.is_empty() {
                break;
            }
            if number == 0 {
                status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                size = value.trim().parse().unwrap_or_default();
            }
            goes_on &= line != "connection: close";
        }
        let mut answer = vec![0; size];
        connection.read_exact(&mut answer).map_err(cut)?;
        self.connection = goes_on.then_some(connection);
        Ok(status)
    }

    /// The kept connection, unless the server has ended it meanwhile; a new one otherwise.
    fn connection(&mut self) -> std::io::Result<BufReader<Connection>> {
        if let Some(kept) = self.connection.take() {
            let socket = kept.get_ref().socket();
            socket.set_nonblocking(true)?;
            let ended = socket.peek(&mut [0]).is_ok();
            socket.set_nonblocking(false)?;
            if !ended {
                return Ok(kept);
            }
        }
        if let Some(client) = &self.client {
            return Ok(BufReader::new(Connection::Tls(Box::new(client.connect(self.page)?))));
        }
        let stream = TcpStream::connect_timeout(&self.page, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(Connection::Plain(stream)))
    }
}

/// An answer that began, and did not come to its end.
fn cut(found: impl Display) -> std::io::Error {
    std::io::Error::other(format!("an answer was cut: {found}"))
}

/// Whether a connection ended before an answer began.
fn has_ended(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
