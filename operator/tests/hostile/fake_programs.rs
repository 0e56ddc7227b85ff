//! Fakes of the programs that the operator runs on a host: the probe, and the helper that answers questions.

use std::sync::atomic::Ordering;

use russh::{Channel, ChannelStream, server::Msg};
use tokio::io::AsyncReadExt;

use tasktracker_operator::host::shell;

use crate::{
    fake_sshd::{BEGINS, Goes, Said, Script, Seen, Then, say},
    good,
};

/// Runs the program that a command line asks for.
pub(crate) async fn run(command: &str, channel: Channel<Msg>, script: &Script, seen: &Seen) -> Goes {
    let (command, twist) = (shell::decoded(command).unwrap_or_default(), &script.programs);
    let greeted = |said: Said| Said { bytes: [script.greeting.as_bytes(), &said.bytes].concat(), ..said };
    if !script.greeting.ends_with(BEGINS) {
        return exit(channel, script.greeting, 0).await;
    }
    if command.contains("Looks at what the operator needs") {
        let said = twist("probe", Said::new(good::probe(), Then::Close));
        return probe(channel, greeted(said)).await;
    }
    if command.contains("until the end of standard input, or until nothing came") {
        let locks = seen.locks.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most_locks.fetch_max(locks, Ordering::SeqCst);
        let said = twist("lock", Said::new("held 1 \n", Then::Hang));
        let goes_on = say(&mut channel.into_stream(), greeted(said)).await;
        seen.locks.fetch_sub(1, Ordering::SeqCst);
        return goes_on;
    }
    if !command.contains("Answers what the operator asks") {
        return exit(channel, script.greeting, 127).await;
    }
    helper(channel.into_stream(), script).await
}

/// Says something and ends.
async fn exit(channel: Channel<Msg>, said: &str, status: u32) -> Goes {
    let _: Result<(), russh::Error> = channel.data_bytes(said.as_bytes().to_vec()).await;
    let _: Result<(), russh::Error> = channel.exit_status(status).await;
    let _: Result<(), russh::Error> = channel.close().await;
    Goes::Ended
}

async fn probe(channel: Channel<Msg>, said: Said) -> Goes {
    let (reader, writer) = channel.split();
    drop(reader);
    let written = writer.data_bytes(said.bytes).await;
    if written.is_err() || matches!(said.then, Then::Hang) {
        return std::future::pending().await;
    }
    if matches!(said.then, Then::Cut) {
        return Goes::Cut;
    }
    let _: Result<(), russh::Error> = writer.exit_status(0).await;
    let _: Result<(), russh::Error> = writer.eof().await;
    let _: Result<(), russh::Error> = writer.close().await;
    Goes::Ended
}

async fn helper(mut stream: ChannelStream<Msg>, Script { programs: twist, greeting, .. }: &Script) -> Goes {
    match say(&mut stream, Said::new(*greeting, Then::Listen)).await {
        Goes::On => {}
        other => return other,
    }
    match say(&mut stream, twist("", Said::new("", Then::Listen))).await {
        Goes::On => {}
        other => return other,
    }
    loop {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let Ok(byte) = stream.read_u8().await else { return Goes::Ended };
            line.push(byte);
        }
        let question = String::from_utf8_lossy(&line).trim_end().to_owned();
        let good = Said::new(good::helper(&question), Then::Listen);
        match say(&mut stream, twist(&question, good)).await {
            Goes::On => {}
            other => return other,
        }
    }
}
