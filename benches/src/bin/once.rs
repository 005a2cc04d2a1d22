//! Does one piece of work once, for `dev/instructions` to count what the processor does.
//!
//! ```text
//! once nothing structs                   makes the input only: what is to be subtracted
//! once loop|engine structs|json A4
//! once ours|serde_json usual|any-order
//! ```
//!
//! `EVENTS`, `USERS` and `PAGES` are read from the environment.

use std::process::ExitCode;

use bytes::Bytes;
use pipeline_app::model::{Origin, decode};
use serde::Deserialize;
use streamkit::connector::memory::Memory;
use streamkit::connector::{RawRecord, Source};
use streamkit_benches::events::{Events, Size};
use streamkit_benches::{Workload, engine, floor, records};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let size = Size::or(100_000);
    let events = Events::generate(size);
    let rows = match *words.as_slice() {
        ["nothing", "structs"] => Memory::new(events.structs).describe().len() as u64,
        ["nothing", "json"] => raws(&events.json).describe().len() as u64,
        ["nothing", form] => records(form, &events.json).len() as u64,
        [contender, form @ ("structs" | "json"), name] => {
            let Some(workload) = Workload::ALL.into_iter().find(|w| w.name().starts_with(name))
            else {
                return usage();
            };
            match (contender, form) {
                ("loop", "structs") => floor::structs(workload, &events.structs, size.users).rows,
                ("loop", _) => floor::json(workload, &events.json, size.users).rows,
                (_, "structs") => engine::structs(workload, &Memory::new(events.structs)).rows,
                _ => engine::json(workload, &raws(&events.json)).rows,
            }
        }
        [contender, form] => {
            let records = records(form, &events.json);
            let parse = if contender == "ours" { ours } else { serde_json };
            records.iter().filter(|json| parse(json)).count() as u64
        }
        _ => return usage(),
    };
    println!("{rows}");
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!(
        "once nothing|loop|engine|ours|serde_json structs|json|usual|any-order [A1|A2|A3|A4]"
    );
    ExitCode::FAILURE
}

fn raws(json: &[Bytes]) -> Memory<RawRecord> {
    let raw = |json: &Bytes| RawRecord { value: Some(json.clone()), ..RawRecord::default() };
    Memory::new(json.iter().map(raw).collect::<Vec<_>>())
}

fn records(form: &str, json: &[Bytes]) -> Vec<Bytes> {
    if form == "usual" { records::canonical(json) } else { records::any_order(json) }
}

fn ours(json: &Bytes) -> bool {
    decode(Some(json), Origin::default())
        .is_ok_and(|activity| std::hint::black_box(&activity).event_time() > 0)
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "it is there to be made")]
struct Borrowed<'a> {
    event_time: &'a str,
    user_id: &'a str,
    page_url: &'a str,
    event_type: &'a str,
}

fn serde_json(json: &Bytes) -> bool {
    std::hint::black_box(serde_json::from_slice::<Borrowed<'_>>(json)).is_ok()
}
