//! Pulls that meet what registries do: each fault has its own clear error, or is got over, and a cut pull goes on.

use std::time::{Duration, Instant};

use e2e::cri::{Answer, Cri, image};
use e2e::faulty::{Fault, Faulty, TOKEN};
use e2e::fixtures::fixtures;
use e2e::{Wiring, World, config::Options};
use shared_proto::cri::v1::*;
use tonic::Code;

e2e::wirings!(
    what_comes_is_verified,
    a_cut_pull_goes_on,
    credentials,
    refusals,
    mirrors_are_tried_in_turn,
    a_stalled_pull_is_given_up,
    layers_are_fetched_once_and_some_at_a_time,
);

const NAME: &str = "faulty.test/some/image:1";

/// A world with a registry of its own behind `faulty.test`.
async fn start(wiring: Wiring, extra: &str) -> (World, Cri, Faulty) {
    let mut options = Options::new(wiring);
    options.pull_progress_timeout = extra.into();
    let world = World::start(wiring, options).await;
    let registry = Faulty::start().await;
    registry.add("some/image", "1", &fixtures().layered);
    let mut text = format!("server = \"http://{}\"\n", registry.address());
    if e2e::world::peer().is_some() {
        // Debian's containerd does not take a server alone.
        text += &format!("[host.\"http://{}\"]\n", registry.address());
    }
    hosts(&world, &text);
    let cri = world.cri();
    (world, cri, registry)
}

/// What is said about `faulty.test`.
fn hosts(world: &World, text: &str) {
    let dir = world.paths.dir.join("certs.d/faulty.test");
    std::fs::create_dir_all(&dir).expect("make the folder of a registry");
    std::fs::write(dir.join("hosts.toml"), text).expect("write hosts.toml");
}

async fn pull(cri: &Cri, auth: Option<AuthConfig>) -> Answer<String> {
    let request = PullImageRequest { image: Some(image(NAME)), auth, ..Default::default() };
    let answer = tokio::time::timeout(Duration::from_secs(60), cri.try_pull_image(request)).await;
    Ok(answer.expect("a pull ends within a minute")?.image_ref)
}

async fn remove(cri: &Cri) {
    cri.remove_image(RemoveImageRequest { image: Some(image(NAME)) }).await;
}

async fn what_comes_is_verified(wiring: Wiring) {
    let (world, cri, registry) = start(wiring, "").await;
    let before = world.inventory().await;
    for fault in [Fault::WrongLayers, Fault::WrongManifest] {
        registry.fail(fault.clone());
        let status = pull(&cri, None).await.expect_err("the bytes are not what the digest says");
        assert!(status.message().contains("sha256:"), "{fault:?}: the message names the digest: {status:?}");
        assert!(status.message().contains(NAME), "{fault:?}: the message names the image: {status:?}");
        assert!(cri.find_image(NAME).await.is_none());
        world.assert_as_before(&before).await;
    }
    registry.fail(Fault::None);
    assert_eq!(pull(&cri, None).await.expect("nothing of the wrong bytes is kept"), fixtures().layered.id());
}

