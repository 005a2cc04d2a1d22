//! Records for the bench of the decoder: the generator's events, written in two ways.

use bytes::Bytes;
use serde_json::{Map, Value};

/// Other fields than the four, as trackers add them; some with escapes, numbers, or more inside.
const EXTRA: [&str; 8] = [
    r#""device":"android""#,
    r#""referrer":"https://search.example.com/?q=shoes""#,
    r#""session":"8f14e45f-ceea-4a7b-9c1d-1b2c3d4e5f60""#,
    r#""screen":[1080,2400]"#,
    r#""geo":{"country":"DE","lat":52.5163,"lon":13.3777}"#,
    r#""title":"He said \"buy\"""#,
    r#""score":0.8125"#,
    r#""consent":true"#,
];

/// The four fields in the usual order, all of them strings, without white space: what most
/// producers write, and what the decoder has a short cut for.
#[must_use]
pub fn canonical(events: &[Bytes]) -> Vec<Bytes> {
    in_one_piece(events.iter().map(|json| format!("{{{}}}", fields(json).join(","))))
}

/// The same events with their fields in any order, up to three others among them, and half of the
/// records with a space after each colon and comma.
#[must_use]
pub fn any_order(events: &[Bytes]) -> Vec<Bytes> {
    let mut random = Random(1);
    let record = |json: &Bytes| {
        let mut fields = fields(json).to_vec();
        for _ in 0..random.below(4) {
            let extra = EXTRA[random.below(EXTRA.len())];
            // None twice: parsers differ in what they make of that.
            if !fields.iter().any(|field| field == extra) {
                fields.push(extra.to_owned());
            }
        }
        for last in (1..fields.len()).rev() {
            fields.swap(last, random.below(last + 1));
        }
        if random.below(2) == 0 {
            return format!("{{{}}}", fields.join(","));
        }
        let spaced: Vec<_> = fields.iter().map(|field| field.replacen("\":", "\": ", 1)).collect();
        format!("{{{}}}", spaced.join(", "))
    };
    in_one_piece(events.iter().map(record))
}

/// One after the other in one buffer, as the sources hand them over.
fn in_one_piece(records: impl Iterator<Item = String>) -> Vec<Bytes> {
    let (mut buffer, mut ends) = (vec![], vec![0]);
    for record in records {
        buffer.extend_from_slice(record.as_bytes());
        ends.push(buffer.len());
    }
    let buffer = Bytes::from(buffer);
    ends.windows(2).map(|ends| buffer.slice(ends[0]..ends[1])).collect()
}

/// The members of the record, in the usual order; what is no string in it becomes one.
fn fields(json: &Bytes) -> [String; 4] {
    let Ok(record) = serde_json::from_slice::<Map<String, Value>>(json) else {
        panic!("the generator made {json:?}")
    };
    ["event_time", "user_id", "page_url", "event_type"].map(|name| match record.get(name) {
        Some(Value::String(text)) => format!("\"{name}\":{}", Value::from(text.as_str())),
        Some(Value::Number(number)) => format!("\"{name}\":\"{number}\""),
        _ => format!("\"{name}\":\"/\""),
    })
}

/// splitmix64: the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
