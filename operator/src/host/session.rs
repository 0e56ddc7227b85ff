//! Programs on a host: one that runs to its end, one that holds the lock, one that answers questions.
//!
//! Each has a task of its own that reads whatever it says, whoever still waits for it: one channel that is not read
//! blocks the whole connection.

use std::time::Duration;

use russh::{Channel, ChannelMsg, ChannelReadHalf, client::Msg};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    Error, shell,
    ssh::{Connection, STEP_LIMIT},
};
use crate::{host::facts::TOOLS, text::printable};

/// Standard output and standard error kept of one program, each in bytes; the rest is read and dropped.
const OUTPUT_LIMIT: usize = 4 << 20;

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
        let found = match self.exit {
            Exit::Exited(code) => format!("exit status {code}: {}", self.last_words()),
            _ => format!("ended by a signal: {}", self.last_words()),
        };
        Err(Error::Failed { doing: doing.to_owned(), found })
    }

    /// Takes what a program said apart from what the login shell said before it.
    ///
    /// # Errors
    /// With what was said, and how it ended, where the program did not begin.
    fn of_program(mut self) -> Result<Self, String> {
        let Some(stdout) = shell::begun(&self.stdout) else {
            let end = match self.exit {
                Exit::Exited(code) => format!("exit status {code}"),
                Exit::Signalled | Exit::Lost => "ended by a signal".to_owned(),
            };
            let words = self.last_words();
            return Err(if words.is_empty() { end } else { format!("{words} ({end})") });
        };
        self.stdout = stdout.to_vec();
        if let Some(stderr) = shell::begun(&self.stderr) {
            self.stderr = stderr.to_vec();
        }
        Ok(self)
    }

    /// The last lines of what it said, on one line.
    pub fn last_words(&self) -> String {
        let text = if self.stderr.is_empty() { &self.stdout } else { &self.stderr };
        let text = String::from_utf8_lossy(text);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(4)..].join(" / ");
        last.chars().filter(|character| !character.is_control()).take(600).collect()
    }
}

impl Connection {
    /// Runs a command line, feeds it `input`, and collects what it says until it ends.
    pub(super) async fn run(&self, command: &str, input: Vec<u8>, limit: Duration) -> Result<Output, Error> {
        let channel = self.session(command).await?;
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(drain(channel, input, sender));
        match timeout(limit, receiver).await {
            Ok(Ok(output)) if output.exit == Exit::Lost => Err(Error::ConnectionLost),
            Ok(Ok(output)) => output.of_program().map_err(|found| self.did_not_begin(found)),
            Ok(Err(_)) => Err(Error::ConnectionLost),
            Err(_) => Err(Error::TimedOut { doing: "a program on the host".to_owned(), limit }),
        }
    }

    /// Why a program did not begin, by what was said instead.
    fn did_not_begin(&self, found: String) -> Error {
        if found.contains("base64: ") && found.contains("not found") {
            return Error::ToolMissing { expected: TOOLS.to_owned(), found: "base64".to_owned() };
        }
        Error::ShellUnusable { user: self.user().to_owned(), found }
    }
}

/// How often the holder of a lock is told that it is still wanted.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The most that a program says until it holds the lock, in bytes, with what the login shell says before it.
const HELD_LIMIT: usize = 16 << 10;
/// What a failure to get the lock is told of.
const LOCKING: &str = "locking the host";

