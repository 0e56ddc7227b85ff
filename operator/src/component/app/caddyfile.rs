//! The edge's configuration: page and `/api` on one origin, the API alone on another port.

use tasktracker_crds::{AppSpec, TlsMode, scalars::Origin};

use super::{
    BACKEND_PORT, FRONTEND_PORT, SECRETS_INSIDE,
    edge::{self, API_PORT, HTTP_PORT, HTTPS_PORT, METRICS_PORT, PAGE_PORT},
};

/// A proxy to the containers that serve. The name of a file tells which ones these are, for each request anew: traffic
/// moves without a reload, which would close connections that users keep. Replicas are found by DNS; a refused or hanging
/// one costs a retry, not a request. While the Docker daemon is away, which answers for DNS, the name of another file is the
/// address of one of them; where there is none, an address for documentation that nobody has.
const PROXY: &str = "@SERVICE file {
	root /etc/caddy/upstreams/SERVICE
	try_files *
}
map @SERVICE {http.matchers.file.relative} {upstream} {
	~^/?(.+)$ ${1}
}
@SERVICE_address file {
	root /etc/caddy/addresses/SERVICE
	try_files *
}
vars @SERVICE_address address {http.matchers.file.relative}
map {http.vars.address} {address} {
	~^/?(.+)$ ${1}
	default 192.0.2.1
}
reverse_proxy @SERVICE {address}:PORT {
	dynamic a {
		name {upstream}
		port PORT
		refresh 500ms
	}
	lb_policy least_conn
	lb_try_duration 5s
	lb_try_interval 50ms
	transport http {
		dial_timeout 200ms
	}
}
respond 503";

/// What balancers ask a drained host gets an answer that sends them elsewhere; everything else is served as before.
const DRAINED: &str = "@drained {
			path /health/ready /api/health/ready
			file {
				root /etc/caddy
				try_files /drained
			}
		}
		respond @drained 503";

/// A proxy to a service, indented by `depth` tabs from its second line on.
fn proxy(service: &str, port: u16, depth: usize) -> String {
    let lines = PROXY.replace("SERVICE", service).replace("PORT", &port.to_string());
    lines.replace('\n', &format!("\n{}", "\t".repeat(depth)))
}

/// Names each request, unless it has a name that every service takes, so that its lines are found in each; who asked is told,
/// too.
const NAMED: &str = "@unnamed not header_regexp X-Request-Id ^[!-~]{1,128}$
		request_header @unnamed X-Request-Id {http.request.uuid}
		header X-Request-Id {http.request.header.X-Request-Id}
		";

