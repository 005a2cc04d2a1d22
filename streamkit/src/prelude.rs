//! What a job is written with: `use streamkit::prelude::*;`

pub use crate::connector::{Sink, Source, SourceExt};
pub use crate::operator::{OnError, Process, ProcessContext};
pub use crate::record::LateRecord;
pub use crate::stream::{KeyedStream, Stream};
pub use crate::time::{
    Timestamp, WatermarkStrategy, days, hours, micros, millis, minutes, seconds,
};
pub use crate::window::{
    Aggregator, Session, SessionResult, Sliding, Tumbling, Window, Windowed, average, collect,
    count, count_distinct, max, min, sum, top_k,
};
pub use crate::{Checkpoints, InputEnd, Job, JobHandle, RunConfig};
