//! The project of `sample.yaml`. Whoever includes this brings the types.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Sample {
    name: String,
    folder: String,
    owner: String,
    environment: String,
    revision: String,
    network: String,
    volumes: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
    services: BTreeMap<String, compose::Service>,
}

pub(super) fn sample() -> Project {
    let sample: Sample = serde_saphyr::from_str(include_str!("sample.yaml")).unwrap();
    let volumes = sample.volumes.into_iter();
    Project {
        name: sample.name,
        folder: sample.folder,
        owner: sample.owner,
        environment: sample.environment,
        revision: Some(sample.revision),
        network: sample.network,
        volumes: volumes
            .map(|(inside, name)| (inside, Volume { name, role: VolumeRole::Data, owner: None }))
            .collect(),
        files: sample.files.into_iter().map(|(path, content)| (path, File::new(content))).collect(),
        services: sample
            .services
            .into_iter()
            .map(|(name, compose)| (name.clone(), service(&name, compose)))
            .collect(),
        ..Project::default()
    }
}

fn service(name: &str, compose: compose::Service) -> Service {
    let mut service = Service::new(compose);
    if name == "web" {
        // What has the traffic is told by an alias that is no field of its definition.
        service.strategy = Strategy::BlueGreen(BlueGreen {
            proxy: "edge".to_owned(),
            upstreams: "upstreams/web".to_owned(),
            addresses: String::new(),
            port: 80,
            paths: Vec::new(),
        });
    }
    service
}
