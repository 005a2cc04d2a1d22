//! Seeded builders of test input: the same seed gives the same input, on every machine.

use super::decode::{Decoded, Event, decode};
use super::{HOUR, InputRecord, InputSplit, MINUTE, SECOND, time};

/// A small pseudo-random number generator (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number from 0 to `end` − 1; 0 if `end` is not positive.
    pub fn below(&mut self, end: i64) -> i64 {
        let bits = (self.next_u64() >> 1) as i64;
        bits % end.max(1)
    }

    /// One of the given values.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as i64) as usize]
    }

    /// Puts the items into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as i64 + 1) as usize);
        }
    }
}

/// Records without key and timestamp from lines of text.
pub fn records<T: AsRef<[u8]>>(lines: impl IntoIterator<Item = T>) -> Vec<InputRecord> {
    let record =
        |line: T| InputRecord { value: Some(line.as_ref().to_vec()), ..InputRecord::default() };
    lines.into_iter().map(record).collect()
}

/// Splits `user_activity/0` and so on, with these records; offsets are given anew from 0.
pub fn splits(parts: Vec<Vec<InputRecord>>) -> Vec<InputSplit> {
    let mut splits = Vec::new();
    for (partition, mut records) in (0_i32..).zip(parts) {
        for (offset, record) in (0_i64..).zip(&mut records) {
            record.offset = offset;
        }
        splits.push(InputSplit {
            name: format!("user_activity/{partition}"),
            topic: "user_activity".to_owned(),
            partition,
            records,
            floors: Vec::new(),
        });
    }
    splits
}

/// Deals the records out to `n` splits, one after the other.
pub fn round_robin(records: &[InputRecord], n: usize) -> Vec<InputSplit> {
    let mut parts = vec![Vec::new(); n];
    for (index, record) in records.iter().enumerate() {
        parts[index % n].push(record.clone());
    }
    splits(parts)
}

/// Gives every record to a random one of `n` splits; the order within a split stays.
pub fn random_split(records: &[InputRecord], n: usize, seed: u64) -> Vec<InputSplit> {
    let mut random = Random::new(seed);
    let mut parts = vec![Vec::new(); n];
    for record in records {
        parts[random.below(n as i64) as usize].push(record.clone());
    }
    splits(parts)
}

/// A file read as one split: a line ends with LF or CRLF, an empty line is a record, and what
/// follows the last line end is a line unless it is empty. Offsets are line numbers from 0.
pub fn file_split(
    name: &str,
    partition: i32,
    content: &[u8],
    limit_base: Option<i64>,
) -> InputSplit {
    let mut lines: Vec<&[u8]> = content.split(|&byte| byte == b'\n').collect();
    let rest = lines.pop().unwrap_or_default();
    let mut lines: Vec<&[u8]> =
        lines.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    if !rest.is_empty() {
        lines.push(rest);
    }
    let mut records = records(lines);
    for (offset, record) in (0_i64..).zip(&mut records) {
        record.offset = offset;
        record.timestamp_micros = limit_base;
    }
    InputSplit {
        name: name.to_owned(),
        topic: name.to_owned(),
        partition,
        records,
        floors: Vec::new(),
    }
}

/// Whether a payload can be a line of a file and come back as it was.
pub fn fits_a_line(record: &InputRecord) -> bool {
    record.value.as_ref().is_some_and(|value| !value.contains(&b'\n') && !value.ends_with(b"\r"))
}

/// A file with one record per line. Panics if one does not fit (see [`fits_a_line`]).
pub fn file_content(records: &[InputRecord]) -> Vec<u8> {
    let mut content = Vec::new();
    for record in records {
        assert!(fits_a_line(record), "record {} does not fit a line", record.offset);
        content.extend_from_slice(record.value.as_deref().unwrap_or_default());
        content.push(b'\n');
    }
    content
}

/// Gives every record that has no timestamp one that its event time does not exceed: the event's
/// own time, or that of the last event before.
pub fn stamp(records: &mut [InputRecord]) {
    let mut last = time::EARLIEST;
    for record in records {
        last = event_of(record).map_or(last, |event| event.event_time);
        record.timestamp_micros.get_or_insert(last);
    }
}

