//! A record on its way to a topic.

use std::ops::Range;

use crate::time::Timestamp;

/// What an encoder fills for each row.
///
/// It is one buffer that is used again for every row, so that encoding allocates nothing. What is
/// not set is absent: a record without a value is a tombstone.
#[derive(Debug, Default)]
pub struct ProducerRecord {
    bytes: Vec<u8>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Vec<(Range<usize>, Option<Range<usize>>)>,
    timestamp: Option<Timestamp>,
}

impl ProducerRecord {
    /// Sets the key. Records of one key are in one partition, in order.
    pub fn set_key(&mut self, key: &[u8]) {
        self.key = Some(self.append(key));
    }

    /// Sets the value.
    pub fn set_value(&mut self, value: &[u8]) {
        self.value = Some(self.append(value));
    }

    /// Writes the value in place: `write` appends it to a buffer, and must not touch what is in the
    /// buffer already.
    pub fn write_value(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.value = Some(start.min(self.bytes.len())..self.bytes.len());
    }

    /// Adds a header; `None` is Kafka's null.
    pub fn add_header(&mut self, name: &str, value: Option<&[u8]>) {
        let name = self.append(name.as_bytes());
        let value = value.map(|value| self.append(value));
        self.headers.push((name, value));
    }

    /// Sets the record's own timestamp, of which Kafka keeps milliseconds since 1970. Default: the
    /// time at which it is sent.
    pub fn set_timestamp(&mut self, timestamp: Timestamp) {
        self.timestamp = Some(timestamp);
    }

    fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.headers.clear();
        (self.key, self.value, self.timestamp) = (None, None, None);
    }

    pub(super) fn key(&self) -> Option<&[u8]> {
        self.key.clone().map(|range| &self.bytes[range])
    }

    pub(super) fn value(&self) -> Option<&[u8]> {
        self.value.clone().map(|range| &self.bytes[range])
    }

    pub(super) fn headers(&self) -> impl ExactSizeIterator<Item = (&str, Option<&[u8]>)> {
        self.headers.iter().map(|(name, value)| {
            // It was a `str` when it was added.
            let name = std::str::from_utf8(&self.bytes[name.clone()]).unwrap_or_default();
            (name, value.clone().map(|range| &self.bytes[range]))
        })
    }

    /// Milliseconds since 1970. Neither 0 nor less: those mean "now" and "none" to the client.
    pub(super) fn millis(&self) -> Option<i64> {
        self.timestamp.map(|t| t.as_micros().div_euclid(1_000).max(1))
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_set_and_forgets_it_when_cleared() {
        let mut record = ProducerRecord::default();
        record.set_key(b"");
        record.write_value(|buffer| buffer.extend_from_slice(b"{}"));
        record.add_header("dlq.reason", Some(b"bad_json"));
        record.add_header("dlq.field", None);
        record.set_timestamp(Timestamp::from_micros(-1));
        assert_eq!((record.key(), record.value()), (Some(&b""[..]), Some(&b"{}"[..])));
        assert_eq!(
            record.headers().collect::<Vec<_>>(),
            [("dlq.reason", Some(&b"bad_json"[..])), ("dlq.field", None)]
        );
        assert_eq!(record.millis(), Some(1));
        record.clear();
        assert_eq!((record.key(), record.value(), record.millis()), (None, None, None));
        assert_eq!((record.headers().len(), record.len()), (0, 0));
    }
}
