//! Tells somebody of the calls that one piece of work makes, one by one, while they are made.
//!
//! Counters answer "how much, in all"; an observer answers "what is this request waiting for". It lies in the task of
//! the work, so ports and callers know nothing of it. Work without one pays a look at a task-local.

use std::sync::Arc;

use crate::Code;

/// Who is told.
pub trait Observer: Send + Sync + 'static {
    /// A call, `SERVICE.METHOD`, has begun. What is answered is given back to [`Observer::ended`].
    fn began(&self, call: &'static str) -> usize;
    fn ended(&self, begun: usize, error: Option<Code>);
}

tokio::task_local! {
    static OBSERVER: Arc<dyn Observer>;
}

/// Does `work`; `observer` is told of the calls that it makes in its own task.
pub fn observed<F: Future>(observer: Arc<dyn Observer>, work: F) -> impl Future<Output = F::Output> {
    OBSERVER.scope(observer, work)
}

/// A call that somebody was told of.
pub(super) struct Told(Arc<dyn Observer>, usize);

impl Told {
    /// Tells the observer of this task that a call has begun, if there is one.
    pub fn began(call: &'static str) -> Option<Self> {
        let observer = OBSERVER.try_with(Arc::clone).ok()?;
        let begun = observer.began(call);
        Some(Self(observer, begun))
    }

    pub fn ended(self, error: Option<Code>) {
        self.0.ended(self.1, error);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::meter::{Meter, Side};

    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);

    impl Observer for Seen {
        fn began(&self, call: &'static str) -> usize {
            let mut seen = self.0.lock().unwrap();
            seen.push(call.to_owned());
            seen.len() - 1
        }
        fn ended(&self, begun: usize, error: Option<Code>) {
            self.0.lock().unwrap()[begun] += &format!(" {error:?}");
        }
    }

    #[tokio::test]
    async fn each_call_of_the_caller_is_told_and_only_in_its_task() {
        let (caller, core) = (Meter::default(), Meter::at(Side::Core));
        let (start, served) = (caller.register("Tasks.start"), core.register("Tasks.start"));
        let seen = Arc::new(Seen::default());
        let work = async {
            start.start().stop(&Ok(()));
            // In `merged` the core counts in the same task.
            served.start().stop(&Ok(()));
            start.start().stop::<()>(&Err(crate::Error::not_found("gone")));
            drop(start.start());
            std::mem::forget(start.start());
        };
        observed(seen.clone(), work).await;
        start.start().stop(&Ok(()));
        let told = seen.0.lock().unwrap().clone();
        let name = "Tasks.start";
        assert_eq!(
            told,
            [format!("{name} None"), format!("{name} Some(NotFound)"), format!("{name} Some(Canceled)"), name.into()]
        );
    }
}
