//! The check a container without a shell runs on itself: one HTTP request over the loopback address.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// How long the service may take to answer.
const TIME_LIMIT: Duration = Duration::from_secs(2);
/// Enough for the status line of any answer.
const STATUS_LINE_BYTES: u64 = 256;

/// Why the service does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing could be asked or nothing was answered.
    #[error("no answer from {address} within {limit} s: {source}", limit = TIME_LIMIT.as_secs())]
    NoAnswer {
        /// Who was asked.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The answer was not 200.
    #[error("{address} answered {answer:?}, expected status 200")]
    NotReady {
        /// Who was asked.
        address: SocketAddr,
        /// The status line.
        answer: String,
    },
}

/// Asks the service that listens on `listen` for `path`, and fails unless it answers with status 200.
pub fn run(listen: SocketAddr, path: &str) -> Result<(), Error> {
    let address = reachable(listen);
    let answer = ask(address, path).map_err(|source| Error::NoAnswer { address, source })?;
    let status = answer.split(' ').nth(1);
    if status == Some("200") { Ok(()) } else { Err(Error::NotReady { address, answer }) }
}

/// The address under which a service is reached that listens on every address.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Sends the request and reads the answer's first line.
fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    let deadline = Instant::now() + TIME_LIMIT;
    let mut stream = TcpStream::connect_timeout(&address, TIME_LIMIT)?;
    stream.set_write_timeout(Some(TIME_LIMIT))?;
    // In one piece: a service that answers before it has read all of it resets the connection.
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut line = Vec::new();
    while !line.contains(&b'\n') && (line.len() as u64) < STATUS_LINE_BYTES {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 256];
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => line.extend_from_slice(&chunk[..count]),
        }
    }
    let text = String::from_utf8_lossy(&line);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// A service that answers one request with `answer`.
    fn service(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn ready_is_healthy() {
        run(service("HTTP/1.1 200 OK\r\n\r\n"), "/").unwrap();
    }

    #[test]
    fn anything_else_is_not() {
        let error = run(service("HTTP/1.1 503 Service Unavailable\r\n\r\n"), "/").unwrap_err();
        assert!(error.to_string().contains("503"), "{error}");
        assert!(matches!(run(service(""), "/"), Err(Error::NoAnswer { .. })));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let closed = listener.local_addr().unwrap();
        drop(listener);
        assert!(matches!(run(closed, "/"), Err(Error::NoAnswer { .. })));
    }

    #[test]
    fn a_silent_service_costs_the_time_limit() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let started = Instant::now();
        assert!(run(listener.local_addr().unwrap(), "/").is_err());
        assert!((TIME_LIMIT..TIME_LIMIT * 10).contains(&started.elapsed()), "{:?}", started.elapsed());
    }

    #[test]
    fn every_address_becomes_the_loopback_one() {
        let table =
            [("0.0.0.0:8000", "127.0.0.1:8000"), ("[::]:8000", "[::1]:8000"), ("10.1.2.3:80", "10.1.2.3:80")];
        for (listen, expected) in table {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        }
    }
}
