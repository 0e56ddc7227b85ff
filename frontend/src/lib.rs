//! The task page and the small server that serves it.
//!
//! The page's files are built into the binary; only `config.js` is made at the start, from the [`settings`].

pub mod assets;
pub mod backend_url;
pub mod router;
pub mod settings;