/// The host's lock. It ends when this is released or dropped, with the connection, and when it is not asked for any
/// more for half a minute: what is written under it presupposes that nobody else had it since.
#[derive(Debug)]
pub struct HostLock {
    /// The line of the host's `.epoch` that stands there for as long as nobody else had the lock.
    pub(super) line: String,
    /// Number of this tenure: each has a higher one than those before.
    pub epoch: u64,
    /// Who had the lock before; unknown at first, and where the host forgot it.
    pub before: Option<String>,
    end: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl HostLock {
    /// Refuses to go on with a lock that ended under way.
    ///
    /// # Errors
    /// When it did.
    pub fn check(&self) -> Result<(), Error> {
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
    /// Starts the program that says a line when it holds the lock for `writer`, and holds it until its input ends.
    pub(super) async fn hold(&self, command: &str, writer: &str, limit: Duration) -> Result<HostLock, Error> {
        let channel = self.session(command).await?;
        let (sender, receiver) = oneshot::channel();
        let (end, released) = oneshot::channel();
        let ended = tokio::spawn(hold_lock(channel, sender, released));
        let doing = || LOCKING.to_owned();
        let said = timeout(limit, receiver).await.map_err(|_| Error::TimedOut { doing: doing(), limit })?;
        let said = said.unwrap_or(Err(Error::ConnectionLost))?;
        let (epoch, before) = tenure(&said).ok_or_else(|| Error::Failed {
            doing: doing(),
            found: format!("not what holds a lock: {}", said.escape_default()),
        })?;
        Ok(HostLock { line: format!("{epoch} {writer}"), epoch, before, end, ended })
    }
}

/// Waits for the lock and holds it until it is released. Where nobody waits for it any more, its channel is closed: a
/// program left behind would get the lock later, for nobody.
async fn hold_lock(
    channel: Channel<Msg>,
    mut answer: oneshot::Sender<Result<String, Error>>,
    mut released: oneshot::Receiver<()>,
) {
    let (mut reader, writer) = channel.split();
    let said = tokio::select! {
        said = held_line(&mut reader) => said,
        () = answer.closed() => Err(Error::Locked),
    };
    let is_held = said.is_ok();
    if answer.send(said).is_err() || !is_held {
        let _: Result<(), russh::Error> = writer.close().await;
        return;
    }
    let read_out = async { while reader.wait().await.is_some() {} };
    tokio::pin!(read_out);
    loop {
        tokio::select! {
            () = &mut read_out => return,
            _ = &mut released => break,
            () = sleep(HEARTBEAT) => {
                if writer.data_bytes(b".".to_vec()).await.is_err() {
                    break;
                }
            }
        }
    }
    if writer.eof().await.is_ok() {
        read_out.await;
    }
}

/// The line with which the program tells that it holds the lock.
async fn held_line(reader: &mut ChannelReadHalf) -> Result<String, Error> {
    let (mut said, mut complaint) = (Vec::new(), Vec::new());
    while let Some(message) = reader.wait().await {
        match message {
            ChannelMsg::Data { data } if said.len() + data.len() <= HELD_LIMIT => {
                said.extend_from_slice(&data);
                if let Some(line) = shell::begun(&said).filter(|line| line.ends_with(b"\n")) {
                    return Ok(String::from_utf8_lossy(line).into_owned());
                }
            }
            ChannelMsg::ExtendedData { data, .. } if complaint.len() + data.len() <= HELD_LIMIT => {
                complaint.extend_from_slice(&data);
                complaint = shell::begun(&complaint).map_or(complaint.clone(), <[u8]>::to_vec);
            }
            ChannelMsg::ExitStatus { exit_status: 75 } => return Err(Error::Locked),
            ChannelMsg::ExitStatus { exit_status } => {
                let exit = Exit::Exited(exit_status);
                let output = Output { exit, stdout: Vec::new(), stderr: complaint };
                return Err(output.success(LOCKING).err().unwrap_or(Error::ConnectionLost));
            }
            _ => {}
        }
    }
    Err(Error::ConnectionLost)
}

/// Number of a tenure and who had the one before, as the holding program says.
fn tenure(said: &str) -> Option<(u64, Option<String>)> {
    let mut words = said.split_whitespace();
    let epoch = (words.next()? == "held").then(|| words.next())??.parse().ok()?;
    Some((epoch, words.next().map(printable)))
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
            let mut before = Some(Vec::new());
            while let Some(message) = reader.wait().await {
                let ChannelMsg::Data { data } = message else { continue };
                let Some(piece) = of_program(&mut before, &data) else { continue };
                if sender.try_send(piece).is_err() {
                    break;
                }
            }
            drop(sender);
            while reader.wait().await.is_some() {}
        });
        Ok(Dialogue { questions, pieces })
    }
}

/// What a program says in a piece of its output; `before` collects what comes until it begins, and is empty then.
fn of_program(before: &mut Option<Vec<u8>>, data: &[u8]) -> Option<Vec<u8>> {
    let Some(said) = before else { return Some(data.to_vec()) };
    keep(said, data);
    let rest = shell::begun(said)?.to_vec();
    *before = None;
    (!rest.is_empty()).then_some(rest)
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
