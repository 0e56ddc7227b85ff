//! Stacks as objects of a real API server, on real hosts.

mod access;
mod alerts;
mod chart;
mod cluster;
mod components;
mod lease;
mod left;
mod life;
mod odd;
mod outage;
mod quiet;
mod schema;
