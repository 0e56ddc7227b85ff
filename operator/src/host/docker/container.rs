//! Containers as the list tells of them.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use jiff::Timestamp;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::{Value, value::RawValue};

use super::{
    Details, THING_LIMIT,
    event::{NUMBER_LABEL, SERVICE_LABEL},
};

/// Containers of a host, at most: of more, nothing is known.
const MOST: usize = 20_000;
/// What the labels begin with that tell whose a container is.
const LABELS: [&str; 2] = ["com.docker.compose.", "tasktracker.dev/"];

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// ID, 64 hexadecimal digits.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// ID of the image it runs.
    pub image_id: String,
    /// That image as it was named when the container was made.
    pub image: String,
    /// Whether it runs.
    pub state: State,
    /// What its health check says.
    pub health: Health,
    /// Docker's own words, such as `Up 2 minutes (healthy)`.
    pub status: String,
    /// Those of its labels that tell whose it is.
    pub labels: BTreeMap<String, String>,
    /// Ports of the host that lead to it while it runs.
    pub published: Vec<Published>,
    /// Names of the networks it is in.
    pub networks: Vec<String>,
    /// Its address in each of them while it runs, by the network's name; IPv4 where it has both.
    pub addresses: BTreeMap<String, IpAddr>,
    /// Exit status of its last run, where it ended.
    pub exit_code: Option<i32>,
    /// Names of its volumes, and folders of the host that it sees.
    pub sources: Vec<String>,
    /// What `inspect` says, where that was asked.
    pub details: Option<Details>,
}

/// A port of the host that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// Port of the host.
    pub port: u16,
    /// Protocol: tcp, udp or sctp.
    pub protocol: String,
    /// Address of the host; none where it is every one.
    pub address: Option<IpAddr>,
}

/// Whether a container runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// Any other state, in Docker's own words: created, exited, paused, restarting, removing, dead, …
    Other(String),
}

impl Default for State {
    fn default() -> Self {
        Self::Other(String::new())
    }
}

/// What a health check says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// There is none.
    #[default]
    None,
    /// Too early to say.
    Starting,
    /// Good.
    Healthy,
    /// Bad.
    Unhealthy,
}

impl Container {
    /// Reads one entry of `GET /containers/json`; what is missing or of another type is empty.
    pub(crate) fn read(answer: &Value) -> Self {
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        let state = text("State");
        let status = text("Status");
        let name = answer["Names"][0].as_str().unwrap_or_default();
        Self {
            id: text("Id"),
            name: name.trim_start_matches('/').to_owned(),
            image_id: text("ImageID"),
            image: text("Image"),
            health: Health::of(&status),
            state: if state == "running" { State::Running } else { State::Other(state) },
            labels: known_labels(&answer["Labels"]),
            published: entries(&answer["Ports"]).filter_map(Published::read).collect(),
            networks: answer["NetworkSettings"]["Networks"]
                .as_object()
                .map(|networks| networks.keys().cloned().collect())
                .unwrap_or_default(),
            addresses: addresses(&answer["NetworkSettings"]["Networks"]),
            exit_code: exit_code(&status),
            sources: entries(&answer["Mounts"]).filter_map(source).collect(),
            details: None,
            status,
        }
    }

    /// When it was started last, by the daemon's clock; none where that is not known.
    pub fn started_at(&self) -> Option<Timestamp> {
        self.details.as_ref()?.started_at
    }

    /// The Compose service that it is of, and its number among the containers of that.
    pub fn replica(&self) -> Option<(&String, &String)> {
        self.labels.get(SERVICE_LABEL).zip(self.labels.get(NUMBER_LABEL))
    }

    /// Whether a label has a value.
    pub fn has_label(&self, key: &str, value: &str) -> bool {
        self.labels.get(key).is_some_and(|found| found == value)
    }

    /// Whether it is in this state, in Docker's own words.
    pub fn is(&self, state: &str) -> bool {
        matches!(&self.state, State::Other(found) if found == state)
    }
}

impl Health {
    /// The list tells health only in the words of its status.
    fn of(status: &str) -> Self {
        if status.ends_with("(healthy)") {
            Self::Healthy
        } else if status.ends_with("(unhealthy)") {
            Self::Unhealthy
        } else if status.ends_with("(health: starting)") {
            Self::Starting
        } else {
            Self::None
        }
    }
}

impl Published {
    fn read(answer: &Value) -> Option<Self> {
        let port = u16::try_from(answer["PublicPort"].as_u64()?).ok().filter(|port| *port > 0)?;
        let protocol = answer["Type"].as_str().unwrap_or("tcp").to_owned();
        let address = answer["IP"].as_str().and_then(|address| address.parse().ok());
        Some(Self { port, protocol, address })
    }
}

/// The list tells the exit status only in the words of its status, such as `Exited (137) 3 seconds ago`.
fn exit_code(status: &str) -> Option<i32> {
    status.strip_prefix("Exited (")?.split_once(')')?.0.parse().ok()
}

