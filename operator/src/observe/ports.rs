//! Published ports that a program outside of any container occupies.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use super::{Observed, stack_folder};
use crate::{
    host::{Container, Error, Host, Published},
    project::{Project, compose::PublishedPort},
};

/// How long the port of a container that ended may stay open.
const LINGER: Duration = Duration::from_millis(200);

/// Ports of ours on which something listens though no container has them. What a container that just ended leaves
/// behind for a moment is not counted: it is checked twice, and the containers again in between.
pub(super) async fn taken_ports(
    host: &Host,
    project: &Project,
    observed: &Observed,
) -> Result<BTreeSet<u16>, Error> {
    let unserved = without_container(project, observed.containers.iter().chain(&observed.others));
    if unserved.is_empty() {
        return Ok(BTreeSet::new());
    }
    let stack = stack_folder(project);
    let first = taken_by(&unserved, &host.ports(stack).await?);
    if first.is_empty() {
        return Ok(BTreeSet::new());
    }
    tokio::time::sleep(LINGER).await;
    let still = without_container(project, &host.containers().await?);
    let second = taken_by(&still, &host.ports(stack).await?);
    Ok(first.intersection(&second).copied().collect())
}

/// The TCP ports of a project that no running container publishes, nor has in the way.
fn without_container<'a, 'b>(
    project: &'a Project,
    containers: impl IntoIterator<Item = &'b Container>,
) -> Vec<&'a PublishedPort> {
    let published: Vec<&Published> =
        containers.into_iter().flat_map(|container| &container.published).collect();
    let is_there = |port: &PublishedPort| {
        published.iter().any(|one| port.conflicts_with(&one.protocol, one.address, one.port))
    };
    let ports = project.published_ports().map(|(_, port)| port);
    ports.filter(|port| port.protocol == "tcp" && !is_there(port)).collect()
}

/// Those of some ports, as the host numbers them, that programs listen on, at an address that is in the way.
fn taken_by(ports: &[&PublishedPort], listeners: &BTreeSet<SocketAddr>) -> BTreeSet<u16> {
    let is_taken = |port: &PublishedPort| {
        listeners.iter().any(|one| port.conflicts_with("tcp", Some(one.ip()), one.port()))
    };
    ports.iter().filter(|port| is_taken(port)).filter_map(|port| port.number()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::compose::{Limits, Service};

    #[test]
    fn a_port_at_one_address_is_taken_by_who_listens_at_it_or_at_every_address() {
        let private = PublishedPort { host_ip: Some([10, 0, 0, 5].into()), ..PublishedPort::tcp(9100, 9100) };
        let ports = vec![private, PublishedPort::udp(5140, 5140), PublishedPort::tcp(8000, 8000)];
        let resources = serde_json::from_str(r#"{"memory": "64Mi", "cpu": "0.25"}"#).unwrap();
        let service = Service { ports, ..Service::new("a", Limits::new(&resources)) };
        let project = Project::for_tests("tt-test-a", [("a", service)]);
        let container = |port, protocol: &str, address: Option<[u8; 4]>| Container {
            published: vec![Published {
                port,
                protocol: protocol.to_owned(),
                address: address.map(Into::into),
            }],
            ..Container::default()
        };
        let unserved = |container: Container| -> Vec<u16> {
            without_container(&project, [&container]).into_iter().filter_map(PublishedPort::number).collect()
        };
        assert_eq!(unserved(Container::default()), [9100, 8000], "who listens by UDP is not asked for");
        assert_eq!(unserved(container(9100, "tcp", Some([127, 0, 0, 1]))), [9100, 8000]);
        assert_eq!(unserved(container(9100, "udp", None)), [9100, 8000]);
        assert_eq!(unserved(container(9100, "tcp", Some([10, 0, 0, 5]))), [8000]);
        assert_eq!(unserved(container(9100, "tcp", None)), [8000]);
        assert_eq!(unserved(container(8000, "tcp", Some([127, 0, 0, 1]))), [9100]);

        let taken = |listener: &str| {
            taken_by(&without_container(&project, []), &BTreeSet::from([listener.parse().unwrap()]))
        };
        assert_eq!(taken("127.0.0.1:9100"), BTreeSet::new());
        for listener in ["10.0.0.5:9100", "0.0.0.0:9100", "[::]:9100"] {
            assert_eq!(taken(listener), BTreeSet::from([9100]), "{listener}");
        }
        assert_eq!(taken("127.0.0.1:8000"), BTreeSet::from([8000]));
    }
}
