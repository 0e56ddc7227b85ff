//! What a Docker daemon gives every container and network by its own configuration. Pure.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Settings;
use crate::text::printable;

/// Settings, in the form in which `inspect` is read, that a daemon's arguments and its `daemon.json` give to whatever does
/// not ask for others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DaemonDefaults {
    /// Of every container.
    pub containers: Settings,
    /// Of every network of the driver `bridge`.
    pub networks: Settings,
}

impl DaemonDefaults {
    /// Reads the arguments of a daemon, and its file where it has one. Which of the two counts where both name an option
    /// Docker decides: it refuses to start.
    pub(super) fn read(arguments: &[String], file: &str) -> Self {
        let mut defaults = Self::default();
        for (option, value) in options(arguments) {
            match option {
                "default-shm-size" => defaults.shm_size(value),
                "default-ulimit" => defaults.ulimit(value),
                "log-opt" => defaults.log_option(value),
                "default-network-opt" => {
                    defaults.network_option(value.strip_prefix("bridge=").unwrap_or_default());
                }
                "default-ipc-mode"
                | "default-cgroupns-mode"
                | "init"
                | "cgroup-parent"
                | "dns"
                | "dns-opt"
                | "dns-search" => defaults.plain(option, value),
                _ => {}
            }
        }
        if let Ok(Value::Object(file)) = serde_json::from_str(file) {
            defaults.read_file(&file);
        }
        defaults
    }

    fn read_file(&mut self, file: &Map<String, Value>) {
        for (option, value) in file {
            let members = || value.as_object().into_iter().flatten();
            match option.as_str() {
                "default-shm-size" => self.shm_size(&text(value)),
                "default-ulimits" => {
                    for (name, limit) in members() {
                        let limits = [&limit["Soft"], &limit["Hard"]].map(text);
                        self.containers.insert(format!("ulimits/{}", printable(name)), limits.join(":"));
                    }
                }
                "log-opts" => members().for_each(|(name, value)| self.log_option(&pair(name, value))),
                "default-network-opts" => {
                    let bridge = value["bridge"].as_object().into_iter().flatten();
                    bridge.for_each(|(name, value)| self.network_option(&pair(name, value)));
                }
                "default-ipc-mode" | "default-cgroupns-mode" | "init" | "cgroup-parent" => {
                    self.plain(option, &text(value));
                }
                "dns" | "dns-opts" | "dns-search" => {
                    let list = value.as_array().into_iter().flatten();
                    list.for_each(|value| self.plain(option.trim_end_matches("opts"), &text(value)));
                }
                _ => {}
            }
        }
    }

    /// `128M`, or bytes.
    fn shm_size(&mut self, value: &str) {
        if let Some(bytes) = bytes(value) {
            self.containers.insert("shm_size".to_owned(), bytes.to_string());
        }
    }

    /// `NAME=SOFT[:HARD]`
    fn ulimit(&mut self, value: &str) {
        let Some((name, limits)) = value.split_once('=') else { return };
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        self.containers.insert(format!("ulimits/{}", printable(name)), printable(&format!("{soft}:{hard}")));
    }

    fn log_option(&mut self, value: &str) {
        let Some((name, value)) = value.split_once('=') else { return };
        self.containers.insert(format!("logging/options/{}", printable(name)), value.to_owned());
    }

    fn network_option(&mut self, value: &str) {
        let Some((name, value)) = value.split_once('=') else { return };
        let (name, value) = (printable(name), printable(value));
        if let Some(protocol) = name.strip_prefix("com.docker.network.enable_") {
            self.networks.insert(format!("enable_{protocol}"), value.clone());
        }
        self.networks.insert(format!("driver_opts/{name}"), value);
    }

    /// An option whose value `inspect` shows as it is.
    fn plain(&mut self, option: &str, value: &str) {
        let (field, is_list) = match option {
            "default-ipc-mode" => ("ipc", false),
            "default-cgroupns-mode" => ("cgroup", false),
            "init" => ("init", false),
            "cgroup-parent" => ("cgroup_parent", false),
            "dns" => ("dns", true),
            "dns-opt" | "dns-" => ("dns_opt", true),
            "dns-search" => ("dns_search", true),
            _ => return,
        };
        let value = if value.is_empty() && field == "init" { "true" } else { value };
        if !is_list {
            self.containers.insert(field.to_owned(), printable(value));
            return;
        }
        let before = self.containers.get(field).and_then(|list| serde_json::from_str(list).ok());
        let mut list: Vec<String> = before.unwrap_or_default();
        list.push(value.to_owned());
        self.containers.insert(field.to_owned(), Value::from(list).to_string());
    }
}

