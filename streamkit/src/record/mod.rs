//! Batches: what moves between steps.

mod batch;
mod position;

pub(crate) use batch::BatchBuilder;
pub use batch::{Batch, Kind, Run};
pub use position::{Position, Split, SplitId};
