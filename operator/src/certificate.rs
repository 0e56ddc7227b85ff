//! Certificates: until when one holds, whom it is for, and whether a key is its own. Pure.

use jiff::Timestamp;
use serde::Serialize;
use tokio_rustls::rustls::{
    client::verify_server_name,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use x509_cert::{der::Decode, time::Time};

use crate::model::sha256;

/// Part of its life that a certificate should not have before it: whoever renews it is late by then.
const LATE: i64 = 6;

/// What is told of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The name that it was asked for by.
    pub name: String,
    /// From when it holds.
    pub not_before: Timestamp,
    /// Until when it holds.
    pub not_after: Timestamp,
    /// SHA-256 of its DER form, in hexadecimal digits.
    pub fingerprint: String,
}

impl Certificate {
    /// Reads a certificate in DER form, and whether it is for a name: of a host, or its address.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(der: &[u8], name: &str) -> Result<Self, String> {
        let unreadable =
            |error: &dyn std::fmt::Display| format!("a certificate that cannot be read ({error})");
        let der_form = CertificateDer::from(der);
        let parsed = ParsedCertificate::try_from(&der_form).map_err(|error| unreadable(&error))?;
        let wanted = ServerName::try_from(name).map_err(|_| format!("{name}, which is no name of a host"))?;
        verify_server_name(&parsed, &wanted).map_err(|_| format!("a certificate that is not for {name}"))?;
        let whole = x509_cert::Certificate::from_der(der).map_err(|error| unreadable(&error))?;
        let validity = whole.tbs_certificate().validity();
        let moment = |time: Time| {
            let seconds = i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
            Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
        };
        Ok(Self {
            name: name.to_owned(),
            not_before: moment(validity.not_before),
            not_after: moment(validity.not_after),
            fingerprint: sha256(der),
        })
    }

    /// Why it does not hold, in words: not any more, or not yet.
    pub fn fault(&self, now: Timestamp) -> Option<String> {
        if self.not_after <= now {
            return Some(format!("one that ended {}", self.not_after));
        }
        (self.not_before > now).then(|| format!("one that does not hold before {}", self.not_before))
    }

    /// Whether so little of its life is left that it should have been renewed.
    pub fn is_late(&self, now: Timestamp) -> bool {
        let life = self.not_after.as_second() - self.not_before.as_second();
        self.not_after.as_second() - now.as_second() < life / LATE
    }
}

/// Reads a chain of certificates, the first of which is for a name, and the key of that one, both PEM.
///
/// # Errors
/// What is wrong with them; nothing of the key.
pub fn read_pair(name: &str, chain: &[u8], key: &[u8]) -> Result<Certificate, String> {
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| format!("a chain that is no PEM ({error})"))?;
    let first = chain.first().ok_or("no certificate in PEM")?;
    let certificate = Certificate::read(first, name)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "a key that is no private key in PEM")?;
    let key = any_supported_type(&key).map_err(|_| "a key that is neither RSA, ECDSA nor Ed25519")?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().map_err(|_| "a key that is another certificate's")?;
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_pair_is_a_certificate_for_the_name_and_its_own_key() {
        let (chain, key) = pair("tasks.example.com");
        let (other_chain, other_key) = pair("tasks.example.com");
        let read = |name: &str, chain: &str, key: &str| read_pair(name, chain.as_bytes(), key.as_bytes());
        let certificate = read("tasks.example.com", &chain, &key).unwrap();
        assert_eq!(certificate, read("tasks.example.com", &format!("{chain}{other_chain}"), &key).unwrap());
        let refused = [
            (read("other.example.com", &chain, &key), "not for other.example.com"),
            (read("tasks.example.com", &chain, &other_key), "another certificate's"),
            (read("tasks.example.com", "", &key), "no certificate"),
            (read("tasks.example.com", &key, &chain), "no certificate"),
            (read("tasks.example.com", &chain, ""), "no private key"),
            (read("tasks.example.com", &chain.replace("MII", "MIJ"), &key), "cannot be read"),
        ];
        for (result, words) in refused {
            let told = result.unwrap_err();
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn addresses_and_wildcards() {
        let (chain, key) = pair("10.0.0.7");
        assert!(read_pair("10.0.0.7", chain.as_bytes(), key.as_bytes()).is_ok());
        let (chain, key) = pair("*.example.com");
        assert!(read_pair("tasks.example.com", chain.as_bytes(), key.as_bytes()).is_ok());
        assert!(read_pair("a.tasks.example.com", chain.as_bytes(), key.as_bytes()).is_err());
    }

    #[test]
    fn a_certificate_is_late_before_it_is_over() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let certificate = Certificate {
            name: "a".to_owned(),
            not_before: at(0),
            not_after: at(600),
            fingerprint: String::new(),
        };
        let told: Vec<(bool, bool)> = [0, 500, 501, 599, 600, 700]
            .map(|now| (certificate.is_late(at(now)), certificate.fault(at(now)).is_some()))
            .to_vec();
        let (fresh, late, over) = ((false, false), (true, false), (true, true));
        assert_eq!(told, [fresh, fresh, late, late, over, over]);
        assert!(certificate.fault(at(-1)).unwrap().contains("does not hold before"));
    }
}
