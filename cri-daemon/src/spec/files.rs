//! The files that a pod's containers share: `hostname`, `hosts`, `resolv.conf`.

use std::fs;
use std::path::Path;

use shared_proto::cri::v1;

use super::{SandboxDirs, SpecError};

/// Writes the three files into the sandbox's folder, which is made when missing. Blocks.
///
/// `hosts` is the machine's (a kubelet mounts its own over it). Without a DNS configuration `resolv.conf` is the
/// machine's as well.
pub fn write_files(dirs: &SandboxDirs, config: &v1::PodSandboxConfig, hostname: &str) -> Result<(), SpecError> {
    fs::create_dir_all(&dirs.root).map_err(|e| SpecError::Io { what: "make", path: dirs.root.clone(), source: e })?;
    write(&dirs.hostname(), format!("{hostname}\n").as_bytes())?;
    write(&dirs.hosts(), &machine("/etc/hosts")?)?;
    let resolv = match &config.dns_config {
        Some(dns) if *dns != v1::DnsConfig::default() => resolv_conf(dns)?.into_bytes(),
        _ => machine("/etc/resolv.conf")?,
    };
    write(&dirs.resolv_conf(), &resolv)
}

fn resolv_conf(dns: &v1::DnsConfig) -> Result<String, SpecError> {
    for (name, values) in [("servers", &dns.servers), ("searches", &dns.searches), ("options", &dns.options)] {
        for (index, value) in values.iter().enumerate() {
            if value.is_empty() || value.contains(char::is_whitespace) {
                return Err(SpecError::invalid(format!("dns_config.{name}[{index}]"), format!("{value:?} is no word")));
            }
        }
    }
    let mut out = String::new();
    if !dns.searches.is_empty() {
        out += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        out += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        out += &format!("options {}\n", dns.options.join(" "));
    }
    Ok(out)
}

/// A machine without the file is one with an empty file.
fn machine(path: &str) -> Result<Vec<u8>, SpecError> {
    match fs::read(path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(SpecError::Io { what: "read", path: path.into(), source }),
    }
}

/// Read by processes of any user in the pod.
fn write(path: &Path, text: &[u8]) -> Result<(), SpecError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |source| SpecError::Io { what: "write", path: path.to_owned(), source };
    fs::write(path, text).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_pod() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = SandboxDirs { root: dir.path().join("a/b"), state: dir.path().to_owned() };
        let words = |list: &[&str]| list.iter().map(|w| w.to_string()).collect();
        let mut config = v1::PodSandboxConfig {
            dns_config: Some(v1::DnsConfig {
                servers: words(&["10.0.0.10", "::1"]),
                searches: words(&["a.svc", "svc"]),
                options: words(&["ndots:5"]),
            }),
            ..Default::default()
        };
        write_files(&dirs, &config, "web-0").unwrap();
        let read = |path| fs::read_to_string(path).unwrap();
        assert_eq!(read(dirs.hostname()), "web-0\n");
        assert_eq!(
            read(dirs.resolv_conf()),
            "search a.svc svc\nnameserver 10.0.0.10\nnameserver ::1\noptions ndots:5\n"
        );
        assert_eq!(fs::read(dirs.hosts()).unwrap(), machine("/etc/hosts").unwrap());

        config.dns_config = Some(v1::DnsConfig::default());
        write_files(&dirs, &config, "web-0").unwrap();
        assert_eq!(fs::read(dirs.resolv_conf()).unwrap(), machine("/etc/resolv.conf").unwrap());

        config.dns_config = Some(v1::DnsConfig { servers: words(&["1.1.1.1\nx"]), ..Default::default() });
        let refused = write_files(&dirs, &config, "web-0").unwrap_err().to_string();
        assert_eq!(refused, "dns_config.servers[0]: \"1.1.1.1\\nx\" is no word");
    }
}
