//! The differences that have a known reason, each with the reason. What no line of [`TABLE`] knows is unexplained.
//!
//! The first lines are about any two runtimes, and about time. The last ones hold only between different runtimes, and
//! were found by replaying recordings of ours on Debian's containerd 1.6.

use serde_json::Value;

use super::compare::Difference;
use super::facts::{Facts, is_read};
use super::recording::Recorded;
use crate::recorder::messages::short;

/// A difference, and what is known around it.
pub struct Case<'a> {
    pub recorded: &'a Recorded,
    pub difference: &'a Difference,
    pub facts: &'a Facts,
    /// The endpoint is the recorded runtime, in the same version.
    pub same_runtime: bool,
    /// Images that the endpoint had before.
    pub images: &'a [String],
    /// The pull was replayed without the credentials that it had.
    pub without_credentials: bool,
    /// What the recording made and the endpoint did not.
    pub failed: &'a [String],
}

/// A kind of difference.
pub struct Known {
    pub name: &'static str,
    pub why: &'static str,
    fits: fn(&Case<'_>) -> bool,
}

/// The path of a difference in the code or the text of the status.
pub const CODE: &str = "(code)";
pub const TEXT: &str = "(text)";
/// The path of a difference that was gone when the question was asked again.
pub const LATER: &str = "(later)";

/// In this order; the first that fits explains a difference.
pub const TABLE: &[Known] = &[
    Known {
        name: "later",
        why: "the answer was the recorded one when it was asked again: a process ends when it ends",
        fits: |case| case.difference.path == LATER,
    },
    Known {
        name: "wording",
        why: "the code is the same; the text of an error is each runtime's own, and names times and addresses",
        fits: |case| case.difference.path == TEXT,
    },
    Known {
        name: "credentials",
        why: "a recording holds no credentials: --auth FILE gives them to pulls that went well",
        fits: |case| case.without_credentials && matches!(case.difference.path.as_str(), CODE | "image_ref"),
    },
    Known {
        name: "follows",
        why: "it is about something that the endpoint did not make; the call that makes it says why",
        fits: |case| case.subject().into_iter().chain(case.object()).any(|id| case.failed.iter().any(|it| it == id)),
    },
    Known {
        name: "another runtime",
        why: "the endpoint is another runtime, or another version of it",
        fits: |case| !case.same_runtime && case.method() == "Version",
    },
    Known {
        name: "not offered",
        why: "the endpoint is a runtime that does not have this method",
        fits: |case| !case.same_runtime && case.replayed_code() == Some("UNIMPLEMENTED"),
    },
    Known {
        name: "not of this recording",
        why: "this pod or container was made by somebody else: before the recording, or on the endpoint",
        fits: |case| {
            let listed = case.of_things() && case.object().is_some_and(|id| !case.facts.made(id));
            let asked = case.difference.path == CODE
                && case.was_good()
                && case.subject().is_some_and(|id| !case.facts.made(id));
            listed || asked
        },
    },
    Known {
        name: "other images",
        why: "the endpoint has other images than the recorded runtime had; the recording does not pull them",
        fits: |case| case.of_images() && case.image_is_elsewhere(),
    },
    Known {
        name: "ahead",
        why: "the recording shows the same value a little later: a process has its own time",
        fits: |case| case.facts.comes_later(case.recorded, case.difference),
    },
    Known {
        name: "meanwhile",
        why: "something changed it while the question was asked: both answers are right",
        fits: |case| {
            if !is_read(&case.recorded.call.method) {
                return false;
            }
            let images = case.of_images() && case.facts.changed_meanwhile(case.recorded, "images");
            images || case.object().is_some_and(|id| case.facts.changed_meanwhile(case.recorded, id))
        },
    },
    Known {
        name: "not measured yet",
        why: "what a layer holds is measured from time to time",
        fits: |case| case.difference.field() == "writable_layer" && case.is_one_sided(),
    },
    Known {
        name: "another CRI",
        why: "one of the runtimes has an older CRI, without this field",
        fits: |case| !case.same_runtime && case.is_one_sided() && case.is_within(NEWER),
    },
    Known {
        name: "other figures",
        why: "which figures of usage are told differs between runtimes",
        fits: |case| {
            let stats = case.method().ends_with("Stats");
            !case.same_runtime && stats && case.is_one_sided() && case.is_within(FIGURES)
        },
    },
    Known {
        name: "other limits",
        why: "which of its limits a container's status tells differs between runtimes",
        fits: |case| !case.same_runtime && case.is_one_sided() && case.is_within(&["resources"]),
    },
    Known {
        name: "address of an ended pod",
        why: "we tell the address that a pod had, containerd does not",
        fits: |case| !case.same_runtime && case.is_one_sided() && case.is_address() && case.pod_has_ended(),
    },
    Known {
        name: "other conditions",
        why: "CRI asks for the conditions RuntimeReady and NetworkReady; more are each runtime's own",
        fits: |case| {
            let path = &case.difference.path;
            let asked = ["[RuntimeReady]", "[NetworkReady]"].iter().any(|name| path.contains(name));
            !case.same_runtime && path.starts_with("status.conditions[") && !asked
        },
    },
    Known {
        name: "UNKNOWN",
        why: "one of the runtimes says UNKNOWN where the other says which kind of error it is",
        fits: |case| !case.same_runtime && case.one_is_unknown(),
    },
];

/// Fields that CRI has got since 0.26, which containerd 1.6 has.
const NEWER: &[&str] = &[
    "features",
    "runtime_handlers",
    "container_filesystems",
    "image_id",
    "stop_signal",
    "user",
    "pinned",
    "swap",
    "io",
    "psi",
    "timestamp",
    "containers_statuses",
];
/// Parts of statistics.
const FIGURES: &[&str] = &["cpu", "memory", "writable_layer", "network", "process"];

impl Case<'_> {
    fn method(&self) -> &str {
        short(&self.recorded.call.method)
    }