/// Addresses by network; empty texts while the container does not run.
fn addresses(networks: &Value) -> BTreeMap<String, IpAddr> {
    let address = |joined: &Value| {
        ["IPAddress", "GlobalIPv6Address"].iter().find_map(|key| joined[key].as_str()?.parse().ok())
    };
    let networks = networks.as_object().into_iter().flatten();
    networks.filter_map(|(name, joined)| Some((name.clone(), address(joined)?))).collect()
}

/// The name of a volume, or the folder of a bind.
fn source(mount: &Value) -> Option<String> {
    let key = if mount["Type"] == "volume" { "Name" } else { "Source" };
    mount[key].as_str().filter(|source| !source.is_empty()).map(str::to_owned)
}

/// Reads the list of all containers, one after the other: a list is large, and its JSON as values many times as large.
pub(super) fn read_list(body: &[u8]) -> Result<Vec<Container>, serde_json::Error> {
    serde_json::from_slice(body).map(|List(containers)| containers)
}

struct List(Vec<Container>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(List(Vec::new()))
    }
}

impl<'de> Visitor<'de> for List {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of containers")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut entries: A) -> Result<Self, A::Error> {
        while let Some(entry) = entries.next_element::<&RawValue>()? {
            if self.0.len() == MOST {
                return Err(de::Error::custom(format_args!("more than {MOST} containers")));
            }
            if entry.get().len() > THING_LIMIT {
                let length = entry.get().len();
                return Err(de::Error::custom(format_args!(
                    "a container of {length} bytes, expected {THING_LIMIT} at most"
                )));
            }
            let entry: Value = serde_json::from_str(entry.get()).map_err(de::Error::custom)?;
            self.0.push(Container::read(&entry));
        }
        Ok(self)
    }
}

fn known_labels(labels: &Value) -> BTreeMap<String, String> {
    let mut labels = texts(labels);
    labels.retain(|key, _| LABELS.iter().any(|prefix| key.starts_with(prefix)));
    labels
}

/// The entries of a list; none where it is something else.
pub(super) fn entries(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The texts of a mapping; what is no text is left out.
pub(super) fn texts(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_and_states_are_no_error() {
        let answer = r#"[{"Id":"a","Names":["/n"],"ImageID":"sha256:1","State":"hibernating","Status":"Up 1 second (healthy)","Labels":null,"New":{"x":[1]},
            "Ports":[{"PrivatePort":80,"PublicPort":3500,"Type":"tcp"},{"IP":"10.0.0.5","PublicPort":3501,"Type":"udp"},{"IP":"every","PublicPort":3502},{"PublicPort":-4},{"PublicPort":99999},7]},{},5,{"Labels":{"a":"b","com.docker.compose.service":"b","tasktracker.dev/owner":1},"Names":3}]"#;
        let containers = read_list(answer.as_bytes()).unwrap();
        assert_eq!(containers[0].state, State::Other("hibernating".to_owned()));
        assert_eq!(containers[0].health, Health::Healthy);
        assert_eq!(containers[0].name, "n");
        let published = |port, protocol: &str, address: Option<[u8; 4]>| Published {
            port,
            protocol: protocol.to_owned(),
            address: address.map(IpAddr::from),
        };
        let expected = [
            published(3500, "tcp", None),
            published(3501, "udp", Some([10, 0, 0, 5])),
            published(3502, "tcp", None),
        ];
        assert_eq!(containers[0].published, expected);
        assert_eq!((&containers[1], &containers[2]), (&Container::default(), &Container::default()));
        assert_eq!(
            containers[3].labels,
            BTreeMap::from([("com.docker.compose.service".to_owned(), "b".to_owned())])
        );
    }

    #[test]
    fn addresses_are_read_by_network() {
        let answer = r#"[{"NetworkSettings":{"Networks":{"a":{"IPAddress":"172.18.0.2","GlobalIPv6Address":"fd00::2"},
            "b":{"IPAddress":"","GlobalIPv6Address":"fd00::3"},"c":{"IPAddress":""},"d":{"IPAddress":7},"e":null}}}]"#;
        let container = read_list(answer.as_bytes()).unwrap().remove(0);
        let expected = [("a", "172.18.0.2"), ("b", "fd00::3")];
        let expected = expected.map(|(name, address)| (name.to_owned(), address.parse().unwrap()));
        assert_eq!(container.addresses, BTreeMap::from(expected));
        assert_eq!(container.networks.len(), 5);
    }

    #[test]
    fn the_exit_status_is_read_from_the_status() {
        for (status, expected) in [
            ("Exited (137) 3 seconds ago", Some(137)),
            ("Exited (0) 2 weeks ago", Some(0)),
            ("Restarting (1) 1 second ago", None),
            ("Up 2 minutes (healthy)", None),
            ("Exited (\u{1b}[31m-137\n) long ago", None),
        ] {
            assert_eq!(exit_code(status), expected, "{status}");
        }
    }

    #[test]
    fn health_is_read_from_the_status() {
        for (status, expected) in [
            ("Up 3 minutes", Health::None),
            ("Up 3 minutes (health: starting)", Health::Starting),
            ("Up 3 minutes (unhealthy)", Health::Unhealthy),
            ("Exited (137) 2 seconds ago", Health::None),
        ] {
            assert_eq!(Health::of(status), expected, "{status}");
        }
    }
}
