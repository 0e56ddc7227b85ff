//! Answers that no host should give: whatever comes over SSH, the operator stays upright, in time and small.
//!
//! Nothing here is a real host. [`FakeSshd`] is an SSH server within the test, on a port of the loopback interface;
//! behind it are a fake Docker API and fakes of the programs that the operator runs on a host. By default they tell of
//! a host that is exactly as its release; each test changes one answer.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod archives;
mod connection;
mod docker_answers;
mod events;
mod fake_docker;
mod fake_programs;
mod fake_sshd;
mod good;
mod programs;
mod services;
mod stage;
mod texts;
mod transport;
mod wrong_types;

use fake_sshd::FakeSshd;
