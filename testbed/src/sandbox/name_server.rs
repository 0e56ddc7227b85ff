//! The name server of the hosts' network. It knows no name, and says so at once: without it, a container that looks up
//! the name of a service without replicas would wait for seconds for servers it cannot reach.

use anyhow::{Context, Result};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const HEADER: usize = 12;
/// Type and class after a name.
const QUESTION_END: usize = 4;

/// Answers until it is dropped.
#[derive(Debug)]
pub(super) struct NameServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    pub(super) fn start(address: Ipv4Addr) -> Result<Self> {
        let socket =
            UdpSocket::bind((address, 53)).with_context(|| format!("answering names at {address}"))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || serve(&socket, &stopped));
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, stopped: &AtomicBool) {
    let mut buffer = [0; 512];
    while !stopped.load(Ordering::Acquire) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        if let Some(answer) = no_such_name(&buffer[..length]) {
            let _ = socket.send_to(&answer, client);
        }
    }
}

/// The answer to a query: the same header and question, as a response, with `NXDOMAIN` (RFC 1035, section 4.1).
fn no_such_name(query: &[u8]) -> Option<Vec<u8>> {
    let name = query.get(HEADER..)?.iter().position(|&length| length == 0)?;
    let mut answer = query.get(..HEADER + name + 1 + QUESTION_END)?.to_vec();
    answer[2] = 0x80 | (query[2] & 0x79); // a response; kind of query and recursion as asked
    answer[3] = 0x83; // recursion available, no such name
    answer[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]); // one question, nothing else
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_answered_with_its_question_and_no_such_name() {
        let question = b"\x04nope\x07example\x00\x00\x01\x00\x01";
        let query =
            [b"\xab\xcd\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01".as_slice(), question, b"extra"].concat();
        let answer = [b"\xab\xcd\x81\x83\x00\x01\x00\x00\x00\x00\x00\x00".as_slice(), question].concat();
        assert_eq!(no_such_name(&query).unwrap(), answer);
    }

    #[test]
    fn what_is_no_query_is_not_answered() {
        for bytes in [b"".as_slice(), b"short", b"\xab\xcd\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01\x09cut"] {
            assert_eq!(no_such_name(bytes), None);
        }
    }
}
