//! Nexmark: queries over an auction house, as jobs written with streamkit.
//!
//! ```text
//! events       persons, auctions and bids of the crate `nexmark`, made beforehand
//!   ├─> simple, joins, auctions, windows    the queries as a user of the library writes them
//!   └─> batch                               the same results by plain loops over all events
//! both ──> Outcome                          compared before any time counts
//! ```
//!
//! The queries are those of the published benchmark (q0 to q5, q7, q8, q11 and q12), in event time
//! with a delay of four seconds. Joins are no operator of the library: the queries that need one
//! are two streams united, keyed, and put together by a `process`.

mod auctions;
mod batch;
mod events;
mod joins;
mod simple;
mod windows;

use streamkit::connector::memory::Memory;
use streamkit::prelude::*;
use streamkit::testing;

use crate::outcome::Outcome;
use crate::sink::AddUp;
pub use batch::batch;
pub use events::{Auction, Bid, Event, Person, What, generate};

/// The delay of the watermark, as in the published benchmark.
const DELAY_SECONDS: u64 = 4;

/// A query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// All bids.
    Q0,
    /// All bids, their prices in another currency.
    Q1,
    /// The bids for some auctions.
    Q2,
    /// Who sells something of a category in some states.
    Q3,
    /// The average price of closed auctions, by category.
    Q4,
    /// The auctions with the most bids of ten seconds, every two seconds.
    Q5,
    /// The highest bids of each ten seconds.
    Q7,
    /// New persons who open an auction within the same ten seconds.
    Q8,
    /// Sessions of each bidder.
    Q11,
    /// Bids of each bidder in ten seconds of arrival.
    Q12,
}

impl Query {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Q0,
        Self::Q1,
        Self::Q2,
        Self::Q3,
        Self::Q4,
        Self::Q5,
        Self::Q7,
        Self::Q8,
        Self::Q11,
        Self::Q12,
    ];

    /// Number and contents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Q0 => "q0 pass through",
            Self::Q1 => "q1 currency",
            Self::Q2 => "q2 selection",
            Self::Q3 => "q3 join",
            Self::Q4 => "q4 closing prices",
            Self::Q5 => "q5 hot items",
            Self::Q7 => "q7 highest bids",
            Self::Q8 => "q8 join in windows",
            Self::Q11 => "q11 sessions",
            Self::Q12 => "q12 counts by arrival",
        }
    }
}

/// Runs a query with streamkit.
///
/// # Panics
/// If the job fails.
#[must_use]
pub fn run(query: Query, events: &Memory<Event>) -> Outcome {
    let job = Job::new("nexmark");
    let time = match query {
        Query::Q12 => WatermarkStrategy::monotonous(|event: &Event| event.arrived),
        _ => {
            WatermarkStrategy::bounded_out_of_orderness(seconds(DELAY_SECONDS), |event: &Event| {
                event.time
            })
        }
    };
    let events = job.source("events", events.clone(), time);
    let rows = AddUp::default();
    match query {
        Query::Q0 => simple::q0(&events).sink("rows", rows.clone()),
        Query::Q1 => simple::q1(&events).sink("rows", rows.clone()),
        Query::Q2 => simple::q2(&events).sink("rows", rows.clone()),
        Query::Q3 => joins::q3(&events).sink("rows", rows.clone()),
        Query::Q4 => auctions::q4(&events).sink("rows", rows.clone()),
        Query::Q5 => windows::q5(&events).sink("rows", rows.clone()),
        Query::Q7 => windows::q7(&events).sink("rows", rows.clone()),
        Query::Q8 => joins::q8(&events).sink("rows", rows.clone()),
        Query::Q11 => windows::q11(&events).sink("rows", rows.clone()),
        Query::Q12 => windows::q12(&events).sink("rows", rows.clone()),
    }
    if let Err(error) = testing::run(job, RunConfig::new().workers(1)) {
        panic!("{error}");
    }
    rows.outcome()
}

/// The bids among the events.
fn bids(events: &Stream<Event>) -> Stream<Bid> {
    events.flat_map(|event| match event.what {
        What::Bid(bid) => Some(bid),
        What::Person(_) | What::Auction(_) => None,
    })
}
