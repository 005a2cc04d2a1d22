//! streamkit next to timely dataflow, Renoir and the loop by hand, on the same events from memory.
//!
//! `dev/rust-peers` prints three kinds of tables: one split on one worker; two splits on two workers;
//! a million keys with frequent watermarks. Contenders of a table take turns, and figures are medians.
//! Results are compared before any time counts; where Renoir's differ, it says by how much. `EVENTS`,
//! `USERS`, `PAGES`, `KEYS` and `ROUNDS` are read from the environment; a word on the command line
//! chooses workloads.
//!
//! A worker is a thread for the loop, streamkit and timely. Renoir has a thread for each part of a job
//! between two exchanges: next to one worker, its processor time is what can be compared.

mod many_keys;
mod renoir_job;
mod sent;
mod timely_job;

use std::sync::Arc;

use streamkit::connector::memory::Memory;
use streamkit_benches::events::{Event, Events, Size, number};
use streamkit_benches::outcome::Outcome;
use streamkit_benches::rounds::{Contender, Times, measured};
use streamkit_benches::{Workload, engine, floor};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let (size, rounds) = (Size::from_env(), number("ROUNDS", 5));
    let words: Vec<String> = std::env::args().skip(1).collect();
    let chosen =
        |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    println!("{} events, {} users, {} pages, {rounds} rounds", size.events, size.users, size.pages);
    let one = structs(size, 1);
    let two = structs(size, 2);
    for workload in Workload::ALL.into_iter().filter(|workload| chosen(workload.name())) {
        one_worker(workload, size, &one, rounds);
        two_workers(workload, size, &two, rounds);
    }
    if chosen("many keys") {
        many_keys::compare(rounds);
    }
}

fn structs(size: Size, splits: u32) -> Arc<Vec<Vec<Event>>> {
    Arc::new(Events::splits(size, splits).into_iter().map(|split| split.structs).collect())
}

fn one_worker(workload: Workload, size: Size, splits: &Arc<Vec<Vec<Event>>>, rounds: usize) {
    let source = Memory::splits(splits.iter().cloned());
    let events = Arc::new(splits[0].clone());
    let mut contenders = [
        Contender {
            name: "loop by hand",
            run: Box::new(|| floor::structs(workload, &events, size.users)),
        },
        Contender { name: "streamkit", run: Box::new(|| engine::structs(workload, &source)) },
        Contender {
            name: "timely",
            run: Box::new(|| timely_job::run(workload, splits, size.users, 1)),
        },
        Contender { name: "Renoir", run: Box::new(|| renoir_job::run(workload, &events)) },
    ];
    println!("\n{}, one split, one worker", workload.name());
    agree(&mut contenders);
    let times = measured(&mut contenders, rounds);
    print(&times, 1, size.events);
}

fn two_workers(workload: Workload, size: Size, splits: &Arc<Vec<Vec<Event>>>, rounds: usize) {
    let source = Memory::splits(splits.iter().cloned());
    let streamkit = |workers| {
        let source = &source;
        Box::new(move || engine::on_workers(workload, source, workers))
    };
    let timely = |workers| Box::new(move || timely_job::run(workload, splits, size.users, workers));
    let mut contenders = [
        Contender { name: "streamkit, 1 worker", run: streamkit(1) },
        Contender { name: "streamkit, 2 workers", run: streamkit(2) },
        Contender { name: "timely, 1 worker", run: timely(1) },
        Contender { name: "timely, 2 workers", run: timely(2) },
    ];
    println!("\n{}, two splits", workload.name());
    agree(&mut contenders);
    let times = measured(&mut contenders, rounds);
    print(&times, 1, size.events);
    println!(
        "  second worker: streamkit {:.2} x, timely {:.2} x; streamkit ÷ timely on two {:.2}",
        times[1].speed_to(&times[0]),
        times[3].speed_to(&times[2]),
        times[1].speed_to(&times[3]),
    );
}

/// Prints every contender, and how many times the time of the one at `ours` it takes.
pub fn print(times: &[Times], ours: usize, events: usize) {
    for (place, of) in times.iter().enumerate() {
        let (wall, cpu) = (times[ours].speed_to(of), times[ours].cpu_speed_to(of));
        let remark = if place == ours {
            String::new()
        } else {
            format!("{wall:.2} x the time of {}, {cpu:.2} x its CPU", times[ours].name)
        };
        of.print(events, &remark);
    }
}

/// Runs each once. All must come to the result of the first; only Renoir may differ, and by how much
/// is printed.
///
/// # Panics
/// If another one differs.
pub fn agree(contenders: &mut [Contender<'_>]) {
    let mut first: Option<Outcome> = None;
    for contender in contenders {
        let outcome = (contender.run)();
        let expected = *first.get_or_insert(outcome);
        if outcome == expected {
            continue;
        }
        assert_eq!(contender.name, "Renoir", "{outcome:?} instead of {expected:?}");
        println!(
            "  Renoir's result differs: {} rows of {}, in sum {} of {}, {} events late and not {}",
            outcome.rows, expected.rows, outcome.sum, expected.sum, outcome.late, expected.late,
        );
    }
}
