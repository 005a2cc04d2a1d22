//! What a person sees while the job runs.

mod last_minute;

pub use last_minute::{Figures, LastMinute};
