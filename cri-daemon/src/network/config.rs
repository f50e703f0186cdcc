//! Network configurations: the files of a folder, as lists of plugins.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::NetworkError;

/// Newest version of the CNI format that is spoken.
const NEWEST: (u32, u32, u32) = (1, 1, 0);
/// What a file without a version means.
const OLDEST: &str = "0.1.0";

/// One network: plugins to run in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct List {
    pub name: String,
    pub version: String,
    pub plugins: Vec<Map<String, Value>>,
    /// The whole, as a list of plugins whatever form the file had.
    pub source: Value,
}

/// What a folder looked like: another look means other files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Look(Vec<(PathBuf, Mark)>);

/// What no file keeps when it, or the link to it, is written or replaced.
type Mark = (u64, u64, i64, i64);

/// The configuration files of `dir` in name order. An absent folder has none. Blocks.
pub(super) fn look(dir: &Path) -> io::Result<Look> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Look::default()),
        Err(e) => return Err(e),
    };
    let mut files = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_some_and(|e| e == "conf" || e == "conflist" || e == "json")
            && let Ok(meta) = fs::metadata(&path)
        {
            files.push((path, (meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec())));
        }
    }
    files.sort();
    Ok(Look(files))
}

/// What a folder's files say.
#[derive(Debug, Clone, Default)]
pub(super) struct Loaded {
    pub look: Look,
    pub lists: Vec<List>,
    /// Files that are left out, and why.
    pub bad: Vec<(PathBuf, String)>,
}

/// Reads files until `max` of them are networks; 0 = all. A bad file takes no place from a good one. Blocks.
pub(super) fn load(look: Look, max: usize) -> Loaded {
    let max = if max == 0 { usize::MAX } else { max };
    let (mut lists, mut bad) = (Vec::new(), Vec::new());
    for (file, ..) in &look.0 {
        if lists.len() == max {
            break;
        }
        match read(file) {
            Ok(list) => lists.push(list),
            Err(problem) => bad.push((file.clone(), problem)),
        }
    }
    Loaded { look, lists, bad }
}

fn read(file: &Path) -> Result<List, String> {
    let text = fs::read(file).map_err(|e| e.to_string())?;
    List::parse(serde_json::from_slice(&text).map_err(|e| e.to_string())?)
}

impl Loaded {
    /// The bad files, as errors.
    pub fn problems(&self) -> Vec<NetworkError> {
        let problem =
            |(file, problem): &(PathBuf, String)| NetworkError::Config { file: file.clone(), problem: problem.clone() };
        self.bad.iter().map(problem).collect()
    }
}

impl List {
    /// Takes a list of plugins, or a single one (which has a `type`).
    pub fn parse(value: Value) -> Result<Self, String> {
        let Value::Object(object) = value else { return Err("is no JSON object".into()) };
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = text("name");
        if name.is_empty() || name.contains('/') {
            return Err(format!("the network's name is {name:?}"));
        }
        let version = version(&object)?;
        if !text("type").is_empty() {
            let source = json!({"name": name, "cniVersion": version, "plugins": [object]});
            return Self::parse(source);
        }
        let Some(Value::Array(items)) = object.get("plugins") else { return Err("has no list \"plugins\"".into()) };
        let mut plugins = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match item {
                Value::Object(plugin)
                    if plugin.get("type").is_some_and(|t| t.as_str().is_some_and(|t| !t.is_empty())) =>
                {
                    plugins.push(plugin.clone());
                }
                _ => return Err(format!("plugins[{index}] has no \"type\"")),
            }
        }
        if plugins.is_empty() {
            return Err("has no plugins".into());
        }
        Ok(Self { name, version, plugins, source: Value::Object(object) })
    }

    /// Whether the list's version is `major.minor` or later.
    pub fn since(&self, major: u32, minor: u32) -> bool {
        numbers(&self.version).is_some_and(|v| v >= (major, minor, 0))
    }
}

