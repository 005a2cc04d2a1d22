//! Batches: what moves between steps, and where it came from.

mod batch;
mod late;
mod position;
mod splits;

pub(crate) use batch::BatchBuilder;
pub use batch::{Batch, Kind, Run};
pub use late::LateRecord;
pub(crate) use late::MakeLate;
pub(crate) use position::Place;
pub use position::{Position, Split, SplitId};
pub(crate) use splits::SplitList;
