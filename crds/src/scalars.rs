//! Strings with a grammar: each has one pattern that the schema, the API server and this crate share.

use std::{borrow::Cow, fmt, net::IpAddr, sync::LazyLock, time::Duration};

use regex::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A text that does not have the form its type asks for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected {expected}, found {found:?}")]
pub struct FormError {
    /// What the form is, in words.
    pub expected: &'static str,
    /// What was given.
    pub found: String,
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $pattern:expr, max $max:expr, $expected:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = FormError;

            fn try_from(text: String) -> Result<Self, FormError> {
                static FORM: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($pattern).ok());
                let fits = FORM.as_ref().is_some_and(|form| form.is_match(&text));
                if fits && text.chars().count() <= $max {
                    return Ok(Self(text));
                }
                Err(FormError { expected: $expected, found: text })
            }
        }

        impl std::str::FromStr for $name {
            type Err = FormError;

            fn from_str(text: &str) -> Result<Self, FormError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "maxLength": $max })
            }
        }
    };
}

macro_rules! text_types {
    ($($(#[$doc:meta])* $name:ident, $pattern:expr, max $max:expr, $expected:expr;)*) => {
        /// Every pattern of the schema that stands for a type, and what it expects in words.
        pub(crate) const FORMS: &[(&str, &str)] = &[$(($pattern, $expected)),*];

        $(text_type! { $(#[$doc])* $name, $pattern, max $max, $expected })*
    };
}

text_types! {
    /// A name of a plugin or an option of one.
    OptionName, r"^[A-Za-z][A-Za-z0-9_.]{0,62}$", max 63,
    "letters, digits, '_' and '.', at most 63";
    /// A name of a stack, host or secret: a short DNS label.
    Name, r"^[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?$", max 30,
    "lower-case letters, digits and inner hyphens, at most 30";
    /// The namespace of a stack: a DNS label of any legal length.
    Namespace, r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", max 63,
    "lower-case letters, digits and inner hyphens, at most 63";
    /// The name of a Secret, or of a folder below `--secrets-dir`.
    SecretName, r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max 253,
    "lower-case letters, digits, inner hyphens and dots";
    /// The name of an environment, written as a label on everything that belongs to it.
    Environment, r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", max 63,
    "lower-case letters, digits and inner hyphens, at most 63";
    /// The revision of the app: the tag of its images.
    Revision, r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", max 128,
    "an image tag: letters, digits, '_', '.', '-', at most 128";
    /// A host name or an IP address.
    Address, r"^[A-Za-z0-9:]([A-Za-z0-9.:-]*[A-Za-z0-9:])?$", max 253,
    "a host name or an IP address without port";
    /// An IP address to publish ports on.
    BindAddress, r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}|([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|([0-9A-Fa-f]{1,4}:){1,7}:|([0-9A-Fa-f]{1,4}:){1,6}:[0-9A-Fa-f]{1,4}|([0-9A-Fa-f]{1,4}:){1,5}(:[0-9A-Fa-f]{1,4}){1,2}|([0-9A-Fa-f]{1,4}:){1,4}(:[0-9A-Fa-f]{1,4}){1,3}|([0-9A-Fa-f]{1,4}:){1,3}(:[0-9A-Fa-f]{1,4}){1,4}|([0-9A-Fa-f]{1,4}:){1,2}(:[0-9A-Fa-f]{1,4}){1,5}|[0-9A-Fa-f]{1,4}:(:[0-9A-Fa-f]{1,4}){1,6}|:((:[0-9A-Fa-f]{1,4}){1,7}|:))$", max 45,
    "an IP address such as 10.0.0.5 or fd00::5";
    /// A pinned public host key in OpenSSH's form: type, base64, optional comment.
    HostKey, r"^(ssh-ed25519|ecdsa-sha2-nistp256|ecdsa-sha2-nistp384|ecdsa-sha2-nistp521|ssh-rsa) [A-Za-z0-9+/]+={0,3}( [ -~]*)?$", max 2048,
    "a public host key such as 'ssh-ed25519 AAAA…' (`tasktracker-operator hostkey ADDRESS` prints it)";
    /// An absolute, normal folder at least two levels deep.
    Directory, r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*){2,}$", max 200,
    "an absolute path of at least two levels without '.', '..' or special characters, such as /opt/tasktracker";
    /// A user as SSH servers know users: of the host itself, or of a directory such as `CORP\jane` or `jane@corp.example`.
    UserName, r"^[A-Za-z0-9_][A-Za-z0-9_.@+\\$-]*$", max 255,
    "a user name: letters, digits, '_', '.', '-', '@', '+', '\\', '$', with none of the last six in front";
    /// Registry host and path in front of `/backend` and `/frontend`.
    Registry, r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*$", max 255,
    "a registry host and path such as registry.example.com/tasktracker";
    /// An image reference: repository with optional tag or digest.
    ImageReference, r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$", max 512,
    "an image reference such as caddy:2.6.2";
    /// A content digest.
    Digest, r"^sha256:[0-9a-f]{64}$", max 71,
    "'sha256:' and 64 hexadecimal digits";
    /// An origin: scheme, host and optional port.
    Origin, r"^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$", max 300,
    "an origin such as https://tasks.example.com";
    /// An origin, or empty for the page's own.
    OptionalOrigin, r"^(https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?)?$", max 300,
    "an origin such as https://api.example.com, or empty for the page's own";
    /// A value of an environment variable: any text but control characters other than tab and newline.
    EnvironmentValue, r"^[^\x00-\x08\x0B-\x1F\x7F-\x9F]*$", max 32768,
    "text without control characters other than tab and newline";
    /// The name of a Compose project.
    ComposeProject, r"^[a-z0-9][a-z0-9_-]*$", max 63,
    "the name of a Compose project: lower-case letters, digits, '-', '_', at most 63";
    /// The name of a Docker volume: no path.
    VolumeName, r"^[A-Za-z0-9][A-Za-z0-9_.-]+$", max 255,
    "the name of a Docker volume: letters, digits, '_', '.', '-'";
    /// A line a person reads: no control characters.
    Line, r"^[^\x00-\x1F\x7F-\x9F]*$", max 512,
    "one line of text without control characters";
    /// A cron expression of five fields.
    Cron, r"^[A-Za-z0-9*/,?#-]+( [A-Za-z0-9*/,?#-]+){4}$", max 128,
    "five cron fields such as '0 3 * * 1-5'";
    /// A time zone of the IANA database.
    TimeZone, r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$", max 64,
    "an IANA time zone such as Europe/Berlin";
    /// A moment in RFC 3339.
    Moment, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$", max 40,
    "a moment such as 2026-01-31T18:00:00Z";
    /// A length of time in whole hours, minutes, seconds or milliseconds.
    Span, r"^([0-9]{1,5}ms|[0-9]{1,5}s|[0-9]{1,4}m|[0-9]{1,2}h){1,3}$", max 18,
    "a length of time such as 30s, 2m or 1h30m";
    /// An amount of memory in Mi or Gi; Docker wants 6Mi at least.
    Memory, r"^(([6-9]|[1-9][0-9]{1,6})Mi|[1-9][0-9]{0,3}Gi)$", max 9,
    "an amount of memory such as 256Mi or 2Gi, at least 6Mi";
    /// A time of the day.
    ClockTime, r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$", max 5,
    "a time of the day such as 06:30";
    /// Which alerts a silence is about, as Alertmanager writes it.
    AlertMatcher, r#"^[A-Za-z_][A-Za-z0-9_]*(=~|!~|!=|=)"[^"\\\x00-\x1F\x7F-\x9F]*"$"#, max 300,
    "a matcher such as alertname=\"InstanceDown\" or host=~\"app-.*\", with one of =, !=, =~, !~";
    /// A query in `PromQL`.
    Query, r"^[^\x00-\x08\x0B-\x1F\x7F-\x9F]*[^\x00-\x20\x7F-\x9F][^\x00-\x08\x0B-\x1F\x7F-\x9F]*$", max 4096,
    "a query in PromQL";
    /// The name of a recording rule: its level, metric and operations.
    RecordName, r"^[a-zA-Z_][a-zA-Z0-9_]*(:[a-zA-Z0-9_]+)+$", max 200,
    "a name such as instance:node_cpu_usage:ratio_rate5m, with the level in front";
    /// The name of a label.
    LabelName, r"^[a-zA-Z_][a-zA-Z0-9_]*$", max 100,
    "the name of a label: letters, digits, '_', no digit in front";
    /// A URL without a password in it.
    HttpUrl, r"^https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[!-~]*)?$", max 1024,
    "a URL such as https://metrics.example.com/api/v1/push";
    /// The name of an alert.
    AlertName, r"^[A-Z][A-Za-z0-9]*$", max 60,
    "the name of an alert such as InstanceDown";
    /// A share of processors: cores with up to three decimals, or thousandths with `m`.
    Cpu, r"^([1-9][0-9]{0,3}(\.[0-9]{1,3})?|0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9])|[1-9][0-9]{0,6}m)$", max 9,
    "a number of cores such as \"0.5\" or 500m";
}

impl Origin {
    /// The origin as browsers write it: in small letters, and without the port that its scheme has anyway.
    pub fn canonical(&self) -> String {
        let origin = self.0.to_ascii_lowercase();
        let port = if origin.starts_with("https:") { ":443" } else { ":80" };
        origin.strip_suffix(port).map_or(origin.clone(), str::to_owned)
    }
}

impl AlertMatcher {
    /// The label, whether its value must fit, whether the value is a pattern, and the value.
    pub fn parts(&self) -> (&str, bool, bool, &str) {
        let end = self.0.find(['=', '!']).unwrap_or(self.0.len());
        let (label, rest) = self.0.split_at(end);
        let (operator, value) = rest.split_once('"').unwrap_or_default();
        (label, !operator.starts_with('!'), operator.ends_with('~'), value.trim_end_matches('"'))
    }
}

impl Moment {
    /// The moment; what the pattern lets through may be none, such as the 31st of February.
    pub fn timestamp(&self) -> Option<jiff::Timestamp> {
        self.0.parse().ok()
    }
}

impl BindAddress {
    /// The address; what the pattern lets through is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }
}

impl Span {
    /// The length as a duration.
    pub fn duration(&self) -> Duration {
        let mut milliseconds: u64 = 0;
        let mut digits: u64 = 0;
        let mut rest = self.0.chars().peekable();
        while let Some(character) = rest.next() {
            if let Some(digit) = character.to_digit(10) {
                digits = digits * 10 + u64::from(digit);
                continue;
            }
            let unit = match (character, rest.peek()) {
                ('m', Some('s')) => {
                    rest.next();
                    1
                }
                ('s', _) => 1_000,
                ('m', _) => 60_000,
                _ => 3_600_000,
            };
            milliseconds += digits * unit;
            digits = 0;
        }
        Duration::from_millis(milliseconds)
    }
}

impl Memory {
    /// The amount in bytes.
    pub fn bytes(&self) -> u64 {
        let (digits, suffix) = self.0.split_at(self.0.len().saturating_sub(2));
        let factor: u64 = if suffix == "Gi" { 1 << 30 } else { 1 << 20 };
        digits.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(factor)
    }
}

impl Cpu {
    /// The share in thousandths of a core.
    pub fn millicores(&self) -> u32 {
        if let Some(thousandths) = self.0.strip_suffix('m') {
            return thousandths.parse().unwrap_or(u32::MAX);
        }
        let (whole, decimals) = self.0.split_once('.').unwrap_or((&self.0, ""));
        let whole: u32 = whole.parse().unwrap_or(0);
        let decimals: u32 = format!("{decimals:0<3}").parse().unwrap_or(0);
        whole * 1_000 + decimals
    }
}

/// A TCP port, 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Port(pub u16);

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl JsonSchema for Port {
    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 65535 })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn spans_are_read_unit_by_unit() {
        for (text, milliseconds) in
            [("30s", 30_000), ("2m", 120_000), ("1h30m", 5_400_000), ("250ms", 250), ("1m5ms", 60_005)]
        {
            assert_eq!(
                text.parse::<Span>().unwrap().duration(),
                Duration::from_millis(milliseconds),
                "{text}"
            );
        }
        assert!("30".parse::<Span>().is_err());
        assert!("s".parse::<Span>().is_err());
    }

    #[test]
    fn matchers_are_read_as_alertmanager_writes_them() {
        for (text, parts) in [
            (r#"alertname="InstanceDown""#, ("alertname", true, false, "InstanceDown")),
            (r#"host=~"app-.*""#, ("host", true, true, "app-.*")),
            (r#"severity!="critical""#, ("severity", false, false, "critical")),
            (r#"a!~"=!""#, ("a", false, true, "=!")),
            (r#"a="""#, ("a", true, false, "")),
        ] {
            assert_eq!(text.parse::<AlertMatcher>().unwrap().parts(), parts, "{text}");
        }
        for bad in ["a=b", r#"a=="b""#, r#""a"="b""#, r#"a="b" "#, r#"a="\d""#] {
            assert!(bad.parse::<AlertMatcher>().is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_and_cpu_are_read_in_their_units() {
        assert_eq!("256Mi".parse::<Memory>().unwrap().bytes(), 268_435_456);
        assert_eq!("2Gi".parse::<Memory>().unwrap().bytes(), 2 << 30);
        assert_eq!("0.5".parse::<Cpu>().unwrap().millicores(), 500);
        assert_eq!("1.25".parse::<Cpu>().unwrap().millicores(), 1_250);
        assert_eq!("250m".parse::<Cpu>().unwrap().millicores(), 250);
        assert!("5Mi".parse::<Memory>().is_err() && "1000".parse::<Memory>().is_err());
        assert!(
            "0".parse::<Cpu>().is_err() && "0.000".parse::<Cpu>().is_err() && "0.05".parse::<Cpu>().is_ok()
        );
    }

    #[test]
    fn origins_are_compared_as_browsers_write_them() {
        for (text, canonical) in [
            ("https://Tasks.Example.com", "https://tasks.example.com"),
            ("https://tasks.example.com:443", "https://tasks.example.com"),
            ("https://tasks.example.com:80", "https://tasks.example.com:80"),
            ("http://tasks.example.com:80", "http://tasks.example.com"),
            ("http://a:8443", "http://a:8443"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().canonical(), canonical, "{text}");
        }
    }

    #[test]
    fn users_are_taken_as_ssh_servers_know_them() {
        for good in ["deploy", "john.doe", "Deploy", "CORP\\jane", "jane@corp.example", "app$", "1st", "_x"] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        for bad in ["", "-oProxyCommand", "a b", "a;b", "a'b", "a\nb", "$(id)", "@a"] {
            assert!(bad.parse::<UserName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn bind_addresses_are_ip_addresses() {
        for good in
            ["0.0.0.0", "10.0.0.5", "255.255.255.255", "::", "::1", "fd00::5", "FE80:0:0:0:1:2:3:4", "1::8"]
        {
            let address = good.parse::<BindAddress>().unwrap();
            assert_eq!(address.ip(), good.parse().ok(), "{good}");
            assert!(address.ip().is_some(), "{good}");
        }
        for bad in
            ["", "256.1.1.1", "1.2.3", "010.0.0.5", "1.2.3.4.5", ":", ":::", "1:2", "1::2::3", "12345::"]
        {
            assert!(bad.parse::<BindAddress>().is_err() && bad.parse::<IpAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn directories_are_normal_and_two_levels_deep() {
        for good in ["/opt/tasktracker", "/srv/a/b-c_d.e"] {
            assert!(good.parse::<Directory>().is_ok(), "{good}");
        }
        for bad in [
            "/opt",
            "/opt/",
            "/opt/../etc",
            "/opt/./a",
            "opt/a",
            "/opt/$(id)",
            "/opt/-rf",
            "/opt/a b",
            "/opt//a",
        ] {
            assert!(bad.parse::<Directory>().is_err(), "{bad}");
        }
    }
}
