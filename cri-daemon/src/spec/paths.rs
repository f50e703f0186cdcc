//! Parts of `/proc` and `/sys` that are hidden or read-only.

use shared_config::CriRuntime;
use shared_proto::cri::v1::LinuxContainerSecurityContext;

/// What a kubelet asks to hide, unless `procMount: Unmasked`.
pub const DEFAULT_MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What a kubelet asks to make read-only, unless `procMount: Unmasked`.
pub const DEFAULT_READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Masked and read-only paths.
pub(super) struct Paths {
    pub masked: Vec<String>,
    pub readonly: Vec<String>,
}

impl Paths {
    pub fn default() -> Self {
        Self {
            masked: DEFAULT_MASKED_PATHS.map(String::from).to_vec(),
            readonly: DEFAULT_READONLY_PATHS.map(String::from).to_vec(),
        }
    }

    /// On the wire an empty list and none look the same, and `procMount: Unmasked` is an empty one: it hides nothing.
    pub fn container(security: Option<&LinuxContainerSecurityContext>, settings: &CriRuntime) -> Self {
        match security {
            Some(security) if security.privileged => Self { masked: Vec::new(), readonly: Vec::new() },
            _ if settings.disable_proc_mount => Self::default(),
            Some(security) => Self { masked: security.masked_paths.clone(), readonly: security.readonly_paths.clone() },
            None => Self { masked: Vec::new(), readonly: Vec::new() },
        }
    }
}
