//! Every point at which a kill can hit, by dropping the pump between two steps.

use std::io::Write;

use shared_sys::fifo;

use super::super::tap::Taps;
use super::*;

struct Rig {
    dir: tempfile::TempDir,
    input: LogInput,
    /// Both ends, as a shim holds them.
    shim: File,
}

fn rig() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let stdout = dir.path().join("stdout");
    fifo::make(&stdout, 0o600).unwrap();
    let shim = fifo::open_both(&stdout).unwrap();
    let log_path = Some(dir.path().join("0.log"));
    let input = LogInput { id: "c".into(), stdout: Some(stdout), stderr: None, log_path, max_line: 8 };
    Rig { dir, input, shim }
}

impl Rig {
    fn write(&mut self, text: &str) {
        self.shim.write_all(text.as_bytes()).unwrap();
    }

    fn open(&self) -> Pump {
        Pump::open(&self.input, Taps::default().feed()).unwrap()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("0.log")
    }

    /// The entries, without their times.
    fn entries(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap();
        text.lines().map(|line| line.splitn(3, ' ').nth(2).unwrap().to_owned() + ";").collect()
    }

    /// A new pump goes on and the container ends.
    fn finish(&self) -> String {
        let mut pump = self.open();
        assert!(matches!(pump.turn(false).unwrap(), Turn::Idle(_)));
        pump.close();
        assert!(matches!(pump.turn(true).unwrap(), Turn::Idle(_)));
        self.entries()
    }
}

/// What the log must hold in the end, wherever the kill came: identical lines, a long one, an unfinished one.
const OUTPUT: &str = "same\nsame\nsame\n0123456789\nrest";
const ENTRIES: &str = "F same;F same;F same;P 01234567;F 89;P rest;";

#[test]
fn killed_between_any_two_steps() {
    for steps in 0..=6 {
        let mut rig = rig();
        rig.write(OUTPUT);
        let mut pump = rig.open();
        let mut step = 0;
        let mut go = || {
            step += 1;
            step <= steps
        };
        // The order of `turn`, step by step.
        let _ = go() && pump.stage(0, false).unwrap() == OUTPUT.len();
        let _ = go() && pump.announce(0, Ending::Open).unwrap();
        let _ = go() && pump.flush().is_ok();
        let _ = go() && pump.settle().is_ok();
        let _ = go() && pump.turn(false).is_ok();
        let _ = go() && pump.trim(0, true).is_ok();
        drop(pump);
        assert_eq!(rig.finish(), ENTRIES, "killed after step {steps}");
    }
}

#[test]
fn killed_while_appending() {
    for fraction in 0..=10 {
        let mut rig = rig();
        rig.write(OUTPUT);
        let mut pump = rig.open();
        pump.stage(0, false).unwrap();
        pump.announce(0, Ending::Open).unwrap();
        let text = pump.pending.take().unwrap().text;
        let cut = text.len() * fraction / 10;
        fs::OpenOptions::new().append(true).open(rig.log()).unwrap().write_all(&text[..cut]).unwrap();
        drop(pump);
        assert_eq!(rig.finish(), ENTRIES, "{cut} bytes");
        assert_eq!(&fs::read(rig.log()).unwrap()[..text.len()], text, "the same times");
    }
}

#[test]
fn a_batch_that_ends_with_a_part_of_a_line() {
    let mut rig = rig();
    rig.write("0123456789");
    let mut pump = rig.open();
    pump.stage(0, false).unwrap();
    assert!(pump.announce(0, Ending::Open).unwrap());
    drop(pump);
    assert_eq!(rig.finish(), "P 01234567;P 89;");
}

#[test]
fn killed_while_a_spool_is_emptied() {
    for emptied in [false, true] {
        let mut rig = rig();
        rig.write("a\nb\n");
        let mut pump = rig.open();
        pump.turn(false).unwrap();
        let mut record = pump.record(None);
        record.emptying[0] = true;
        pump.journal.1.write(&record).unwrap();
        if emptied {
            pump.streams[0].as_mut().unwrap().clear().unwrap();
        }
        drop(pump);
        rig.write("longer than before\n");
        assert_eq!(rig.finish(), "F a;F b;P longer t;P han befo;F re;");
    }
}

#[test]
fn a_log_renamed_after_the_kill_is_completed() {
    let mut rig = rig();
    rig.write("one\ntwo\n");
    let mut pump = rig.open();
    pump.stage(0, false).unwrap();
    pump.announce(0, Ending::Open).unwrap();
    let half = pump.pending.as_ref().unwrap().text.len() / 2;
    let text = pump.pending.as_ref().unwrap().text[..half].to_vec();
    fs::OpenOptions::new().append(true).open(rig.log()).unwrap().write_all(&text).unwrap();
    drop(pump);
    let old = rig.dir.path().join("0.log.old");
    fs::rename(rig.log(), &old).unwrap();
    rig.write("three\n");
    assert_eq!(rig.finish(), "F three;");
    assert_eq!(fs::read_to_string(old).unwrap().lines().count(), 2);
}

#[test]
fn a_busy_spool_gives_space_back() {
    use std::os::unix::fs::MetadataExt;
    let mut rig = rig();
    rig.input.max_line = 16384;
    let mut pump = rig.open();
    let line = "x".repeat(999) + "\n";
    // Chunks never end with a line, so the spool is never wholly in the log.
    let (mut sent, mut pending) = (0, String::from("begin "));
    while sent < 5 << 20 {
        pending += &line.repeat(40);
        let cut = pending.len() - 500;
        rig.write(&pending[..cut]);
        sent += cut;
        pending.drain(..cut);
        pump.turn(false).unwrap();
    }
    let spool = fs::metadata(rig.dir.path().join("stdout.spool")).unwrap();
    assert!(spool.len() > 4 << 20 && spool.blocks() * 512 < 3 << 20, "{} {}", spool.len(), spool.blocks());
    rig.write(&pending);
    drop(pump);
    let entries = rig.finish();
    assert!(entries.starts_with("F begin x") && entries.ends_with(&format!("F {};", "x".repeat(999))));
    assert_eq!(fs::metadata(rig.dir.path().join("stdout.spool")).unwrap().len(), 0);
}

#[test]
fn a_full_disk_loses_whole_batches_only() {
    let dir = tempfile::tempdir().unwrap();
    nix::mount::mount(Some("t"), dir.path(), Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=64k")).unwrap();
    let mut rig = rig();
    rig.input.log_path = Some(dir.path().join("logs/0.log"));
    rig.input.max_line = 16384;
    let mut pump = rig.open();
    rig.write("before\n");
    pump.turn(false).unwrap();
    let filler = dir.path().join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write(&[0; 4096]).is_ok() {}
    drop(file);
    let line = "y".repeat(8000) + "\n";
    rig.write(&line);
    rig.write("after\n");
    let Turn::Stuck(reason) = pump.turn(false).unwrap() else { panic!("the disk is full") };
    assert!(matches!(pump.turn(false).unwrap(), Turn::Stuck(_)), "nothing is lost yet");
    pump.give_up(&reason);
    assert!(pump.dropping());
    fs::remove_file(&filler).unwrap();
    rig.write("again\n");
    pump.turn(false).unwrap();
    assert!(!pump.dropping());
    drop(pump);
    let text = fs::read_to_string(dir.path().join("logs/0.log")).unwrap();
    let tails: Vec<_> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    nix::mount::umount(dir.path()).unwrap();
    assert_eq!(tails, ["before", "again"]);
}
