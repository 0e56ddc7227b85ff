//! Registries as a host reaches them: logins, what tags mean, pulls.

use std::time::Duration;

use super::{Error, Exit, Host, shell};
use crate::registry::{self, Kept, Login, Refusal};

/// How long a credential helper on the host may take.
const HELPER_LIMIT: Duration = Duration::from_secs(30);
/// How credential helpers say that they have no login.
const NOT_FOUND: &[u8] = b"credentials not found";
/// Prints the configuration that Docker's own client has for the user.
const READ_CONFIG: &str = r#"cat "${DOCKER_CONFIG:-$HOME/.docker}/config.json" 2>/dev/null || echo '{}'"#;

impl Host {
    /// The digest that a tag means in its registry now, as this host reaches it.
    ///
    /// # Errors
    /// When Docker cannot be asked; within, what the registry refuses.
    pub async fn digest(
        &self,
        reference: &str,
        login: Option<&Login>,
    ) -> Result<Result<String, Refusal>, Error> {
        let link = self.link().await?;
        link.docker.digest(&link.connection, reference, login).await
    }

    /// Pulls an image. It ends with the connection; what was pulled until then is not pulled again. The login stays
    /// nowhere on the host.
    ///
    /// # Errors
    /// When Docker cannot be asked; within, what the registry refuses.
    pub async fn pull(&self, reference: &str, login: Option<&Login>) -> Result<Result<(), Refusal>, Error> {
        let link = self.link().await?;
        link.docker.pull(&link.connection, reference, login).await
    }

    /// The login that the host has for a registry: by a credential helper there, or where its user's own configuration of
    /// Docker says.
    ///
    /// # Errors
    /// When the host cannot be asked; within, why there is none that can be used.
    pub async fn login(
        &self,
        registry: &str,
        helper: Option<&str>,
    ) -> Result<Result<Option<Login>, Refusal>, Error> {
        if let Some(helper) = helper {
            return self.ask_helper(registry::registry_key(registry), helper).await;
        }
        let command = shell::command(READ_CONFIG, &[]);
        let output = self.run(&command, Vec::new(), self.target.limits.program).await?;
        match registry::kept_login(&output.success("reading Docker's configuration")?.stdout, registry) {
            Ok(Kept::Nowhere) => Ok(Ok(None)),
            Ok(Kept::Here(login)) => Ok(Ok(Some(login))),
            Ok(Kept::Helper { helper, key }) => self.ask_helper(&key, &helper).await,
            Err(found) => Ok(Err(Refusal::denied(format!("~/.docker/config.json on the host: {found}")))),
        }
    }

    async fn ask_helper(&self, key: &str, helper: &str) -> Result<Result<Option<Login>, Refusal>, Error> {
        let program = format!("docker-credential-{helper}");
        let command = shell::command("exec \"$1\" get", &[&program]);
        let output = self.run(&command, key.as_bytes().to_vec(), HELPER_LIMIT).await?;
        let login = match output.exit {
            Exit::Lost => return Err(Error::ConnectionLost),
            Exit::Exited(0) => Login::of_helper(&output.stdout),
            // As Docker's own client has it, it goes on without a login then.
            _ if output.stdout.starts_with(NOT_FOUND) => return Ok(Ok(None)),
            other => Err(format!("it failed ({other:?}); run it on the host to see what it says")),
        };
        Ok(login.map(Some).map_err(|found| Refusal::denied(format!("`{program} get` for {key}: {found}"))))
    }
}
