//! What runs: command, environment, folder, terminal, identity.

use oci_spec::image::{Config as ImageConfig, ImageConfiguration};
use oci_spec::runtime::{LinuxCapabilities, Process, User as SpecUser};
use shared_proto::cri::v1;

use super::{SpecError, User};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process with everything unset that nobody asked for; resource limits among them.
pub(super) fn new(user: &User, args: Vec<String>, env: Vec<String>, cwd: String, caps: LinuxCapabilities) -> Process {
    let mut identity = SpecUser::default();
    identity.set_uid(user.uid).set_gid(user.gid).set_additional_gids(Some(user.additional_gids.clone()));
    let mut process = Process::default();
    process
        .set_terminal(None)
        .set_user(identity)
        .set_args(Some(args))
        .set_env(Some(env))
        .set_cwd(cwd.into())
        .set_capabilities(Some(caps))
        .set_rlimits(None)
        .set_no_new_privileges(Some(false));
    process
}

/// The image's entrypoint and command; the request's `command` replaces both, its `args` only the command.
pub(super) fn args(config: &v1::ContainerConfig, image: &ImageConfiguration) -> Result<Vec<String>, SpecError> {
    let (entrypoint, cmd) = match image.config() {
        Some(image) => (list(image.entrypoint()), list(image.cmd())),
        None => (Vec::new(), Vec::new()),
    };
    let mut out = config.command.clone();
    let mut args = config.args.clone();
    if out.is_empty() {
        if args.is_empty() {
            args = cmd;
        }
        if entrypoint != [""] {
            out = entrypoint;
        }
    }
    out.append(&mut args);
    if out.is_empty() {
        return Err(SpecError::invalid("command", "neither the container nor its image names one"));
    }
    if let Some(bad) = out.iter().find(|arg| arg.contains('\0')) {
        return Err(SpecError::invalid("command", format!("{bad:?} holds a zero byte")));
    }
    Ok(out)
}

/// What the image runs by itself: for the pause container.
pub(super) fn image_args(image: &ImageConfiguration) -> Result<Vec<String>, SpecError> {
    args(&v1::ContainerConfig::default(), image)
        .map_err(|_| SpecError::invalid("sandbox image", "has neither entrypoint nor command"))
}

/// Later settings replace earlier ones of the same name: default path, terminal, host name, image, request.
pub(super) fn env(
    config: &v1::ContainerConfig,
    image: &ImageConfiguration,
    hostname: &str,
) -> Result<Vec<String>, SpecError> {
    let mut out = vec![PATH.to_owned()];
    if config.tty {
        out.push("TERM=xterm".into());
    }
    out.push(format!("HOSTNAME={hostname}"));
    image_env(&mut out, image);
    for (index, pair) in config.envs.iter().enumerate() {
        let value = std::str::from_utf8(&pair.value)
            .map_err(|_| SpecError::invalid(format!("envs[{index}].value"), format!("{} is no UTF-8", pair.key)))?;
        if pair.key.is_empty() || pair.key.contains(['=', '\0']) || value.contains('\0') {
            return Err(SpecError::invalid(format!("envs[{index}]"), format!("{:?} is no variable", pair.key)));
        }
        put(&mut out, format!("{}={value}", pair.key));
    }
    Ok(out)
}

/// The environment of a container that nobody configures: path and image.
pub(super) fn default_env(image: &ImageConfiguration) -> Vec<String> {
    let mut out = vec![PATH.to_owned()];
    image_env(&mut out, image);
    out
}

fn image_env(out: &mut Vec<String>, image: &ImageConfiguration) {
    for variable in image.config().as_ref().map(|c| list(c.env())).unwrap_or_default() {
        put(out, variable);
    }
}

/// Sets a variable; one without `=` is unset.
fn put(env: &mut Vec<String>, variable: String) {
    let name = variable.split_once('=').map_or(variable.as_str(), |(name, _)| name);
    let same = |old: &String| old.split_once('=').map(|(old, _)| old) == Some(name);
    match (env.iter().position(same), variable.contains('=')) {
        (Some(at), true) => env[at] = variable,
        (Some(at), false) => drop(env.remove(at)),
        (None, true) => env.push(variable),
        (None, false) => {}
    }
}

/// The request's folder, else the image's, else `/`.
pub(super) fn cwd(config: &v1::ContainerConfig, image: &ImageConfiguration) -> Result<String, SpecError> {
    if config.working_dir.is_empty() {
        return Ok(image_cwd(image));
    }
    if !config.working_dir.starts_with('/') {
        return Err(SpecError::invalid("working_dir", format!("{:?} is not absolute", config.working_dir)));
    }
    Ok(config.working_dir.clone())
}

pub(super) fn image_cwd(image: &ImageConfiguration) -> String {
    let named = image.config().as_ref().and_then(|c: &ImageConfig| c.working_dir().clone()).unwrap_or_default();
    if named.starts_with('/') { named } else { format!("/{named}") }
}

fn list(option: &Option<Vec<String>>) -> Vec<String> {
    option.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(config: serde_json::Value) -> ImageConfiguration {
        let rootfs = json!({"type": "layers", "diff_ids": []});
        serde_json::from_value(json!({"os": "linux", "architecture": "amd64", "rootfs": rootfs, "config": config}))
            .unwrap()
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn command_and_args_merge_with_the_image() {
        let image = image(json!({"Entrypoint": ["e"], "Cmd": ["c"]}));
        let cases: [(&[&str], &[&str], &[&str]); 4] =
            [(&[], &[], &["e", "c"]), (&[], &["a"], &["e", "a"]), (&["x"], &[], &["x"]), (&["x"], &["a"], &["x", "a"])];
        for (command, arguments, expected) in cases {
            let config =
                v1::ContainerConfig { command: strings(command), args: strings(arguments), ..Default::default() };
            assert_eq!(args(&config, &image).unwrap(), expected);
        }
        let none = self::image(json!({"Entrypoint": [""]}));
        assert!(args(&v1::ContainerConfig::default(), &none).unwrap_err().to_string().starts_with("command:"));
    }

    #[test]
    fn the_request_overrides_the_environment() {
        let image = image(json!({"Env": ["A=1", "B=2", "HOSTNAME"]}));
        let pair = |key: &str, value: &[u8]| v1::KeyValue { key: key.into(), value: value.to_vec() };
        let mut config =
            v1::ContainerConfig { envs: vec![pair("B", b"3=4"), pair("C", b"")], tty: true, ..Default::default() };
        assert_eq!(env(&config, &image, "h").unwrap(), [PATH, "TERM=xterm", "A=1", "B=3=4", "C="]);
        config.envs = vec![pair("A", &[0xff])];
        assert_eq!(env(&config, &image, "h").unwrap_err().to_string(), "envs[0].value: A is no UTF-8");
        config.envs = vec![pair("", b"x")];
        assert!(env(&config, &image, "h").is_err());
    }

    #[test]
    fn the_folder_is_absolute() {
        let image = image(json!({"WorkingDir": "srv"}));
        let mut config = v1::ContainerConfig::default();
        assert_eq!(cwd(&config, &image).unwrap(), "/srv");
        config.working_dir = "/w".into();
        assert_eq!(cwd(&config, &image).unwrap(), "/w");
        config.working_dir = "w".into();
        assert!(cwd(&config, &image).unwrap_err().to_string().starts_with("working_dir:"));
    }
}
