//! A web server that takes whatever it is sent, and keeps it: a chat, a pager, a webhook.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use anyhow::Result;
use serde_json::Value;

/// One request that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its path.
    pub path: String,
    /// Its body, which is JSON.
    pub body: Value,
    /// When it came.
    pub at: Instant,
}

/// The server; it lives as long as the process.
#[derive(Debug)]
pub struct Recorder {
    /// Where it listens.
    pub address: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl Recorder {
    /// Starts one on loopback.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start() -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into())
    }

    /// The same at another address of this machine, such as hosts and their containers reach.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_at(address: IpAddr) -> Result<Self> {
        let listener = TcpListener::bind((address, 0))?;
        let (address, taken) = (listener.local_addr()?, Arc::<Mutex<Vec<Taken>>>::default());
        let kept = taken.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = kept.clone();
                thread::spawn(move || serve(stream, &kept));
            }
        });
        Ok(Self { address, taken })
    }

    /// Everything that came so far, in the order in which it came.
    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().map(|taken| taken.clone()).unwrap_or_default()
    }
}

/// Answers the requests of one connection until it ends, or until one makes no sense or is said to be the last one.
fn serve(stream: TcpStream, kept: &Mutex<Vec<Taken>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (head, body) = request(&mut reader)?;
        let path = head.split(' ').nth(1)?.to_owned();
        let body = serde_json::from_slice(&body).ok()?;
        kept.lock().ok()?.push(Taken { path, body, at: Instant::now() });
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
        if head.to_lowercase().contains("\r\nconnection: close\r\n") {
            return Some(());
        }
    }
}

/// One request: its head and its body.
fn request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.to_lowercase().split("content-length:").nth(1)?.lines().next()?.trim().parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;

    #[test]
    fn what_is_sent_is_kept_in_order() {
        let recorder = Recorder::start().unwrap();
        for number in 0..2 {
            let answer = http(recorder.address, &format!("POST /{number}\n{{\"a\": {number}}}"));
            assert_eq!(answer.unwrap().0, 200);
        }
        let kept = recorder.taken().into_iter().map(|taken| (taken.path, taken.body["a"].clone()));
        assert_eq!(kept.collect::<Vec<_>>(), [("/0".to_owned(), 0.into()), ("/1".to_owned(), 1.into())]);
    }
}
