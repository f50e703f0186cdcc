//! `Mount`, and the volumes that an image declares.

use std::path::{Path, PathBuf};

use e2e::Wiring;
use e2e::cases::Cases;
use e2e::cri::image;
use e2e::fixtures::VOLUMES;
use e2e::pod::security as of;
use nix::mount::{MsFlags, mount as mount_on};
use shared_proto::cri::v1::*;
use tonic::Code::{InvalidArgument, Unimplemented};

pub async fn mounts(wiring: Wiring) {
    let mut cases = Cases::start(wiring, "mounts", &[VOLUMES]).await;
    let host = cases.world.paths.dir.join("host");
    std::fs::create_dir_all(&host).expect("make the host's folder");
    std::fs::write(host.join("file"), "from the host\n").expect("write the host's file");
    sources(&mut cases, &host).await;
    places(&mut cases, &host).await;
    image_volumes(&mut cases, &host).await;
    refusals(&mut cases).await;
    propagation(&mut cases).await;
    cases.end().await;
}

fn at(path: &str, host_path: impl Into<PathBuf>) -> Mount {
    let host_path = host_path.into().display().to_string();
    Mount { container_path: path.into(), host_path, ..Default::default() }
}

async fn sources(cases: &mut Cases, host: &Path) {
    std::os::unix::fs::symlink(host, host.join("self")).expect("make a link");
    let readonly = Mount { readonly: true, ..at("/ro", host) };
    let relabelled = Mount { selinux_relabel: true, ..at("/relabelled", host.join("file")) };
    let mounts = vec![
        at("/rw", host),
        readonly,
        at("/one-file", host.join("file")),
        at("/link", host.join("self/self")),
        at("/new", host.join("not/there/yet")),
        relabelled,
    ];
    let script = "cat /rw/file /ro/file /one-file /link/file /relabelled; touch /rw/written /new/written; \
                  touch /ro/denied 2>/dev/null || echo read-only; echo more >>/one-file && cat /one-file | wc -l";
    let wanted = mounts.clone();
    let out = cases.prints("host-path-and-readonly", script, |c| c.mounts = wanted).await;
    assert_eq!(out, format!("{}read-only\n2\n", "from the host\n".repeat(5)));
    assert!(host.join("written").exists() && host.join("not/there/yet/written").exists());
    assert_eq!(std::fs::read_to_string(host.join("file")).expect("read"), "from the host\nmore\n");

    let id = cases.runs("mounts-are-told", |c| c.mounts = mounts.clone()).await;
    let told = cases.cri.container(&id).await.mounts;
    let shown = |mounts: &[Mount]| -> Vec<_> {
        mounts.iter().map(|m| (m.container_path.clone(), m.host_path.clone(), m.readonly)).collect()
    };
    assert_eq!(shown(&told), shown(&mounts));
    cases.cri.try_remove(&id).await.expect("remove");
}

async fn places(cases: &mut Cases, host: &Path) {
    let (outer, inner) = (host.join("outer"), host.join("inner"));
    for (dir, text) in [(&outer, "outer\n"), (&inner, "inner\n")] {
        std::fs::create_dir_all(dir).expect("make a folder");
        std::fs::write(dir.join("name"), text).expect("write a name");
    }
    let nested = vec![at("/a/b", &inner), at("/a", &outer)];
    let out = cases.prints("mounts-below-mounts", "cat /a/name /a/b/name", |c| c.mounts = nested).await;
    assert_eq!(out, "outer\ninner\n", "whatever the order of the request");
    let over = vec![at("/dev/shm", &inner), at("/etc/hosts", inner.join("name"))];
    let out = cases.prints("mounts-over-our-own", "cat /dev/shm/name /etc/hosts", |c| c.mounts = over).await;
    assert_eq!(out, "inner\ninner\n");
    // Links of the image are followed inside of it, never out.
    let name = format!("{}-escape", cases.world.slot.name());
    let links = vec![at("/into-tmp/within", &inner), at(&format!("/out/{name}"), &inner)];
    let script = format!("cat /tmp/within/name /tmp/{name}/name");
    let linked = |c: &mut ContainerConfig| {
        c.image = Some(image(VOLUMES));
        c.mounts = links;
    };
    assert_eq!(cases.prints("container-path-behind-links", &script, linked).await, "inner\ninner\n");
    assert!(!Path::new("/tmp").join(&name).exists(), "nothing of it is outside");
}

async fn image_volumes(cases: &mut Cases, host: &Path) {
    let from_image = |c: &mut ContainerConfig| {
        c.image = Some(image(VOLUMES));
        of(c).readonly_rootfs = true;
    };
    let script = "stat -c '%u:%g:%a' /vol/data /vol/data/file; cat /vol/data/link; ls /vol/empty | wc -l; \
                  touch /vol/data/mine && echo writable; touch /vol/x 2>/dev/null || echo elsewhere not; \
                  grep -c ' /vol/' /proc/self/mountinfo";
    let wanted = "1000:2000:750\n1000:2000:640\nfrom the image\n0\nwritable\nelsewhere not\n2\n";
    assert_eq!(cases.prints("image-volumes", script, from_image).await, wanted);
    assert_eq!(cases.prints("image-volumes-are-fresh", script, from_image).await, wanted);
    let covered = |c: &mut ContainerConfig| {
        c.image = Some(image(VOLUMES));
        c.mounts = vec![at("/vol/data/", host.join("inner"))];
    };
    let out = cases.prints("image-volumes-yield-to-mounts", "cat /vol/data/name; ls /vol/data | wc -l", covered).await;
    assert_eq!(out, "inner\n1\n");
}