    /// The container or pod that the request is about.
    fn subject(&self) -> Option<&str> {
        let request = self.recorded.call.request.json.as_ref()?;
        ["container_id", "pod_sandbox_id"].iter().find_map(|field| request.get(field)?.as_str())
    }

    /// The code of an answer whose code differs.
    fn replayed_code(&self) -> Option<&str> {
        let text = self.difference.replayed.as_ref().filter(|_| self.difference.path == CODE)?.as_str()?;
        text.split(':').next()
    }

    fn was_good(&self) -> bool {
        self.recorded.call.code.as_deref() == Some("OK")
    }

    fn object(&self) -> Option<&str> {
        self.difference.object.as_deref()
    }

    /// Whether only one side has it.
    fn is_one_sided(&self) -> bool {
        self.difference.recorded.is_none() != self.difference.replayed.is_none()
    }

    /// Whether the difference is in one of these fields, or below it.
    fn is_within(&self, fields: &[&str]) -> bool {
        let mut words = self.difference.path.split(['.', '[']);
        words.any(|word| fields.contains(&word))
    }

    fn is_address(&self) -> bool {
        self.method() == "PodSandboxStatus" && self.difference.path.starts_with("status.network")
    }

    /// Whether the answer is of a pod that was stopped.
    fn pod_has_ended(&self) -> bool {
        let answer = self.recorded.call.response.json.as_ref();
        answer.and_then(|answer| answer.pointer("/status/state")?.as_str()) == Some("SANDBOX_NOTREADY")
    }

    /// Whether both are errors, and one of them is UNKNOWN.
    fn one_is_unknown(&self) -> bool {
        let codes = [self.recorded.call.code.as_deref(), self.replayed_code()];
        codes.contains(&Some("UNKNOWN")) && !codes.contains(&Some("OK")) && !codes.contains(&None)
    }

    fn of_images(&self) -> bool {
        self.recorded.call.method.contains("ImageService")
    }

    /// Whether the difference is a pod's or container's in a list of several.
    fn of_things(&self) -> bool {
        !self.of_images() && (self.method().starts_with("List") || self.method().starts_with("Stream"))
    }

    /// Whether the image is on one side because it was there before.
    fn image_is_elsewhere(&self) -> bool {
        let id = |value: &Option<Value>| value.as_ref()?.get("id")?.as_str().map(str::to_owned);
        let whole = id(&self.difference.recorded).or_else(|| id(&self.difference.replayed));
        match (&self.difference.recorded, whole.as_deref()) {
            (_, None) => false,
            (None, Some(image)) => self.images.iter().any(|there| there == image),
            (Some(_), Some(image)) => !self.facts.pulled(image),
        }
    }
}

/// The reason of a difference, if it has one.
pub fn explain(case: &Case<'_>) -> Option<&'static Known> {
    TABLE.iter().find(|known| (known.fits)(case))
}

#[cfg(test)]
mod tests;
