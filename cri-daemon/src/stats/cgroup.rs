//! One cgroup, its files held open.
//!
//! A look is one `pread` from offset 0 a file, with no look-up of paths: the kernel writes the text anew for each.
//! Files that this kernel does not have are left out. When the cgroup is removed, reading fails with ENODEV.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::StatsError;
use super::parse::{self, Reading};
use super::place::Place;

/// See the [module](self).
#[derive(Debug)]
pub struct Cgroup {
    id: String,
    files: Files,
}

#[derive(Debug)]
enum Files {
    V1 { usage: File, memory: File, memory_stat: File, pids: Option<File> },
    V2(Box<V2>),
}

#[derive(Debug)]
struct V2 {
    cpu_stat: File,
    memory: Option<File>,
    memory_stat: Option<File>,
    memory_max: Option<File>,
    swap: Option<File>,
    swap_max: Option<File>,
    pids: Option<File>,
    cpu_pressure: Option<File>,
    memory_pressure: Option<File>,
    io_pressure: Option<File>,
}

/// Room for a file's text; used for one after the other.
pub type Buffer = Vec<u8>;

impl Cgroup {
    /// The most files that one holds open.
    pub const FILES: u64 = 10;

    /// Opens the files of `id`'s cgroup. Blocks.
    pub fn open(id: &str, place: &Place) -> Result<Self, StatsError> {
        let open = |dir: &Path, name: &str| {
            let path = dir.join(name);
            File::open(&path).map_err(|e| StatsError::of(id, path, e))
        };
        let files = match place {
            Place::V1 { cpuacct, memory, pids } => Files::V1 {
                usage: open(cpuacct, "cpuacct.usage")?,
                memory: open(memory, "memory.usage_in_bytes")?,
                memory_stat: open(memory, "memory.stat")?,
                pids: pids.as_ref().and_then(|pids| open(pids, "pids.current").ok()),
            },
            Place::V2(dir) => Files::V2(Box::new(V2 {
                cpu_stat: open(dir, "cpu.stat")?,
                memory: open(dir, "memory.current").ok(),
                memory_stat: open(dir, "memory.stat").ok(),
                memory_max: open(dir, "memory.max").ok(),
                swap: open(dir, "memory.swap.current").ok(),
                swap_max: open(dir, "memory.swap.max").ok(),
                pids: open(dir, "pids.current").ok(),
                cpu_pressure: open(dir, "cpu.pressure").ok(),
                memory_pressure: open(dir, "memory.pressure").ok(),
                io_pressure: open(dir, "io.pressure").ok(),
            })),
        };
        Ok(Self { id: id.to_owned(), files })
    }

    /// Everything. Blocks, for the kernel's own work only.
    pub fn read(&self, buffer: &mut Buffer) -> Result<Reading, StatsError> {
        let cpu = self.cpu(buffer)?;
        match &self.files {
            Files::V1 { memory, memory_stat, pids, .. } => {
                let usage = self.text(memory, buffer, parse::number)?.unwrap_or_default();
                let memory = self.text(memory_stat, buffer, |text| parse::v1_memory(usage, text))?;
                let processes = self.text_of(pids.as_ref(), buffer, parse::number)?;
                Ok(Reading { cpu, memory: Some(memory), processes, ..Reading::default() })
            }
            Files::V2(files) => {
                let memory = match self.text_of(files.memory.as_ref(), buffer, parse::number)? {
                    Some(current) => {
                        let max = self.text_of(files.memory_max.as_ref(), buffer, parse::number)?;
                        let swap = self.text_of(files.swap.as_ref(), buffer, parse::number)?;
                        let swap_max = self.text_of(files.swap_max.as_ref(), buffer, parse::number)?;
                        self.text_of(files.memory_stat.as_ref(), buffer, |stat| {
                            Some(parse::v2_memory(current, max, stat, swap, swap_max))
                        })?
                    }
                    None => None,
                };
                Ok(Reading {
                    cpu,
                    memory,
                    processes: self.text_of(files.pids.as_ref(), buffer, parse::number)?,
                    cpu_pressure: self.pressure(files.cpu_pressure.as_ref(), buffer),
                    memory_pressure: self.pressure(files.memory_pressure.as_ref(), buffer),
                    io_pressure: self.pressure(files.io_pressure.as_ref(), buffer),
                })
            }
        }
    }

    /// Processor time since the cgroup was made, nanoseconds. Blocks, for the kernel's own work only.
    pub fn cpu(&self, buffer: &mut Buffer) -> Result<Option<u64>, StatsError> {
        match &self.files {
            Files::V1 { usage, .. } => self.text(usage, buffer, parse::number),
            Files::V2(files) => self.text(&files.cpu_stat, buffer, parse::v2_cpu),
        }
    }

