//! Operators: batch in, batch out.
//!
//! A stateless operator implements [`Operator`]; built in are `map`, `try_map`, `filter`,
//! `flat_map` and `inspect`. A stateful one hangs on a keyed stream: windows, sessions, distinct keys, and
//! [`Process`] for everything else.
//!
//! Operators never block, never await, do no I/O and never ask the time.

mod combine;
mod distinct;
mod filter;
mod flat_map;
#[cfg(test)]
mod freeze_tests;
mod inspect;
mod keyed;
mod map;
mod pane_list;
mod process;
mod results;
mod session;
mod session_state;
mod stateless;
mod try_map;
mod unsettled;
mod window;

pub(crate) use combine::{Combine, Partial};
pub(crate) use distinct::DistinctKeys;
pub(crate) use filter::Filter;
pub(crate) use flat_map::{Expand, FlatMap};
pub(crate) use inspect::Inspect;
pub(crate) use keyed::{Fired, KeyedOperator, KeyedRows, OperatorStatus};
pub(crate) use map::Map;
pub(crate) use process::Processor;
pub use process::{Process, ProcessContext, ProcessResult};
pub(crate) use results::Acks;
pub(crate) use session::Sessions;
pub use stateless::{Operator, Output};
pub use try_map::OnError;
pub(crate) use try_map::TryMap;
pub(crate) use window::WindowAggregate;
