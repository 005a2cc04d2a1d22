//! The job's model: what one input record means, and what is written about it.
//!
//! Everything here is a pure function of its arguments: no clock, no I/O, no state.
//!
//! ```text
//!                              ┌─> Activity ──> enriched::render, LateRecord
//! bytes ──> decode ── json ────┤
//!           event_time         └─> Reject ────> DeadLetter
//! ```
//!
//! - [`decode()`] checks a record and makes an [`Activity`] of it, or a [`Reject`];
//! - [`json`] and [`json_text`] read and write JSON, [`event_time`] times;
//! - [`enriched`] and [`letters`] make what goes to the topics, [`category`] the category of a page.

pub mod activity;
mod canonical;
pub mod category;
pub mod decode;
pub mod enriched;
pub mod event_time;
mod find;
pub mod json;
pub mod json_text;
pub mod letters;
mod name;
pub mod reject;

#[cfg(test)]
mod decode_fuzz;
#[cfg(test)]
mod decode_reference;

pub use activity::{Activity, Origin};
pub use category::page_category;
pub use decode::decode;
pub use event_time::Timestamp;
pub use letters::{DeadLetter, Headers, LateRecord};
pub use reject::{Field, Reason, Reject, is_future};
