//! Persons, auctions and bids.

use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event as Generated;
use streamkit::time::Timestamp;

/// 2026-01-01T00:00:00Z, in milliseconds.
const START: u64 = 1_767_225_600_000;
/// Of event time; the benchmark's own default.
const EVENTS_PER_SECOND: usize = 10_000;
/// So many neighbours come in another order than they happened: a tenth of a second of them.
const OUT_OF_ORDER: usize = 1_000;

/// Something happens in the auction house. Texts are in memory that is never given back.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// When it happened.
    pub time: Timestamp,
    /// When it came: later than all before it.
    pub arrived: Timestamp,
    /// What it is.
    pub what: What,
}

/// What happens.
#[derive(Debug, Clone, Copy)]
pub enum What {
    /// Somebody signs up.
    Person(&'static Person),
    /// Something is offered.
    Auction(Auction),
    /// Somebody bids for it.
    Bid(Bid),
}

/// Somebody who may sell and bid.
#[derive(Debug, Clone, Copy)]
pub struct Person {
    /// A number.
    pub id: u64,
    /// First and last name.
    pub name: &'static str,
    /// The city.
    pub city: &'static str,
    /// The state, in two letters.
    pub state: &'static str,
}

/// Something on offer.
#[derive(Debug, Clone, Copy)]
pub struct Auction {
    /// A number.
    pub id: u64,
    /// The person who sells it.
    pub seller: u64,
    /// 10 to 14.
    pub category: u64,
    /// The last moment for bids.
    pub expires: Timestamp,
}

/// A bid.
#[derive(Debug, Clone, Copy)]
pub struct Bid {
    /// For which auction.
    pub auction: u64,
    /// Whose.
    pub bidder: u64,
    /// In cents.
    pub price: u64,
    /// When.
    pub time: Timestamp,
    /// Anything else that is carried along.
    pub extra: &'static str,
}

/// The first so many events of the benchmark, with all its usual proportions.
#[must_use]
pub fn generate(events: usize) -> Vec<Event> {
    let config = NexmarkConfig {
        base_time: START,
        first_rate: EVENTS_PER_SECOND,
        next_rate: EVENTS_PER_SECOND,
        out_of_order_group_size: OUT_OF_ORDER,
        ..NexmarkConfig::default()
    };
    let gap = 1_000_000 / EVENTS_PER_SECOND as i64;
    let first = at(START);
    EventGenerator::new(config)
        .take(events)
        .zip(0..)
        .map(|(event, place)| Event {
            time: at(event.timestamp()),
            arrived: Timestamp::from_micros(first.as_micros() + place * gap),
            what: what(event),
        })
        .collect()
}

fn what(event: Generated) -> What {
    match event {
        Generated::Person(person) => What::Person(Box::leak(Box::new(Person {
            id: person.id as u64,
            name: person.name.leak(),
            city: person.city.leak(),
            state: person.state.leak(),
        }))),
        Generated::Auction(auction) => What::Auction(Auction {
            id: auction.id as u64,
            seller: auction.seller as u64,
            category: auction.category as u64,
            expires: at(auction.expires),
        }),
        Generated::Bid(bid) => What::Bid(Bid {
            auction: bid.auction as u64,
            bidder: bid.bidder as u64,
            price: bid.price as u64,
            time: at(bid.date_time),
            extra: bid.extra.leak(),
        }),
    }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_micros(millis as i64 * 1_000)
}
