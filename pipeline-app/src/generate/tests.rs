//! Tests of the generator as a whole: that it is a pure function, that it will stay the one it is,
//! and that its events are as the options say.

mod content;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

/// What a reader appended, one record at a time.
fn records(generator: &Generator, split: u32, from: u64, count: usize) -> Vec<Record> {
    let (mut arena, mut spans) = (Vec::new(), Vec::new());
    generator.reader(split, from).fill(&mut arena, &mut spans, count);
    assert_eq!(spans.len(), count);
    spans
        .into_iter()
        .map(|span| Record {
            value: arena[span.value.start as usize..span.value.end as usize].to_vec(),
            key: arena[span.key.start as usize..span.key.end as usize].to_vec(),
            timestamp: span.timestamp,
            n: span.n,
            kind: span.kind,
        })
        .collect()
}

#[derive(Clone, Debug, PartialEq)]
struct Record {
    value: Vec<u8>,
    key: Vec<u8>,
    timestamp: i64,
    n: u64,
    kind: Kind,
}

impl Record {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.value).expect("UTF-8")
    }

    /// The event of a well-formed record, by way of a JSON parser.
    fn event(&self) -> Event<'_> {
        let fields: BTreeMap<&str, &RawValue> = serde_json::from_str(self.text()).expect("JSON");
        let user = fields["user_id"].get();
        assert!(user.starts_with('"') || user.parse::<u32>().is_ok(), "{user}");
        Event {
            time: micros(fields["event_time"].get()),
            user: user.trim_matches('"'),
            page: serde_json::from_str(fields["page_url"].get()).expect("text or null"),
            event_type: serde_json::from_str(fields["event_type"].get()).expect("text"),
            extra: fields.len() - 4,
        }
    }
}

#[derive(Clone, Debug)]
struct Event<'a> {
    time: i64,
    user: &'a str,
    page: Option<&'a str>,
    event_type: &'a str,
    extra: usize,
}