/// The type of a plugin, which is its file's name.
pub(super) fn kind(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// The newest of `cniVersions` that we know, else `cniVersion`.
fn version(object: &Map<String, Value>) -> Result<String, String> {
    let single = object.get("cniVersion").and_then(Value::as_str).filter(|v| !v.is_empty()).unwrap_or(OLDEST);
    let several = object.get("cniVersions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let known = several.chain([single]).filter(|v| numbers(v).is_some_and(|n| n <= NEWEST));
    let newest = known.max_by_key(|v| numbers(v)).map(String::from);
    newest.ok_or_else(|| format!("cniVersion {single:?} is not known here"))
}

fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    let out = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_files_in_name_order() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        put("20-b.conf", r#"{"cniVersion":"0.4.0","name":"b","type":"ptp"}"#);
        put("10-a.conflist", r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"bridge"},{"type":"portmap"}]}"#);
        put("00-readme.txt", "no configuration");
        put("30-c.json", "{");
        let names = |max| {
            let loaded = load(look(dir.path()).unwrap(), max);
            let names: Vec<_> =
                loaded.lists.iter().map(|l| format!("{} {} {}", l.name, l.version, l.plugins.len())).collect();
            (names, loaded.problems().iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let (first, both) = (vec!["a 1.0.0 2".to_owned()], vec!["a 1.0.0 2".to_owned(), "b 0.4.0 1".to_owned()]);
        assert_eq!(names(1), (first.clone(), vec![]));
        assert_eq!(names(2), (both.clone(), vec![]));
        let (good, bad) = names(0);
        assert_eq!(good, both);
        assert!(bad.len() == 1 && bad[0].contains("30-c.json"), "{bad:?}");
        put("05-half.conflist", "{");
        let (good, bad) = names(1);
        assert_eq!(good, first);
        assert!(bad.len() == 1 && bad[0].contains("05-half.conflist"), "{bad:?}");
        let before = look(dir.path()).unwrap();
        put("20-b.conf", r#"{"name":"longer","type":"ptp"}"#);
        assert_ne!(look(dir.path()).unwrap(), before);

        // Replaced by one of the same length and time, and a link that leads elsewhere, as orchestrators do it.
        let looks = || look(dir.path()).unwrap();
        let (before, file) = (looks(), dir.path().join("20-b.conf"));
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        put("new.tmp", r#"{"name":"othern","type":"ptp"}"#);
        fs::File::options().write(true).open(dir.path().join("new.tmp")).unwrap().set_modified(time).unwrap();
        fs::rename(dir.path().join("new.tmp"), &file).unwrap();
        assert_ne!(looks(), before);
        for version in ["v1", "v2"] {
            fs::create_dir(dir.path().join(version)).unwrap();
            put(&format!("{version}/net"), "{}");
        }
        let turn = |version: &str| {
            let _ = fs::remove_file(dir.path().join("data"));
            std::os::unix::fs::symlink(version, dir.path().join("data")).unwrap();
        };
        turn("v1");
        std::os::unix::fs::symlink("data/net", dir.path().join("40-linked.conf")).unwrap();
        let before = looks();
        turn("v2");
        assert_ne!(looks(), before);
        assert_eq!(look(Path::new("/none")).unwrap(), Look::default());
    }

    #[test]
    fn versions_are_chosen() {
        let of = |text: &str| List::parse(serde_json::from_str(text).unwrap()).map(|l| l.version);
        assert_eq!(of(r#"{"name":"n","type":"t"}"#).unwrap(), "0.1.0");
        let several =
            r#"{"name":"n","cniVersion":"0.4.0","cniVersions":["0.3.1","1.0.0","9.0.0"],"plugins":[{"type":"t"}]}"#;
        assert_eq!(of(several).unwrap(), "1.0.0");
        assert!(of(r#"{"name":"n","cniVersion":"2.0.0","type":"t"}"#).unwrap_err().contains("2.0.0"));
        for bad in [r#"{"type":"t"}"#, r#"{"name":"a/b","type":"t"}"#, r#"{"name":"n","plugins":[]}"#, "[]"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        let list = List::parse(json!({"name": "n", "cniVersion": "0.4.0", "type": "t"})).unwrap();
        assert!(list.since(0, 4) && !list.since(1, 0) && list.since(0, 3));
    }
}
