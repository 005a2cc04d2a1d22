//! Nexmark queries with streamkit, one worker, events made beforehand.
//!
//! `cargo bench --bench nexmark` prints, for each query, nanoseconds and events per second: medians
//! of rounds in which the queries take turns. All events count, also those that a query has no use
//! for. Each result is first compared with a batch computation (`src/nexmark/batch.rs`). `EVENTS`
//! and `ROUNDS` are read from the environment; a word on the command line chooses queries.

use streamkit::connector::memory::Memory;
use streamkit_benches::events::number;
use streamkit_benches::nexmark::{Query, batch, generate, run};
use streamkit_benches::rounds::{Contender, Times, measured};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let (count, rounds) = (number("EVENTS", 500_000), number("ROUNDS", 3));
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let chosen = |query: &Query| {
        let number = query.name().split(' ').next();
        words.is_empty() || words.iter().any(|word| number == Some(word))
    };
    let events = generate(count);
    println!("{count} events, {rounds} rounds");
    let source = Memory::new(events.clone());
    let mut contenders = vec![];
    for query in Query::ALL.into_iter().filter(chosen) {
        let (name, expected) = (query.name(), batch(query, &events));
        assert!(expected.rows > 0, "{name} has no result at all");
        assert_eq!(run(query, &source), expected, "{name} is not what the batch says");
        let source = &source;
        contenders.push(Contender { name, run: Box::new(move || run(query, source)) });
    }
    let times: Vec<Times> = measured(&mut contenders, rounds);
    for of in &times {
        of.print(count, "");
    }
}