/// Renders the Caddyfile. The order within `route` is the order of evaluation: metrics are refused first. It counts requests
/// and writes them down where somebody asks for that.
pub(super) fn render(app: &AppSpec, is_scraped: bool, is_logged: bool) -> String {
    let backend_below_api = proxy("backend", BACKEND_PORT, 4);
    let frontend = proxy("frontend", FRONTEND_PORT, 4);
    let backend = proxy("backend", BACKEND_PORT, 2);
    let (options, sites) = match app.tls.mode {
        TlsMode::Off => (format!("\n\tauto_https off{}", servers(is_scraped, false)), plain_sites(is_logged)),
        mode => (tls_options(mode, app, is_scraped), tls_sites(mode, app, is_logged)),
    };
    let metrics = format!("\nhttp://:{METRICS_PORT} {{\n\tmetrics\n}}\n");
    let metrics = if is_scraped { metrics.as_str() } else { "" };
    let named = if is_logged { NAMED } else { "" };
    format!(
        "# Written by tasktracker-operator from the stack's spec; changes made here are taken back.
{{{options}
	grace_period 10s
	log {{
		exclude admin.api http.handlers.reverse_proxy
	}}
}}

(page) {{
	route {{
		{named}@metrics path /metrics /metrics/* /api/metrics /api/metrics/*
		respond @metrics 404
		{DRAINED}
		handle_path /api/* {{
			route {{
				{backend_below_api}
			}}
		}}
		handle {{
			route {{
				{frontend}
			}}
		}}
	}}
}}

(api) {{
	route {{
		{named}@metrics path /metrics /metrics/*
		respond @metrics 404
		{DRAINED}
		{backend}
	}}
}}

{sites}{metrics}"
    )
}

fn plain_sites(is_logged: bool) -> String {
    let log = log(is_logged);
    format!(":{PAGE_PORT} {{{log}\n\timport page\n}}\n\n:{API_PORT} {{{log}\n\timport api\n}}\n")
}

/// A line for each request of a site.
fn log(is_logged: bool) -> &'static str {
    if is_logged { "\n\tlog" } else { "" }
}

/// What holds for every port. HTTP/3 would need one of its own, and is not announced.
fn servers(is_scraped: bool, has_tls: bool) -> String {
    let lines = [(is_scraped, "\n\t\tmetrics"), (has_tls, "\n\t\tprotocols h1 h2")];
    let lines: String = lines.iter().filter(|(is_there, _)| *is_there).map(|(_, line)| *line).collect();
    if lines.is_empty() { lines } else { format!("\n\tservers {{{lines}\n\t}}") }
}

/// How certificates come about.
fn tls_options(mode: TlsMode, app: &AppSpec, is_scraped: bool) -> String {
    let name = edge::name(app).unwrap_or_default();
    let mut options = vec![
        format!("http_port {HTTP_PORT}"),
        format!("https_port {HTTPS_PORT}"),
        // Who tells no name, such as a balancer that asks by address, is shown the one certificate.
        format!("default_sni {name}{}", servers(is_scraped, true)),
    ];
    options.extend(match mode {
        TlsMode::Off | TlsMode::Secret => vec!["auto_https off".to_owned()],
        TlsMode::Internal => vec!["auto_https disable_redirects".to_owned(), "skip_install_trust".to_owned()],
        TlsMode::Acme => {
            let acme = app.tls.acme.as_ref();
            let directory = acme.and_then(|acme| acme.directory.as_ref());
            let authority = acme.and_then(|acme| acme.ca_secret.as_ref());
            ["auto_https disable_redirects".to_owned()]
                .into_iter()
                .chain(acme.map(|acme| format!("email {}", acme.email)))
                .chain(directory.map(|directory| format!("acme_ca {directory}")))
                .chain(authority.map(|_| format!("acme_ca_root {SECRETS_INSIDE}/{}", edge::AUTHORITY)))
                .collect()
        }
    });
    options.iter().map(|option| format!("\n\t{option}")).collect()
}

/// Page and API over TLS, under whatever name they are asked for; plain HTTP leads there, but for what balancers ask.
fn tls_sites(mode: TlsMode, app: &AppSpec, is_logged: bool) -> String {
    let log = log(is_logged);
    let origin = app.public_url.as_ref().map(Origin::canonical).unwrap_or_default();
    let name = edge::name(app).unwrap_or_default();
    let tls = match mode {
        TlsMode::Secret => {
            format!("\n\ttls {SECRETS_INSIDE}/{} {SECRETS_INSIDE}/{}", edge::CERTIFICATE, edge::KEY)
        }
        TlsMode::Internal => "\n\ttls internal".to_owned(),
        TlsMode::Off | TlsMode::Acme => String::new(),
    };
    let seconds = u64::from(app.tls.hsts_days) * 24 * 60 * 60;
    let hsts = format!("header Strict-Transport-Security max-age={seconds}");
    let site =
        |addresses: &str, what: &str| format!("{addresses} {{{tls}{log}\n\t{hsts}\n\timport {what}\n}}\n\n");
    format!(
        "{}{}{}:{HTTP_PORT} {{
	route {{
		handle /api/health/ready {{
			import page
		}}
		redir {origin}{{uri}} 308
	}}
}}
",
        site(&format!("https://{name}"), "page"),
        site("https://", "page"),
        site(&format!("https://:{API_PORT}"), "api"),
    )
}