async fn a_cut_pull_goes_on(wiring: Wiring) {
    let (world, cri, registry) = start(wiring, "").await;
    let before = world.inventory().await;
    // Within one pull.
    registry.fail(Fault::Cut { after: 1 << 20, times: 3 });
    assert_eq!(pull(&cri, None).await.expect("the pull goes on"), fixtures().layered.id());
    let ranges: Vec<String> = registry.requests().into_iter().filter(|r| r.contains("bytes=")).collect();
    assert!(ranges.len() >= 3, "the rest is asked for, not everything again: {:?}", registry.requests());
    remove(&cri).await;
    world.assert_as_before(&before).await;

    // From one pull to the next, over a restart of the daemons.
    let (mut world, cut) = (world, 1 << 20);
    registry.fail(Fault::Cut { after: cut, times: usize::MAX });
    let status = pull(&cri, None).await;
    if let Err(status) = status {
        assert!(status.message().contains(NAME), "the message names the image: {status:?}");
        let broken = registry.requests();
        world.restart().await;
        registry.fail(Fault::None);
        assert_eq!(pull(&cri, None).await.expect("the second pull"), fixtures().layered.id());
        let ranges = registry.requests().into_iter().filter(|r| r.contains("bytes=")).count();
        assert!(ranges > 0, "what came before is kept: {broken:?}, then {:?}", registry.requests());
    }
    remove(&cri).await;
    world.assert_as_before(&before).await;

    // The daemons are killed while layers come.
    registry.fail(Fault::Cut { after: cut, times: usize::MAX });
    let slow = tokio::spawn({
        let cri = cri.clone();
        async move { pull(&cri, None).await }
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    world.kill_cri();
    if wiring == Wiring::Split {
        world.kill_core();
    }
    let _ = slow.await.expect("join");
    registry.fail(Fault::None);
    world.run().await;
    assert_eq!(pull(&cri, None).await.expect("after the crash"), fixtures().layered.id());
    remove(&cri).await;
    world.assert_as_before(&before).await;
}

async fn credentials(wiring: Wiring) {
    let (world, cri, registry) = start(wiring, "").await;
    let before = world.inventory().await;
    let user = |password: &str| AuthConfig { username: "me".into(), password: password.into(), ..Default::default() };
    let base64 = AuthConfig { auth: "bWU6c2VjcmV0".into(), ..Default::default() }; // me:secret
    for fault in [Fault::Basic { user: "me", password: "secret" }, Fault::Token { user: Some(("me", "secret")) }] {
        registry.fail(fault.clone());
        for auth in [None, Some(user("wrong"))] {
            let status = pull(&cri, auth).await.expect_err("not authenticated");
            let message = status.message().to_lowercase();
            assert!(message.contains("401") || message.contains("unauthorized"), "{fault:?}: {status:?}");
            assert!(message.contains(NAME), "{fault:?}: the message names the image: {status:?}");
            assert!(!message.contains("wrong\"") && !message.contains("secret"), "no secret is told: {status:?}");
            world.assert_as_before(&before).await;
        }
        for auth in [user("secret"), base64.clone()] {
            assert_eq!(pull(&cri, Some(auth)).await.expect("authenticated"), fixtures().layered.id());
            remove(&cri).await;
        }
    }
    registry.fail(Fault::Token { user: None });
    assert_eq!(pull(&cri, None).await.expect("a token for everybody"), fixtures().layered.id());
    remove(&cri).await;

    // Tokens: one to be exchanged, one to be sent as it is.
    let identity = |token: &str| AuthConfig { identity_token: token.into(), ..Default::default() };
    let bearer = |token: &str| AuthConfig { registry_token: token.into(), ..Default::default() };
    for (fault, wrong, right) in [
        (Fault::Refresh { token: "refreshing" }, identity("stale"), identity("refreshing")),
        (Fault::Bearer, bearer("stale"), bearer(TOKEN)),
    ] {
        registry.fail(fault.clone());
        let status = pull(&cri, Some(wrong)).await.expect_err("not authenticated");
        assert_eq!(status.code(), Code::Unauthenticated, "{fault:?}: {status:?}");
        assert_eq!(pull(&cri, Some(right)).await.expect("authenticated"), fixtures().layered.id(), "{fault:?}");
        remove(&cri).await;
    }
    // For another registry: nothing is sent. For this one, however it is written: all is well.
    registry.fail(Fault::Basic { user: "me", password: "secret" });
    let at = |server: String| AuthConfig { server_address: server, ..user("secret") };
    let status = pull(&cri, Some(at("https://registry.example.com".into()))).await.expect_err("not for this registry");
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    for server in [registry.address().to_string(), format!("http://{}/v2/", registry.address())] {
        assert_eq!(pull(&cri, Some(at(server.clone()))).await.expect(&server), fixtures().layered.id());
        remove(&cri).await;
    }
    let log = world.logs();
    assert!(!log.contains("bWU6c2VjcmV0") && !log.contains("a-token-of-trust"), "no secret is logged");
}

async fn refusals(wiring: Wiring) {
    let (world, cri, registry) = start(wiring, "").await;
    let before = world.inventory().await;
    let request = PullImageRequest { image: Some(image("faulty.test/some/image:none")), ..Default::default() };
    let status = cri.try_pull_image(request).await.expect_err("there is no such tag");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    assert!(status.message().contains("faulty.test/some/image:none"), "{status:?}");

    for code in [429, 500, 503] {
        registry.fail(Fault::Status { code, times: 2 });
        let started = Instant::now();
        assert_eq!(pull(&cri, None).await.unwrap_or_else(|e| panic!("{code} twice: {e:?}")), fixtures().layered.id());
        if code == 429 {
            assert!(started.elapsed() > Duration::from_millis(1900), "Retry-After is kept: {:?}", started.elapsed());
        }
        remove(&cri).await;
        world.assert_as_before(&before).await;
    }
    for (code, hint) in [(429, "too many requests"), (403, "forbidden"), (500, "internal server error")] {
        registry.fail(Fault::Status { code, times: usize::MAX });
        let status = pull(&cri, None).await.expect_err("it goes on failing");
        let message = status.message().to_lowercase();
        assert!(message.contains(&code.to_string()) || message.contains(hint), "{code}: {status:?}");
        assert!(message.contains(NAME), "{code}: the message names the image: {status:?}");
        world.assert_as_before(&before).await;
    }
}

async fn mirrors_are_tried_in_turn(wiring: Wiring) {
    let (world, cri, registry) = start(wiring, "").await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    // One that is not there, one that lacks the image, one that has it; the server itself is never asked.
    let lacking = Faulty::start().await;
    let text = format!(
        "server = \"http://{closed}\"\n[host.\"http://{closed}\"]\n[host.\"http://{}\"]\n[host.\"http://{}\"]\n",
        lacking.address(),
        registry.address()
    );
    hosts(&world, &text);
    registry.fail(Fault::None);
    assert_eq!(pull(&cri, None).await.expect("the third mirror has it"), fixtures().layered.id());
    assert!(!lacking.requests().is_empty(), "the second one was asked");
    remove(&cri).await;

    // A mirror that may only resolve is not fetched from.
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"resolve\"]\n",
        registry.address(),
        lacking.address()
    );
    hosts(&world, &text);
    lacking.add("some/image", "1", &fixtures().layered);
    lacking.fail(Fault::None);
    registry.fail(Fault::None);
    assert_eq!(pull(&cri, None).await.expect("pull"), fixtures().layered.id());
    assert!(lacking.requests().iter().all(|r| !r.contains("/blobs/")), "{:?}", lacking.requests());
    remove(&cri).await;

    // No registry at all: the error says which one, and why.
    hosts(&world, &format!("server = \"http://{closed}\"\n"));
    let status = pull(&cri, None).await.expect_err("nobody listens");
    assert!(status.message().contains(&closed.to_string()), "the message names the host: {status:?}");
    assert!(status.message().to_lowercase().contains("refused"), "{status:?}");
    // A file that is none.
    hosts(&world, "server = 5\n");
    let status = pull(&cri, None).await.expect_err("hosts.toml is wrong");
    assert!(status.message().contains("hosts.toml"), "the message names the file: {status:?}");
}

async fn a_stalled_pull_is_given_up(wiring: Wiring) {
    let (world, cri, registry) = start(wiring, "2s").await;
    let before = world.inventory().await;
    registry.fail(Fault::Stall);
    let started = Instant::now();
    let status = pull(&cri, None).await.expect_err("no byte comes");
    assert!(started.elapsed() < Duration::from_secs(30), "it took {:?}", started.elapsed());
    assert!(status.message().contains(NAME), "the message names the image: {status:?}");
    registry.fail(Fault::None);
    assert_eq!(pull(&cri, None).await.expect("after the stall"), fixtures().layered.id());
    remove(&cri).await;
    world.assert_as_before(&before).await;
}

async fn layers_are_fetched_once_and_some_at_a_time(wiring: Wiring) {
    let mut options = Options::new(wiring);
    options.images = "max_concurrent_downloads = 2\n".into();
    let world = World::start(wiring, options).await;
    let (cri, before, registry) = (world.cri(), world.inventory().await, Faulty::start().await);
    hosts(&world, &format!("server = \"http://{0}\"\n[host.\"http://{0}\"]\n", registry.address()));
    // Three repositories with the same layers, and one of them under two tags.
    let names = ["one:1", "two:1", "three:1", "three:2"];
    for name in names {
        let (repository, tag) = name.split_once(':').expect("a tag");
        registry.add(repository, tag, &fixtures().layered);
    }
    let layers = fixtures().layered.layers.len();
    assert!(layers > 2, "too few layers to see a limit");
    registry.fail(Fault::Slow);
    let request =
        |name: &str| PullImageRequest { image: Some(image(&format!("faulty.test/{name}"))), ..Default::default() };
    assert_eq!(cri.pull_image(request("one:1")).await.image_ref, fixtures().layered.id());
    assert_eq!(registry.most_at_a_time(), 2, "{:?}", registry.requests());
    cri.remove_image(RemoveImageRequest { image: Some(image("faulty.test/one:1")) }).await;

    registry.fail(Fault::Slow);
    let pulls = names.map(|name| {
        let cri = cri.clone();
        async move { cri.pull_image(request(name)).await.image_ref }
    });
    let ids = futures::future::join_all(pulls).await;
    assert!(ids.iter().all(|id| id == fixtures().layered.id()), "{ids:?}");
    for layer in &fixtures().layered.layers {
        let fetched = registry.requests().into_iter().filter(|r| r.contains(&layer.digest)).count();
        assert_eq!(fetched, 1, "{}: {:?}", layer.digest, registry.requests());
    }
    let mut tags = cri.find_image(&ids[0]).await.expect("the image").repo_tags;
    tags.sort();
    assert_eq!(tags, ["faulty.test/one:1", "faulty.test/three:1", "faulty.test/three:2", "faulty.test/two:1"]);
    // By its id, and so with all its names.
    cri.remove_image(RemoveImageRequest { image: Some(image(&ids[0])) }).await;
    world.assert_as_before(&before).await;
}
