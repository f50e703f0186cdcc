//! Questions that are asked over and over while a daemon is killed and started again: CRI's lists, an ExecSync, and the
//! core on its own socket.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::World;
use shared_proto::cri::v1::ListContainersRequest;
use shared_proto::{Context, Core};
use tokio::task::JoinHandle;

/// How long everything may take to answer again.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is asked.
pub const ASKED: [&str; 3] = ["lists over CRI", "ExecSync", "the core's socket"];

/// One question: when it was asked, when it was over, and whether there was an answer.
pub type Asked = (Instant, Instant, bool);

/// When the last question was asked that was answered.
type Last = Arc<Mutex<Option<Instant>>>;

/// Asks all the time.
pub struct Probes {
    over: Arc<AtomicBool>,
    tasks: [JoinHandle<Vec<Asked>>; 3],
    last: [Last; 3],
}

impl Probes {
    pub fn start(world: &World, container: &str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let last: [Last; 3] = Default::default();
        let (lists, execs, core, container) = (world.cri(), world.cri(), world.core(), container.to_owned());
        let lists = ask(over.clone(), last[0].clone(), Duration::from_millis(20), move || {
            let cri = lists.clone();
            async move { cri.try_list_containers(ListContainersRequest::default()).await.is_ok() }
        });
        let execs = ask(over.clone(), last[1].clone(), Duration::from_millis(100), move || {
            let (cri, container) = (execs.clone(), container.clone());
            async move { cri.try_exec_in(&container, &["true"], 2).await.is_ok_and(|answer| answer.exit_code == 0) }
        });
        let version = |core: Core| async move { core.version.version(&Context::default(), ()).await.is_ok() };
        let core = ask(over.clone(), last[2].clone(), Duration::from_millis(20), move || version(core.clone()));
        Self { over, tasks: [lists, execs, core], last }
    }

    /// Waits until a question of each kind, asked after `since`, was answered. All questions.
    pub async fn until_all_answer(self, since: Instant) -> [Vec<Asked>; 3] {
        let answered = |last: &Last| last.lock().is_ok_and(|last| last.is_some_and(|asked| asked > since));
        while since.elapsed() < PATIENCE && !self.last.iter().all(answered) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.over.store(true, Relaxed);
        let mut all = Vec::new();
        for task in self.tasks {
            all.push(task.await.unwrap_or_default());
        }
        all.try_into().unwrap_or_default()
    }
}

fn ask<F: Future<Output = bool> + Send + 'static>(
    over: Arc<AtomicBool>,
    last: Last,
    pause: Duration,
    question: impl Fn() -> F + Send + 'static,
) -> JoinHandle<Vec<Asked>> {
    tokio::spawn(async move {
        let mut all = Vec::new();
        while !over.load(Relaxed) {
            let asked = Instant::now();
            let answered = tokio::time::timeout(Duration::from_secs(5), question()).await.unwrap_or(false);
            all.push((asked, Instant::now(), answered));
            if let (true, Ok(mut last)) = (answered, last.lock()) {
                *last = Some(asked);
            }
            tokio::time::sleep(pause).await;
        }
        all
    })
}
