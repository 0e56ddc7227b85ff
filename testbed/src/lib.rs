//! Sandbox hosts: as many real Docker hosts over SSH as a test, a benchmark or the demo needs.
//!
//! A [`SandboxHost`] has namespaces, a Docker daemon, an SSH server and a host key of its own, and leaves nothing behind,
//! however its owner ends. A [`LocalHost`] is the same for a machine that already has a Docker daemon, without root.
//! [`packages`] installs what both need, [`images`] builds images on a host, [`hostile`] has servers that misbehave,
//! [`Users`] and a [`Balancer`] are what stands before a host in production.
//!
//! Everything runs in namespaces made here and on loopback. All calls block.

mod balancer;
mod cache;
mod control_plane;
mod demo;
mod forward;
pub mod hostile;
mod http;
pub mod images;
mod local;
pub mod packages;
mod postgres;
mod process;
mod recorder;
mod registry;
mod sandbox;
mod supervisor;
mod tls;
mod users;
pub mod wait;

pub use balancer::Balancer;
pub use cache::cache_folder;
pub use control_plane::{ControlPlane, Options as ControlPlaneOptions};
pub use demo::DemoHost;
pub use forward::{Forward, forward, forward_delayed};
pub use http::{http, http_answer, http_as};
pub use local::LocalHost;
pub use postgres::PostgresServer;
pub use recorder::{Recorder, Taken};
pub use registry::RegistryServer;
pub use sandbox::{Compose, Engine, HostKeyKind, HostOptions, SandboxHost};
pub use tls::TlsClient;
pub use users::{Seen, USERS, Users, titles};
