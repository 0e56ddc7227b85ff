//! A mail server that takes everything, and keeps it.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// The server; each mail with its recipients.
pub(super) struct Mailbox {
    pub(super) address: SocketAddr,
    pub(super) taken: Arc<Mutex<Vec<Mail>>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Mail {
    pub(super) recipients: Vec<String>,
    pub(super) text: String,
}

impl Mail {
    /// What it is about.
    pub(super) fn subject(&self) -> String {
        let line = self.text.lines().find_map(|line| line.strip_prefix("Subject: "));
        line.unwrap_or_default().to_owned()
    }
}

impl Mailbox {
    pub(super) fn start_at(address: IpAddr) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let (address, taken) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let kept = taken.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = kept.clone();
                thread::spawn(move || converse(stream, &kept));
            }
        });
        Self { address, taken }
    }
}

/// One conversation, as RFC 5321 has it, until the client ends it.
fn converse(stream: TcpStream, kept: &Mutex<Vec<Mail>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut mail = Mail::default();
    let say = |reader: &mut BufReader<TcpStream>, words: &str| {
        reader.get_mut().write_all(format!("{words}\r\n").as_bytes()).ok()
    };
    say(&mut reader, "220 mailbox.example.com")?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        match line.split([' ', ':']).next().unwrap_or_default().to_uppercase().as_str() {
            "RCPT" => {
                mail.recipients.push(line.split(['<', '>']).nth(1)?.to_owned());
                say(&mut reader, "250 ok")?;
            }
            "DATA" => {
                say(&mut reader, "354 go on")?;
                while !mail.text.ends_with("\r\n.\r\n") {
                    if reader.read_line(&mut mail.text).ok()? == 0 {
                        return None;
                    }
                }
                kept.lock().ok()?.push(std::mem::take(&mut mail));
                say(&mut reader, "250 ok")?;
            }
            "QUIT" => return say(&mut reader, "221 bye"),
            _ => say(&mut reader, "250 ok")?,
        }
    }
}
