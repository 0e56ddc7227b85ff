//! From a repair to the steps that carry it out on the host.

use std::collections::BTreeMap;

use super::{
    ACTION_LIMIT, Context, QUICK_LIMIT,
    compose::Compose,
    rollout::{caches, make},
};
use crate::{
    diff::secrets,
    host::{Container, OwnedFile, Placement, Source, Step},
    model::sha256,
    observe::Observed,
    plan::{Action, UpdatedLimits},
    project::{Owner, ReadAtStart, Reload, SecretFile, labels, service_of},
    release::Release,
    secret::Secret,
};

/// Gives folders of a volume names with the time ($1) in them.
const MOVE_ASIDE: &str = r#"time=$1; shift; cd /aside || exit
for folder; do [ ! -e "$folder" ] || mv "$folder" "$folder.moved-$time" || exit; done"#;

/// The steps of one action.
pub(super) fn steps(
    action: &Action,
    applied: &Release,
    observed: &Observed,
    compose: &Compose<'_>,
    context: &Context<'_>,
) -> Vec<Step> {
    let docker = |arguments: &[&str]| vec![Step::docker(arguments, ACTION_LIMIT)];
    let quick = |arguments: &[&str]| vec![Step::docker(arguments, QUICK_LIMIT)];
    match action {
        Action::SetAside { path } => vec![set_aside(path, context)],
        Action::WriteSecret { path, secret } => secret_steps(applied, &BTreeMap::from([(path, secret)])),
        Action::SetMode { path, mode } => vec![Step::Mode { path: path.clone(), mode: *mode }],
        Action::WriteFile { .. } => action.placement().map(Step::Place).into_iter().collect(),
        Action::RemoveFile { path } => vec![Step::Remove { path: path.clone() }],
        Action::CreateNetwork { network } => vec![make("network", network, context)],
        Action::ReplaceNetwork { network } => replace_network(network, observed, context),
        Action::RemoveOrphan { container } => docker(&["rm", "-f", container]),
        Action::Rename { container, to, .. } => quick(&["rename", container, to]),
        Action::Unpause { container, .. } => quick(&["unpause", container]),
        Action::Restart { container, at_once: false, .. } => docker(&["restart", container]),
        Action::Restart { container, .. } => docker(&["restart", "-t", "0", container]),
        Action::Update { container, limits, .. } => {
            vec![Step::Docker { arguments: update(container, limits), limit: QUICK_LIMIT }]
        }
        Action::RaiseMemory { container, limits, .. } => {
            let update = Step::Docker { arguments: update(container, limits), limit: QUICK_LIMIT };
            vec![update, Step::docker(&["restart", "-t", "0", container], ACTION_LIMIT)]
        }
        Action::MoveAside { service, container, what, .. } => {
            move_aside(service, container, what, applied, context)
        }
        Action::Connect { container, network, aliases, .. } => {
            let aliases = aliases.iter().flat_map(|alias| ["--alias", alias.as_str()]);
            let words =
                ["network", "connect"].into_iter().chain(aliases).chain([network.as_str(), container]);
            quick(&words.collect::<Vec<_>>())
        }
        Action::Disconnect { container, network, .. } => {
            quick(&["network", "disconnect", "-f", network, container])
        }
        // The one beside it; it goes when that one serves.
        Action::Replace { service, .. } => {
            let scale = applied.project.services.get(service).map_or(0, |service| service.compose.scale);
            vec![compose.beside([(service.as_str(), scale as usize + 1)])]
        }
        Action::OwnFolder { path, mode, uid, gid } => {
            let image = applied.images.values().next();
            image.map(|image| Step::own_folder(image, path, *uid, *gid, *mode)).into_iter().collect()
        }
        Action::Reload { service, anew } => {
            let how =
                applied.project.services.get(service).map_or(&Reload::Restart, |service| &service.reload);
            compose.reload(service, how, *anew).into_iter().collect()
        }
        // A request, sent once everything serves.
        Action::PutObject { .. } => Vec::new(),
        Action::Start { container, .. } => vec![start([container.as_str()])],
        Action::Create { service } | Action::Recreate { service } => {
            let volumes = caches(applied, service, observed, context);
            let how =
                if matches!(action, Action::Create { .. }) { "--no-recreate" } else { "--force-recreate" };
            let made = [compose.up(&["--no-deps", how, service])];
            volumes.into_iter().chain(made).chain(raise_memory(service, applied, observed)).collect()
        }
    }
}

/// Renames what stands at a path to a name with the time in it.
pub(super) fn set_aside(path: &str, context: &Context<'_>) -> Step {
    Step::SetAside { path: path.to_owned(), time: time(context) }
}

