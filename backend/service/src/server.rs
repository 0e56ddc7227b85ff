//! Accepts connections, and on the way out loses no request.
//!
//! Draining has three steps. At once: no new connections, readiness says 503, every answer asks its caller
//! to connect elsewhere. A moment later: connections that are idle are closed; closing them at once would
//! meet requests that are already on their way. Then: wait for the requests in flight, up to a limit.

use std::{future, io, net::SocketAddr, time::Duration};

use axum::{Router, serve::Listener};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

/// How long idle connections stay open after draining began.
const LINGER: Duration = Duration::from_millis(500);

/// Whether the service is on its way out. Once begun, it does not end.
#[derive(Debug, Clone)]
pub struct Draining(watch::Sender<bool>);

impl Default for Draining {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Draining {
    /// Marks the service as on its way out.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Whether [`begin`](Self::begin) was called.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once [`begin`](Self::begin) was called.
    pub async fn begun(&self) {
        let mut changes = self.0.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = changes.wait_for(|begun| *begun).await;
    }
}

/// How long nobody may have knocked before the listener is closed.
const QUIET: Duration = Duration::from_millis(10);

/// How the requests in flight ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All were answered.
    Completely,
    /// Some were not, when the time was up.
    TimedOut,
}

/// Serves until `draining` begins and the requests in flight are answered, or `drain_timeout` is over.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    draining: Draining,
    drain_timeout: Duration,
) -> io::Result<Drained> {
    let gate = Gate { address: listener.local_addr()?, listener: Some(listener), draining: draining.clone() };
    let linger = after(draining.clone(), LINGER.min(drain_timeout));
    let served = axum::serve(gate, router).with_graceful_shutdown(linger);
    tokio::select! {
        result = future::IntoFuture::into_future(served) => result.map(|()| Drained::Completely),
        () = after(draining, drain_timeout) => Ok(Drained::TimedOut),
    }
}

/// Begins draining when the process is asked to end (SIGTERM, SIGINT).
pub fn drain_on_signal(draining: Draining) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "draining");
        draining.begin();
    });
    Ok(())
}

async fn after(draining: Draining, delay: Duration) {
    draining.begun().await;
    sleep(delay).await;
}

/// Returns when no connection is waiting any more. Closing a listener resets those that wait in its queue,
/// and with them the requests they carry.
async fn last_call(draining: &Draining) {
    draining.begun().await;
    sleep(QUIET).await;
}

/// A listener that closes when draining begins.
struct Gate {
    listener: Option<TcpListener>,
    address: SocketAddr,
    draining: Draining,
}

impl Listener for Gate {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        if let Some(listener) = &mut self.listener {
            tokio::select! {
                biased;
                accepted = Listener::accept(listener) => return accepted,
                () = last_call(&self.draining) => {}
            }
        }
        self.listener = None;
        future::pending().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
