//! SELinux labels: one pair of categories a pod, so that pods of one type still can't touch each other's files.
//!
//! As in containerd: off unless `enable_selinux` is set, and without effect, with one warning, where the kernel has no
//! SELinux. A label begins with the node's default for containers; the request's parts replace parts of it; a pod that
//! names no level gets two categories that no other pod has. A container without options has its pod's label, one with
//! options but without a level its pod's level. Which categories are taken is read from the labels in the records of
//! all pods, so a restart forgets nothing.
//!
//! A level is checked even where labels are off: a mistake should not wait for the first node that has SELinux.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Once;

use rustix::fs::XattrFlags;
use shared_config::CriRuntime;
use shared_proto::cri::v1::SeLinuxOption;
use shared_proto::errdefs::{Code, Error};

use crate::host::{HostFacts, SelinuxContexts};

#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    #[error("linux.security_context.selinux_options.level: {0:?} is no level like s0:c1,c2")]
    Level(String),
    #[error("linux.security_context.selinux_options: {0:?} must not contain a colon")]
    Part(String),
    #[error("all pairs of the {0} SELinux categories are taken (selinux_category_range)")]
    NoneLeft(u32),
    #[error("mount {path} asks to be relabelled, which would change the whole machine")]
    System { path: String },
    #[error("relabel {path}: {source}")]
    Relabel { path: String, source: io::Error },
}

impl From<LabelError> for Error {
    fn from(e: LabelError) -> Self {
        let code = match &e {
            LabelError::Level(_) | LabelError::Part(_) | LabelError::System { .. } => Code::InvalidArgument,
            LabelError::NoneLeft(_) => Code::ResourceExhausted,
            LabelError::Relabel { .. } => Code::Internal,
        };
        Error::new(code, e.to_string())
    }
}

/// The labels of a process and of its files; both empty where labels are off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Label {
    pub process: String,
    pub mount: String,
}

/// The node's default labels, if labels are to be set here.
pub fn contexts<'a>(settings: &CriRuntime, facts: &'a HostFacts) -> Option<&'a SelinuxContexts> {
    if settings.enable_selinux && facts.selinux.is_none() {
        static WARNED: Once = Once::new();
        WARNED.call_once(|| tracing::warn!("enable_selinux is set, but this kernel has no SELinux: no labels are set"));
    }
    facts.selinux.as_ref().filter(|_| settings.enable_selinux)
}

/// The label of a new pod. `taken`: the labels of all others.
pub fn of_pod<'a>(
    options: Option<&SeLinuxOption>,
    contexts: Option<&SelinuxContexts>,
    range: u32,
    taken: impl Iterator<Item = &'a str>,
) -> Result<Label, LabelError> {
    check(options)?;
    let Some(contexts) = contexts else { return Ok(Label::default()) };
    let mut parts = Parts::of(&contexts.process);
    if options.is_none_or(|options| options.level.is_empty()) {
        let taken: BTreeSet<String> = taken.map(|label| Parts::of(label).level).collect();
        parts.level = unique(range, &taken).ok_or(LabelError::NoneLeft(range))?;
    }
    Ok(parts.with(options).label(contexts))
}

/// The label of a container in a pod with this process label.
pub fn of_container(
    options: Option<&SeLinuxOption>,
    contexts: Option<&SelinuxContexts>,
    pod: &str,
) -> Result<Label, LabelError> {
    check(options)?;
    // A pod from before labels were turned on has none, and its containers with it.
    let Some(contexts) = contexts.filter(|_| !pod.is_empty()) else { return Ok(Label::default()) };
    let none = SeLinuxOption::default();
    let parts = match options.filter(|options| **options != none) {
        None => Parts::of(pod),
        Some(options) => Parts { level: Parts::of(pod).level, ..Parts::of(&contexts.process) }.with(Some(options)),
    };
    Ok(parts.label(contexts))
}

/// `user:role:type:level`; the level has colons of its own.
struct Parts {
    user: String,
    role: String,
    kind: String,
    level: String,
}

impl Parts {
    fn of(label: &str) -> Self {
        let mut parts = label.splitn(4, ':').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self { user: next(), role: next(), kind: next(), level: next() }
    }

