//! Specs under the real OCI runtime: a pause container that holds a pod's namespaces, and containers that join them.
//!
//! Needs root, runc, and a static busybox.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use shared_proto::cri::v1;

use super::*;
use crate::host::{Host, HostFacts, RealHost};

mod machines;

/// A pod as `runc` runs it.
struct Pod {
    base: Option<Spec>,
    dir: tempfile::TempDir,
    name: String,
    config: v1::PodSandboxConfig,
    settings: shared_config::CriRuntime,
    runtime: shared_config::Runtime,
    facts: HostFacts,
    dirs: SandboxDirs,
    netns: PathBuf,
    label: Label,
    pid: u32,
}

fn image(config: serde_json::Value) -> ImageConfiguration {
    let rootfs = json!({"type": "layers", "diff_ids": []});
    serde_json::from_value(json!({"os": "linux", "architecture": "amd64", "rootfs": rootfs, "config": config})).unwrap()
}

/// A bundle with a root file system of busybox alone.
fn bundle(dir: &Path, spec: &Spec) {
    let bin = dir.join("rootfs/bin");
    fs::create_dir_all(&bin).unwrap();
    for name in ["tmp", "etc", "proc", "dev", "sys"] {
        fs::create_dir_all(dir.join("rootfs").join(name)).unwrap();
    }
    fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    for applet in
        ["sh", "sleep", "cat", "id", "mount", "ls", "hostname", "mkdir", "readlink", "unshare", "ping", "stat"]
    {
        symlink("busybox", bin.join(applet)).unwrap();
    }
    fs::write(dir.join("config.json"), to_json(spec).unwrap()).unwrap();
}

