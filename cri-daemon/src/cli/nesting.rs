//! Which stages of a start are parts of which.
//!
//! Nobody records it: it follows from the times, and from which side of the seam a stage is on.

use shared_proto::seam::v1::Stage;
use shared_proto::seam::v1::stage::Place;

/// Two processes note the ends of one thing: they may differ by so much.
const SLACK_US: u64 = 500;

/// Whether `inner` is a part of `outer`. The network, the files and the task of a pod are made side by side, so time
/// alone does not say it: of these only the task makes calls, and only the network runs plugins.
pub fn contains(outer: &Stage, inner: &Stage) -> bool {
    let (start, end) = (inner.start_us, inner.start_us + inner.us);
    let in_time = start + SLACK_US >= outer.start_us && end <= outer.start_us + outer.us + SLACK_US;
    let is_plugin = inner.name == "cni-plugin";
    let related = match outer.name.as_str() {
        "cni" => is_plugin,
        "rollback" => true,
        "netns" | "files" | "cni-plugin" => false,
        _ => !is_plugin,
    };
    depth(inner) > depth(outer) && in_time && related
}

/// How deep a stage lies, by the side of the seam that it is on.
pub fn depth(stage: &Stage) -> usize {
    match stage.place() {
        Place::Cri if stage.name == "cni-plugin" => 1,
        Place::Cri => 0,
        Place::Seam => 1,
        Place::Core => 2,
        Place::CoreStep => 3,
    }
}
