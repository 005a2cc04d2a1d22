//! The engine next to the loop by hand, on one thread of work, from structs and from JSON.
//!
//! `cargo bench --bench engine` prints, for each workload, nanoseconds and events per second of
//! both, and how many times as fast as the loop the engine is: the median of rounds in which they
//! take turns. `ROUNDS`, `EVENTS`, `USERS` and `PAGES` are read from the environment; a word on the
//! command line chooses workloads. There is one split and one worker, as the loop has.

use streamkit::connector::RawRecord;
use streamkit::connector::memory::Memory;
use streamkit_benches::Workload;
use streamkit_benches::events::{Events, Size, number};
use streamkit_benches::rounds::{Contender, interleaved};
use streamkit_benches::{engine, floor};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let size = Size::from_env();
    let rounds = number("ROUNDS", 5);
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let events = Events::generate(size);
    println!("{} events, {} users, {} pages, {rounds} rounds", size.events, size.users, size.pages);
    let structs = Memory::new(events.structs.clone());
    let raws: Vec<RawRecord> = events
        .json
        .iter()
        .map(|json| RawRecord { value: Some(json.clone()), ..RawRecord::default() })
        .collect();
    let records = Memory::new(raws);
    for workload in Workload::ALL {
        let name = workload.name();
        if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let mut contenders = [
            Contender {
                name: "loop, structs",
                run: Box::new(|| floor::structs(workload, &events.structs, size.users)),
            },
            Contender {
                name: "engine, structs",
                run: Box::new(|| engine::structs(workload, &structs)),
            },
            Contender {
                name: "loop, JSON",
                run: Box::new(|| floor::json(workload, &events.json, size.users)),
            },
            Contender { name: "engine, JSON", run: Box::new(|| engine::json(workload, &records)) },
        ];
        let times = interleaved(&mut contenders, rounds);
        println!("\n{name}");
        for (i, of) in times.iter().enumerate() {
            let ratio = (i % 2 == 1).then(|| of.speed_to(&times[i - 1]));
            of.print(size.events, &ratio.map(|r| format!("{r:.2} x the loop")).unwrap_or_default());
        }
    }
}
