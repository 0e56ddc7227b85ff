//! Where the value of a setting comes from: the command line, else the environment variable `NAME`, else
//! the file that the variable `NAME_FILE` names, else the default.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use clap::{
    Arg, CommandFactory, FromArgMatches,
    error::{ContextKind, ErrorKind},
};

/// Why the settings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is given twice.
    #[error(
        "the setting {name} is given twice\n  expected: {name} or {name}_FILE\n  found:    both\n  \
         remedy:   unset one of the two environment variables"
    )]
    GivenTwice {
        /// The environment variable.
        name: String,
    },
    /// The file that holds a setting cannot be read.
    #[error(
        "the setting {name} cannot be read\n  where:    the file {} named by {name}_FILE\n  \
         expected: a text file this user may read\n  found:    {source}\n  \
         remedy:   correct the path in {name}_FILE or the file's permissions",
        path.display()
    )]
    Unreadable {
        /// The environment variable.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A setting has a value that is not accepted.
    #[error(transparent)]
    NotAccepted(Box<NotAccepted>),
    /// The command line cannot be understood, or asks for help or the version.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
}

/// A value that is not accepted.
#[derive(Debug, thiserror::Error)]
#[error(
    "the setting {name} has a value that is not accepted\n  where:    {origin}\n  \
     expected: {expected}\n  found:    {found:?}\n  \
     remedy:   correct the value, or remove it to get the default {default:?}"
)]
pub struct NotAccepted {
    /// The environment variable.
    pub name: String,
    /// Where the value stands.
    pub origin: Origin,
    /// What would be accepted.
    pub expected: String,
    /// The value.
    pub found: String,
    /// What holds when it is removed.
    pub default: String,
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag on the command line.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// The file an environment variable names.
    File {
        /// The environment variable.
        variable: String,
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(formatter, "the flag {flag} on the command line"),
            Self::Variable(name) => write!(formatter, "the environment variable {name}"),
            Self::File { variable, path } => {
                write!(formatter, "the file {} named by {variable}", path.display())
            }
        }
    }
}

/// Reads a command line, completed by the environment as `environment` tells it.
pub fn parse<C: CommandFactory + FromArgMatches>(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<C, Error> {
    let command = C::command();
    let given = command
        .get_arguments()
        .filter_map(|argument| look_up(argument, &environment).transpose())
        .collect::<Result<BTreeMap<_, _>, _>>()?;

    let mut arguments = arguments.into_iter();
    // Later flags win over earlier ones, so what a person typed wins over the environment.
    let line = arguments.next().into_iter().chain(given.iter().map(as_flag)).chain(arguments);
    let matches = command.try_get_matches_from(line).map_err(|error| explain::<C>(error, &given))?;
    Ok(C::from_arg_matches(&matches)?)
}

/// The settings' long flags, and what the environment says about each.
type Given = BTreeMap<String, Found>;

/// A value from the environment.
struct Found {
    value: OsString,
    origin: Origin,
}

fn look_up(
    argument: &Arg,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(String, Found)>, Error> {
    let (Some(flag), Some(name)) = (argument.get_long(), argument.get_env().and_then(OsStr::to_str)) else {
        return Ok(None);
    };
    let variable = format!("{name}_FILE");
    let found = match (environment(name), environment(&variable)) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(Error::GivenTwice { name: name.to_owned() });
        }
        (Some(value), None) => Found { value, origin: Origin::Variable(name.to_owned()) },
        (None, Some(path)) => {
            let path = PathBuf::from(path);
            Found { value: read(name, &path)?, origin: Origin::File { variable, path } }
        }
    };
    Ok(Some((flag.to_owned(), found)))
}

fn read(name: &str, path: &Path) -> Result<OsString, Error> {
    let unreadable = |source| Error::Unreadable { name: name.to_owned(), path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).into())
}

fn as_flag((flag, found): (&String, &Found)) -> OsString {
    let mut written = OsString::from(format!("--{flag}="));
    written.push(&found.value);
    written
}

/// Says of a refused value where it stands and what would be accepted.
fn explain<C: CommandFactory>(error: clap::Error, given: &Given) -> Error {
    let is_value = matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue);
    let named = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    let found = error.get(ContextKind::InvalidValue).map(ToString::to_string);
    let (true, Some(named), Some(found)) = (is_value, named, found) else {
        return Error::CommandLine(error);
    };
    let mut command = C::command();
    // Until it is built, an argument cannot write itself the way the error names it.
    command.build();
    let Some(argument) = command.get_arguments().find(|argument| argument.to_string() == named) else {
        return Error::CommandLine(error);
    };
    Error::NotAccepted(Box::new(NotAccepted {
        name: argument.get_env().unwrap_or_default().to_string_lossy().into_owned(),
        origin: origin(argument, &found, given),
        expected: expectation(&error),
        default: argument.get_default_values().join(OsStr::new(",")).to_string_lossy().into_owned(),
        found,
    }))
}

