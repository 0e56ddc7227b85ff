//! Logins for registries: where they come from, and how they are had when they are needed.

use std::{process::Stdio, time::Duration};

use tasktracker_crds::RegistryAuthSpec;
use tokio::{process::Command, time::timeout};

use crate::{
    component::{self, RegistryLogin},
    engine::ProjectContext,
    host::Host,
    registry::{Login, Refusal, registry_of},
    secret::Secret,
};

/// How long a program beside the operator may take to print a login.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// Where a login comes from; what is needed for that is at hand.
#[derive(Clone, Debug)]
pub(super) enum Credentials {
    Fixed(Result<Login, Refusal>),
    HostHelper(String),
    Command { words: Vec<String>, username: String, field: &'static str },
    HostsOwn,
}

/// Where the login for a reference comes from: what the spec says counts for the registry that it names.
pub(super) async fn credentials(context: &ProjectContext<'_>, reference: &str) -> Credentials {
    let is_of = |login: &RegistryLogin<'_>| registry_of(&login.registry) == registry_of(reference);
    let Some(RegistryLogin { auth, field, .. }) = component::registry_login(context.stack).filter(is_of)
    else {
        return Credentials::HostsOwn;
    };
    let RegistryAuthSpec { secret, host_helper, command, username } = auth;
    if let Some(secret) = secret {
        let login = async {
            let secrets = context.secrets.of(&context.stack.key);
            let password = secrets.get(secret, "password").await?;
            let username = secrets.get(secret, "username").await?;
            Ok(Login {
                username: trimmed(username.reveal()),
                password: Secret::new(trimmed(password.reveal()).into()),
            })
        };
        let login: Result<Login, crate::source::SecretError> = login.await;
        return Credentials::Fixed(login.map_err(Refusal::denied));
    }
    if let Some(helper) = host_helper {
        return Credentials::HostHelper(helper.clone());
    }
    let words = command.iter().flatten().map(ToString::to_string).collect();
    Credentials::Command { words, username: username.to_string(), field }
}

fn trimmed(value: &[u8]) -> String {
    String::from_utf8_lossy(value.trim_ascii_end()).into_owned()
}

impl Credentials {
    pub(super) async fn login(&self, host: &Host, registry: &str) -> Result<Option<Login>, Refusal> {
        let of_host = async |helper| {
            host.login(registry, helper).await.unwrap_or_else(|error| Err(Refusal::unavailable(error)))
        };
        match self {
            Self::Fixed(login) => login.clone().map(Some),
            Self::HostHelper(helper) => of_host(Some(helper.as_str())).await,
            Self::HostsOwn => of_host(None).await,
            Self::Command { words, username, field } => {
                let failed = |found: String| {
                    Refusal::denied(format!("{field}.command: {found}; run it to see what it says"))
                };
                let limited = timeout(COMMAND_LIMIT, printed(words)).await;
                let printed = limited
                    .map_err(|_| failed(format!("no answer within {} s", COMMAND_LIMIT.as_secs())))?
                    .map_err(failed)?;
                if printed.trim_ascii_start().starts_with(b"{") {
                    return Login::of_helper(&printed).map(Some).map_err(failed);
                }
                let password = Secret::new(printed.trim_ascii_end().to_vec());
                Ok(Some(Login { username: username.clone(), password }))
            }
        }
    }
}

/// What a program prints; what it says beside that is not shown, for it may be a secret, too.
async fn printed(words: &[String]) -> Result<Vec<u8>, String> {
    let (program, arguments) = words.split_first().ok_or("no program")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| error.to_string())?;
    if output.status.success() { Ok(output.stdout) } else { Err(output.status.to_string()) }
}
