//! A service that exists for tests of a second component: it shows what it was given.
//!
//! It loads a configuration file at start and reloads it on `POST /-/reload` and SIGHUP, reports a health that a test can
//! set, stores JSON objects in its volume, and shows owner, mode and hash of its secret. See [`router`] for the endpoints.

pub mod config;
pub mod objects;
pub mod reload;
pub mod router;
pub mod secret;
pub mod settings;
