//! A balancer in front of several hosts.

use std::{
    io::copy,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;

use crate::http;

/// A balancer as clouds have them: connections go in turn to those hosts whose health check is answered.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Balancer {
    /// Begins to listen on a port of loopback.
    ///
    /// # Errors
    /// When there is none.
    pub fn start(hosts: Vec<SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, stop) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let healthy = Arc::new(Mutex::new(hosts.clone()));
        let (checked, ended) = (healthy.clone(), stop.clone());
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let is_good = |host: &&SocketAddr| {
                    http(**host, "GET /api/health/ready").is_some_and(|answer| answer.0 == 200)
                };
                *checked.lock().unwrap_or_else(PoisonError::into_inner) =
                    hosts.iter().filter(is_good).copied().collect();
                thread::sleep(Duration::from_millis(300));
            }
        });
        thread::spawn(move || {
            for (turn, user) in listener.incoming().enumerate() {
                let healthy = healthy.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let (Ok(user), false) = (user, healthy.is_empty()) else { continue };
                let Ok(host) = TcpStream::connect(healthy[turn % healthy.len()]) else { continue };
                let (Ok(user_too), Ok(host_too)) = (user.try_clone(), host.try_clone()) else { continue };
                for (mut from, mut to) in [(user_too, host_too), (host, user)] {
                    thread::spawn(move || {
                        let _ = copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        Ok(Self { address, stop })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
