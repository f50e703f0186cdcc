//! CNI and an OCI runtime that do next to nothing, so that what is left of a pod's start is ours, and can be told apart.
//!
//! The plugin answers an address without making an interface. The runtime is `stub-engine` (see there). Should it ever
//! leave a process in the cgroup that it was started in, whoever kills the whole container kills all of that: so the core
//! is put into a cgroup of its own, which holds the harm within its world. Data lies in memory.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use e2e::config::Options;
use e2e::daemon::binary;
use e2e::{Wiring, World};

use crate::trio;

/// A filesystem in memory, so that no disk's fsync is among the times.
const MEMORY: &str = "/dev/shm";

const PLUGIN: &str = r#"#!/bin/sh
case $CNI_COMMAND in
ADD) echo '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"version":"4","interface":0,"address":"10.88.0.2/16"}]}' ;;
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.4.0"]}' ;;
esac
"#;

/// Options of a world with both stubs; [`all`] has to follow.
pub fn options(wiring: Wiring) -> Options {
    let parent = Path::new(MEMORY).is_dir().then(|| PathBuf::from(MEMORY));
    Options { engine: Some(binary("stub-engine")), parent, ..trio::options(wiring) }
}

/// Puts the stubs into a prepared world.
pub fn all(world: &mut World) {
    network(world);
    contain(world);
}

/// Only the network: pods are as many as are wanted, with one address for all.
pub fn network(world: &mut World) {
    write(&world.paths.cni_bin.join("stub-network"), PLUGIN, 0o755);
    let list = r#"{"cniVersion":"0.4.0","name":"stub","plugins":[{"type":"stub-network"}]}"#;
    write(&world.paths.cni_conf.join("10-seam.conflist"), list, 0o644);
}

/// Starts the core in a cgroup of its own.
fn contain(world: &mut World) {
    let mut script = String::from("#!/bin/sh\n");
    for cgroup in world.slot.cgroups() {
        let own = cgroup.join("daemons");
        std::fs::create_dir_all(&own).unwrap_or_else(|e| panic!("make {}: {e}", own.display()));
        // One hierarchy takes nobody before it is told which CPUs are his.
        script += &format!("echo $$ 2>/dev/null >{}/cgroup.procs || :\n", own.display());
    }
    let core = world.options.core_binary.clone().unwrap_or_else(|| binary("core-daemon"));
    script += &format!("exec {} \"$@\"\n", core.display());
    let path = world.paths.dir.join("contained-core");
    write(&path, &script, 0o755);
    world.options.core_binary = Some(path);
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set a mode");
}
