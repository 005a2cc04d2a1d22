//! Time: microseconds since the epoch, watermark strategies, and the only clock.

mod clock;
mod timestamp;
mod watermark;

pub use clock::{Clock, ManualClock, SystemClock};
pub(crate) use timestamp::to_micros;
pub use timestamp::{Timestamp, days, hours, micros, millis, minutes, seconds};
pub(crate) use watermark::SplitTime;
pub use watermark::WatermarkStrategy;
