//! What the seam costs.
//!
//! - `benches/ports.rs`: single calls on the ports, in the three wirings, with an in-memory core behind them, so that
//!   the seam is all that is measured (`cargo bench -p seam-bench`).
//! - `bin/fake-core.rs`: that in-memory core as a process of its own, for the wiring `split`.
//! - `bin/compare.rs`: whole pods on real daemons, interleaved over the wirings (`make compare`).
//! - `bin/steady.rs`: a node at rest, polled as a kubelet polls (`make steady`).
//! - `bin/compare-peer.rs`: ours against Debian's containerd, in one run (`make compare-peer`).
//! - `bin/soak.rs`: pods that come and go for half an hour, every answer checked (`make soak`); [`life`] is one of them.
//! - `bin/log-throughput.rs`: how fast output gets into a CRI log, ours and Debian's containerd (`make log-throughput`);
//!   [`lines`]: that output.
//! - [`load`]: what the benches on real daemons do to a node; [`node`]: what that costs, read from `/proc`.
//! - [`bars`]: what is asked of ours beside the peer, and the table that shows it; [`controllers`]: crun's one wish;
//!   [`engine`]: the OCI runtime; [`sides`]: who is compared.
//! - `bin/report.rs`: all that the hop costs, on one page (`make report`); [`experiment`]: what is measured; [`report`]: how
//!   it is kept and shown; [`trio`]: the three wirings at once; [`other`]: the same for single calls; [`kernel`]: system
//!   calls; [`delay`]: what a report must find; [`stub`]: CNI and an OCI runtime that do nothing (`bin/stub-engine.rs`).
//! - [`stats`]: percentiles, and the confidence interval of a difference.

#![forbid(unsafe_code)]

pub mod bars;
pub mod controllers;
pub mod delay;
pub mod engine;
pub mod experiment;
pub mod kernel;
pub mod life;
pub mod lines;
pub mod load;
pub mod node;
pub mod other;
pub mod report;
pub mod sides;
pub mod stats;
pub mod stub;
pub mod trio;

use std::collections::BTreeMap;

use shared_proto::fake::FakeCore;
use shared_proto::{any, containerd as pb};

/// A bench, until it is done or Ctrl-C: dropped half-way it still takes its world and the mounts with it.
pub async fn until_interrupted(bench: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        done = bench => done,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}

/// Namespace of everything that the benches make.
pub const NAMESPACE: &str = "bench";
/// Digest of the blob that [`fill`] puts into a fake.
pub const BLOB: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
/// Size of that blob, bytes.
pub const BLOB_SIZE: usize = 1 << 20;

/// Puts what the benches read into a fake core: one blob.
pub fn fill(fake: &FakeCore) {
    fake.put_blob(NAMESPACE, BLOB, vec![7u8; BLOB_SIZE]);
}

/// A container record as the CRI side writes it, with a specification of real size.
pub fn container(id: &str) -> pb::containers::Container {
    let label = |n: usize| (format!("io.kubernetes.label-{n}"), format!("value-{n}"));
    pb::containers::Container {
        id: id.to_owned(),
        image: "registry.k8s.io/e2e-test-images/busybox:1.29".into(),
        labels: (0..12).map(label).collect::<BTreeMap<_, _>>(),
        runtime: Some(pb::containers::container::Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        spec: Some(any::raw(any::SPEC, SPEC.as_bytes())),
        snapshotter: "overlayfs".into(),
        snapshot_key: id.to_owned(),
        extensions: BTreeMap::from([(
            "io.cri-containerd.container.metadata".into(),
            any::raw("meta", vec![b'x'; 2048]),
        )]),
        ..Default::default()
    }
}

/// An OCI specification as it is written for an ordinary container of a pod.
const SPEC: &str = include_str!("spec.json");
