//! Batches: what moves between steps.

mod batch;
mod position;

pub use batch::{Batch, Kind, Run};
pub(crate) use batch::{BatchBuilder, Rows};
pub use position::{Position, Split, SplitId};
