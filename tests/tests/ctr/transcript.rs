//! One script, run by bash against one daemon, and what each command said.
//!
//! A script is a text file. A line that begins with `$` is a command that succeeds, one with `!` a command that is
//! refused, one with `>` goes on with the command before; all else is explanation. `needs COMMAND` leaves the script
//! out where that command fails.
//!
//! A script has a bash, a folder and a namespace of its own. It finds, beside the functions of `prelude.sh`:
//!
//! | variable | what it is |
//! |---|---|
//! | `CONTAINERD_ADDRESS`, `CONTAINERD_NAMESPACE` | which daemon and namespace `ctr` talks to |
//! | `REGISTRY` | address of a registry with `library/busybox:1.36`, `e2e/layered:1`, `e2e/docker:1` |
//! | `IMAGES` | the folder of `busybox.tar`, `docker.tar`, `layered.tar`, named `example.com/NAME:1` |
//! | `FIFOS` | a folder for the streams of what outlives its `ctr`, which nobody removes |

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use e2e::World;

use crate::mask::Mask;

/// A parsed script.
#[derive(Debug)]
pub struct Script {
    pub name: String,
    pub steps: Vec<Step>,
    /// The command by which the machine shows that it lacks something.
    pub lacks: Option<String>,
}

/// One command of a script.
#[derive(Debug)]
pub struct Step {
    /// Its line in the file.
    pub line: usize,
    pub command: String,
    pub refused: bool,
}

impl Script {
    pub fn read(path: &Path) -> Self {
        let name = path.file_stem().expect("a file's name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        let mut script = Self { name, steps: Vec::new(), lacks: None };
        for (number, line) in text.lines().enumerate() {
            let step = |command: &str, refused| Step { line: number + 1, command: command.to_owned(), refused };
            if let Some(command) = line.strip_prefix("$ ") {
                script.steps.push(step(command, false));
            } else if let Some(command) = line.strip_prefix("! ") {
                script.steps.push(step(command, true));
            } else if let Some(more) = line.strip_prefix("> ") {
                let last = script.steps.last_mut().expect("a command to go on with");
                last.command = format!("{}\n{more}", last.command);
            } else if let Some(command) = line.strip_prefix("needs ") {
                let tried = std::process::Command::new("bash").args(["-c", command]).output().expect("run bash");
                script.lacks = (!tried.status.success()).then(|| command.to_owned());
            }
        }
        script
    }

    /// What bash is given: each command with its own files for output, errors and exit code.
    fn program(&self) -> String {
        let mut program = format!("set -o pipefail\n. {}\n", here("prelude.sh").display());
        for (number, step) in self.steps.iter().enumerate() {
            let _ = writeln!(
                program,
                "{{ {}\n}} >\"$OUT/{number}.out\" 2>\"$OUT/{number}.err\" </dev/null\necho $? >\"$OUT/{number}.code\"",
                step.command
            );
        }
        program
    }
}

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ctr").join(name)
}

/// What each command of a script said, masked. Empty for a script that was left out.
#[derive(Debug)]
pub struct Transcript(pub Vec<Said>);

/// What one command said.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// 1000 = it did not end.
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// All of it as lines, the exit code last.
    pub fn lines(&self) -> Vec<String> {
        let all = self.out.lines().chain(self.err.lines()).map(str::to_owned);
        all.chain([format!("exit {}", self.code)]).collect()
    }
}

impl Transcript {
    /// As one would see it in a terminal.
    pub fn text(&self, script: &Script) -> String {
        let mut text = String::new();
        for (step, said) in script.steps.iter().zip(&self.0) {
            let _ = writeln!(text, "$ {}", step.command.replace('\n', "\n> "));
            for line in said.lines() {
                let _ = writeln!(text, "  {line}");
            }
        }
        text
    }
}

/// Runs a script against a world's core.
pub async fn run(world: &World, script: &Script, limit: Duration) -> Transcript {
    if script.lacks.is_some() {
        return Transcript(Vec::new());
    }
    let dir = world.paths.dir.join("scripts").join(&script.name);
    let out = dir.join("said");
    std::fs::create_dir_all(&out).expect("make a script's folder");
    let namespace = format!("{}-{}", world.slot.name(), script.name);
    let program = dir.join("program.sh");
    std::fs::write(&program, script.program()).expect("write a script");
    let mut bash = tokio::process::Command::new("bash");
    bash.arg(&program)
        .current_dir(&dir)
        .env("CONTAINERD_ADDRESS", &world.paths.core_socket)
        .env("CONTAINERD_NAMESPACE", &namespace)
        .env("REGISTRY", world.registry.address().to_string())
        .env("IMAGES", &world.paths.dir)
        .env("FIFOS", dir.join("fifos"))
        .env("OUT", &out)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .process_group(0);
    let mut bash = bash.spawn().expect("run bash");
    let group = nix::unistd::Pid::from_raw(bash.id().expect("bash runs") as i32);
    // A script that hangs is shown up to the command that did not end.
    let _ = tokio::time::timeout(limit, bash.wait()).await;
    // What it left in the background goes too; fails when there is nothing.
    let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    let _ = bash.wait().await;
    let mask = Mask::of(world);
    let said = (0..script.steps.len()).map(|number| {
        let read = |kind: &str| {
            let bytes = std::fs::read(out.join(format!("{number}.{kind}"))).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let code = read("code").trim().parse().unwrap_or(1000);
        Said { code, out: mask.apply(&read("out")), err: mask.apply(&read("err")) }
    });
    Transcript(said.collect())
}
