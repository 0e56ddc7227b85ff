//! What every host needs: observed at first contact, and again now and then.

use serde::Serialize;
use tokio::time::Instant;

use super::{Error, Exit, Output, Target, defaults::DaemonDefaults, docker::SOCKET, shell};
use crate::text::printable;

const PROBE: &str = include_str!("programs/probe.sh");
/// Programs that every host needs.
pub(super) const TOOLS: &str = "coreutils, findutils, sed and util-linux (sh, find, stat, sha256sum, mv -T, sync, flock, setsid, timeout)";
/// The oldest supported version of Docker's API: Engine 20.10.
const OLDEST_API: (u32, u32) = (1, 41);
/// The oldest supported version of Compose.
const OLDEST_COMPOSE: (u32, u32) = (2, 20);
/// Places whose disks the probe looks at.
const DISKS: usize = 2;
/// Where Docker keeps its data unless it is told otherwise.
pub(super) const USUAL_ROOT: &str = "/var/lib/docker";

/// What was found when the host was last probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// User on the host.
    pub user: String,
    /// Its number; unknown where the host does not tell.
    pub uid: Option<u32>,
    /// The number of its first group; unknown where the host does not tell.
    pub gid: Option<u32>,
    /// The operator's folder behind links that root made on the way to it, where it is another one than was named.
    pub real_directory: Option<String>,
    /// What the daemon gives every container and network by its own configuration.
    pub daemon_defaults: DaemonDefaults,
    /// Version of Compose.
    pub compose: String,
    /// Version of the engine.
    pub engine: String,
    /// Version of Docker's API.
    pub api: (u32, u32),
    /// The file systems of the operator's folder and of Docker's.
    pub disks: Vec<Disk>,
    /// The host's memory, where it tells.
    pub memory: Option<Memory>,
    /// Whether the kernel forwards packets, as published ports need it; unknown where it does not tell.
    pub forwarding: Option<bool>,
    /// The host's clock, in seconds since 1970.
    pub seconds: Option<i64>,
    /// When that was.
    #[serde(skip)]
    pub taken: Instant,
}

/// The memory of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All of it, in bytes.
    pub total: u64,
    /// What programs may still get, in bytes.
    pub available: u64,
}

/// How full a file system is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// A folder on it.
    pub place: String,
    /// Space that is free for users, in percent.
    pub free_percent: u8,
    /// Inodes that are free, in percent; 100 where the file system has no limit.
    pub free_inodes_percent: u8,
}

/// The command line of the probe.
pub(super) fn command(directory: &str, docker_root: &str) -> String {
    shell::command(PROBE, &[directory, docker_root])
}

/// Judges what the probe said.
pub(super) fn read(output: &Output, target: &Target, taken: Instant) -> Result<Facts, Error> {
    if output.exit != Exit::Exited(0) {
        return Err(Error::Failed { doing: "looking at the host".to_owned(), found: output.last_words() });
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let all = |key: &'static str| {
        text.lines()
            .filter_map(move |line| Some(printable(line.strip_prefix(key)?.strip_prefix(' ')?.trim())))
    };
    let one = |key| all(key).next().unwrap_or_default();
    let missing: Vec<String> = all("missing").collect();
    if !missing.is_empty() {
        return Err(Error::ToolMissing { expected: TOOLS.to_owned(), found: printable(&missing.join(", ")) });
    }
    let user = one("user");
    if one("docker").is_empty() {
        return Err(Error::DockerUnavailable { found: "no program `docker`".to_owned() });
    }
    let compose = one("compose");
    if version(&compose).is_none_or(|found| found < OLDEST_COMPOSE) {
        let found = if compose.is_empty() { "none".to_owned() } else { compose };
        return Err(Error::ComposeMissing { found });
    }
    let (api, engine) = engine(&one("socket"), &one("api"), &user, &one("elsewhere"))?;
    let folder = one("folder");
    if folder != "ok" {
        return Err(Error::FolderNotWritable { user, directory: target.directory.clone(), found: folder });
    }
    let forwarding = Some(one("forwarding")).filter(|text| !text.is_empty()).map(|text| text != "0");
    let real_directory = Some(one("real")).filter(|real| real.starts_with('/') && *real != target.directory);
    let words = all("dockerd").collect::<Vec<_>>();
    let daemon_defaults = DaemonDefaults::read(&words, &one("daemon"));
    let number = |key| one(key).parse().ok();
    let kibibytes = |key| Some(one(key).parse::<u64>().ok()?.saturating_mul(1024));
    let memory = kibibytes("memory").zip(kibibytes("unused"));
    let memory = memory.map(|(total, available)| Memory { total, available });
    let (uid, gid) = (number("uid"), number("gid"));
    let disks = all("disk").filter_map(|line| disk(&line)).take(DISKS).collect();
    let seconds = one("seconds").parse().ok();
    Ok(Facts {
        user,
        uid,
        gid,
        real_directory,
        daemon_defaults,
        compose,
        engine,
        api,
        disks,
        memory,
        forwarding,
        seconds,
        taken,
    })
}

