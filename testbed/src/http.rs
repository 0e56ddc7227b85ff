//! One request over a connection of its own.

use std::{
    fmt::Display,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// `METHOD PATH` and, after a newline, a JSON body: status and body of the answer; none where there is none.
#[must_use]
pub fn http(address: SocketAddr, request: &str) -> Option<(u16, String)> {
    let answer = http_answer(address, request)?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The same, with the whole answer: its head, an empty line, and its body.
#[must_use]
pub fn http_answer(address: SocketAddr, request: &str) -> Option<String> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    exchange(stream, &address, "", request).ok()
}

/// The same with a bearer token.
#[must_use]
pub fn http_as(address: SocketAddr, token: &str, request: &str) -> Option<(u16, String)> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let answer = exchange(stream, &address, &format!("Authorization: Bearer {token}\r\n"), request).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The request and the answer over a connection that is opened for them.
pub(crate) fn exchange(
    mut stream: impl Read + Write,
    host: &dyn Display,
    headers: &str,
    request: &str,
) -> io::Result<String> {
    let (line, body) = request.split_once('\n').unwrap_or((request, ""));
    let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}");
    let head = if body.is_empty() {
        head
    } else {
        format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
    };
    write!(stream, "{head}\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
