//! Windows: where they begin and end, what is late for them, and what is computed in them.

mod aggregate;
mod aggregators;
mod panes;
mod session;

pub use aggregate::Aggregator;
pub use aggregators::{
    Average, Collect, Count, CountDistinct, Extreme, Number, Sum, TopK, average, collect, count,
    count_distinct, max, min, sum, top_k,
};
pub(crate) use panes::{Lateness, Panes, pane_start};
pub use panes::{Sliding, Tumbling, Window, WindowAssigner, Windowed};
pub use session::{Session, SessionResult};
