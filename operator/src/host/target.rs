//! Where and how one host is reached.

use std::time::Duration;

use super::Identity;

/// How long a service may take by default.
const SERVICE_LIMIT: Duration = Duration::from_secs(3);

/// How long reading may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limits {
    /// One answer of Docker's API.
    pub answer: Duration,
    /// One program that only reads.
    pub program: Duration,
    /// One step of an HTTP exchange with a service: the connection, and the answer.
    pub service: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answer: Duration::from_secs(15), program: Duration::from_secs(20), service: SERVICE_LIMIT }
    }
}

/// Where and how one host is reached.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name of the host in its stack.
    pub name: String,
    /// Host name or IP address.
    pub address: String,
    /// Port of SSH.
    pub port: u16,
    /// User on the host.
    pub user: String,
    /// Pinned public keys, in OpenSSH's form.
    pub host_keys: Vec<String>,
    /// Private keys to be tried, in order.
    pub identities: Vec<Identity>,
    /// Why others cannot be tried, in words: told where none of these opens the door.
    pub unusable_identities: Vec<String>,
    /// The operator's folder on the host.
    pub directory: String,
    /// How long reading may take.
    pub limits: Limits,
}

/// What makes two targets the same connection; of private keys, their fingerprints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetKey {
    name: String,
    address: String,
    port: u16,
    user: String,
    host_keys: Vec<String>,
    identities: Vec<String>,
    directory: String,
    limits: Limits,
}

impl Target {
    /// The key by which connections are shared.
    pub fn key(&self) -> TargetKey {
        let Self {
            name,
            address,
            port,
            user,
            host_keys,
            identities,
            unusable_identities: _, // the same connection, whatever is told where it fails
            directory,
            limits,
        } = self;
        TargetKey {
            name: name.clone(),
            address: address.clone(),
            port: *port,
            user: user.clone(),
            host_keys: host_keys.clone(),
            identities: identities.iter().map(Identity::fingerprint).collect(),
            directory: directory.clone(),
            limits: *limits,
        }
    }

    /// Address and port, as one text that can be connected to.
    pub fn endpoint(&self) -> String {
        if self.address.contains(':') {
            return format!("[{}]:{}", self.address, self.port);
        }
        format!("{}:{}", self.address, self.port)
    }

    /// A target that no secret is needed for.
    #[cfg(test)]
    pub(crate) fn for_tests(name: &str, address: &str, port: u16) -> Self {
        Self {
            name: name.to_owned(),
            address: address.to_owned(),
            port,
            user: "deploy".to_owned(),
            host_keys: Vec::new(),
            identities: Vec::new(),
            unusable_identities: Vec::new(),
            directory: "/opt/tasktracker".to_owned(),
            limits: Limits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_is_bracketed() {
        assert_eq!(Target::for_tests("a", "::1", 22).endpoint(), "[::1]:22");
        assert_eq!(Target::for_tests("a", "a.example.com", 2222).endpoint(), "a.example.com:2222");
    }
}
