//! `Device`, and who owns the node in the container.

use e2e::Wiring;
use e2e::cases::Cases;
use e2e::config::Options;
use e2e::pod::security;
use shared_proto::cri::v1::*;
use tonic::Code::{InvalidArgument, Unimplemented};

use super::security::id;

pub async fn devices(wiring: Wiring) {
    let options = Options { device_ownership: true, ..Options::new(wiring) };
    let world = e2e::World::start(wiring, options).await;
    let mut cases = Cases::start_in(world, "devices", &[], |_| ()).await;
    mappings(&mut cases).await;
    ownership(&mut cases).await;
    refusals(&mut cases).await;
    cases.end().await;
}

fn device(host: &str, container: &str, permissions: &str) -> Device {
    Device { host_path: host.into(), container_path: container.into(), permissions: permissions.into() }
}

/// The kernel wants a right for its messages, beside the device.
fn may_read_kmsg(c: &mut ContainerConfig) {
    security(c).capabilities = Some(Capability { add_capabilities: vec!["SYSLOG".into()], ..Default::default() });
}

async fn mappings(cases: &mut Cases) {
    let link = cases.world.paths.dir.join("zero").display().to_string();
    std::os::unix::fs::symlink("/dev/zero", &link).expect("make a link");
    // The rules of the device cgroup decide, whatever the node's mode: kmsg is no default device.
    let wanted = vec![device("/dev/kmsg", "/dev/mine", "r"), device(&link, "/dev/linked", "rwm")];
    let script = "test -c /dev/mine && echo a device; dd if=/dev/mine of=/dev/null bs=8192 count=1 2>/dev/null && \
                  echo readable; (echo x >/dev/mine) 2>/dev/null || echo not writable; \
                  dd if=/dev/linked bs=3 count=1 2>/dev/null | wc -c; ls /dev/kmsg 2>/dev/null || echo no other";
    let mapped = |c: &mut ContainerConfig| {
        c.devices = wanted;
        may_read_kmsg(c);
    };
    let out = cases.prints("device-with-permissions", script, mapped).await;
    assert_eq!(out, "a device\nreadable\nnot writable\n3\nno other\n");
    let denied = "mknod /tmp/kmsg c 1 11 && (head -c 1 /tmp/kmsg) 2>/dev/null || echo denied";
    assert_eq!(cases.prints("device-unasked", denied, may_read_kmsg).await, "denied\n");
    if !cases.peer_lacks("device-in-the-same-place", "1.6 needs the container path") {
        let wanted = vec![device("/dev/kmsg", "", "")];
        let out = cases.prints("device-in-the-same-place", "test -c /dev/kmsg && echo there", |c| c.devices = wanted);
        assert_eq!(out.await, "there\n");
    }
    let folder = vec![device("/dev/net", "/dev/nets", "rw")];
    if std::path::Path::new("/dev/net/tun").exists() {
        let out = cases.prints("device-folder", "test -c /dev/nets/tun && echo there", |c| c.devices = folder).await;
        assert_eq!(out, "there\n");
    } else {
        cases.skip("device-folder", "this machine has no /dev/net/tun");
    }
}

async fn ownership(cases: &mut Cases) {
    let wanted = || vec![device("/dev/kmsg", "/dev/mine", "r")];
    let script = "stat -c %u:%g /dev/mine";
    let user = |c: &mut ContainerConfig| {
        c.devices = wanted();
        (security(c).run_as_user, security(c).run_as_group) = (id(1000), id(77));
    };
    assert_eq!(cases.prints("device-of-the-user", script, user).await, "1000:77\n");
    assert_eq!(cases.prints("device-of-root", script, |c| c.devices = wanted()).await, "0:0\n");
}

async fn refusals(cases: &mut Cases) {
    let refuse = |device: Device| move |c: &mut ContainerConfig| c.devices = vec![device];
    let missing = device("/dev/no-such", "/dev/x", "rw");
    cases.refused("device-missing", InvalidArgument, "devices[0].host_path: \"/dev/no-such\"", refuse(missing)).await;
    let file = device("/etc/hostname", "/dev/x", "rw");
    cases.refused("device-that-is-none", InvalidArgument, "devices[0].host_path", refuse(file)).await;
    if !cases.peer_lacks("device-permissions-wrong", "1.6 hands any letters on") {
        let letters = device("/dev/zero", "/dev/x", "rwx");
        cases.refused("device-permissions-wrong", InvalidArgument, "devices[0].permissions", refuse(letters)).await;
    }
    if !cases.peer_lacks("device-container-path-relative", "1.6 leaves it to runc") {
        let relative = device("/dev/zero", "x", "rw");
        let name = "device-container-path-relative";
        cases.refused(name, InvalidArgument, "devices[0].container_path", refuse(relative)).await;
    }
    if !cases.peer_lacks("cdi-devices", "1.6 has none") {
        let cdi = |c: &mut ContainerConfig| c.cdi_devices = vec![CdiDevice { name: "vendor.com/class=x".into() }];
        cases.refused("cdi-devices", Unimplemented, "CDI_devices", cdi).await;
    }
}
