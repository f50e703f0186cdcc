//! Values of resources that no kernel takes, told before anything is made of them.
//!
//! Each answer names the field. What is left to the kernel: how much of a thing this machine has.

use super::SpecError;

/// Microseconds; the kernel's own bounds for a period, and the least quota.
const PERIOD: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
const LEAST_QUOTA: i64 = 1_000;

fn invalid(name: &str, problem: String) -> SpecError {
    SpecError::invalid(format!("linux.resources.{name}"), problem)
}

/// `None` and -1 mean no limit.
pub(super) fn cpu(period: Option<u64>, quota: Option<i64>) -> Result<(), SpecError> {
    if let Some(period) = period
        && !PERIOD.contains(&period)
    {
        let problem = format!("{period} is not in {}..{} microseconds", PERIOD.start(), PERIOD.end());
        return Err(invalid("cpu_period", problem));
    }
    match quota {
        Some(quota @ 0..LEAST_QUOTA) => {
            Err(invalid("cpu_quota", format!("{quota} is less than {LEAST_QUOTA} microseconds")))
        }
        Some(_) | None => Ok(()),
    }
}

/// A list like `0-3,8`; empty = not set.
pub(super) fn set(name: &str, text: &str) -> Result<Option<String>, SpecError> {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    let part = |part: &str| match part.split_once('-') {
        Some((first, last)) => matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last),
        None => number(part).is_some(),
    };
    match text.trim() {
        "" => Ok(None),
        list if list.split(',').all(part) => Ok(Some(list.to_owned())),
        list => Err(invalid(name, format!("{list:?} is no list like 0-3,8"))),
    }
}

/// A page size as the kernel writes it: `64KB`, `2MB`, `1GB`.
pub(super) fn page_size(index: usize, text: &str) -> Result<(), SpecError> {
    let number = ["KB", "MB", "GB"].into_iter().find_map(|unit| text.strip_suffix(unit));
    match number.and_then(|digits| digits.parse::<u32>().ok()) {
        Some(1..) => Ok(()),
        Some(0) | None => {
            Err(invalid(&format!("hugepage_limits[{index}].page_size"), format!("{text:?} is no size like 2MB")))
        }
    }
}

/// A file of a version 2 cgroup: `CONTROLLER.NAME`, in the cgroup's own folder.
pub(super) fn unified(key: &str) -> Result<(), SpecError> {
    let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match key.split_once('.') {
        Some((controller, name)) if !controller.is_empty() && !name.is_empty() && key.chars().all(word) => Ok(()),
        Some(_) | None => Err(invalid("unified", format!("{key:?} is no file of a cgroup like memory.high"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: std::fmt::Debug>(outcome: Result<T, SpecError>) -> String {
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn periods_and_quotas() {
        for (period, quota) in [(None, None), (Some(100_000), Some(-1)), (Some(1_000), Some(1_000))] {
            cpu(period, quota).unwrap();
        }
        assert!(text(cpu(Some(999), None)).starts_with("linux.resources.cpu_period: 999"));
        assert!(text(cpu(Some(1_000_001), None)).starts_with("linux.resources.cpu_period: 1000001"));
        assert!(text(cpu(None, Some(999))).starts_with("linux.resources.cpu_quota: 999"));
    }

    #[test]
    fn lists_sizes_and_files() {
        assert_eq!(set("cpuset_cpus", "").unwrap(), None);
        for list in ["0", "0-3,8", "1,2,3-3"] {
            assert_eq!(set("cpuset_cpus", list).unwrap().as_deref(), Some(list));
        }
        for list in ["a", "3-1", "0-", "1,,2", "-1", "70000"] {
            assert!(text(set("cpuset_mems", list)).starts_with("linux.resources.cpuset_mems:"), "{list}");
        }
        page_size(0, "2MB").unwrap();
        page_size(0, "1GB").unwrap();
        for size in ["", "MB", "0MB", "2M", "-2MB", "2MB/.."] {
            assert!(text(page_size(1, size)).starts_with("linux.resources.hugepage_limits[1].page_size:"), "{size}");
        }
        unified("memory.oom.group").unwrap();
        unified("hugetlb.2MB.max").unwrap();
        for key in ["", "memory", "../memory.max", "memory.max/x", ".max", "memory."] {
            assert!(text(unified(key)).starts_with("linux.resources.unified:"), "{key}");
        }
    }
}