impl Pod {
    fn start(test: &str, change: impl FnOnce(&mut v1::PodSandboxConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Processes of other users must get through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let dirs = SandboxDirs { root: dir.path().join("sandbox"), state: dir.path().join("state") };
        let metadata =
            v1::PodSandboxMetadata { name: "pod".into(), uid: "u1".into(), namespace: "ns".into(), attempt: 0 };
        let mut config = v1::PodSandboxConfig {
            metadata: Some(metadata),
            hostname: "web-0".into(),
            linux: Some(v1::LinuxPodSandboxConfig { cgroup_parent: format!("/crispec-{test}"), ..Default::default() }),
            ..Default::default()
        };
        change(&mut config);
        let netns = dir.path().join("netns");
        shared_sys::netns::create(&netns).unwrap();
        fs::create_dir_all(dirs.shm()).unwrap();
        write_files(&dirs, &config, "web-0").unwrap();
        let mut pod = Self {
            base: None,
            name: format!("crispec-{test}-{}", std::process::id()),
            config,
            settings: Default::default(),
            runtime: Default::default(),
            facts: HostFacts::read().unwrap(),
            dirs,
            netns,
            label: Label::default(),
            pid: 0,
            dir,
        };
        let spec = sandbox(&SandboxInput {
            id: &pod.name,
            image_name: "pause:1",
            config: &pod.config,
            image: &image(json!({"Entrypoint": ["/bin/sleep", "1000"]})),
            runtime: &pod.runtime,
            settings: &pod.settings,
            netns: Some(&pod.netns),
            hostname: "web-0",
            dirs: &pod.dirs,
            label: &pod.label,
            user: &User::default(),
            host: &pod.facts,
            apparmor: RealHost::new().unwrap().apparmor(),
        })
        .unwrap();
        let at = pod.dir.path().join("pause");
        bundle(&at, &spec);
        let started = pod.runc(&["run", "--detach", "--bundle", at.to_str().unwrap(), &pod.name]);
        assert!(started.0, "{}", started.1);
        let (_, state) = pod.runc(&["state", &pod.name]);
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        pod.pid = state["pid"].as_u64().unwrap().try_into().unwrap();
        pod
    }

    fn runc(&self, args: &[&str]) -> (bool, String) {
        // A file, not a pipe: a detached container keeps it open.
        let log = self.dir.path().join("out");
        let file = fs::File::create(&log).unwrap();
        let mut command = Command::new("timeout");
        command.args(["60", "runc", "--root"]).arg(self.dir.path().join("runc")).args(args);
        command.stdin(Stdio::null()).stderr(file.try_clone().unwrap()).stdout(file);
        let status = command.status().unwrap();
        (status.success(), String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned())
    }

    fn spec(&self, config: &v1::ContainerConfig, user: &User) -> Result<Spec, SpecError> {
        container(&ContainerInput {
            id: &format!("{}-c", self.name),
            sandbox_id: &self.name,
            sandbox_pid: self.pid,
            target_pid: None,
            name: "c",
            image_name: "busybox:latest",
            config,
            sandbox: &self.config,
            image: &image(json!({"Env": ["FROM=image"], "WorkingDir": "/tmp"})),
            runtime: &self.runtime,
            base: self.base.as_ref(),
            settings: &self.settings,
            netns: Some(&self.netns),
            hostname: "web-0",
            dirs: &self.dirs,
            volumes: &[],
            label: &self.label,
            user,
            host: &self.facts,
            apparmor: RealHost::new().unwrap().apparmor(),
        })
    }

    /// Runs a shell script as a container of the pod; its output.
    fn run(&self, script: &str, user: &User, change: impl FnOnce(&mut v1::ContainerConfig)) -> String {
        let mut config = v1::ContainerConfig {
            command: ["/bin/sh", "-c", script].map(String::from).to_vec(),
            linux: Some(v1::LinuxContainerConfig {
                security_context: Some(v1::LinuxContainerSecurityContext::default()),
                resources: None,
            }),
            ..Default::default()
        };
        change(&mut config);
        let spec = self.spec(&config, user).unwrap();
        let at = self.dir.path().join("c");
        bundle(&at, &spec);
        let (_, out) = self.runc(&["run", "--bundle", at.to_str().unwrap(), &format!("{}-c", self.name)]);
        fs::remove_dir_all(at).unwrap();
        out
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.runc(&["delete", "--force", &self.name]);
        shared_sys::netns::remove(&self.netns).unwrap();
        let parent = self.config.linux.as_ref().unwrap().cgroup_parent.trim_start_matches('/');
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain(["/sys/fs/cgroup".into()]) {
            let _ = fs::remove_dir(hierarchy.join(parent));
        }
    }
}

fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

#[test]
fn a_plain_container_shares_the_pod() {
    let pod = Pod::start("plain", |_| {});
    let volume = pod.dir.path().join("missing/volume");
    let link = pod.dir.path().join("link");
    fs::write(pod.dir.path().join("linked"), "behind a link").unwrap();
    symlink(pod.dir.path().join("linked"), &link).unwrap();
    let script = r#"
        echo "cwd $(pwd) env $FROM $HOSTNAME $EXTRA $PATH"
        hostname; cat /etc/hostname; id
        cat /link; ls -d /vol
        echo x > /vol/x && echo vol-written
        (echo x > /link-ro) 2>/dev/null || echo ro-refused
        readlink /proc/self/ns/net; readlink /proc/self/ns/ipc
        mount | grep -E ' on /(sys|sys/fs/cgroup|dev/shm|etc/hosts) '
        cat /proc/self/oom_score_adj
        mount -t tmpfs t /tmp 2>&1 | head -1
        cat /proc/1/cmdline
    "#;
    let out = pod.run(script, &User { uid: 0, gid: 0, additional_gids: vec![0, 77] }, |config| {
        let at = |host: &Path, path: &str, readonly| v1::Mount {
            host_path: host.display().to_string(),
            container_path: path.into(),
            readonly,
            ..Default::default()
        };
        config.mounts = vec![at(&volume, "/vol", false), at(&link, "/link", true), at(&link, "/link-ro", true)];
        config.envs = vec![v1::KeyValue { key: "EXTRA".into(), value: b"x".to_vec() }];
        let limits = v1::LinuxContainerResources {
            oom_score_adj: 500,
            cpu_shares: 128,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 64 << 20,
            ..Default::default()
        };
        config.linux.as_mut().unwrap().resources = Some(limits);
    });
    let has = |text: &str| assert!(out.contains(text), "{text:?} is not in\n{out}");
    has("cwd /tmp env image web-0 x /usr/local/sbin:");
    has("web-0\nweb-0\n");
    has("uid=0 gid=0 groups=0,77");
    has("behind a link/vol\n");
    has("vol-written\n");
    has("ro-refused\n");
    let of = |kind: &str| fs::read_link(format!("/proc/{}/ns/{kind}", pod.pid)).unwrap().display().to_string();
    has(&of("net"));
    has(&of("ipc"));
    assert_ne!(of("net"), fs::read_link("/proc/self/ns/net").unwrap().display().to_string());
    has("sysfs on /sys type sysfs (ro,");
    has(" on /etc/hosts ");
    has("\n500\n");
    has("mount: permission denied");
    has("/bin/sleep");
    assert!(volume.join("x").exists());
}

#[test]
fn privileged_has_the_machine() {
    let pod = Pod::start("priv", |config| {
        let linux = config.linux.as_mut().unwrap();
        linux.security_context = Some(v1::LinuxSandboxSecurityContext { privileged: true, ..Default::default() });
    });
    let script = "mount -t tmpfs t /tmp && echo mounted; mount | grep ' on /sys '; ls /dev; cat /proc/self/status; \
                  echo 1 > /proc/sys/net/ipv4/ip_forward && echo proc-written";
    let out = pod.run(script, &User::default(), |config| {
        let security = security(config);
        security.privileged = true;
        security.masked_paths = DEFAULT_MASKED_PATHS.map(String::from).to_vec();
        security.readonly_paths = DEFAULT_READONLY_PATHS.map(String::from).to_vec();
    });
    for text in ["mounted\n", "sysfs on /sys type sysfs (rw,", "\nkmsg\n", "Seccomp:\t0", "proc-written"] {
        assert!(out.contains(text), "{text:?} is not in\n{out}");
    }
    let ours = fs::read_to_string("/proc/self/status").unwrap();
    let effective = ours.lines().find(|line| line.starts_with("CapEff:")).unwrap();
    assert!(out.contains(effective), "{effective} is not in\n{out}");
}

#[test]
fn capabilities_and_paths_limit() {
    let pod = Pod::start("caps", |_| {});
    let script = "cat /proc/self/status; cat /proc/kcore | head -c 1; echo 1 > /proc/sys/kernel/domainname; \
                  echo x > /file; ls -d /proc/sys";
    let out = pod.run(script, &User { uid: 1000, gid: 1000, additional_gids: vec![1000] }, |config| {
        let security = security(config);
        let list = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        security.capabilities = Some(v1::Capability {
            drop_capabilities: list(&["ALL"]),
            add_capabilities: list(&["NET_BIND_SERVICE"]),
            ..Default::default()
        });
        security.no_new_privs = true;
        security.readonly_rootfs = true;
        security.masked_paths = list(&["/proc/kcore"]);
        security.readonly_paths = list(&["/proc/sys"]);
    });
    for text in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000400",
        "NoNewPrivs:\t1",
        "Uid:\t1000",
        "domainname: Read-only file system",
        "can't create /file: Read-only file system",
    ] {
        assert!(out.contains(text), "{text:?} is not in\n{out}");
    }
}

