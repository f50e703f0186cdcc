//! Against docker-registry.

use std::sync::Arc;

use shared_proto::{Code, Error};

use super::auth::Given;
use super::local::{DockerRegistry, Image, noise};
use super::{anonymous, registry};
use crate::images::auth::NoCredentials;
use crate::images::download::Piece;
use crate::images::registry::Registry;

async fn everything(registry: &Registry, image: &Image) {
    let found = registry.resolve().await.unwrap();
    assert_eq!(found.digest, image.digest());
    let manifest = registry.manifest(&found.media_type, &found.digest, found.size).await.unwrap();
    assert_eq!(manifest, image.manifest);
    for layer in &image.layers {
        let start = layer.len() / 2;
        let digest = crate::domain::Digest::of(layer);
        let mut got = layer[..start].to_vec();
        let mut download = registry.download(&digest, layer.len() as u64, start as u64).unwrap();
        while let Piece::Bytes(bytes) = download.next().await.unwrap() {
            got.extend_from_slice(&bytes);
        }
        assert_eq!(&got, layer);
    }
}

#[tokio::test]
async fn a_registry_on_this_machine_needs_no_configuration() {
    let server = DockerRegistry::start(false).await;
    let image = Image::of(&[&[("a", &noise(1, 300_000))], &[("b", b"x")]]);
    server.push("some/thing", "v1", &image).await;
    let reference = format!("{}/some/thing:v1", server.name());
    let hosts = crate::images::hosts::lookup(&[], &server.name()).unwrap();
    let credentials: Arc<dyn crate::images::auth::Credentials> = Arc::new(NoCredentials);
    let direct = Registry::new(reference.parse().unwrap(), hosts, &Arc::default(), &credentials, &Default::default());
    everything(&direct, &image).await;

    // The same through a mirror of a registry that is not asked itself.
    let mirrored = format!("server = \"http://{0}\"\n[host.\"http://{0}\"]\n", server.name());
    everything(&anonymous("registry.k8s.io/some/thing:v1", &mirrored), &image).await;

    let e = Error::from(anonymous("registry.k8s.io/some/thing:none", &mirrored).resolve().await.unwrap_err());
    assert_eq!(e.code, Code::NotFound);
    assert!(e.message.contains("\"none\" of some/thing") && e.message.contains(&server.name()), "{e}");
}

#[tokio::test]
async fn basic_authentication() {
    let server = DockerRegistry::start(true).await;
    let image = Image::of(&[&[("a", b"a")]]);
    server.push("x", "1", &image).await;
    let reference = format!("{}/x:1", server.name());
    let text = format!("server = \"http://{}\"", server.name());
    everything(&registry(&reference, &text, Given::password("pw")), &image).await;
    for wrong in [registry(&reference, &text, Given::password("no")), anonymous(&reference, &text)] {
        assert_eq!(Error::from(wrong.resolve().await.unwrap_err()).code, Code::Unauthenticated);
    }
}
