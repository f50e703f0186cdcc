//! Images that can't be pulled, and references that are none. What registries do wrong is in `pull.rs`.

use e2e::Wiring;
use e2e::cri::image;
use e2e::fixtures::{BUSYBOX, fixtures};
use e2e::image::{Compression, Format, Image, Layer};
use e2e::world;
use serde_json::json;
use shared_proto::cri::v1::*;
use tonic::Code::{self, DataLoss, FailedPrecondition, InvalidArgument, NotFound};

use crate::refused;

pub async fn references(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    let before = world.inventory().await;
    for reference in ["UPPER/Case", "a b", "a//b", "x@sha256:short", "x@md5:abc", ":tag"] {
        let pull = cri.try_pull_image(PullImageRequest { image: Some(image(reference)), ..Default::default() }).await;
        refused(reference, pull, InvalidArgument, &format!("{reference:?}"));
        assert!(cri.find_image(reference).await.is_none(), "{reference} is no error when it is asked about");
        cri.remove_image(RemoveImageRequest { image: Some(image(reference)) }).await;
    }
    let none = "names no image";
    for spec in [None, Some(image(""))] {
        let pull = PullImageRequest { image: spec.clone(), ..Default::default() };
        refused("a pull of nothing", cri.try_pull_image(pull).await, InvalidArgument, none);
        let status = ImageStatusRequest { image: spec.clone(), verbose: false };
        refused("status of nothing", cri.try_image_status(status).await, InvalidArgument, none);
        refused(
            "removal of nothing",
            cri.try_remove_image(RemoveImageRequest { image: spec }).await,
            InvalidArgument,
            none,
        );
    }
    let auth = |auth: AuthConfig| {
        let request = PullImageRequest { image: Some(image(BUSYBOX)), auth: Some(auth), ..Default::default() };
        cri.try_pull_image(request)
    };
    for bad in ["%%%", "bm9jb2xvbg=="] {
        let answer = auth(AuthConfig { auth: bad.into(), ..Default::default() }).await;
        let message = answer.as_ref().expect_err("no credentials").message().to_owned();
        refused("credentials that are none", answer, InvalidArgument, BUSYBOX);
        assert!(!message.contains(bad) && !message.contains("nocolon"), "no secret is told: {message}");
    }
    world.assert_as_before(&before).await;

    // One digit that two ids begin with.
    let busybox = world.pull(BUSYBOX).await;
    let digit = &busybox["sha256:".len()..][..1];
    let layer = Layer::default().file("x", 0o644, b"x\n").finish();
    let twins = (0..).map(|n| {
        Image::new(Format::Oci, json!({"Labels": {"n": n.to_string()}}), &[(Compression::None, layer.clone())])
    });
    let twin =
        twins.take(1000).find(|twin| twin.id()["sha256:".len()..].starts_with(digit)).expect("one of a thousand");
    world.registry.add("e2e/twin", "1", &twin);
    assert_eq!(world.pull("registry.k8s.io/e2e/twin:1").await, twin.id());
    let both = world.inventory().await;
    let status = cri.try_image_status(ImageStatusRequest { image: Some(image(digit)), verbose: false }).await;
    let remove = cri.try_remove_image(RemoveImageRequest { image: Some(image(digit)) }).await;
    for id in [&busybox, twin.id()] {
        refused("status of two", status.clone(), InvalidArgument, id);
        refused("removal of two", remove.clone(), InvalidArgument, id);
    }
    world.assert_as_before(&both).await;
}

pub async fn images_that_can_not_be_pulled(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    let before = world.inventory().await;
    let tar = Layer::default().file("x", 0o644, b"x\n").finish();
    let (config, other) = (fixtures().busybox.config.data.clone(), Layer::default().file("y", 0o644, b"y\n").finish());
    let of = |config: &[u8], layers: &[(Compression, Vec<u8>)]| Image::of(Format::Oci, config.to_vec(), layers);
    let one = Image::new(Format::Oci, json!({}), &[(Compression::None, tar.clone())]);
    let diff_ids = |tar: &[u8]| {
        let config = json!({
            "architecture": e2e::image::architecture(), "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [e2e::image::digest(tar)]},
        });
        config.to_string().into_bytes()
    };
    let foreign =
        String::from_utf8(one.config.data.clone()).expect("JSON").replace(e2e::image::architecture(), "s390x");
    let none = Compression::None;
    let cut = |how: Compression| {
        let whole = e2e::image::compress(how, &tar);
        Image::sent(Format::Oci, one.config.data.clone(), &[(how, whole[..whole.len() / 2].to_vec())])
    };
    let cases: [(&str, Image, Code, &str); 8] = [
        ("config", of(b"{ no JSON", &[(none, tar.clone())]), InvalidArgument, "config"),
        ("fewer", of(&config, &[]), InvalidArgument, "0 layers"),
        ("diff-id", of(&one.config.data, &[(none, other)]), FailedPrecondition, "wrong diff id"),
        ("foreign", of(foreign.as_bytes(), &[(none, tar.clone())]), NotFound, "linux/s390x"),
        (
            "text",
            of(&diff_ids(b"this is no archive"), &[(none, b"this is no archive".to_vec())]),
            InvalidArgument,
            "malformed layer",
        ),
        ("cut", of(&diff_ids(&tar[..600]), &[(none, tar[..600].to_vec())]), InvalidArgument, "layer"),
        ("cut-gzip", cut(Compression::Gzip), DataLoss, "read the layer"),
        ("cut-zstd", cut(Compression::Zstd), DataLoss, "read the layer"),
    ];
    for (name, image, code, names) in cases {
        world.registry.add(&format!("e2e/{name}"), "1", &image);
        let reference = format!("registry.k8s.io/e2e/{name}:1");
        let pull =
            cri.try_pull_image(PullImageRequest { image: Some(self::image(&reference)), ..Default::default() }).await;
        refused(name, pull.clone(), code, names);
        refused(name, pull, code, &reference);
        assert!(cri.find_image(&reference).await.is_none());
        world.assert_as_before(&before).await;
    }

    // Manifests that are none.
    let old = br#"{"schemaVersion": 1, "name": "e2e/old", "tag": "1"}"#.to_vec();
    let schema1 = "application/vnd.docker.distribution.manifest.v1+json";
    for (name, text, media_type, code, names) in [
        ("old", old, schema1, InvalidArgument, "schema 1"),
        ("manifest", b"{ no JSON".to_vec(), Format::Oci.manifest(), InvalidArgument, "manifest"),
        (
            "empty-index",
            br#"{"schemaVersion": 2, "manifests": []}"#.to_vec(),
            Format::Oci.index(),
            NotFound,
            "platform",
        ),
    ] {
        let registry = e2e::faulty::Faulty::start().await;
        registry.add_manifest(&format!("e2e/{name}"), "1", media_type, text);
        let dir = world.paths.dir.join("certs.d/odd.test");
        std::fs::create_dir_all(&dir).expect("make the folder of a registry");
        std::fs::write(dir.join("hosts.toml"), format!("server = \"http://{}\"\n", registry.address())).expect("write");
        let reference = format!("odd.test/e2e/{name}:1");
        let pull = cri.try_pull_image(PullImageRequest { image: Some(image(&reference)), ..Default::default() }).await;
        refused(name, pull.clone(), code, names);
        refused(name, pull, code, &reference);
        world.assert_as_before(&before).await;
    }
}
