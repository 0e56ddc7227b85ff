//! Clients that ask over TLS, and trust whom they are told to.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::http::exchange;

/// A connection over TLS.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Asks for one name, and trusts the authorities it was given.
#[derive(Clone, Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsClient {
    /// `name` is a host's, or its address; `authorities` are certificates in PEM form.
    ///
    /// # Errors
    /// When either cannot be read.
    pub fn new(name: &str, authorities: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(authority.context("an authority")?)?;
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A session that is taken up again goes by the certificate that was shown first.
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), name: ServerName::try_from(name.to_owned())? })
    }

    /// One request over a connection of its own, as for [`crate::http`]: the whole answer.
    ///
    /// # Errors
    /// When nobody answers, or shows a certificate that is not for the name or not trusted.
    pub fn ask(&self, address: SocketAddr, request: &str) -> io::Result<String> {
        exchange(self.connect(address)?, &self.name.to_str(), "", request)
    }

    /// The same by whoever has these credentials, as for [`crate::http_as`].
    ///
    /// # Errors
    /// As for [`TlsClient::ask`].
    pub fn ask_as(&self, address: SocketAddr, credentials: &str, request: &str) -> io::Result<String> {
        let headers = format!("Authorization: {credentials}\r\n");
        exchange(self.connect(address)?, &self.name.to_str(), &headers, request)
    }

    /// The certificate that is shown, in DER form.
    ///
    /// # Errors
    /// As for [`TlsClient::ask`].
    pub fn shown(&self, address: SocketAddr) -> io::Result<Vec<u8>> {
        let stream = self.connect(address)?;
        let chain = stream.conn.peer_certificates();
        let first = chain.and_then(|chain| chain.first());
        first.map(|first| first.to_vec()).ok_or_else(|| io::Error::other("no certificate"))
    }

    pub(crate) fn connect(&self, address: SocketAddr) -> io::Result<TlsStream> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        let connection = ClientConnection::new(self.config.clone(), self.name.clone());
        let mut stream = StreamOwned::new(connection.map_err(io::Error::other)?, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }
}
