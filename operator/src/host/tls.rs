//! Which certificate a port of the host shows, through a channel to it.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

use super::{
    Error,
    ssh::{Connection, Tunnel},
};
use crate::text::printable;

/// How long it may take until a port shows its certificate.
const LIMIT: Duration = Duration::from_secs(3);

/// What a port of the host shows to whoever asks for a name over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresentedCertificate {
    /// A certificate, in DER form; whoever shows it has its key. Who vouches for it is not asked.
    Certificate(Vec<u8>),
    /// None, and why.
    Nothing(String),
    /// It cannot be asked: sshd forbids TCP forwarding.
    Forbidden,
}

/// Asks a port of the host for the certificate of a name.
pub(super) async fn presented_certificate(
    connection: &Connection,
    port: u16,
    name: &str,
) -> Result<PresentedCertificate, Error> {
    let asked = timeout(LIMIT, ask(connection, port, name)).await;
    asked.unwrap_or_else(|_| {
        Ok(PresentedCertificate::Nothing(format!("no answer within {} s", LIMIT.as_secs())))
    })
}

async fn ask(connection: &Connection, port: u16, name: &str) -> Result<PresentedCertificate, Error> {
    let stream = match connection.tunnel((Ipv4Addr::LOCALHOST, port).into()).await? {
        Tunnel::Open(stream) => stream,
        Tunnel::Refused => {
            return Ok(PresentedCertificate::Nothing(format!("nothing listens on port {port}")));
        }
        Tunnel::Forbidden => return Ok(PresentedCertificate::Forbidden),
    };
    Ok(match connect(*stream, name).await {
        Err(found) => PresentedCertificate::Nothing(found),
        Ok(stream) => {
            let chain = stream.get_ref().1.peer_certificates();
            let first = chain.and_then(|chain| chain.first());
            first.map_or_else(
                || PresentedCertificate::Nothing("no certificate".to_owned()),
                |first| PresentedCertificate::Certificate(first.to_vec()),
            )
        }
    })
}

/// Begins TLS with whoever is there, whatever certificate they show for a name.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Send + Unpin>(
    stream: S,
    name: &str,
) -> Result<TlsStream<S>, String> {
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| format!("{} is no name of a host", printable(name)))?;
    let config = config().map_err(|error| error.to_string())?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    connected.map_err(|error| printable(&error.to_string()))
}

fn config() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let anybody = Arc::new(Anybody(provider.clone()));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth())
}

/// Lets anybody show any certificate that they have the key of: it is read, and nothing is sent to them.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