#[test]
fn the_default_filter_refuses_what_it_must() {
    let pod = Pod::start("seccomp", |config| {
        let profile = v1::SecurityProfile::default();
        let linux = config.linux.as_mut().unwrap();
        linux.security_context = Some(v1::LinuxSandboxSecurityContext { seccomp: Some(profile), ..Default::default() });
    });
    let script = "cat /proc/self/status; unshare -r true; (echo forked)& wait; mkdir /tmp/d && echo made";
    let out = pod.run(script, &User::default(), |config| {
        security(config).seccomp = Some(v1::SecurityProfile::default());
    });
    for text in ["Seccomp:\t2", "unshare: unshare(0x10000000): Operation not permitted", "forked", "made"] {
        assert!(out.contains(text), "{text:?} is not in\n{out}");
    }
}

#[test]
fn devices_and_namespaces_by_request() {
    let pod = Pod::start("dev", |config| {
        let linux = config.linux.as_mut().unwrap();
        linux.sysctls.insert("net.core.somaxconn".into(), "321".into());
    });
    let script = "ls -l /dev/mine; cat /dev/mine | head -c 3 | wc -c; cat /proc/sys/net/core/somaxconn; \
                  cat /proc/sys/net/ipv4/ip_unprivileged_port_start; echo pid $$";
    let out = pod.run(script, &User::default(), |config| {
        config.devices = vec![v1::Device {
            host_path: "/dev/zero".into(),
            container_path: "/dev/mine".into(),
            permissions: "r".into(),
        }];
        let options = v1::NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..Default::default() };
        security(config).namespace_options = Some(options);
    });
    for text in ["1,   5", "\n321\n0\n", "pid 1\n"] {
        assert!(out.contains(text), "{text:?} is not in\n{out}");
    }
}

