//! Signals by the names and numbers that images and CRI use.

use shared_proto::cri::v1;
use shared_proto::{Error, Result};

/// The signal that asks a container to end: CRI's, else the image's, else none is named (SIGTERM).
pub fn of_container(config: &v1::ContainerConfig, image: &oci_spec::image::ImageConfiguration) -> Result<String> {
    let name = match config.stop_signal() {
        v1::Signal::RuntimeDefault => image.config().as_ref().and_then(|c| c.stop_signal().clone()).unwrap_or_default(),
        signal => signal.as_str_name().to_owned(),
    };
    number(&name)?;
    Ok(name)
}

/// CRI's word for a signal; one that it has no word for is the runtime's default. Empty = SIGTERM.
pub fn to_cri(name: &str) -> v1::Signal {
    let name = if name.is_empty() { "SIGTERM" } else { name };
    v1::Signal::from_str_name(&name.replace('+', "PLUS").replace('-', "MINUS")).unwrap_or_default()
}

/// The number of a signal: `15`, `SIGTERM`, `TERM`, `SIGRTMIN+3`; empty = SIGTERM.
pub fn number(name: &str) -> Result<u32> {
    let unknown = || Error::invalid(format!("{name:?} is no signal"));
    if name.is_empty() {
        return Ok(15);
    }
    if let Ok(number) = name.parse::<u32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    // CRI can't write signs in its names.
    let upper = name.to_ascii_uppercase().replace("PLUS", "+").replace("MINUS", "-");
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    // Real-time signals count from 34 up and from 64 down: libc keeps the first two for itself.
    let offset = |text: &str, sign| match text {
        "" => Some(0),
        text => text.strip_prefix(sign)?.parse::<u32>().ok().filter(|n| *n <= 30),
    };
    if let Some(rest) = short.strip_prefix("RTMIN") {
        return offset(rest, '+').map(|n| 34 + n).ok_or_else(unknown);
    }
    if let Some(rest) = short.strip_prefix("RTMAX") {
        return offset(rest, '-').map(|n| 64 - n).ok_or_else(unknown);
    }
    let short = match short {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        short => short,
    };
    let signal = format!("SIG{short}").parse::<nix::sys::signal::Signal>().map_err(|_| unknown())?;
    u32::try_from(signal as i32).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (name, wanted) in [
            ("", 15),
            ("9", 9),
            ("SIGQUIT", 3),
            ("quit", 3),
            ("SIGCLD", 17),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("SIGRTMAX", 64),
        ] {
            assert_eq!(number(name).unwrap(), wanted, "{name}");
        }
        for name in ["0", "65", "SIGNOTHING", "SIGRTMIN+31", "-9"] {
            assert!(number(name).unwrap_err().message.contains(name), "{name}");
        }
    }

    /// Every signal that CRI can name has a number, and its name comes back.
    #[test]
    fn knows_the_signals_of_cri() {
        for value in 1..200 {
            let Ok(signal) = v1::Signal::try_from(value) else { continue };
            number(signal.as_str_name()).unwrap();
            assert_eq!(to_cri(signal.as_str_name()), signal);
        }
        assert_eq!(number("SIGRTMINPLUS15").unwrap(), 49);
        assert_eq!(number("SIGRTMAXMINUS14").unwrap(), 50);
        assert_eq!(to_cri("SIGRTMIN+3"), v1::Signal::Sigrtminplus3);
        assert_eq!(to_cri(""), v1::Signal::Sigterm);
    }
}