/// A time as microseconds since 1970; independent of how it was written.
fn micros(json: &str) -> i64 {
    let text = json.trim_matches('"');
    if let Ok(millis) = text.parse::<i64>() {
        return millis * 1_000;
    }
    if let Some((seconds, millis)) = text.split_once('.')
        && let (Ok(seconds), Ok(millis)) = (seconds.parse::<i64>(), millis.parse::<i64>())
    {
        return seconds * 1_000_000 + millis * 1_000;
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().expect("digits");
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days by counting the years and months since.
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = 28 + i64::from(leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days = (1970..year).map(|year| 365 + i64::from(leap(year))).sum::<i64>()
        + months[..month as usize - 1].iter().sum::<i64>()
        + day
        - 1;
    let minutes = days * 1_440 + number(11..13) * 60 + number(14..16);
    let offset = match &text[23..] {
        "Z" | "" | " UTC" => 0,
        "+02:00" => 120,
        "-0530" => -330,
        other => panic!("offset {other}"),
    };
    ((minutes - offset) * 60 + number(17..19)) * 1_000_000 + number(20..23) * 1_000
}

fn generator(options: GeneratorOptions) -> Generator {
    Generator::new(&options).expect("valid options")
}

/// FNV-1a, so that the digest below depends on nothing else.
fn digest(state: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(state, |state, &byte| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// Fixed options, whatever the defaults become.
fn golden() -> GeneratorOptions {
    GeneratorOptions {
        seed: 1,
        splits: 4,
        users: 2_000,
        pages: 200,
        events_per_second: 500,
        out_of_order: 0.2,
        max_disorder: Duration::from_secs(60),
        late: 0.001,
        late_min: Duration::from_secs(180),
        late_max: Duration::from_secs(900),
        malformed: 0.001,
        extra_fields: 0.3,
        other_time_forms: 0.03,
        start_time_micros: 1_767_225_600_000_000,
    }
}

/// A job that was stopped goes on at its position: what the options produce must never change. If
/// this fails after a change that is meant, raise `CONTENT_VERSION`.
#[test]
fn the_first_records_are_what_they_always_were() {
    let generator = generator(golden());
    let first: Vec<String> =
        records(&generator, 0, 0, 4).iter().map(|record| record.text().to_owned()).collect();
    let expected = [
        concat!(
            r#"{"event_time":"2025-12-31T23:59:59.953Z","user_id":"user-961","#,
            r#""page_url":"/products","event_type":"click","referrer":"direct","device":"tablet"}"#
        ),
        concat!(
            r#"{"event_time":"2025-12-31T23:59:59.960Z","user_id":"user-749","#,
            r#""page_url":"/account","event_type":"page_view"}"#
        ),
        concat!(
            r#"{"event_time":"2025-12-31T23:59:59.973Z","user_id":"user-1201","#,
            r#""page_url":"/search","event_type":"page_view","referrer":"search"}"#
        ),
        concat!(
            r#"{"event_time":"2025-12-31T23:59:59.980Z","user_id":"user-325","#,
            r#""page_url":"/catalog/hats/46?sort=price&page=2","event_type":"page_view"}"#
        ),
    ];
    assert_eq!(first, expected);
    let mut state = 0xCBF2_9CE4_8422_2325;
    for split in 0..4 {
        for from in [0, 1 << 40] {
            for record in records(&generator, split, from, 20_000) {
                state = digest(state, &record.value);
                state = digest(state, &record.key);
                state = digest(state, &record.timestamp.to_le_bytes());
            }
        }
    }
    assert_eq!(state, 450_489_818_818_363_687);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any options, any position, any sizes of batches: the same records.
    #[test]
    fn a_record_is_a_function_of_its_number(
        (seed, splits, pages) in (any::<u64>(), 1u32..9, 1u32..500),
        users in prop_oneof![9u32..20, 9u32..5_000, Just(1_000_000)],
        rate in prop_oneof![Just(1u64), 1u64..2_000, Just(1_000_000)],
        share in 0.0..1.0f64,
        disorder in prop_oneof![Just(1u64), 1u64..200_000, Just(600_000_000)],
        from in prop_oneof![0u64..5_000, any::<u32>().prop_map(u64::from), Just(1u64 << 50)],
        batches in prop::collection::vec(1usize..300, 1..8),
    ) {
        let options = GeneratorOptions {
            seed,
            splits,
            users,
            pages,
            events_per_second: rate,
            out_of_order: share,
            max_disorder: Duration::from_millis(disorder),
            late: share / 4.0,
            late_min: Duration::from_millis(disorder + 1),
            late_max: Duration::from_millis(604_800_000),
            malformed: share / 4.0,
            other_time_forms: share,
            extra_fields: share,
            ..Default::default()
        };
        let generator = generator(options.clone());
        let split = seed as u32 % splits;
        let all = records(&generator, split, from, batches.iter().sum());

        let mut reader = Generator::new(&options).expect("valid").reader(split, from);
        let mut place = 0;
        for batch in batches {
            prop_assert_eq!(reader.position(), from + place as u64);
            prop_assert_eq!(reader.next_arrival(), all[place].timestamp);
            let (mut arena, mut spans) = (b"in use".to_vec(), Vec::new());
            reader.fill(&mut arena, &mut spans, batch);
            for span in spans {
                let (value, key) = (span.value, span.key);
                let bytes = |range: &std::ops::Range<u32>| {
                    &arena[range.start as usize..range.end as usize]
                };
                prop_assert_eq!(bytes(&value), &all[place].value);
                prop_assert_eq!(bytes(&key), &all[place].key);
                prop_assert!(key.is_empty() || (value.start <= key.start && key.end <= value.end));
                place += 1;
            }
        }
        for (i, record) in all.iter().enumerate().step_by(7) {
            let n = from + i as u64;
            prop_assert_eq!(record.n, n);
            prop_assert_eq!(record.timestamp, generator.arrival(split, n));
            prop_assert_eq!(&records(&generator, split, n, 1)[0], record);
            let found = generator.next_at_or_after(split, record.timestamp);
            prop_assert!(found <= n && generator.arrival(split, found) == record.timestamp);
        }
    }
}

#[test]
fn seeds_splits_and_numbers_make_a_difference() {
    let one = generator(GeneratorOptions::default());
    let two = generator(GeneratorOptions { seed: 2, ..Default::default() });
    let first = records(&one, 0, 0, 100);
    assert_ne!(first, records(&two, 0, 0, 100));
    assert_ne!(first, records(&one, 1, 0, 100));
    assert_ne!(first, records(&one, 0, 100, 100));
}

#[test]
fn a_generator_knows_its_splits() {
    let generator = generator(GeneratorOptions { splits: 3, ..Default::default() });
    assert_eq!(generator.splits(), 3);
    assert!(std::panic::catch_unwind(|| generator.reader(3, 0)).is_err());
}
