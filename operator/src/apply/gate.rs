//! Services of which no two instances may be down at once: whether one may go.

use super::Error;
use crate::{
    host::{self, Host},
    model::Question,
    observe::{Interview, Observed},
};

/// Refuses to take a running instance of a service down while the service itself says that it can spare none. What does
/// not answer is down already.
///
/// # Errors
/// [`host::Error::Failed`] where one must stay: it is tried again.
pub(super) async fn open(host: &Host, observed: &Observed, goes: impl Fn(&str) -> bool) -> Result<(), Error> {
    let Some(release) = &observed.applied else { return Ok(()) };
    let interview = Interview { release, secrets: &observed.secrets, key: observed.seal_key.as_ref() };
    let is_gate = |service: &str, id: &str, question: &Question| {
        let answers = |question: &Question| {
            observed.answers.get(&(id.to_owned(), question.clone())).is_none_or(Result::is_ok)
        };
        *question == Question::Gate && goes(service) && answers(&Question::Ready)
    };
    let answers = interview.ask(host, &observed.containers, is_gate).await?;
    let shut = answers.into_iter().find_map(|((id, _), answer)| Some((id, answer.err()?)));
    let Some((id, found)) = shut else { return Ok(()) };
    let name = observed.containers.iter().find(|one| one.id == id).map_or("", |one| one.name.as_str());
    Err(host::Error::Failed { doing: format!("waiting until {name} can be spared"), found }.into())
}