/// `BLOCKS AVAILABLE INODES FREE PLACE`
fn disk(line: &str) -> Option<Disk> {
    let mut words = line.splitn(5, ' ');
    let mut number = || words.next()?.parse::<u64>().ok().map(u128::from);
    let (blocks, available, inodes, free) = (number()?, number()?, number()?, number()?);
    let percent = |part: u128, whole: u128| {
        let share = (part * 100).checked_div(whole).unwrap_or(100).min(100);
        u8::try_from(share).unwrap_or(100)
    };
    Some(Disk {
        place: words.next()?.to_owned(),
        free_percent: percent(available, blocks),
        free_inodes_percent: percent(free, inodes),
    })
}

fn engine(socket: &str, api: &str, user: &str, elsewhere: &str) -> Result<((u32, u32), String), Error> {
    match socket {
        "open" => {}
        "denied" => {
            let found = "permission denied".to_owned();
            return Err(Error::SocketDenied { user: user.to_owned(), socket: SOCKET.to_owned(), found });
        }
        _ if elsewhere.is_empty() => {
            return Err(Error::DockerUnavailable {
                found: format!("no socket {SOCKET}: the daemon does not run"),
            });
        }
        _ => {
            return Err(Error::SocketElsewhere { socket: SOCKET.to_owned(), found: elsewhere.to_owned() });
        }
    }
    let (api, engine) = api.split_once(' ').unwrap_or((api, ""));
    let Some(found) = version(api) else {
        return Err(Error::DockerUnavailable { found: "a socket on which no engine answers".to_owned() });
    };
    if found < OLDEST_API {
        return Err(Error::EngineTooOld { found: api.to_owned() });
    }
    Ok((found, engine.to_owned()))
}

/// The first two numbers of a version such as `2.26.1-4` or `v2.40.3`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers =
        text.trim_start_matches('v').split(['.', '-', '+', '~']).map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

#[cfg(test)]
impl Facts {
    /// Those of a host of which nothing is known.
    pub(crate) fn for_tests() -> Self {
        Self {
            user: "deploy".to_owned(),
            uid: None,
            gid: None,
            real_directory: None,
            daemon_defaults: DaemonDefaults::default(),
            compose: String::new(),
            engine: String::new(),
            api: OLDEST_API,
            disks: Vec::new(),
            memory: None,
            forwarding: None,
            seconds: None,
            taken: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(probe: &str) -> Result<Facts, Error> {
        let output = Output { exit: Exit::Exited(0), stdout: probe.as_bytes().to_vec(), stderr: Vec::new() };
        read(&output, &Target::for_tests("a", "127.0.0.1", 22), Instant::now())
    }

    const GOOD: &str = "user deploy\nuid 1500\ngid 1501\ndocker present\ncompose 2.26.1-4\nsocket open\napi 1.41 20.10.24\nfolder ok\n\
        disk 1000 40 0 0 /opt\ndisk  /nowhere\nmemory 2048\nunused 1024\nforwarding 1\nseconds 1700000000\n";

    #[test]
    fn a_good_host_gives_facts() {
        let facts = judged(GOOD).unwrap();
        assert_eq!(
            (facts.user.as_str(), facts.compose.as_str(), facts.engine.as_str()),
            ("deploy", "2.26.1-4", "20.10.24")
        );
        assert_eq!((facts.uid, facts.gid, facts.real_directory), (Some(1500), Some(1501), None));
        assert_eq!((facts.api, facts.forwarding, facts.seconds), ((1, 41), Some(true), Some(1_700_000_000)));
        let disk = Disk { place: "/opt".to_owned(), free_percent: 4, free_inodes_percent: 100 };
        assert_eq!(facts.disks, [disk]);
        assert_eq!(facts.memory, Some(Memory { total: 2 << 20, available: 1 << 20 }));
    }

    #[test]
    fn every_lack_is_one_line_with_its_remedy() {
        let lacks = [
            ("user deploy", "missing flock\nmissing timeout\nuser deploy"),
            ("docker present\n", ""),
            ("compose 2.26.1-4", "compose "),
            ("compose 2.26.1-4", "compose 2.6.0"),
            ("socket open", "socket denied"),
            ("socket open", "socket absent"),
            ("socket open", "socket absent\nelsewhere unix:///run/user/1500/docker.sock"),
            ("api 1.41 20.10.24", "api "),
            ("api 1.41 20.10.24", "api 1.40 19.03.15"),
            ("folder ok", "folder /opt is not writable"),
        ];
        let told: Vec<String> =
            lacks.iter().map(|(from, to)| judged(&GOOD.replace(from, to)).unwrap_err().to_string()).collect();
        assert!(told.iter().all(|line| line.lines().count() == 1));
        insta::assert_snapshot!(told.join("\n"));
    }
}
