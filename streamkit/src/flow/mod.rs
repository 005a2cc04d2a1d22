//! What flows within a worker: batches and, between them, controls; and the context they are handed
//! on with. Operators and everything around them speak this.

mod cx;
mod link;
mod signal;

pub(crate) use cx::Cx;
pub(crate) use link::{Barrier, BarrierKind, Control, Link, Tee};
pub(crate) use signal::Signal;
