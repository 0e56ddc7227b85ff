//! Stacks as objects of a real API server, on real hosts.

mod cluster;
mod life;
