//! Generates the Rust modules of `proto/` with a compiler written in Rust: no `protoc` is needed.
//!
//! The descriptors are written next to the code, for the test that holds them against the wire tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use prost::Message;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let root = Path::new("proto");

    let mut files = Vec::new();
    collect(&root.join("containerd"), &mut files)?;
    collect(&root.join("seam"), &mut files)?;
    files.push(root.join("cri/v1/api.proto"));
    files.sort();
    let set = protox::compile(&files, [root])?;
    std::fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;

    // v1alpha2 has the wire format of v1, so only its descriptor is needed: which methods it has.
    let old = protox::compile([root.join("cri/v1alpha2/api.proto")], [root])?;
    std::fs::write(out.join("descriptors-v1alpha2.bin"), old.encode_to_vec())?;
    std::fs::write(out.join("v1alpha2_methods.rs"), methods(&old))?;

    let mut config = prost_build::Config::new();
    config
        // Maps in key order, so that equal records have equal bytes on disk in every wiring.
        .btree_map(["."])
        // Blocks of content are passed on without a copy.
        .bytes([
            ".containerd.services.content.v1.ReadContentResponse",
            ".containerd.services.content.v1.WriteContentRequest",
        ])
        // Lets `any::pack` find the bare type URL of a message.
        .enable_type_names()
        .include_file("all.rs");

    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    if grpc {
        for message in reachable(&set, "runtime.v1", &["PodSandboxConfig", "ContainerConfig"]) {
            let derive = "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]";
            config.message_attribute(format!(".runtime.v1.{message}"), derive);
        }
        config.field_attribute(".runtime.v1.KeyValue.value", r#"#[serde(with = "crate::cri::base64_bytes")]"#);
        tonic_prost_build::configure()
            // The shim's Task service has a method `Connect`, which a generated `connect` would clash with.
            .build_transport(false)
            .out_dir(&out)
            .compile_fds_with_config(set, config)?;
    } else {
        config.out_dir(&out).compile_fds(set)?;
    }
    Ok(())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Outcome<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}

/// The messages of a package that `roots` consist of: those that the CRI side keeps in records, as JSON.
fn reachable(set: &prost_types::FileDescriptorSet, package: &str, roots: &[&str]) -> BTreeSet<String> {
    let files = set.file.iter().filter(|file| file.package() == package);
    let messages: BTreeMap<&str, _> = files.flat_map(|f| &f.message_type).map(|m| (m.name(), m)).collect();
    let prefix = format!(".{package}.");
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = roots.to_vec();
    while let Some(name) = open.pop() {
        let Some(message) = messages.get(name) else { continue };
        if found.insert(name.to_owned()) {
            open.extend(message.field.iter().filter_map(|f| f.type_name().strip_prefix(&prefix)));
        }
    }
    found
}

/// The method paths of a file set, as a Rust array of `/package.Service/Method`, sorted.
fn methods(set: &prost_types::FileDescriptorSet) -> String {
    let mut paths: Vec<String> = set
        .file
        .iter()
        .flat_map(|file| {
            file.service.iter().flat_map(move |service| {
                service.method.iter().map(move |m| format!("/{}.{}/{}", file.package(), service.name(), m.name()))
            })
        })
        .collect();
    paths.sort();
    format!("&{paths:?}")
}
