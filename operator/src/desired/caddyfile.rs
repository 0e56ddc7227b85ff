//! The edge's configuration: page and `/api` on one origin, the API alone on another port.

use super::app::{BACKEND_PORT, EDGE_API_PORT, EDGE_PAGE_PORT, FRONTEND_PORT};

/// A proxy to the containers that serve. The name of a file tells which ones these are, for each request anew: traffic
/// moves without a reload, which would close connections that users keep. Replicas are found by DNS; a refused or hanging
/// one costs a retry, not a request.
const PROXY: &str = "@SERVICE file {
	root /etc/caddy/upstreams/SERVICE
	try_files *
}
map @SERVICE {http.matchers.file.relative} {upstream} {
	~^/?(.+)$ ${1}
}
reverse_proxy @SERVICE {
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

/// Renders the Caddyfile. The order within `route` is the order of evaluation: metrics are refused first.
pub(super) fn render() -> String {
    let backend_below_api = proxy("backend", BACKEND_PORT, 4);
    let frontend = proxy("frontend", FRONTEND_PORT, 4);
    let backend = proxy("backend", BACKEND_PORT, 2);
    format!(
        "# Written by tasktracker-operator from the stack's spec; changes made here are taken back.
{{
	auto_https off
	grace_period 10s
}}

:{EDGE_PAGE_PORT} {{
	route {{
		@metrics path /metrics /metrics/* /api/metrics /api/metrics/*
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

:{EDGE_API_PORT} {{
	route {{
		@metrics path /metrics /metrics/*
		respond @metrics 404
		{DRAINED}
		{backend}
	}}
}}
"
    )
}