/// `--OPTION=VALUE`, `--OPTION VALUE` and `--OPTION`, as Docker's command line reads them.
fn options(arguments: &[String]) -> impl Iterator<Item = (&str, &str)> {
    let mut words = arguments.iter().map(String::as_str).skip(1).peekable();
    std::iter::from_fn(move || {
        loop {
            let Some(option) = words.next()?.strip_prefix("--") else { continue };
            if let Some(pair) = option.split_once('=') {
                return Some(pair);
            }
            return Some((option, words.next_if(|next| !next.starts_with('-')).unwrap_or_default()));
        }
    })
}

fn pair(name: &str, value: &Value) -> String {
    format!("{name}={}", text(value))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A size as Docker reads it: a number, and `k`, `m`, `g` or `t` of 1,024, with or without `b`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let text = text.strip_suffix('b').unwrap_or(&text);
    let text = text.strip_suffix('i').unwrap_or(text);
    let (digits, power) = match text.chars().last()? {
        'k' => (&text[..text.len() - 1], 10),
        'm' => (&text[..text.len() - 1], 20),
        'g' => (&text[..text.len() - 1], 30),
        't' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(1 << power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &str, file: &str) -> DaemonDefaults {
        let words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        DaemonDefaults::read(&words, file)
    }

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(field, text)| ((*field).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn arguments_and_the_file_of_a_daemon_say_the_same() {
        let expected = DaemonDefaults {
            containers: settings(&[
                ("shm_size", "134217728"),
                ("ulimits/nofile", "2048:4096"),
                ("logging/options/labels", "a=b"),
                ("ipc", "shareable"),
                ("init", "true"),
                ("dns", "[\"10.0.0.2\",\"10.0.0.3\"]"),
                ("dns_opt", "[\"ndots:2\"]"),
            ]),
            networks: settings(&[("driver_opts/com.docker.network.driver.mtu", "1450")]),
        };
        let arguments = "dockerd -H fd:// --default-shm-size=128M --default-ulimit nofile=2048:4096 \
            --log-opt labels=a=b --init --default-ipc-mode=shareable --dns 10.0.0.2 --dns=10.0.0.3 \
            --dns-opt ndots:2 --default-network-opt bridge=com.docker.network.driver.mtu=1450";
        assert_eq!(read(arguments, ""), expected);
        let file = r#"{"default-shm-size": "128M", "log-opts": {"labels": "a=b"}, "init": true,
            "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 4096, "Soft": 2048}},
            "default-ipc-mode": "shareable", "dns": ["10.0.0.2", "10.0.0.3"], "dns-opts": ["ndots:2"],
            "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1450"}}}"#;
        assert_eq!(read("dockerd", file), expected);
    }

    #[test]
    fn what_cannot_be_read_gives_nothing() {
        let nothing = DaemonDefaults::default();
        for (arguments, file) in [
            ("", ""),
            ("dockerd", "{"),
            ("dockerd", "[]"),
            ("dockerd --default-shm-size", "{\"default-shm-size\": \"much\"}"),
            ("dockerd --default-ulimit nofile --log-opt x --default-network-opt overlay=a=b", "null"),
            ("dockerd", "{\"log-opts\": [1], \"default-ulimits\": 7, \"default-network-opts\": {}}"),
        ] {
            assert_eq!(read(arguments, file), nothing, "{arguments} {file}");
        }
    }

    #[test]
    fn an_option_of_networks_that_has_a_field_of_its_own_is_told_as_both() {
        let networks =
            read("dockerd --default-network-opt=bridge=com.docker.network.enable_ipv6=true", "").networks;
        let field = "driver_opts/com.docker.network.enable_ipv6";
        assert_eq!(networks, settings(&[(field, "true"), ("enable_ipv6", "true")]));
    }

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, expected) in [
            ("64", Some(64)),
            ("64k", Some(65_536)),
            ("128M", Some(134_217_728)),
            ("1GiB", Some(1 << 30)),
            ("1 gb", Some(1 << 30)),
            ("", None),
            ("b", None),
            ("99999999t", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