async fn refusals(cases: &mut Cases) {
    let refuse = |mount: Mount| move |c: &mut ContainerConfig| c.mounts = vec![mount];
    let nowhere = at("", "/tmp");
    cases.refused("container-path-empty", InvalidArgument, "mounts[0].container_path", refuse(nowhere)).await;
    if cases.peer_lacks("mount-refusals", "1.6 ignores what it does not know, and takes any source and target") {
        return;
    }
    cases.refused("container-path-root", InvalidArgument, "mounts[0].container_path", refuse(at("/", "/tmp"))).await;
    cases.refused("host-path-relative", InvalidArgument, "mounts[0].host_path", refuse(at("/x", "tmp"))).await;
    let unknown = Mount { propagation: 9, ..at("/x", "/tmp") };
    cases.refused("propagation-unknown", InvalidArgument, "mounts[0].propagation", refuse(unknown)).await;
    let recursive = Mount { recursive_read_only: true, readonly: true, ..at("/x", "/tmp") };
    cases.refused("recursive-read-only", Unimplemented, "mounts[0].recursive_read_only", refuse(recursive)).await;
    let volume = Mount { image: Some(image(VOLUMES)), readonly: true, ..at("/x", "") };
    cases.refused("image-as-a-volume", Unimplemented, "mounts[0].image", refuse(volume.clone())).await;
    let part = Mount { image_sub_path: "vol".into(), image: None, ..volume };
    cases.refused("image-sub-path", Unimplemented, "mounts[0].image", refuse(part)).await;
    let mapping = IdMapping { host_id: 1000, container_id: 0, length: 1 };
    let mapped = Mount { uid_mappings: vec![mapping], ..at("/x", "/tmp") };
    cases.refused("uid-mappings", Unimplemented, "mounts[0].uidMappings", refuse(mapped)).await;
    let mapped = Mount { gid_mappings: vec![mapping], ..at("/x", "/tmp") };
    cases.refused("gid-mappings", Unimplemented, "mounts[0].uidMappings and gidMappings", refuse(mapped)).await;
}

/// A tmpfs of its own in the world's folder.
fn tmpfs(dir: &Path, propagation: MsFlags) {
    std::fs::create_dir_all(dir).expect("make a mount point");
    mount_on(Some("t"), dir, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount a tmpfs");
    mount_on(None::<&str>, dir, None::<&str>, propagation, None::<&str>).expect("set its propagation");
}

async fn propagation(cases: &mut Cases) {
    use MountPropagation::{PropagationBidirectional, PropagationHostToContainer, PropagationPrivate};
    let (private, shared) = (cases.world.paths.dir.join("private"), cases.world.paths.dir.join("shared"));
    tmpfs(&private, MsFlags::MS_PRIVATE);
    tmpfs(&shared, MsFlags::MS_SHARED);
    let of_kind = |kind: MountPropagation, dir: &Path| {
        let mount = Mount { propagation: kind.into(), ..at("/m", dir) };
        move |c: &mut ContainerConfig| {
            c.mounts = vec![mount];
            of(c).capabilities = Some(Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
        }
    };
    for (name, kind) in [
        ("host-to-container-of-a-private-mount", PropagationHostToContainer),
        ("bidirectional-of-a-private-mount", PropagationBidirectional),
    ] {
        cases.refused(name, InvalidArgument, "mounts[0].propagation", of_kind(kind, &private)).await;
    }
    let own = cases.runs("propagation-private", of_kind(PropagationPrivate, &shared)).await;
    let from_host = cases.runs("propagation-host-to-container", of_kind(PropagationHostToContainer, &shared)).await;
    let both = cases.runs("propagation-bidirectional", of_kind(PropagationBidirectional, &shared)).await;
    let late = shared.join("late");
    tmpfs(&late, MsFlags::MS_SHARED);
    std::fs::write(late.join("file"), "late\n").expect("write");
    let cri = &cases.cri;
    let sees =
        async |id: &str, path: &str| cri.try_exec_in(id, &["cat", path], 10).await.expect("exec").stdout == b"late\n";
    assert!(!sees(&own, "/m/late/file").await, "PRIVATE shows no later mount");
    assert!(sees(&from_host, "/m/late/file").await, "HOST_TO_CONTAINER does");
    assert!(sees(&both, "/m/late/file").await, "BIDIRECTIONAL does");
    let make = "mkdir -p /m/$0 && mount -t tmpfs t /m/$0 && echo late >/m/$0/file";
    for (id, name) in [(&own, "own"), (&from_host, "slave"), (&both, "both")] {
        cri.exec_ok(id, &["sh", "-c", make, name]).await;
    }
    assert!(!shared.join("own/file").exists() && !shared.join("slave/file").exists());
    assert!(shared.join("both/file").exists(), "a mount made inside appears outside");
    assert!(sees(&from_host, "/m/both/file").await, "and in the neighbour");
    for id in [own, from_host, both] {
        cri.try_remove(&id).await.expect("remove");
    }
    for dir in [shared.join("both"), late, shared, private] {
        nix::mount::umount2(&dir, nix::mount::MntFlags::MNT_DETACH).expect("unmount");
    }
}
