//! Decoding alone: pipeline-app's decoder next to serde_json, sonic-rs and simd-json.
//!
//! `cargo bench --bench decode` prints, for records in the usual form and in any order,
//! nanoseconds per event, events and megabytes per second, and how many times as fast as
//! `serde_json::from_slice` into a borrowed struct each one is: the median of rounds in which they
//! take turns, by the processor's time. `EVENTS` and `ROUNDS` are read from the environment.
//!
//! The others do less: they find four strings, and neither read the time nor keep the record, nor
//! refuse what the job refuses. Before any time counts, every field of every record is compared.

use bytes::Bytes;
use pipeline_app::model::{Origin, decode, event_time};
use serde::Deserialize;
use streamkit_benches::events::{Events, Size, number};
use streamkit_benches::outcome::Outcome;
use streamkit_benches::records;
use streamkit_benches::rounds::{Contender, interleaved};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a user of a parser would write.
#[derive(Deserialize)]
struct Borrowed<'a> {
    event_time: &'a str,
    user_id: &'a str,
    page_url: &'a str,
    event_type: &'a str,
}

fn main() {
    let size = Size::or(200_000);
    let rounds = number("ROUNDS", 7);
    let events = Events::generate(size);
    println!("{} events, {rounds} rounds", size.events);
    for (form, target, stretch, records) in [
        ("usual form", 3.5, 5.0, records::canonical(&events.json)),
        ("any order", 1.5, 2.0, records::any_order(&events.json)),
    ] {
        compare_fields(&records);
        let bytes: usize = records.iter().map(Bytes::len).sum();
        println!("\n{form}, {} bytes each", bytes / records.len());
        let times = interleaved(&mut contenders(&records), rounds);
        for of in &times {
            let megabytes = bytes as f64 / of.median_cpu().as_secs_f64() / 1e6;
            let ratio = of.cpu_speed_to(&times[0]);
            of.print(
                records.len(),
                &format!("{megabytes:>6.0} MB/s   {ratio:.2} x serde_json::from_slice"),
            );
        }
        let ours = times.iter().find(|of| of.name == OURS).map(|of| of.cpu_speed_to(&times[0]));
        let verdict = match ours {
            Some(ratio) if ratio >= stretch => "met, and what was hoped for",
            Some(ratio) if ratio >= target => "met",
            _ => "MISSED",
        };
        println!("  target {target} x, hoped for {stretch} x: {verdict}");
    }
}

const OURS: &str = "pipeline-app";

fn contenders(records: &[Bytes]) -> [Contender<'_>; 5] {
    [
        Contender {
            name: "serde_json::from_slice",
            run: Box::new(move || parsed(records, |json| serde_json::from_slice(json).ok())),
        },
        Contender {
            name: "serde_json::from_str",
            run: Box::new(move || {
                parsed(records, |json| serde_json::from_str(std::str::from_utf8(json).ok()?).ok())
            }),
        },
        Contender {
            name: "sonic-rs",
            run: Box::new(move || parsed(records, |json| sonic_rs::from_slice(json).ok())),
        },
        Contender { name: "simd-json", run: Box::new(move || simd_json(records)) },
        Contender {
            name: OURS,
            run: Box::new(move || {
                let mut outcome = Outcome::default();
                for json in records {
                    if let Ok(activity) = decode(Some(json), Origin::default()) {
                        outcome.decoded(
                            activity.user_id_bytes(),
                            activity.page_url_bytes().unwrap_or_default(),
                            activity.event_type_bytes(),
                        );
                        std::hint::black_box(&activity);
                    }
                }
                outcome
            }),
        },
    ]
}

fn parsed<'a>(records: &'a [Bytes], parse: impl Fn(&'a [u8]) -> Option<Borrowed<'a>>) -> Outcome {
    let mut outcome = Outcome::default();
    for json in records {
        if let Some(event) = parse(json) {
            take(&mut outcome, &event);
        }
    }
    outcome
}

/// It writes into what it reads, so a record is copied first, into the same place.
fn simd_json(records: &[Bytes]) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut buffers, mut copy) = (simd_json::Buffers::default(), vec![]);
    for json in records {
        copy.clear();
        copy.extend_from_slice(json);
        let event = simd_json::serde::from_slice_with_buffers(&mut copy, &mut buffers);
        if let Ok(event) = event {
            take(&mut outcome, &event);
        }
    }
    outcome
}

fn take(outcome: &mut Outcome, event: &Borrowed<'_>) {
    std::hint::black_box(event.event_time);
    outcome.decoded(
        event.user_id.as_bytes(),
        event.page_url.as_bytes(),
        event.event_type.as_bytes(),
    );
}

/// The reference is serde_json, and the time by itself.
fn compare_fields(records: &[Bytes]) {
    for json in records {
        let Ok(expected) = serde_json::from_slice::<Borrowed<'_>>(json) else {
            panic!("serde_json refuses {json:?}")
        };
        let Ok(ours) = decode(Some(json), Origin::default()) else { panic!("we refuse {json:?}") };
        let time = event_time::parse_text(expected.event_time.as_bytes());
        assert_eq!(Ok(ours.event_time()), time, "{json:?}");
        assert_eq!(ours.user_id(), expected.user_id, "{json:?}");
        assert_eq!(ours.page_url(), Some(expected.page_url), "{json:?}");
        assert_eq!(ours.event_type(), expected.event_type, "{json:?}");
    }
}
