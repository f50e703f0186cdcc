//! Cgroup files. What the kernel doesn't offer reads as nothing, as clients expect it.

use std::fs;
use std::path::Path;

/// A whole file; empty where it is missing.
pub fn text(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_default()
}

/// A file with one number; `max` is the largest one, a missing file 0.
pub fn number(folder: &Path, name: &str) -> u64 {
    parse(text(folder, name).trim())
}

pub fn parse(word: &str) -> u64 {
    if word == "max" { u64::MAX } else { word.parse().unwrap_or(0) }
}

/// Lines of `key value`, handed to `each`.
pub fn fields(text: &str, mut each: impl FnMut(&str, u64)) {
    for line in text.lines() {
        if let Some((key, value)) = line.split_once(' ') {
            each(key, parse(value));
        }
    }
}

/// The limit of processes; none is 0 here.
pub fn pids_limit(folder: &Path) -> u64 {
    let limit = text(folder, "pids.max");
    if limit.trim() == "max" { 0 } else { parse(limit.trim()) }
}

/// The sizes of huge pages that have a file `hugetlb.SIZE` and this suffix. Reserved pages are counted elsewhere.
pub fn page_sizes(folder: &Path, suffix: &'static str) -> impl Iterator<Item = String> {
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(move |entry| {
        let name = entry.file_name().into_string().ok()?;
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?.to_owned();
        (!size.contains("rsvd")).then_some(size)
    })
}
