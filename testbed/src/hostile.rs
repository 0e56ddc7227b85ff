//! Servers on loopback that are no SSH servers, for tests of what a client does then.

use anyhow::{Context, Result};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct HostileServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl HostileServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HostileServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)); // wakes the listener
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// Answers every caller with bytes that are no protocol at all, then closes.
///
/// # Errors
/// When nothing can listen on loopback.
pub fn garbage() -> Result<HostileServer> {
    serve(|mut caller| {
        let noise: Vec<u8> =
            (0..4096_u32).map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let _ = caller.write_all(&noise);
        None
    })
}

/// Accepts every caller and never says a word.
///
/// # Errors
/// When nothing can listen on loopback.
pub fn silent() -> Result<HostileServer> {
    serve(Some)
}

/// An address where nothing listens: connecting is refused.
///
/// # Errors
/// When no port of loopback can be found.
pub fn closed_port() -> Result<SocketAddr> {
    for _ in 0..16 {
        let address = listen()?.local_addr()?;
        let refused = TcpStream::connect_timeout(&address, Duration::from_secs(1))
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        if refused {
            return Ok(address);
        }
    }
    anyhow::bail!("found no closed port on loopback")
}

/// Runs a server. What `answer` returns is kept open until the server is dropped.
fn serve(answer: impl Fn(TcpStream) -> Option<TcpStream> + Send + 'static) -> Result<HostileServer> {
    let listener = listen()?;
    let address = listener.local_addr()?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let listener = thread::spawn(move || {
        let mut open = Vec::new();
        for caller in listener.incoming().flatten() {
            if stopped.load(Ordering::Acquire) {
                return;
            }
            open.extend(answer(caller));
        }
    });
    Ok(HostileServer { address, stop, listener: Some(listener) })
}

fn listen() -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on loopback")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn garbage_is_answered_and_closed() {
        let server = garbage().unwrap();
        let mut answer = Vec::new();
        TcpStream::connect(server.address()).unwrap().read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), 4096);
        assert!(!answer.starts_with(b"SSH-"));
    }

    #[test]
    fn silence_is_kept() {
        let server = silent().unwrap();
        let mut caller = TcpStream::connect(server.address()).unwrap();
        caller.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert_eq!(caller.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn a_closed_port_refuses() {
        let error = TcpStream::connect(closed_port().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}
