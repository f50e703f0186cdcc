//! Single calls on the ports in the three wirings, with an in-memory core behind them.
//!
//! `merged` is the plain call, `loopback` gRPC over a pipe in this process, `split` gRPC over a Unix socket to another.
//!
//! The last group is what counting, an account of a start, and somebody who watches it add to the plain call.

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt as _;
use seam_bench::other::{Other, wirings};
use seam_bench::{BLOB, BLOB_SIZE, NAMESPACE, container};
use shared_proto::containerd::{containers, content, tasks};
use shared_proto::core::Core;
use shared_proto::meter::{Meter, Observer, Way, observed};
use shared_proto::seam::v1::Message;
use shared_proto::{Code, Context};
use tokio::runtime::Runtime;

fn ports(c: &mut Criterion) {
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let other = Other::start();
    let wirings = rt.block_on(wirings(&other.socket()));
    for (_, core) in &wirings {
        rt.block_on(prepare(core));
    }

    bench(c, &rt, "empty call", &wirings, |core| async move {
        core.version.version(&Context::default(), ()).await.expect("version");
    });
    bench(c, &rt, "Tasks.Get", &wirings, |core| async move {
        let request = tasks::GetRequest { container_id: "task".into(), exec_id: String::new() };
        core.tasks.get(&Context::new(NAMESPACE), request).await.expect("get");
    });
    bench(c, &rt, "Containers.Create and Delete", &wirings, |core| async move {
        let cx = Context::new(NAMESPACE);
        let request = containers::CreateContainerRequest { container: Some(container("made")) };
        core.containers.create(&cx, request).await.expect("create");
        core.containers.delete(&cx, containers::DeleteContainerRequest { id: "made".into() }).await.expect("delete");
    });

    let [.., (_, plain)] = &wirings;
    measuring(c, &rt, plain);

    let mut group = c.benchmark_group("content read of 1 MiB");
    group.throughput(Throughput::Bytes(BLOB_SIZE as u64));
    for (wiring, core) in &wirings {
        group.bench_with_input(BenchmarkId::from_parameter(wiring), core, |b, core| {
            b.to_async(&rt).iter(|| async {
                let request = content::ReadContentRequest { digest: BLOB.into(), offset: 0, size: 0 };
                let mut blocks = core.content.read(&Context::new(NAMESPACE), request).await.expect("read");
                let mut size = 0;
                while let Some(block) = blocks.next().await {
                    size += block.expect("block").data.len();
                }
                assert_eq!(size, BLOB_SIZE);
            });
        });
    }
    group.finish();
}

/// Is told of calls, as the account of a start is, and shown their messages if it is watched.
struct Account {
    watched: bool,
}

impl Observer for Account {
    fn began(&self, _: &'static str) -> usize {
        0
    }
    fn ended(&self, _: usize, _: Option<Code>) {}
    fn watched(&self) -> bool {
        self.watched
    }
    fn message(&self, _: usize, _: Way, message: Message) {
        std::hint::black_box(message);
    }
}

/// A plain call without the meter, with it, with an account, and with one that is watched.
fn measuring(c: &mut Criterion, rt: &Runtime, plain: &Core) {
    let metered = plain.clone().metered(&Meter::default(), false);
    let get = async |core: &Core| {
        let request = tasks::GetRequest { container_id: "task".into(), exec_id: String::new() };
        core.tasks.get(&Context::new(NAMESPACE), request).await.expect("get");
    };
    let mut group = c.benchmark_group("Tasks.Get in merged, measured");
    group.bench_function("not at all", |b| b.to_async(rt).iter(|| get(plain)));
    group.bench_function("counted", |b| b.to_async(rt).iter(|| get(&metered)));
    for (name, watched) in [("with an account", false), ("watched", true)] {
        let account = Arc::new(Account { watched });
        group.bench_function(name, |b| b.to_async(rt).iter(|| observed(account.clone(), get(&metered))));
    }
    group.finish();
}

/// A task to ask for.
async fn prepare(core: &Core) {
    let cx = Context::new(NAMESPACE);
    let request = containers::CreateContainerRequest { container: Some(container("task")) };
    core.containers.create(&cx, request).await.expect("create container");
    let request = tasks::CreateTaskRequest { container_id: "task".into(), ..Default::default() };
    core.tasks.create(&cx, request).await.expect("create task");
}

fn bench<F: Future<Output = ()>>(
    c: &mut Criterion,
    rt: &Runtime,
    name: &str,
    wirings: &[(&str, Core)],
    call: impl Fn(Core) -> F,
) {
    let mut group = c.benchmark_group(name);
    for (wiring, core) in wirings {
        group.bench_with_input(BenchmarkId::from_parameter(wiring), core, |b, core| {
            b.to_async(rt).iter(|| call(core.clone()));
        });
    }
    group.finish();
}

criterion_group!(benches, ports);
criterion_main!(benches);
