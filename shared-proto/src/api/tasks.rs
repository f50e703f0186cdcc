//! Processes of containers: the init process and execs.
//!
//! `Wait` may come before `Start` and blocks until the exit; after it, it answers the stored status. `Delete` of a
//! running task is `FailedPrecondition`. A `Wait` that breaks with `Unavailable` means "ask again", never "exited".

super::port! {
    /// See the [module](self)'s documentation.
    Tasks, RemoteTasks, TasksServer, MeteredTasks:
    crate::containerd::tasks, tasks_client::TasksClient, tasks_server::Tasks / TasksServer;
    unary {
        create(CreateTaskRequest) -> CreateTaskResponse;
        start(StartRequest) -> StartResponse;
        delete(DeleteTaskRequest) -> DeleteResponse;
        delete_process(DeleteProcessRequest) -> DeleteResponse;
        get(GetRequest) -> GetResponse;
        list(ListTasksRequest) -> ListTasksResponse;
        kill(KillRequest) -> ();
        exec(ExecProcessRequest) -> ();
        resize_pty(ResizePtyRequest) -> ();
        close_io(CloseIoRequest) -> ();
        pause(PauseTaskRequest) -> ();
        resume(ResumeTaskRequest) -> ();
        list_pids(ListPidsRequest) -> ListPidsResponse;
        checkpoint(CheckpointTaskRequest) -> CheckpointTaskResponse;
        update(UpdateTaskRequest) -> ();
        metrics(MetricsRequest) -> MetricsResponse;
        wait(WaitRequest) -> WaitResponse;
    }
}