/// Where a value stands that was read for `argument`: if not in the environment, somebody typed it.
fn origin(argument: &Arg, value: &str, given: &Given) -> Origin {
    let flag = argument.get_long().unwrap_or_default();
    let given = given.get(flag).filter(|given| given.value.to_str() == Some(value));
    given.map_or_else(|| Origin::Flag(format!("--{flag}")), |given| given.origin.clone())
}

/// The parsers of our settings fail with what they expect; of an enumeration, clap knows the values.
fn expectation(error: &clap::Error) -> String {
    let values = error.get(ContextKind::ValidValue).map(|values| format!("one of {values}"));
    let told = std::error::Error::source(error).map(ToString::to_string);
    told.or(values).unwrap_or_else(|| "a value the help text describes".to_owned())
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::SocketAddr};

    use clap::{ArgAction, Parser, Subcommand};

    use super::*;
    use crate::settings::{LogSettings, address};

    #[derive(Debug, Parser)]
    #[command(version, disable_version_flag = true, args_override_self = true)]
    struct CommandLine {
        #[arg(short = 'v', long = "version", action = ArgAction::Version)]
        version: Option<bool>,
        #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8000", global = true, value_parser = address)]
        listen: SocketAddr,
        #[arg(long, env = "REVISION", default_value = "unknown", global = true)]
        revision: String,
        #[command(flatten)]
        log: LogSettings,
        #[command(subcommand)]
        command: Option<Command>,
    }

    #[derive(Debug, Clone, Copy, Subcommand)]
    enum Command {
        Serve,
    }

    fn settings(arguments: &[&str], environment: &[(&str, &str)]) -> Result<CommandLine, Error> {
        let arguments = ["program"].iter().chain(arguments).map(OsString::from);
        parse(arguments, |name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn file(text: &str) -> (tempfile::NamedTempFile, String) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        (file, path)
    }

    #[test]
    fn defaults_then_file_then_variable_then_flag() {
        let revision = |arguments: &[&str], environment: &[(&str, &str)]| {
            settings(arguments, environment).unwrap().revision
        };
        let (_file, path) = file("from file\n");
        assert_eq!(revision(&[], &[]), "unknown");
        assert_eq!(revision(&[], &[("REVISION_FILE", &path)]), "from file");
        assert_eq!(revision(&[], &[("REVISION", "from variable")]), "from variable");
        assert_eq!(revision(&["--revision", "typed"], &[("REVISION_FILE", &path)]), "typed");
        assert_eq!(revision(&["serve", "--revision", "typed"], &[("REVISION", "variable")]), "typed");
        assert_eq!(revision(&["serve"], &[("REVISION", "variable")]), "variable");
    }

    #[test]
    fn every_setting_can_stand_in_a_file() {
        let (_file, path) = file("1\r\n");
        let names = CommandLine::command();
        let names: Vec<_> = names.get_arguments().filter_map(|a| a.get_env()?.to_str()).collect();
        assert_eq!(names.len(), 4);
        for name in names {
            let read = settings(&[], &[(&format!("{name}_FILE"), &path)]);
            match read {
                Ok(_) => {}
                Err(Error::NotAccepted(refused)) => assert!(matches!(refused.origin, Origin::File { .. })),
                Err(other) => panic!("{name}: {other}"),
            }
        }
    }

    #[test]
    fn both_is_an_error_that_names_both() {
        let error = settings(&[], &[("LISTEN", "a"), ("LISTEN_FILE", "b")]).unwrap_err();
        insta::assert_snapshot!(error, @r"
        the setting LISTEN is given twice
          expected: LISTEN or LISTEN_FILE
          found:    both
          remedy:   unset one of the two environment variables
        ");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = settings(&[], &[("LISTEN_FILE", "/nowhere/listen")]).unwrap_err();
        insta::assert_snapshot!(error, @r"
        the setting LISTEN cannot be read
          where:    the file /nowhere/listen named by LISTEN_FILE
          expected: a text file this user may read
          found:    No such file or directory (os error 2)
          remedy:   correct the path in LISTEN_FILE or the file's permissions
        ");
    }

    #[test]
    fn a_wrong_value_says_where_it_stands() {
        let error = settings(&[], &[("LISTEN", "everywhere")]).unwrap_err();
        insta::assert_snapshot!(error, @r#"
        the setting LISTEN has a value that is not accepted
          where:    the environment variable LISTEN
          expected: an IP address and a port, such as 0.0.0.0:8000
          found:    "everywhere"
          remedy:   correct the value, or remove it to get the default "0.0.0.0:8000"
        "#);
        let error = settings(&["--log-format", "xml"], &[("LOG_FORMAT", "json")]).unwrap_err();
        insta::assert_snapshot!(error, @r#"
        the setting LOG_FORMAT has a value that is not accepted
          where:    the flag --log-format on the command line
          expected: one of json, human
          found:    "xml"
          remedy:   correct the value, or remove it to get the default "json"
        "#);
    }

    #[test]
    fn help_and_unknown_flags_stay_claps() {
        for arguments in [["--help"], ["--version"], ["-v"], ["--wat"]] {
            assert!(matches!(settings(&arguments, &[]), Err(Error::CommandLine(_))), "{arguments:?}");
        }
    }
}
