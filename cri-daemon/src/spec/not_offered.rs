//! Fields and annotations that ask for what is not offered.
//!
//! The annotations are those that containerd reads. Left unread, a container would run without the device that its
//! workload needs, or outside of the class that keeps it from its neighbours' disks and caches.

use super::{ContainerInput, SpecError};

/// In front of a device plugin's own key; the value lists devices.
const CDI: &str = "cdi.k8s.io/";
/// Classes by name: the container's own annotation, and what the pod's begin with.
const CLASSES: [(&str, &str); 2] = [
    ("io.kubernetes.cri.blockio-class", "blockio.resources.beta.kubernetes.io/"),
    ("io.kubernetes.cri.rdt-class", "rdt.resources.beta.kubernetes.io/"),
];

pub(super) fn check(input: &ContainerInput) -> Result<(), SpecError> {
    let (config, pod) = (input.config, &input.sandbox.annotations);
    let unsupported = |what: String| Err(SpecError::Unsupported(what));
    if !config.cdi_devices.is_empty() {
        let names: Vec<_> = config.cdi_devices.iter().map(|device| device.name.as_str()).collect();
        return unsupported(format!("CDI_devices ({})", names.join(", ")));
    }
    if let Some(key) = config.annotations.keys().find(|key| key.starts_with(CDI)) {
        return unsupported(format!("annotation {key:?} (a device of CDI)"));
    }
    for (own, of_pod) in CLASSES {
        let of_container = format!("{of_pod}container.{}", input.name);
        let for_all = format!("{of_pod}pod");
        let asked = [(&config.annotations, own), (pod, &of_container), (pod, &for_all)];
        let class = |(annotations, key): &(&std::collections::BTreeMap<String, String>, &str)| {
            annotations.get(*key).is_some_and(|class| !class.is_empty())
        };
        if let Some((_, key)) = asked.iter().find(|asked| class(asked)) {
            return unsupported(format!("annotation {key:?} (a class of block I/O or caches)"));
        }
    }
    Ok(())
}
