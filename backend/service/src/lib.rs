//! What both servers share, so that they are run the same way: [`settings`] from the command line, the
//! environment and files, one [`log`], a [`server`] that drains, and a [`healthcheck`] for containers
//! without a shell.

pub mod healthcheck;
pub mod log;
pub mod server;
pub mod settings;
