//! The experiments, one file each, and what they have in common.
//!
//! An experiment takes its sides by turns, has a limit of time after which it takes no further samples, and says what it
//! found in sentences that hold no number which is not in its parts as well. Their order is that of their value.
//!
//! - [`calls`]: single calls on ports and over CRI; [`ports`], [`cri`]: which; [`card`]: their cost card.
//! - [`hop`]: what the hop adds to a pod, with CNI and OCI runtime stubbed ([`crate::stub`]) and without.
//! - [`timeline`]: where the time of one start goes.
//! - [`batch`]: many pods at once; then, in the same worlds, [`steady`] and [`failure`] ([`probe`]: what is asked then).
//! - [`scale`]: how costs grow with pods.
//! - [`kubelet`]: a real kubelet, with ours, with containerd, and with Docker Engine.

pub mod batch;
pub mod calls;
pub mod card;
pub mod cri;
pub mod failure;
pub mod hop;
pub mod kubelet;
pub mod ports;
pub mod probe;
pub mod scale;
pub mod steady;
pub mod timeline;

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use futures::FutureExt as _;

use crate::report::Experiment;

/// What can be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// Single calls: the cost card
    Calls,
    /// What the hop adds to the start of a pod
    Hop,
    /// One start as stages
    Timeline,
    /// Many pods at once, then at rest, then with a daemon killed
    Batch,
    /// From one pod to many
    Scale,
    /// A real kubelet over CRI, and with Docker Engine
    Kubelet,
}

/// Whoever is told what is being done.
pub type Tell = Box<dyn Fn(&str, f64)>;

/// How a run is made.
pub struct Settings {
    /// Few samples, to see that it works.
    pub quick: bool,
    /// Decides whose turn is the first.
    pub seed: u64,
    /// A deliberate delay on the way to the core in `split`, to see that the report finds it.
    pub delay: Option<Duration>,
    /// Told what is being done, and how much of it is done, from 0 to 1.
    pub tell: Tell,
}

impl Settings {
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Whose turn it is in a round of three sides.
    pub fn turns(&self, round: usize) -> [usize; 3] {
        crate::trio::turns(round + (self.seed % 3) as usize)
    }

    /// Numbers of the rounds, as many as there is time for, but `least` at any rate.
    pub fn rounds<'a>(
        &'a self,
        what: &'a str,
        rounds: usize,
        least: usize,
        limit: Duration,
    ) -> impl Iterator<Item = usize> + 'a {
        let began = Instant::now();
        (0..rounds).take_while(move |round| {
            (self.tell)(what, *round as f64 / rounds as f64);
            *round < least || began.elapsed() < limit
        })
    }
}

/// Runs one; a failure is told in what it answers.
pub async fn run(name: Name, settings: &Settings) -> Vec<Experiment> {
    let began = Instant::now();
    let work = async {
        match name {
            Name::Calls => calls::run(settings).await.map(|one| vec![one]),
            Name::Hop => hop::run(settings).await.map(|one| vec![one]),
            Name::Timeline => timeline::run(settings).await.map(|one| vec![one]),
            Name::Batch => batch::run(settings).await,
            Name::Scale => scale::run(settings).await.map(|one| vec![one]),
            Name::Kubelet => kubelet::run(settings).await.map(|one| vec![one]),
        }
    };
    // The harness says what is wrong by panicking.
    let done = AssertUnwindSafe(work).catch_unwind().await;
    let failed = |error: String| vec![Experiment { error: Some(error), ..named(name) }];
    let mut all = match done {
        Ok(Ok(all)) => all,
        Ok(Err(error)) => failed(format!("{error:#}")),
        Err(panic) => failed(words(&*panic)),
    };
    for one in all.iter_mut().filter(|one| one.seconds == 0.0) {
        one.seconds = began.elapsed().as_secs_f64();
    }
    all
}

fn named(name: Name) -> Experiment {
    let name = name.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    Experiment { title: name.clone(), name, ..Experiment::default() }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { quick: true, seed: 4, delay: None, tell: Box::new(|_, _| {}) }
    }

    #[test]
    fn time_ends_rounds_but_not_the_first() {
        let settings = settings();
        assert_eq!(settings.rounds("x", 9, 2, Duration::ZERO).count(), 2);
        assert_eq!(settings.rounds("x", 9, 2, Duration::from_secs(60)).count(), 9);
        assert_eq!(settings.turns(0), [1, 2, 0]);
    }

    #[test]
    fn a_panic_keeps_its_words() {
        let panic = std::panic::catch_unwind(|| panic!("no {}", "core")).unwrap_err();
        assert_eq!(words(&*panic), "no core");
        assert_eq!(named(Name::Hop).name, "hop");
    }
}
