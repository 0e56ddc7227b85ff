//! The API from outside: over its router, over a socket, and as a process.

#[cfg(test)]
mod operations;
#[cfg(feature = "postgres")]
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod problems;
#[cfg(test)]
mod process;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tasks;
