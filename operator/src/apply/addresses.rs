//! Where the containers behind a proxy are, in files that it reads: names are looked up at the Docker daemon, and while that
//! is away the proxy goes by these.

use crate::{
    host::{Host, Step},
    observe::Observed,
    plan,
    release::{Release, inline},
};

/// The steps that make the files say where the containers of a release are now, from what `observed` says of files.
pub(super) async fn steps(
    host: &Host,
    release: &Release,
    observed: &Observed,
) -> Result<Vec<Step>, crate::host::Error> {
    let containers = host.containers().await?;
    let plan::Addresses { missing, stale } = plan::addresses(release, &containers, &observed.files);
    let missing = missing.iter().map(|path| Step::Place(inline(path, "")));
    let stale = stale.into_iter().map(|path| Step::Remove { path });
    Ok(missing.chain(stale).collect())
}