    fn with(mut self, options: Option<&SeLinuxOption>) -> Self {
        let Some(options) = options else { return self };
        for (mine, theirs) in [
            (&mut self.user, &options.user),
            (&mut self.role, &options.role),
            (&mut self.kind, &options.r#type),
            (&mut self.level, &options.level),
        ] {
            if !theirs.is_empty() {
                mine.clone_from(theirs);
            }
        }
        self
    }

    /// Files get the user and the level of their process.
    fn label(self, contexts: &SelinuxContexts) -> Label {
        let Self { user, role, kind, level } = self;
        let file = Self::of(&contexts.file);
        let mount = format!("{user}:{}:{}:{level}", file.role, file.kind);
        Label { process: format!("{user}:{role}:{kind}:{level}"), mount }
    }
}

fn check(options: Option<&SeLinuxOption>) -> Result<(), LabelError> {
    let Some(options) = options else { return Ok(()) };
    if let Some(wrong) = [&options.user, &options.role, &options.r#type].into_iter().find(|part| part.contains(':')) {
        return Err(LabelError::Part(wrong.clone()));
    }
    match options.level.is_empty() || is_level(&options.level) {
        true => Ok(()),
        false => Err(LabelError::Level(options.level.clone())),
    }
}

/// `s0`, `s0-s0:c1,c2`, `s0:c0.c1023`.
fn is_level(text: &str) -> bool {
    let number = |text: &str, prefix: char, most: usize| {
        let digits = text.strip_prefix(prefix).unwrap_or_default();
        (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
    };
    let (levels, categories) = match text.split_once(':') {
        Some((levels, categories)) => (levels, Some(categories)),
        None => (text, None),
    };
    let span = |text: &str, between: char, one: &dyn Fn(&str) -> bool| match text.split_once(between) {
        Some((first, last)) => one(first) && one(last),
        None => one(text),
    };
    let category = |text: &str| span(text, '.', &|one| number(one, 'c', 4));
    span(levels, '-', &|one| number(one, 's', 1)) && categories.is_none_or(|list| list.split(',').all(category))
}

/// Two different categories that no label in `taken` has, by chance, so that a level is not used again soon.
fn unique(range: u32, taken: &BTreeSet<String>) -> Option<String> {
    let level = |one: u32, two: u32| format!("s0:c{},c{}", one.min(two), one.max(two));
    for _ in 0..64 {
        let chance = uuid::Uuid::new_v4().as_u128();
        let (one, two) = ((chance as u32) % range.max(1), ((chance >> 32) as u32) % range.max(1));
        let level = level(one, two);
        if one != two && !taken.contains(&level) {
            return Some(level);
        }
    }
    // Nearly all are taken: look at each.
    let all = (0..range).flat_map(|one| (one + 1..range).map(move |two| (one, two)));
    all.map(|(one, two)| level(one, two)).find(|level| !taken.contains(level))
}

/// Gives a file, or a folder with all below it, a label. Links are not followed. Blocks.
///
/// File systems without labels are left as they are. Folders of the machine's own are refused, as in containerd.
pub fn relabel(path: &Path, label: &str) -> Result<(), LabelError> {
    const SYSTEM: [&str; 11] =
        ["/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/proc", "/root", "/sys", "/usr"];
    if SYSTEM.iter().chain(&["/lib64", "/sbin", "/run", "/tmp", "/var"]).any(|system| path == Path::new(system)) {
        return Err(LabelError::System { path: path.display().to_string() });
    }
    let failed = |path: &Path, source| LabelError::Relabel { path: path.display().to_string(), source };
    let meta = std::fs::symlink_metadata(path).map_err(|e| failed(path, e))?;
    match rustix::fs::lsetxattr(path, c"security.selinux", label.as_bytes(), XattrFlags::empty()) {
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        outcome => outcome.map_err(|e| failed(path, e.into()))?,
    }
    if meta.is_dir() {
        for entry in std::fs::read_dir(path).map_err(|e| failed(path, e))? {
            relabel(&entry.map_err(|e| failed(path, e))?.path(), label)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
