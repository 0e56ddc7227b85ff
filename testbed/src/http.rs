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

/// The same as [`http`] by whoever has these credentials: the whole header, such as `Bearer TOKEN`.
#[must_use]
pub fn http_as(address: SocketAddr, credentials: &str, request: &str) -> Option<(u16, String)> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let answer = exchange(stream, &address, &format!("Authorization: {credentials}\r\n"), request).ok()?;
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
    Ok(unchunked(&answer).unwrap_or(answer))
}

/// An answer whose body came in chunks, with the body in one.
fn unchunked(answer: &str) -> Option<String> {
    let (head, mut rest) = answer.split_once("\r\n\r\n")?;
    if !head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked") {
        return None;
    }
    let mut whole = format!("{head}\r\n\r\n");
    loop {
        let (size, data) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(data.get(..size)?);
        rest = data.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_chunks_is_read_as_one() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = format!("{head}3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n");
        assert_eq!(unchunked(&answer), Some(format!("{head}abc0123456789")));
        assert_eq!(unchunked("HTTP/1.1 200 OK\r\n\r\n3\r\nabc"), None);
        assert_eq!(unchunked(&format!("{head}9\r\nabc")), None, "half of it");
    }
}