#[test]
fn refusals_name_the_field() {
    let pod = Pod::start("refuse", |_| {});
    let refused = |change: &dyn Fn(&mut v1::ContainerConfig)| {
        let mut config = v1::ContainerConfig {
            command: vec!["x".into()],
            linux: Some(v1::LinuxContainerConfig {
                security_context: Some(v1::LinuxContainerSecurityContext::default()),
                resources: None,
            }),
            ..Default::default()
        };
        pod.spec(&config, &User::default()).unwrap();
        change(&mut config);
        let error = shared_proto::Error::from(pod.spec(&config, &User::default()).unwrap_err());
        use shared_proto::errdefs::Code;
        let expected = match error.message.contains("not supported") {
            true => Code::Unimplemented,
            false => Code::InvalidArgument,
        };
        assert_eq!(error.code, expected, "{error:?}");
        error.message
    };
    let mount = |change: &dyn Fn(&mut v1::Mount)| {
        let mut mount = v1::Mount { host_path: "/tmp".into(), container_path: "/x".into(), ..Default::default() };
        change(&mut mount);
        refused(&|config| config.mounts = vec![mount.clone()])
    };
    assert_eq!(mount(&|m| m.recursive_read_only = true), "mounts[0].recursive_read_only is not supported");
    assert_eq!(mount(&|m| m.host_path = "x".into()), r#"mounts[0].host_path: "x" is not absolute"#);
    assert!(mount(&|m| m.container_path = "/".into()).starts_with("mounts[0].container_path:"));
    assert!(mount(&|m| m.image = Some(Default::default())).contains("an image as a volume"));
    assert!(mount(&|m| m.propagation = 9).starts_with("mounts[0].propagation:"));
    assert!(refused(&|c| security(c).privileged = true).contains("needs a privileged pod sandbox"));
    assert!(refused(&|c| c.cdi_devices = vec![Default::default()]).contains("CDI_devices"));
    for key in ["cdi.k8s.io/gpu", "io.kubernetes.cri.blockio-class", "io.kubernetes.cri.rdt-class"] {
        let annotated = refused(&|c| drop(c.annotations.insert(key.into(), "gold".into())));
        assert!(annotated.starts_with(&format!("annotation {key:?}")), "{annotated}");
    }
    assert!(refused(&|c| c.command.clear()).starts_with("command:"));
    assert!(
        refused(&|c| c.devices = vec![v1::Device { host_path: "/dev/none".into(), ..Default::default() }])
            .starts_with("devices[0].host_path:")
    );
    let userns = v1::NamespaceOption {
        userns_options: Some(v1::UserNamespace { mode: v1::NamespaceMode::Pod.into(), ..Default::default() }),
        ..Default::default()
    };
    assert!(refused(&|c| security(c).namespace_options = Some(userns.clone())).contains("user namespace"));
    let target = v1::NamespaceOption { pid: v1::NamespaceMode::Target.into(), ..Default::default() };
    assert!(refused(&|c| security(c).namespace_options = Some(target.clone())).contains("target_id"));
}

#[test]
fn a_base_spec_is_below_what_the_request_says() {
    let mut pod = Pod::start("base", |_| {});
    let base = json!({
        "ociVersion": "1.0.2",
        "hostname": "base",
        "process": {
            "cwd": "/nowhere", "args": ["base"], "user": {"uid": 7, "gid": 7}, "terminal": true,
            "env": ["FROM=base", "BASE=yes", "GIVEN=base"],
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 777}],
            "capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_TIME"]},
        },
        "root": {"path": "/base", "readonly": true},
        "annotations": {"base": "kept"},
        "linux": {
            "namespaces": [{"type": "cgroup"}, {"type": "network"}],
            "sysctl": {"net.core.somaxconn": "5"},
            "resources": {"pids": {"limit": 50}, "devices": [{"allow": false, "access": "rwm"}]},
        },
    });
    let base: Spec = serde_json::from_value(base).unwrap();
    // The pod's network is the pod's: such a sysctl is no container's.
    let without = serde_json::from_value({
        let mut value = serde_json::to_value(&base).unwrap();
        value["linux"].as_object_mut().unwrap().remove("sysctl");
        value
    });
    pod.base = Some(without.unwrap());
    let script = "ulimit -Hn; echo $FROM $BASE $GIVEN; hostname; id -u; \
                  touch /x 2>/dev/null || echo read-only; while read name value; do \
                  [ $name = CapBnd: ] && echo $value; done </proc/self/status";
    let given = |config: &mut v1::ContainerConfig| {
        config.envs = vec![v1::KeyValue { key: "GIVEN".into(), value: "request".into() }];
    };
    let output = pod.run(script, &User::default(), given);
    assert_eq!(output, "777\nimage yes request\nweb-0\n0\nread-only\n0000000002000001\n");

    pod.base = Some(base);
    let config = v1::ContainerConfig { command: vec!["x".into()], ..Default::default() };
    let spec = serde_json::to_value(pod.spec(&config, &User::default()).unwrap()).unwrap();
    assert_eq!((&spec["annotations"]["base"], &spec["hostname"]), (&json!("kept"), &json!(null)));
    assert_eq!(spec["linux"]["sysctl"]["net.core.somaxconn"], "5");
    assert_eq!(spec["linux"]["resources"]["pids"]["limit"], 50);
    assert_eq!(spec["root"], json!({"path": "rootfs", "readonly": true}));
    let kinds: Vec<_> = spec["linux"]["namespaces"].as_array().unwrap().iter().map(|n| n["type"].clone()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "network").count(), 1, "{kinds:?}");
}

