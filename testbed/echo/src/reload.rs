//! The command `reload`: asks the service on this machine to reload its configuration.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// How long the service may take to answer.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Why the configuration was not reloaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service did not answer.
    #[error("no answer from {address}: {source}")]
    NoAnswer {
        /// Where it was asked.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The service keeps the configuration in force.
    #[error("{0}")]
    Refused(String),
}

/// Asks the service that listens on the port of `listen`.
pub fn run(listen: SocketAddr) -> Result<(), Error> {
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listen.port());
    let answer = post(address).map_err(|source| Error::NoAnswer { address, source })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(Error::Refused(body.to_owned())) }
}

fn post(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIME_LIMIT)?;
    stream.set_read_timeout(Some(TIME_LIMIT))?;
    stream.write_all(
        b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