/// Makes the user the key of every valid record, as the job's generator does.
pub fn key_by_user(records: &mut [InputRecord]) {
    for record in records {
        record.key = event_of(record).map(|event| event.user_id.into_bytes());
    }
}

/// Gives the records keys that mean nothing: none, empty, equal for different users, not UTF-8.
pub fn meaningless_keys(records: &mut [InputRecord], seed: u64) {
    let mut random = Random::new(seed);
    for record in records {
        let keys = [None, Some(&b""[..]), Some(&b"k"[..]), Some(&[0xff, 0x00][..])];
        record.key = random.pick(&keys).map(<[u8]>::to_vec);
    }
}

fn event_of(record: &InputRecord) -> Option<Event> {
    match decode(record.value.as_deref(), None) {
        Decoded::Valid(event) => Some(event),
        Decoded::Dead { .. } => None,
    }
}

/// The records in order of their event time plus `delay(..)`; what has no event time stays behind
/// the record that it follows.
fn sorted_by_arrival(records: &[InputRecord], mut delay: impl FnMut() -> i64) -> Vec<InputRecord> {
    let mut arrivals = Vec::new();
    let mut last = i64::MIN;
    for record in records {
        last = event_of(record).map_or(last, |event| event.event_time + delay());
        arrivals.push((last, record.clone()));
    }
    arrivals.sort_by_key(|&(arrival, _)| arrival);
    arrivals.into_iter().map(|(_, record)| record).collect()
}

/// Brings the records into the order of event time, disturbed so that no event comes after one that
/// is `micros` or more later. With `micros` up to the watermark's delay nothing is late, however
/// the result is split.
pub fn shuffle_within(records: &[InputRecord], micros: i64, seed: u64) -> Vec<InputRecord> {
    let mut random = Random::new(seed);
    sorted_by_arrival(records, || random.below(micros))
}

/// Disorder of all sizes: most events a little delayed, some by minutes (late for some of their
/// windows only), some by hours (late for everything).
pub fn heavy_disorder(records: &[InputRecord], seed: u64) -> Vec<InputRecord> {
    let mut random = Random::new(seed);
    sorted_by_arrival(records, || {
        let most = match random.below(10) {
            0..6 => 10 * SECOND,
            6..9 => 9 * MINUTE,
            _ => 6 * HOUR,
        };
        random.below(most)
    })
}

/// `count` valid events in order of time, made to meet the rules' edges often: few users and pages,
/// many events at one instant, times on window bounds, pauses around the session gap and the
/// maximum length, every type and way of writing a user.
pub fn small_world(count: usize, seed: u64) -> Vec<InputRecord> {
    let mut random = Random::new(seed);
    let users = ["\"ada\"", "\"7\"", "7", "-0", "\"Zoë\"", "\"\\u005a\\u006f\\u00eb\""];
    let pages = ["\"/\"", "\"/a/b\"", "\"/a?x\"", "\"http://h/c\"", "\"ü\""];
    let pages_or_none = ["\"/\"", "\"/a/b\"", "\"\"", "null"];
    let types = ["page_view", "page_view", "click", "session_start", "session_end", "scroll"];
    let mut now = 1_700_000_000 * SECOND;
    let mut lines = Vec::new();
    for _ in 0..count {
        now += match random.below(20) {
            0..7 => 0,
            7..12 => random.below(20 * SECOND),
            12..14 => MINUTE - now % MINUTE,
            14..16 => random.below(5 * MINUTE),
            16 => 1,
            17 => 30 * MINUTE - random.below(2),
            18 => 29 * MINUTE,
            _ => random.below(2) * random.below(3 * HOUR),
        };
        let event_type = random.pick(&types);
        let page = match event_type {
            "page_view" => random.pick(&pages),
            _ => random.pick(&pages_or_none),
        };
        lines.push(format!(
            "{{\"event_time\":\"{}\",\"user_id\":{},\"page_url\":{page},\"event_type\":\"{event_type}\"}}",
            time::show(now),
            random.pick(&users),
        ));
    }
    records(lines)
}
