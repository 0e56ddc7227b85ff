//! A plain TCP forwarder, so that a browser on the machine reaches a server inside a host.

use anyhow::{Context, Result};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Forwards connections until it is dropped. Connections that are open then live on until either side closes.
#[derive(Debug)]
pub struct Forward {
    local: SocketAddr,
    stop: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Forward {
    /// Where it listens: useful when the port was asked to be 0.
    pub fn local(&self) -> SocketAddr {
        self.local
    }
}

/// Listens at `local` and connects every caller to `remote`.
///
/// # Errors
/// When nothing can listen at `local`.
pub fn forward(local: SocketAddr, remote: SocketAddr) -> Result<Forward> {
    forward_delayed(local, remote, Duration::ZERO)
}

/// The same, where every byte arrives `delay` later, in both directions: a round trip takes twice that more.
/// For machines whose kernel has no `netem`, and for a delay that only one client sees.
///
/// # Errors
/// When nothing can listen at `local`.
pub fn forward_delayed(local: SocketAddr, remote: SocketAddr, delay: Duration) -> Result<Forward> {
    let listener = TcpListener::bind(local).with_context(|| format!("listening at {local}"))?;
    let local = listener.local_addr()?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let listener = thread::spawn(move || accept(&listener, remote, delay, &stopped));
    Ok(Forward { local, stop, listener: Some(listener) })
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect_timeout(&self.local, Duration::from_secs(1)); // wakes the listener
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn accept(listener: &TcpListener, remote: SocketAddr, delay: Duration, stopped: &AtomicBool) {
    for caller in listener.incoming().flatten() {
        if stopped.load(Ordering::Acquire) {
            return;
        }
        thread::spawn(move || serve(&caller, remote, delay));
    }
}

fn serve(caller: &TcpStream, remote: SocketAddr, delay: Duration) {
    let Ok(server) = TcpStream::connect_timeout(&remote, Duration::from_secs(5)) else {
        return;
    };
    let _ = (caller.set_nodelay(true), server.set_nodelay(true));
    thread::scope(|scope| {
        scope.spawn(|| pump(caller, &server, delay));
        pump(&server, caller, delay);
    });
}

fn pump(mut from: &TcpStream, mut to: &TcpStream, delay: Duration) {
    if delay.is_zero() {
        let _ = io::copy(&mut from, &mut to);
    } else {
        pump_delayed(from, to, delay);
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

/// Reads at once and writes when it is time, so that what is on its way does not slow down what follows.
fn pump_delayed(mut from: &TcpStream, mut to: &TcpStream, delay: Duration) {
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(4096);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if sender.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
                    return;
                }
            }
        });
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_delay_is_seen_once_per_round_trip_and_not_per_byte() {
        let echo = TcpListener::bind(LOOPBACK).unwrap();
        let remote = echo.local_addr().unwrap();
        thread::spawn(move || {
            let (stream, _) = echo.accept().unwrap();
            pump(&stream, &stream, Duration::ZERO);
        });
        let forward = forward_delayed(LOOPBACK, remote, Duration::from_millis(30)).unwrap();
        let mut stream = TcpStream::connect(forward.local()).unwrap();
        let start = Instant::now();
        for _ in 0..20 {
            stream.write_all(b"x").unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        let mut answer = [0; 20];
        stream.read_exact(&mut answer).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(60));
        assert!(start.elapsed() < Duration::from_millis(400));
    }

    #[test]
    fn the_end_of_either_side_is_passed_on() {
        let server = TcpListener::bind(LOOPBACK).unwrap();
        let forward = forward(LOOPBACK, server.local_addr().unwrap()).unwrap();
        let mut caller = TcpStream::connect(forward.local()).unwrap();
        server.accept().unwrap();
        assert_eq!(caller.read(&mut [0; 1]).unwrap_or(0), 0);
    }
}