    fn text<T>(&self, file: &File, buffer: &mut Buffer, parse: impl FnOnce(&str) -> T) -> Result<T, StatsError> {
        read(file, buffer).map(|text| parse(&text)).map_err(|e| StatsError::of(&self.id, "a cgroup file", e))
    }

    fn text_of<T>(
        &self,
        file: Option<&File>,
        buffer: &mut Buffer,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, StatsError> {
        file.map_or(Ok(None), |file| self.text(file, buffer, parse))
    }

    /// A kernel may have the file and refuse to read it, when pressure is switched off at boot.
    fn pressure(&self, file: Option<&File>, buffer: &mut Buffer) -> Option<parse::Pressure> {
        self.text_of(file, buffer, parse::pressure).ok().flatten()
    }
}

/// The whole text of a file, from its begin.
fn read<'a>(file: &File, buffer: &'a mut Buffer) -> io::Result<std::borrow::Cow<'a, str>> {
    if buffer.is_empty() {
        buffer.resize(8 << 10, 0);
    }
    loop {
        let length = file.read_at(buffer, 0)?;
        if length < buffer.len() {
            return Ok(String::from_utf8_lossy(&buffer[..length]));
        }
        buffer.resize(buffer.len() * 2, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_anew_through_the_same_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("cpuacct.usage", "100\n");
        write("memory.usage_in_bytes", "5000\n");
        write("memory.stat", "total_rss 3000\ntotal_inactive_file 1000\n");
        let place =
            Place::V1 { cpuacct: dir.path().into(), memory: dir.path().into(), pids: Some(dir.path().join("none")) };
        let cgroup = Cgroup::open("c", &place).unwrap();
        let mut buffer = vec![0; 4];
        let reading = cgroup.read(&mut buffer).unwrap();
        assert_eq!((reading.cpu, reading.processes), (Some(100), None));
        assert_eq!(reading.memory.unwrap().working_set, 4000, "a text longer than the buffer is read in whole");
        write("cpuacct.usage", "250\n");
        assert_eq!(cgroup.cpu(&mut buffer).unwrap(), Some(250));
    }

    #[test]
    fn version_2_lives_without_what_the_kernel_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::V2(dir.path().into());
        assert!(matches!(Cgroup::open("c", &place), Err(StatsError::Gone { .. })));
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("cpu.stat", "usage_usec 7\n");
        let mut buffer = Buffer::new();
        let reading = Cgroup::open("c", &place).unwrap().read(&mut buffer).unwrap();
        assert_eq!(reading, Reading { cpu: Some(7000), ..Reading::default() });

        write("memory.current", "4096\n");
        write("memory.max", "max\n");
        write("memory.stat", "anon 1024\n");
        write("pids.current", "3\n");
        write("cpu.pressure", "some avg10=0.50 avg60=0.00 avg300=0.00 total=9\n");
        let reading = Cgroup::open("c", &place).unwrap().read(&mut buffer).unwrap();
        assert_eq!((reading.processes, reading.memory.unwrap().rss), (Some(3), 1024));
        assert_eq!((reading.memory.unwrap().limit, reading.memory.unwrap().swap), (None, None));
        assert_eq!(reading.cpu_pressure.unwrap().some.total, 9000);
    }

    /// The real files of this machine, and a real cgroup that vanishes.
    #[test]
    fn reads_a_real_cgroup() {
        let all = super::super::place::Finder::new().unwrap();
        let name = format!("seam-stats-test-{}", std::process::id());
        let place = all.at(&Path::new("/").join(&name)).unwrap();
        let dirs = match &place {
            Place::V1 { cpuacct, memory, pids } => {
                let mut dirs = vec![cpuacct.clone(), memory.clone()];
                dirs.extend(pids.clone());
                dirs
            }
            Place::V2(dir) => vec![dir.clone()],
        };
        if std::fs::create_dir(&dirs[0]).is_err() {
            eprintln!("not tried: {} can't be made here", dirs[0].display());
            return;
        }
        for dir in &dirs[1..] {
            let _ = std::fs::create_dir(dir);
        }
        let cgroup = Cgroup::open(&name, &place).unwrap();
        let mut buffer = Buffer::new();
        let reading = cgroup.read(&mut buffer).unwrap();
        assert_eq!((reading.cpu, reading.processes), (Some(0), Some(0)));
        assert!(reading.memory.is_some());
        for dir in &dirs {
            let _ = std::fs::remove_dir(dir);
        }
        assert!(matches!(cgroup.read(&mut buffer), Err(StatsError::Gone { .. })));
    }
}
