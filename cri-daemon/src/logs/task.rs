//! The waiting half of a log: one task that sleeps until a FIFO has something, and lends the pump to a blocking thread.

use std::sync::Arc;
use std::time::Duration;

use shared_sys::fifo::Watch;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::Keep;
use super::pump::{Pump, Turn};

/// How long a log that takes nothing holds its container up, before output is given up.
const HOLD: Duration = Duration::from_secs(10);
/// Time between tries.
const RETRY: Duration = Duration::from_millis(200);
/// After a turn that moved little: lets more output gather, so that a chatty container costs few wake-ups.
const GATHER: Duration = Duration::from_millis(2);
const LITTLE: usize = 16 << 10;

pub(super) enum Command {
    Reopen(oneshot::Sender<std::io::Result<()>>),
    Drain(Duration, oneshot::Sender<bool>),
    Detach(oneshot::Sender<()>),
}

pub(super) struct Task {
    pub id: String,
    pub pump: Pump,
    pub commands: mpsc::Receiver<Command>,
    pub slots: Arc<Semaphore>,
    pub held: Keep,
}

type Fifos = [Option<Watch>; 2];

/// What a turn says about the next wait.
enum Next {
    Again,
    Wait,
    /// Every stream has ended.
    Ended,
}

impl Task {
    /// Must be called inside the runtime.
    pub fn watch(pump: &Pump) -> std::io::Result<Fifos> {
        let [first, second] = pump.fifos();
        Ok([first.map(Watch::new).transpose()?, second.map(Watch::new).transpose()?])
    }

    pub async fn run(self, fifos: Fifos) {
        let Task { id, mut pump, mut commands, slots, held } = self;
        let mut stuck: Option<Instant> = None;
        let mut next = Next::Again;
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Reopen(reply)) => {
                        let done;
                        (pump, done) = lend(pump, &slots, |pump| pump.reopen()).await;
                        let _ = reply.send(done);
                    }
                    Some(Command::Drain(deadline, reply)) => {
                        let whole = drain(pump, &fifos, &slots, Instant::now() + deadline, held).await;
                        let _ = reply.send(whole);
                        return;
                    }
                    Some(Command::Detach(reply)) => {
                        lend(pump, &slots, |pump| drop(pump.settle())).await;
                        let _ = reply.send(());
                        return;
                    }
                    None => return,
                },
                () = wait(&fifos, &pump, &next) => {
                    let turn;
                    (pump, turn) = lend(pump, &slots, |pump| pump.turn(false)).await;
                    next = after(&id, &mut pump, turn, &mut stuck).await;
                }
            }
        }
    }
}

/// Runs `work` on the pump in a blocking thread; a slot bounds how many a dead disk can take.
async fn lend<T: Send + 'static>(
    mut pump: Pump,
    slots: &Arc<Semaphore>,
    work: impl FnOnce(&mut Pump) -> T + Send + 'static,
) -> (Pump, T) {
    let slot = slots.clone().acquire_owned().await;
    shared_sys::blocking(move || {
        let out = work(&mut pump);
        drop(slot);
        (pump, out)
    })
    .await
}

/// Until there may be something to read.
async fn wait(fifos: &Fifos, pump: &Pump, next: &Next) {
    match next {
        Next::Again => {}
        Next::Ended => std::future::pending().await,
        Next::Wait => tokio::select! {
            () = readable(fifos[0].as_ref().filter(|_| !pump.closed(0))) => {}
            () = readable(fifos[1].as_ref().filter(|_| !pump.closed(1))) => {}
        },
    }
}

async fn readable(fifo: Option<&Watch>) {
    match fifo {
        Some(fifo) => fifo.readable().await,
        None => std::future::pending().await,
    }
}

/// Decides how to go on, and pauses where that helps.
async fn after(id: &str, pump: &mut Pump, turn: std::io::Result<Turn>, stuck: &mut Option<Instant>) -> Next {
    let reason = match turn {
        Ok(Turn::Idle(moved)) => {
            *stuck = None;
            if pump.closed(0) && pump.closed(1) {
                return Next::Ended;
            }
            if moved > 0 && moved < LITTLE {
                tokio::time::sleep(GATHER).await;
            }
            return Next::Wait;
        }
        Ok(Turn::More) => {
            *stuck = None;
            return Next::Again;
        }
        Ok(Turn::Stuck(reason)) => reason,
        Err(e) => {
            // Nothing was taken from the FIFO: nothing is lost while the spool can't grow.
            if stuck.is_none() {
                tracing::error!(container = id, error = %e, "output can't be read for now");
            }
            e.to_string()
        }
    };
    let since = *stuck.get_or_insert_with(Instant::now);
    if pump.dropping() || since.elapsed() >= HOLD {
        pump.give_up(&reason);
    }
    tokio::time::sleep(RETRY).await;
    Next::Again
}

/// Reads to the end, or to the deadline; whether the end was reached and all of it is in the log.
async fn drain(mut pump: Pump, fifos: &Fifos, slots: &Arc<Semaphore>, deadline: Instant, held: Keep) -> bool {
    let mut whole = true;
    loop {
        let turn;
        (pump, turn) = lend(pump, slots, |pump| pump.turn(true)).await;
        let late = Instant::now() >= deadline;
        match turn {
            Ok(Turn::Idle(_)) if pump.closed(0) && pump.closed(1) => break,
            Ok(Turn::Idle(_)) if late => {
                whole = false;
                pump.close();
            }
            Ok(Turn::Idle(_)) => {
                // The writer's end may come without an event that reaches us: look again now and then.
                let pause = deadline.min(Instant::now() + RETRY);
                let _ = tokio::time::timeout_at(pause, wait(fifos, &pump, &Next::Wait)).await;
            }
            Ok(Turn::More) if late => {
                whole = false;
                pump.close();
            }
            Ok(Turn::More) => {}
            Ok(Turn::Stuck(_)) | Err(_) if !late => tokio::time::sleep(RETRY).await,
            Ok(Turn::Stuck(reason)) => {
                whole = false;
                pump.close();
                pump.give_up(&reason);
            }
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    whole &= !pump.dropping();
    shared_sys::blocking(move || {
        pump.discard();
        held.release();
    })
    .await;
    whole
}
