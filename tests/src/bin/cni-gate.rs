//! A CNI plugin for the end of a chain that passes the result on, or fails when the pod's name asks for it.
//!
//! - `cni-fail` in the name: every ADD fails; `cni-once`: the first one; `cni-slow`: takes a second and a half.
//! - `cni-stuck`: the first DEL fails.
//!
//! Each call adds a line `COMMAND POD CONTAINER-ID` to `calls` in the folder that the configuration names, and leaves
//! there in `config-COMMAND-POD` what it was told.

use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Value, json};

fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).expect("read the configuration");
    let config: Value = serde_json::from_str(&text).expect("the configuration is JSON");
    let command = std::env::var("CNI_COMMAND").unwrap_or_default();
    if command == "VERSION" {
        println!("{}", json!({"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}));
        return;
    }
    let id = std::env::var("CNI_CONTAINERID").unwrap_or_default();
    let args = std::env::var("CNI_ARGS").unwrap_or_default();
    let pod = args.split(';').find_map(|a| a.strip_prefix("K8S_POD_NAME=")).unwrap_or_default().to_owned();
    let dir = Path::new(config["dir"].as_str().expect("the configuration names a folder"));

    let calls = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("calls"));
    calls.and_then(|mut f| f.write_all(format!("{command} {pod} {id}\n").as_bytes())).expect("note the call");
    std::fs::write(dir.join(format!("config-{command}-{pod}")), &text).expect("note what was told");

    let first = |what: &str| std::fs::File::create_new(dir.join(format!("{what}-{pod}"))).is_ok();
    if command == "ADD" && pod.contains("cni-slow") {
        std::thread::sleep(std::time::Duration::from_millis(1500));
    }
    if command == "ADD" && (pod.contains("cni-fail") || (pod.contains("cni-once") && first("add"))) {
        fail(&pod);
    }
    if command == "DEL" && pod.contains("cni-stuck") && first("del") {
        fail(&pod);
    }
    if command == "ADD" {
        println!("{}", config["prevResult"]);
    }
}

fn fail(pod: &str) -> ! {
    eprintln!("the gate is closed for {pod}");
    println!("{}", json!({"cniVersion": "0.4.0", "code": 100, "msg": format!("gate: {pod} asked for a failure")}));
    std::process::exit(1);
}
