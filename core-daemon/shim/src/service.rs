//! The Task service over ttrpc, versions 2 and 3: decode, one call, encode.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use shared_proto::ttrpc::task::*;
use shared_ttrpc::{Answer, Context, Service, decode, encode};
use tokio::sync::Notify;

use crate::error::Error;
use crate::task::Tasks;

/// See the module.
pub struct TaskService {
    pub tasks: Arc<Tasks>,
    /// Told when the server shall end.
    pub end: Arc<Notify>,
}

impl Service for TaskService {
    fn call(&self, _: Context, method: &str, payload: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        let method = method.to_owned();
        Box::pin(async move { self.dispatch(&method, payload).await })
    }
}

impl TaskService {
    async fn dispatch(&self, method: &str, payload: Bytes) -> Answer {
        let tasks = &self.tasks;
        match method {
            "State" => answer(tasks.state(&decode(payload)?)),
            "Create" => answer(tasks.create(decode(payload)?).await.map(|pid| CreateTaskResponse { pid })),
            "Start" => answer(tasks.start(decode(payload)?).await.map(|pid| StartResponse { pid })),
            "Delete" => answer(tasks.delete(decode(payload)?).await.map(|exit| DeleteResponse {
                pid: exit.pid,
                exit_status: exit.status,
                exited_at: Some(exit.timestamp()),
            })),
            "Pids" => {
                let request: PidsRequest = decode(payload)?;
                answer(tasks.pids(&request.id).map(|processes| PidsResponse { processes }))
            }
            "Pause" => answer(tasks.pause(decode(payload)?).await),
            "Resume" => answer(tasks.resume(decode(payload)?).await),
            "Checkpoint" => answer(tasks.checkpoint(decode(payload)?).await),
            "Kill" => answer(tasks.kill(decode(payload)?).await),
            "Exec" => answer(tasks.exec(decode(payload)?).await),
            "ResizePty" => answer(tasks.resize(&decode(payload)?)),
            "CloseIO" => answer(tasks.close_io(&decode(payload)?)),
            "Update" => answer(tasks.update(decode(payload)?).await),
            "Wait" => answer(
                tasks
                    .wait(&decode(payload)?)
                    .await
                    .map(|exit| WaitResponse { exit_status: exit.status, exited_at: Some(exit.timestamp()) }),
            ),
            "Stats" => {
                let request: StatsRequest = decode(payload)?;
                answer(tasks.stats(&request.id).map(|stats| StatsResponse { stats: Some(stats) }))
            }
            "Connect" => {
                let request: ConnectRequest = decode(payload)?;
                let version = env!("CARGO_PKG_VERSION").to_owned();
                let task_pid = tasks.pid_of(&request.id);
                answer(Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, version }))
            }
            "Shutdown" => {
                let request: ShutdownRequest = decode(payload)?;
                // While another container of the pod is here this means nothing.
                if request.now || tasks.is_empty() {
                    self.end.notify_one();
                }
                answer(Ok(()))
            }
            other => Err(Error::Unimplemented(format!("method {other}")).into()),
        }
    }
}

fn answer(outcome: Result<impl Message, Error>) -> Answer {
    encode(&outcome?)
}
