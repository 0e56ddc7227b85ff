//! The edge's configuration: page and `/api` on one origin, the API alone on another port.

use super::app::{BACKEND_PORT, EDGE_API_PORT, EDGE_PAGE_PORT, FRONTEND_PORT};

/// Replicas are found by DNS; a refused or hanging one costs a retry, not a request.
fn proxy(service: &str, port: u16) -> String {
    format!(
        "reverse_proxy {{
			dynamic a {{
				name {service}
				port {port}
				refresh 500ms
			}}
			lb_policy least_conn
			lb_try_duration 5s
			lb_try_interval 50ms
			transport http {{
				dial_timeout 200ms
			}}
		}}"
    )
}

/// Renders the Caddyfile.
pub(super) fn render() -> String {
    let backend = proxy("backend", BACKEND_PORT);
    let frontend = proxy("frontend", FRONTEND_PORT);
    format!(
        "# Written by tasktracker-operator from the stack's spec; changes made here are taken back.
{{
	auto_https off
	grace_period 10s
}}

:{EDGE_PAGE_PORT} {{
	@metrics path /metrics /metrics/* /api/metrics /api/metrics/*
	respond @metrics 404
	handle_path /api/* {{
		{backend}
	}}
	handle {{
		{frontend}
	}}
}}

:{EDGE_API_PORT} {{
	@metrics path /metrics /metrics/*
	respond @metrics 404
	handle {{
		{backend}
	}}
}}
"
    )
}
