//! Debian's `ctr`, unchanged, on the core socket.
//!
//! [`as_containerd`] is the larger part: the transcripts in `scripts/` are run against our core and against Debian's
//! containerd, and what `ctr` says must be the same, exit codes and words of refusals included. Names that no two
//! daemons share (times, paths, process numbers) are masked, see [`mask`]; every other difference that stays is in
//! the tables of [`differences`]. What was said lies in `target/tmp/ctr` afterwards, a file a script.
//!
//! [`transcript`] runs one script; its header says how a script is written. `SEAM_SCRIPT=NAME` runs that one only.
//! [`pods`]: what `ctr` sees of a pod.
//!
//! Limit: what depends on the moment is not compared: the progress of transfers, sizes of a cgroup's memory.

mod compare;
mod differences;
mod mask;
mod pods;
mod transcript;

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::config::Options;
use e2e::fixtures::fixtures;
use e2e::inventory::Inventory;
use e2e::{Wiring, World};
use tokio::sync::OnceCell;

use pods::{ctr_runs_its_own_containers, ctr_sees_events, ctr_sees_the_pod};
use transcript::{Script, Transcript};

e2e::wirings!(ctr_sees_the_pod, ctr_sees_events, ctr_runs_its_own_containers, as_containerd);

/// The same commands against our core and against Debian's containerd, and what came of them compared.
async fn as_containerd(wiring: Wiring) {
    let scripts = scripts();
    let options = Options::new(wiring);
    let (ours, theirs) = tokio::join!(record(wiring.name(), &scripts, options, wiring), containerd(&scripts));
    let (transcripts, world, before) = ours;
    let failures = compare::compare(&scripts, theirs, &transcripts);
    assert!(failures.is_empty(), "{} differ from containerd\n{}", failures.len(), failures.join("\n"));
    world.assert_as_before(&before).await;
}

/// The transcripts of Debian's containerd, which is started once for the three wirings.
async fn containerd(scripts: &[Script]) -> &'static [Transcript] {
    static TRANSCRIPTS: OnceCell<Vec<Transcript>> = OnceCell::const_new();
    let options = Options { peer: Some("containerd"), ..Options::new(Wiring::Split) };
    let record = || async { record("containerd", scripts, options, Wiring::Split).await.0 };
    TRANSCRIPTS.get_or_init(record).await
}

/// Runs all scripts in a world of its own. Answers the world as well, and how it was before.
async fn record(
    whom: &str,
    scripts: &[Script],
    options: Options,
    wiring: Wiring,
) -> (Vec<Transcript>, World, Inventory) {
    let world = World::start(wiring, options).await;
    let before = world.inventory().await;
    archives(&world);
    let mut transcripts = Vec::new();
    for script in scripts {
        let transcript = transcript::run(&world, script, Duration::from_secs(120)).await;
        keep(whom, script, &transcript);
        transcripts.push(transcript);
    }
    (transcripts, world, before)
}

/// The images that the scripts import, as files beside their folders.
fn archives(world: &World) {
    let images = fixtures();
    for (name, archive) in [
        ("busybox.tar", images.busybox.oci_archive("example.com/busybox:1")),
        ("docker.tar", images.docker.docker_archive(&["example.com/docker:1"])),
        ("layered.tar", images.layered.oci_archive("example.com/layered:1")),
    ] {
        std::fs::write(world.paths.dir.join(name), archive).unwrap_or_else(|e| panic!("write {name}: {e}"));
    }
}

/// Every script, or the one that the environment names.
fn scripts() -> Vec<Script> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ctr/scripts");
    let only = std::env::var("SEAM_SCRIPT").ok();
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("read {}: {e}", dir.display()));
    let paths = entries.map(|entry| entry.expect("read the folder of scripts").path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "txt")).collect();
    paths.sort();
    let all = paths.iter().map(|path| Script::read(path));
    let scripts: Vec<Script> = all.filter(|s| only.as_ref().is_none_or(|only| s.name == *only)).collect();
    assert!(!scripts.is_empty(), "no script in {} is called {only:?}", dir.display());
    scripts
}

/// Leaves what was said where it can be read.
fn keep(whom: &str, script: &Script, transcript: &Transcript) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ctr").join(whom);
    std::fs::create_dir_all(&dir).expect("make the folder of transcripts");
    std::fs::write(dir.join(format!("{}.txt", script.name)), transcript.text(script)).expect("write a transcript");
}
