//! `logs`: what services have written.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, bail};
use jiff::{Span, SpanRelativeTo, Timestamp};
use serde_json::Value;

use super::{
    Selection, SourceArguments, StateArguments, Verdict,
    commands::stacks,
    printer::{Printer, Tone},
};
use crate::{
    component,
    engine::{Hosts, now},
    host::BasicAuth,
    logs::{Containers, Filter, Level, Line, Store},
    model::ComponentName,
    source::{Secrets, Stack, target},
};

/// How often `--follow` asks.
const PAUSE: Duration = Duration::from_secs(1);
/// How much later than written a line may be found: it is on its way, or waits for the store to show it.
const LATE: Duration = Duration::from_secs(30);

/// Which lines.
#[derive(Debug, clap::Args)]
pub(super) struct LogArguments {
    /// Of this service; may be given several times.
    #[arg(long = "service", value_name = "SERVICE")]
    services: Vec<String>,
    /// From so long ago on, such as 10m, 2h or 7d.
    #[arg(long, default_value = "10m", value_name = "DURATION")]
    since: Span,
    /// Go on with what is written from now on.
    #[arg(long, short)]
    follow: bool,
    /// Of the request with this ID, which its answer has in the header `X-Request-Id`.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// At least this grave.
    #[arg(long, value_enum)]
    level: Option<Level>,
    /// With this text in them.
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Ask the Docker hosts, also where the stack has a log store.
    #[arg(long)]
    from_hosts: bool,
}

/// Where lines come from.
enum Source {
    Store(Store),
    Hosts(Vec<Containers>),
}

/// `logs`
pub(super) async fn logs(
    printer: &Printer,
    source: SourceArguments,
    state: StateArguments,
    name: String,
    arguments: &LogArguments,
) -> anyhow::Result<Verdict> {
    let selection =
        Selection { source, state, components: super::ComponentArguments::default(), names: vec![name] };
    let stack = stacks(&selection)?.remove(0);
    let (hosts, secrets) = (Hosts::default(), selection.source.secrets());
    let since = arguments.since.to_duration(SpanRelativeTo::days_are_24_hours());
    let since = now().checked_sub(since.context("--since")?).context("--since")?;
    let LogArguments { services, request, level, grep, .. } = arguments;
    let mut filter = Filter {
        services: services.clone(),
        since,
        request: request.clone(),
        level: *level,
        text: grep.clone(),
    };
    let from = lines_from(printer, &stack, &hosts, &secrets, arguments.from_hosts).await?;
    let mut verdict = Verdict::InSync;
    let mut seen = BTreeMap::<String, Timestamp>::new();
    loop {
        let mut newest = filter.since;
        let mut each = |line: Line| {
            newest = newest.max(line.time);
            if seen.insert(line.id.clone(), line.time).is_none() {
                print(printer, &line);
            }
        };
        match &from {
            Source::Store(store) => {
                store.read(&filter, each).await.map_err(|error| anyhow::anyhow!("the log store: {error}"))?;
            }
            Source::Hosts(all) => {
                let read = futures::future::join_all(all.iter().map(|one| one.read(&filter))).await;
                let (lines, errors): (Vec<Vec<Line>>, Vec<Vec<String>>) = read.into_iter().unzip();
                for error in errors.iter().flatten() {
                    printer.error(error);
                    verdict = Verdict::Failed;
                }
                let mut lines = lines.concat();
                lines.sort_by_key(|line| line.time);
                lines.into_iter().for_each(&mut each);
            }
        }
        if !arguments.follow {
            return Ok(verdict);
        }
        // A clock that is ahead must not hide what others write.
        let newest = newest.min(now());
        let from = newest.checked_sub(LATE).unwrap_or(newest);
        filter.since = filter.since.max(from);
        seen.retain(|_, time| *time >= filter.since);
        tokio::time::sleep(PAUSE).await;
    }
}

/// The store of a stack where it has one that answers, else its hosts.
async fn lines_from(
    printer: &Printer,
    stack: &Stack,
    hosts: &Hosts,
    secrets: &Secrets,
    from_hosts: bool,
) -> anyhow::Result<Source> {
    if let Some(of) = component::log_store(stack).filter(|_| !from_hosts) {
        let found = async {
            let words = |error: &dyn std::fmt::Display| format!("{error}");
            let target = target(stack, of.host, secrets).await.map_err(|error| words(&error))?;
            let password = secrets.of(&stack.key).get(&of.password.secret, &of.password.key).await;
            let password = password.map_err(|error| words(&error))?;
            let project = component::project(stack, of.host, ComponentName::Logging).ok_or("it has none")?;
            let credentials = BasicAuth { user: of.user.to_owned(), password };
            Store::find(stack, hosts.get(&stack.key, target), &project, &of, credentials).await
        };
        match found.await {
            Ok(store) => return Ok(Source::Store(store)),
            Err(error) => printer.error_note(&format!("the log store: {error}; asking the Docker hosts")),
        }
    }
    let mut all = Vec::new();
    for spec in stack.spec.hosts.iter().filter(|host| !host.roles.is_empty()) {
        match target(stack, spec, secrets).await {
            Ok(target) => {
                all.push(Containers::new(stack, spec.name.as_str(), hosts.get(&stack.key, target)));
            }
            Err(error) => printer.error(&format!("{}: {error}", spec.name)),
        }
    }
    if all.is_empty() {
        bail!("{}: expected a host that can be asked, found none", stack.key);
    }
    Ok(Source::Hosts(all))
}

/// Fields that are told with the others in a way of their own.
const TOLD: [&str; 6] = [
    "http.request.id",
    "http.request.method",
    "http.response.status_code",
    "event.duration",
    "url.path",
    "log.logger",
];

fn print(printer: &Printer, line: &Line) {
    if printer.is_json() {
        printer.text(&format!("{}\n", crate::json::serialized(serde_json::to_string(line))));
        return;
    }
    let tone = match line.level {
        Some(Level::Error | Level::Fatal) => Tone::Bad,
        Some(Level::Warn) => Tone::Attention,
        _ => Tone::Plain,
    };
    let level = line.level.map_or("-", Level::name);
    let mut words =
        vec![format!("{:.3}", line.time), line.host.clone(), line.service.clone(), level.to_owned()];
    let text = |name: &str| line.fields.get(name).map(shown);
    let request =
        ["http.request.method", "url.path", "http.response.status_code"].into_iter().filter_map(text);
    words.extend(request);
    if let Some(duration) = line.fields.get("event.duration").and_then(Value::as_f64) {
        words.push(format!("{:.1} ms", duration / 1e6));
    }
    words.push(line.message.replace('\n', "\n    "));
    let is_told = |name: &str| {
        TOLD.contains(&name) || ["request.", "resp_headers."].iter().any(|part| name.starts_with(part))
    };
    let others = line.fields.iter().filter(|(name, value)| !is_told(name) && value.as_str() != Some(""));
    words.extend(others.map(|(name, value)| format!("{name}={}", shown(value))));
    words.extend(text("http.request.id").map(|id| format!("request_id={id}")));
    printer.line(tone, &words.join(" "));
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
