//! Debian's `ctr`, unchanged, at work on overlays: it mounts what we answer by itself.

use std::path::Path;

use shared_sys::mount::unmount;
use tokio::process::Command;

use super::ctr_tests::Ctr;
use crate::testing::Node;

impl Ctr {
    async fn snapshots(&self, args: &[&str]) -> String {
        self.run(&[&["snapshots"][..], args].concat()).await
    }

    /// Mounts a snapshot with the commands that `ctr` prints, runs a script in it, and takes it off again.
    async fn inside(&self, key: &str, target: &Path, script: &str) {
        let commands = self.snapshots(&["mounts", target.to_str().unwrap(), key]).await;
        let whole = format!("set -e; {commands}\ncd {} && {{ {script}; }}", target.display());
        let done = Command::new("sh").arg("-c").arg(whole).output().await.unwrap();
        unmount(target).unwrap();
        assert!(done.status.success(), "{commands}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_on_overlays() {
    let node = Node::new().await;
    let (socket, _server) = node.over_socket();
    let ctr = Ctr { socket };
    let target = node.dir.path().join("target");
    std::fs::create_dir(&target).unwrap();

    ctr.snapshots(&["prepare", "first"]).await;
    ctr.inside("first", &target, "mkdir etc old; echo one > etc/f; echo x > old/gone; chmod 750 etc").await;
    ctr.snapshots(&["commit", "base", "first"]).await;
    ctr.snapshots(&["prepare", "second", "base"]).await;
    ctr.inside("second", &target, "grep -q one etc/f; echo two > etc/f; rm -r old; mkdir -m 700 new; ln etc/f new/f")
        .await;

    let list = ctr.snapshots(&["ls"]).await;
    let row =
        |key: &str| list.lines().find(|line| line.starts_with(key)).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!((row("base"), row("second")), (vec!["base", "Committed"], vec!["second", "base", "Active"]));
    assert!(ctr.snapshots(&["usage", "second"]).await.contains("second"));
    ctr.snapshots(&["label", "base", "colour=blue"]).await;
    assert!(ctr.snapshots(&["info", "base"]).await.contains(r#""colour": "blue""#));
    assert!(ctr.attempt(&["snapshots", "rm", "base"]).await.unwrap_err().contains("has children"));
    assert!(ctr.attempt(&["snapshots", "prepare", "x", "absent"]).await.unwrap_err().contains("not found"));
    assert!(ctr.attempt(&["snapshots", "--snapshotter", "zfs", "ls"]).await.unwrap_err().contains("zfs"));

    // The layer of the change, as `ctr` saves it, and back again through GNU tar's eyes.
    let layer = node.dir.path().join("layer.tar.gz");
    let save = format!("ctr -a {} snapshots diff second > {}", ctr.socket.display(), layer.display());
    assert!(Command::new("sh").arg("-c").arg(save).status().await.unwrap().success());
    let names = Command::new("tar").arg("-tzf").arg(&layer).output().await.unwrap();
    let names = String::from_utf8(names.stdout).unwrap();
    assert_eq!(names.lines().collect::<Vec<_>>(), ["etc/", "etc/f", "new/", "new/f", ".wh.old"]);
    // Its lease is gone, and so it goes.
    node.gc.collect().await.unwrap();
    assert_eq!(ctr.run(&["content", "ls", "-q"]).await, "");

    for key in ["second", "base"] {
        ctr.snapshots(&["rm", key]).await;
    }
    assert_eq!(ctr.snapshots(&["ls"]).await.lines().count(), 1);
    node.snapshots.cleanup("overlayfs").await.unwrap();
    assert_eq!(std::fs::read_dir(node.dir.path().join("overlayfs/snapshots")).unwrap().count(), 0);
}
