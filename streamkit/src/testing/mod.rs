//! Tools for tests of jobs and of connectors.
//!
//! A job is a function of its ends, so a test calls the same function with a [`ScriptedSource`] and
//! collecting sinks, and decides what comes when:
//!
//! | | |
//! |---|---|
//! | [`Script`], [`ScriptedSource`], [`Gate`] | splits that do what a script says, in an order that the test controls |
//! | [`Collect`](crate::connector::memory::Collect), [`Journal`] | sinks that keep what was committed; the journal keeps the order too |
//! | [`FlakySink`] | any sink, with failures at chosen moments |
//! | [`ManualClock`](crate::time::ManualClock) | time that moves when the test says so |
//! | [`run`], [`Running`] | runs a job without an async test |
//! | [`source_contract`], [`sink_contract`] | what every connector must hold to |
//! | [`fuzz`](fuzz()) | mutated input for a decoder |
//!
//! ```
//! use streamkit::connector::memory::Collect;
//! use streamkit::prelude::*;
//! use streamkit::testing::{Script, ScriptedSource, run};
//!
//! let words = ScriptedSource::new([Script::new().emit([(1, "a"), (2, "b"), (70, "a")])]);
//! let time = |e: &(i64, &'static str)| Timestamp::from_micros(e.0 * 1_000_000);
//! let counts = Collect::new();
//! let job = Job::new("words");
//! job.source("words", words, WatermarkStrategy::monotonous(time))
//!     .key_by_value(|e| e.1.to_owned())
//!     .window(Tumbling::of(minutes(1)))
//!     .aggregate("counts", count())
//!     .sink("counts table", counts.clone());
//! run(job, RunConfig::new().at_end(InputEnd::Close)).unwrap();
//! assert_eq!(counts.rows().len(), 3);
//! ```
//!
//! Nothing here waits for a wall-clock time to pass, except to give up with a clear text.

mod contract;
mod coverage;
mod flaky;
mod fuzz;
mod gate;
mod journal;
mod run;
mod script;

pub use contract::{sink_contract, source_contract};
pub use flaky::{Fault, FlakySink};
pub use fuzz::fuzz;
pub use gate::Gate;
pub use journal::{Entry, Journal};
pub use run::{Running, run};
pub use script::{Script, ScriptedSource};
