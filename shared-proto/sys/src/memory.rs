//! Keeping a daemon small: memory that was needed once is given back.
//!
//! glibc keeps a heap for each of many threads and holds on to what was freed; a daemon that works in bursts would keep
//! the size of its largest burst. And code is mapped in pieces of 64 KiB around every first use, so after the start a
//! process seems to need all the code that it started with. Both are given back: the heap every minute, the code
//! once, when the start is over. Code that is used again is mapped again, from the page cache, in about a microsecond.

use std::time::Duration;

use tokio::task::AbortHandle;

/// When the start is over.
const SETTLED: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(60);
/// Heaps of glibc; more would only help if more threads allocated at a time.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 2;
/// Blocks from this size on are mapped and unmapped alone, bytes. A fixed value keeps glibc from raising it.
#[cfg(target_env = "gnu")]
const MAPPED: i32 = 256 << 10;

/// Gives memory back until it is dropped.
pub struct Keeper(AbortHandle);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// To be called before threads are started.
pub fn set_up() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets two numbers of the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
    }
}

/// Starts giving back. Must be called inside a runtime, when the start is about over.
pub fn keep_small() -> Keeper {
    let task = tokio::spawn(async {
        tokio::time::sleep(SETTLED).await;
        crate::blocking(|| {
            give_back_heap();
            give_back_code();
        })
        .await;
        loop {
            tokio::time::sleep(PAUSE).await;
            crate::blocking(give_back_heap).await;
        }
    });
    Keeper(task.abort_handle())
}

fn give_back_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps the pages of this program's code; the kernel maps those that are used again.
fn give_back_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let own = std::env::current_exe().unwrap_or_default();
    for (start, end) in maps.lines().filter_map(|line| code(line, &own.to_string_lossy())) {
        // SAFETY: the range is a mapping of a file, not writable, so no page of it differs from the file: to drop the
        // pages changes no byte that the program can see.
        unsafe {
            libc::madvise(std::ptr::without_provenance_mut(start), end - start, libc::MADV_DONTNEED);
        }
    }
}

/// The range of a line like `5581-5592 r-xp 00001000 fd:00 123 /usr/bin/core-daemon`, if it is code of `file`.
fn code(line: &str, file: &str) -> Option<(usize, usize)> {
    let (range, rest) = line.split_once(' ')?;
    if !rest.starts_with("r-xp ") || !rest.ends_with(&format!(" {file}")) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_itself_is_meant() {
        let line = "1000-3000 r-xp 00001000 fd:00 123                        /usr/bin/core-daemon";
        assert_eq!(code(line, "/usr/bin/core-daemon"), Some((0x1000, 0x3000)));
        assert_eq!(code(line, "/usr/bin/daemon"), None);
        for line in [
            "1000-3000 r--p 00001000 fd:00 123 /usr/bin/core-daemon",
            "1000-3000 rwxp 00001000 fd:00 123 /usr/bin/core-daemon",
            "1000-3000 r-xp 00001000 fd:00 123 /usr/lib/libc.so.6",
            "1000-3000 r-xp 00000000 00:00 0",
        ] {
            assert_eq!(code(line, "/usr/bin/core-daemon"), None, "{line}");
        }
    }

    #[test]
    fn a_program_goes_on_without_its_code() {
        give_back_heap();
        give_back_code();
        assert_eq!((1..=4).product::<i32>(), 24);
    }
}
