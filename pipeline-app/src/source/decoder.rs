//! From a raw record to an event.

use streamkit::connector::{Decode, RawRecord, Reject};

use crate::model::{self, Activity, Origin};

/// Decodes the records of the input topic, or of files like it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ActivityDecoder;

impl Decode for ActivityDecoder {
    type Item = Activity;

    fn decode(&self, record: &RawRecord) -> Result<Activity, Reject> {
        let origin = Origin {
            key: record.key.clone(),
            partition: record.partition,
            offset: i64::try_from(record.offset).unwrap_or(i64::MAX),
            timestamp_micros: record.timestamp.map(|t| t.as_micros()),
        };
        model::decode(record.value.as_ref(), origin).map_err(|reject| Reject {
            reason: reject.reason.as_str(),
            field: reject.field,
            error: reject.error,
        })
    }
}