/// The time as part of a name.
fn time(context: &Context<'_>) -> String {
    context.now.to_string().chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Renames folders in a volume of a service, as that service's user, while it is stopped.
fn move_aside(
    service: &str,
    container: &str,
    what: &ReadAtStart,
    applied: &Release,
    context: &Context<'_>,
) -> Vec<Step> {
    let definition = applied.project.services.get(service);
    let volume = applied.project.volumes.get(&what.volume);
    let Some(((image, definition), volume)) = applied.images.get(service).zip(definition).zip(volume) else {
        return Vec::new();
    };
    let mount = format!("type=volume,src={},dst=/aside", volume.name);
    let name = format!("{}-aside", applied.project.name);
    let user = definition.compose.user.as_deref().unwrap_or("0");
    let fixed = "run --rm --pull never --network none --read-only --no-healthcheck \
                 --security-opt no-new-privileges:true --cap-drop ALL --entrypoint /bin/sh";
    let time = time(context);
    let words = fixed.split_whitespace();
    let words = words.chain(["--name", &name, "--user", user, "--mount", &mount, image, "-c", MOVE_ASIDE]);
    let words: Vec<&str> =
        words.chain(["sh", &time]).chain(what.folders.iter().map(String::as_str)).collect();
    vec![
        Step::docker(&["stop", "-t", "0", container], ACTION_LIMIT),
        Step::docker(&words, ACTION_LIMIT),
        start([container]),
    ]
}

/// Gives new containers of a service the memory that its containers have by now: the file that they are made by may be from
/// before.
fn raise_memory(service: &str, applied: &Release, observed: &Observed) -> Vec<Step> {
    let helped = observed.ledger.as_ref().is_some_and(|ledger| ledger.memory.contains_key(service));
    let Some(definition) = applied.project.services.get(service).filter(|_| helped) else {
        return Vec::new();
    };
    let limits = UpdatedLimits::of(&definition.compose);
    let names =
        (1..=definition.compose.scale).map(|number| format!("{}-{service}-{number}", applied.project.name));
    names.map(|name| Step::Docker { arguments: update(&name, &limits), limit: QUICK_LIMIT }).collect()
}

/// `docker update` with everything that it can change of what the release has.
fn update(container: &str, limits: &UpdatedLimits) -> Vec<String> {
    let UpdatedLimits { mem_limit, memswap_limit, cpus, pids_limit, restart } = limits;
    vec![
        "update".to_owned(),
        format!("--memory={mem_limit}"),
        format!("--memory-swap={memswap_limit}"),
        format!("--cpus={cpus}"),
        format!("--pids-limit={pids_limit}"),
        format!("--restart={restart}"),
        container.to_owned(),
    ]
}

/// Starts containers: those that do not start keep no other one from it.
pub(super) fn start<'a>(containers: impl IntoIterator<Item = &'a str>) -> Step {
    let words: Vec<&str> = ["start"].into_iter().chain(containers).collect();
    Step::docker(&words, QUICK_LIMIT)
}

/// Secret files of a release, and first the folders that keep others out.
pub(super) fn secret_steps(release: &Release, secrets: &BTreeMap<&String, &Secret>) -> Vec<Step> {
    let folders = secrets::folders(secrets.keys().copied());
    let folders = folders.into_iter().map(|(path, mode)| Step::Folder { path, mode });
    folders.chain(secrets.iter().filter_map(|(path, secret)| secret_step(release, path, secret))).collect()
}

/// One secret file of a release, in a folder that is there; none where the release has no such file.
pub(super) fn secret_step(release: &Release, path: &str, secret: &Secret) -> Option<Step> {
    let SecretFile { mode, owner, .. } = release.project.secrets.get(path)?;
    let Some(Owner { uid, gid }) = *owner else { return Some(place_secret(path, *mode, secret)) };
    let (folder, name) = path.rsplit_once('/')?;
    let image = release.images.get(service_of(path)?)?;
    let file = OwnedFile { name: name.to_owned(), content: secret.clone(), mode: *mode, uid, gid };
    Some(Step::owned_files(image, folder, &[file]))
}

/// Puts a value that nobody is shown into its place.
pub(super) fn place_secret(path: &str, mode: u32, secret: &Secret) -> Step {
    let (sha256, source) = (sha256(secret.reveal()), Source::Secret(secret.clone()));
    Step::Place(Placement { path: path.to_owned(), mode, sha256, source })
}

/// Docker removes a network only when nobody is in it. Containers of the stack's other projects are taken out, too: their
/// own checks see that, and bring them into the new one. Those who are not ours are left in it: then it stays, and Docker
/// says why.
fn replace_network(network: &str, observed: &Observed, context: &Context<'_>) -> Vec<Step> {
    let is_of_stack = |one: &&Container| one.has_label(labels::OWNER, &context.owner);
    let others = observed.others.iter().filter(is_of_stack);
    let inside = observed.containers.iter().chain(others);
    let inside = inside.filter(|container| container.networks.iter().any(|joined| joined == network));
    let mut steps: Vec<Step> = inside
        .map(|container| {
            Step::docker(&["network", "disconnect", "-f", network, &container.name], ACTION_LIMIT)
        })
        .collect();
    steps.push(Step::docker(&["network", "rm", network], ACTION_LIMIT));
    steps.push(make("network", network, context));
    steps
}