#[test]
fn base_specs_are_read_once_and_named_when_they_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("base.json");
    let runtime = || shared_config::Runtime { base_runtime_spec: file.display().to_string(), ..Default::default() };
    let runtimes = || [("a".to_owned(), runtime()), ("b".to_owned(), runtime()), ("c".to_owned(), Default::default())];
    let load = || load_bases(&runtimes().into());
    let refused = || shared_proto::Error::from(load().unwrap_err()).message;
    assert!(refused().starts_with(&format!("base_runtime_spec of runtime handler \"a\": {}: ", file.display())));
    for (text, why) in [
        ("{", "no OCI runtime spec"),
        (r#"{"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "user"}]}}"#, "user namespaces"),
    ] {
        fs::write(&file, text).unwrap();
        assert!(refused().contains(why), "{}", refused());
    }
    fs::write(&file, r#"{"ociVersion": "1.0.2"}"#).unwrap();
    assert_eq!(load().unwrap().len(), 1);
}

#[test]
fn propagation_needs_a_mount_that_propagates() {
    let pod = Pod::start("propagation", |_| {});
    let source = pod.dir.path().join("private");
    fs::create_dir(&source).unwrap();
    nix::mount::mount(Some("t"), &source, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    let change = |flags| nix::mount::mount(None::<&str>, &source, None::<&str>, flags, None::<&str>).unwrap();
    let request = |propagation: v1::MountPropagation| {
        let mount = v1::Mount {
            host_path: source.display().to_string(),
            container_path: "/x".into(),
            propagation: propagation.into(),
            ..Default::default()
        };
        let config = v1::ContainerConfig { command: vec!["x".into()], mounts: vec![mount], ..Default::default() };
        let spec = pod.spec(&config, &User::default());
        spec.map(|spec| spec.linux().as_ref().unwrap().rootfs_propagation().clone())
    };
    change(nix::mount::MsFlags::MS_PRIVATE);
    let refused = request(v1::MountPropagation::PropagationBidirectional).unwrap_err().to_string();
    assert!(refused.starts_with("mounts[0].propagation:") && refused.ends_with("is private"), "{refused}");
    assert!(request(v1::MountPropagation::PropagationHostToContainer).is_err());
    assert_eq!(request(v1::MountPropagation::PropagationPrivate).unwrap(), None);
    change(nix::mount::MsFlags::MS_SHARED);
    let bidirectional = request(v1::MountPropagation::PropagationBidirectional).unwrap();
    assert_eq!(bidirectional.as_deref(), Some("rshared"));
    let from_host = request(v1::MountPropagation::PropagationHostToContainer).unwrap();
    assert_eq!(from_host.as_deref(), Some("rslave"));
    nix::mount::umount(&source).unwrap();
}

#[test]
fn volumes_of_the_image_that_nobody_mounts() {
    let image = image(json!({"Volumes": {"/data": {}, "/cache/": {}, "/taken": {}}}));
    let taken = v1::Mount { container_path: "/taken/".into(), ..Default::default() };
    let config = v1::ContainerConfig { mounts: vec![taken], ..Default::default() };
    let volumes = image_volumes(&image, &config, Path::new("/volumes"));
    let targets: Vec<_> = volumes.iter().map(|v| v.container_path.as_str()).collect();
    assert_eq!(targets, ["/cache", "/data"]);
    assert!(volumes.iter().all(|v| v.host_path.starts_with("/volumes/") && v.host_path.len() == 9 + 64));
    assert_eq!(image_volumes(&image, &config, Path::new("/volumes")), volumes, "the same folders each time");
}
