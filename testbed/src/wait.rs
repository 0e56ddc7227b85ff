//! Waiting for a condition, never for a time.
//!
//! This is the only place where a test may sleep: `testbed/tests/waiting.rs` refuses `sleep` in every test. A test that
//! sleeps and then asserts that nothing happened passes where nothing was able to happen. It waits instead for what shows
//! that enough was done, such as a counter of completed checks, and asserts then.

use anyhow::{Result, bail};
use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a test waits for a condition before it gives up: what hangs is found, and a busy machine is no failure.
pub const LIMIT: Duration = Duration::from_mins(5);

/// From one question for a condition of a test to the next.
const INTERVAL: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(10);
const ATTEMPT: Duration = Duration::from_secs(1);

/// Waits until a condition holds; `what` is put into words only where it does not within [`LIMIT`].
///
/// # Panics
/// When the condition does not hold in time.
#[track_caller]
pub fn wait_until(what: impl Display, is_so: impl FnMut() -> bool) {
    wait_until_within(LIMIT, what, is_so);
}

/// As [`wait_until`], with a limit of its own.
///
/// # Panics
/// When the condition does not hold in time.
#[track_caller]
pub fn wait_until_within(limit: Duration, what: impl Display, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < limit, "not within {} s: {what}", limit.as_secs());
        sleep(INTERVAL);
    }
}

/// As [`wait_until`], for a condition that is asked for asynchronously.
///
/// # Panics
/// When the condition does not hold in time.
pub async fn wait_until_async(what: impl Display, mut is_so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < LIMIT, "not within {} s: {what}", LIMIT.as_secs());
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Lets time pass where time is an input of the test: how long a fault lasts, or how fast a fake answers.
///
/// Nothing that is asserted afterwards may depend on how much was done meanwhile.
pub fn elapse(duration: Duration) {
    sleep(duration);
}

/// As [`elapse`], without blocking the thread.
pub async fn elapse_async(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Asks until the answer is yes.
pub(crate) fn until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !ready() {
        if start.elapsed() > limit {
            bail!("{what} was not ready within {} s", limit.as_secs());
        }
        sleep(PAUSE);
    }
    Ok(())
}

/// Whether an SSH server greets us at an address.
pub(crate) fn greets_as_ssh(address: SocketAddr) -> bool {
    let greeting = || -> std::io::Result<[u8; 4]> {
        let mut stream = TcpStream::connect_timeout(&address, ATTEMPT)?;
        stream.set_read_timeout(Some(ATTEMPT))?;
        let mut start = [0; 4];
        stream.read_exact(&mut start)?;
        Ok(start)
    };
    greeting().is_ok_and(|start| &start == b"SSH-")
}

/// Whether a Docker daemon answers at a socket.
pub(crate) fn docker_answers(socket: &Path) -> bool {
    let answer = || -> std::io::Result<[u8; 12]> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ATTEMPT))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(start)
    };
    answer().is_ok_and(|start| start.ends_with(b" 200"))
}
