//! The network of this process's hosts: 10.213.N.0/24, where the machine is .1 and hosts begin at .10.

use super::files::{self, Folder};
use super::name_server::NameServer;
use crate::process::run;
use crate::supervisor::Supervisor;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

const LOCKS: &str = "/run/tasktracker-testbed";
const FIRST_HOST: u8 = 10;

static CURRENT: Mutex<Weak<Lan>> = Mutex::new(Weak::new());

/// A bridge in a namespace of its own. It lives as long as any host of this process.
#[derive(Debug)]
pub(super) struct Lan {
    /// None where another server of the machine has the port on every address.
    _names: Option<NameServer>,
    _supervisor: Supervisor,
    number: u8,
    folder: PathBuf,
    taken: Mutex<BTreeSet<u8>>,
}

/// One host's place in the network, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Port {
    lan: Arc<Lan>,
    index: u8,
}

impl Lan {
    /// The network of this process: the one that is there, or a new one.
    pub(super) fn current() -> Result<Arc<Self>> {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lan) = current.upgrade() {
            return Ok(lan);
        }
        let lan = Arc::new(Self::make().context("making a network for sandbox hosts")?);
        *current = Arc::downgrade(&lan);
        Ok(lan)
    }

    fn make() -> Result<Self> {
        std::fs::create_dir_all(LOCKS).with_context(|| format!("making {LOCKS}"))?;
        let folder = Folder::new("lan")?;
        generate_identity(&folder)?;
        let variables = [("STATE", folder.path().as_os_str()), ("LOCKS", LOCKS.as_ref())];
        let (supervisor, number) = Supervisor::start(include_str!("lan.sh"), &variables)?;
        let number = number.parse().with_context(|| format!("reading the network's number {number:?}"))?;
        Ok(Self {
            _names: NameServer::start(gateway(number)).ok(),
            _supervisor: supervisor,
            number,
            folder: folder.hand_over(),
            taken: Mutex::default(),
        })
    }

    /// Takes the lowest free place.
    pub(super) fn port(self: &Arc<Self>) -> Result<Port> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (FIRST_HOST..=254).find(|index| !taken.contains(index));
        let index = free.context("this process already has as many sandbox hosts as a network holds")?;
        taken.insert(index);
        Ok(Port { lan: Arc::clone(self), index })
    }

    pub(super) fn namespace(&self) -> String {
        format!("tt-lan-{}", self.number)
    }

    /// The private key that every host of this network lets in.
    pub(super) fn identity_file(&self) -> PathBuf {
        self.folder.join("id_ed25519")
    }

    pub(super) fn authorized_key(&self) -> Result<String> {
        files::read(&self.folder.join("id_ed25519.pub"))
    }
}

impl Port {
    pub(super) fn lan(&self) -> &Lan {
        &self.lan
    }

    pub(super) fn index(&self) -> u8 {
        self.index
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.lan.number, self.index)
    }

    /// The machine, which is also the name server.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        gateway(self.lan.number)
    }

    /// The same for the same address, so that nobody holds an outdated neighbour.
    pub(super) fn hardware_address(&self) -> String {
        format!("02:d5:0a:d5:{:02x}:{:02x}", self.lan.number, self.index)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.lan.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.index);
    }
}

fn gateway(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, number, 1)
}

fn generate_identity(folder: &Folder) -> Result<()> {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "deploy", "-f"])
        .arg(folder.path().join("id_ed25519"));
    run(&mut command).map(drop)
}
