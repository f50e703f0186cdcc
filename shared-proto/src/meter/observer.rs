//! Tells somebody of the calls that one piece of work makes, one by one, while they are made.
//!
//! Counters answer "how much, in all"; an observer answers "what is this request waiting for". It lies in the task of
//! the work, so ports and callers know nothing of it. Work without one pays a look at a task-local. An observer that is
//! watched itself is shown the messages, too; one that is not pays a question for that.

use std::borrow::Cow;
use std::sync::Arc;

use futures::future::BoxFuture;
use prost::Name;

use crate::seam::v1::Message;
use crate::{Code, Context};

/// Who is told.
pub trait Observer: Send + Sync + 'static {
    /// A call, `SERVICE.METHOD`, has begun. What is answered is given back to [`Observer::ended`].
    fn began(&self, call: &'static str) -> usize;
    fn ended(&self, begun: usize, error: Option<Code>);

    /// Whether somebody wants to see the messages as well.
    fn watched(&self) -> bool {
        false
    }
    /// A message of a call that is [`Observer::watched`].
    fn message(&self, _begun: usize, _way: Way, _message: Message) {}
    /// What the call waits for before it is made, or before its answer is given.
    fn pause(&self, _begun: usize, _way: Way) -> Option<BoxFuture<'static, ()>> {
        None
    }
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To whoever does the work.
    There,
    /// Its answer.
    Back,
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

    /// Shows a request, where somebody watches; then the callee is told so.
    pub fn sends<'a>(&self, cx: Cow<'a, Context>, message: &impl Name) -> Cow<'a, Context> {
        if !self.0.watched() {
            return cx;
        }
        self.0.message(self.1, Way::There, Message::of(message));
        Cow::Owned(Context { watched: true, ..cx.into_owned() })
    }

    /// Shows an answer, where somebody watches.
    pub fn receives(&self, message: &impl Name) {
        if self.0.watched() {
            self.0.message(self.1, Way::Back, Message::of(message));
        }
    }

    pub fn pause(&self, way: Way) -> Option<BoxFuture<'static, ()>> {
        self.0.pause(self.1, way)
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

    /// Is shown the types of messages.
    struct Watched(Mutex<Vec<(Way, String)>>);

    impl Observer for Watched {
        fn began(&self, _: &'static str) -> usize {
            0
        }
        fn ended(&self, _: usize, _: Option<Code>) {}
        fn watched(&self) -> bool {
            true
        }
        fn message(&self, _: usize, way: Way, message: Message) {
            self.0.lock().unwrap().push((way, message.r#type));
        }
    }

    #[tokio::test]
    async fn messages_are_shown_to_those_who_are_watched_and_the_callee_is_told() {
        use crate::containerd::tasks::{StartRequest, StartResponse};

        let call = Meter::default().register("Tasks.start");
        let once = |cx: &Context| {
            let timer = call.start();
            let watched = timer.sends(Cow::Borrowed(cx), &StartRequest::default()).watched;
            timer.receives(&Ok(StartResponse::default()));
            timer.stop(&Ok(()));
            watched
        };
        let cx = Context::new("n");
        assert!(!once(&cx), "nobody observes");
        assert!(!observed(Arc::new(Seen::default()), async { once(&cx) }).await, "nobody watches");
        let watched = Arc::new(Watched(Mutex::default()));
        assert!(observed(watched.clone(), async { once(&cx) }).await);
        let shown = watched.0.lock().unwrap().clone();
        let name = |what: &str| format!("containerd.services.tasks.v1.{what}");
        assert_eq!(shown, [(Way::There, name("StartRequest")), (Way::Back, name("StartResponse"))]);
    }
}
