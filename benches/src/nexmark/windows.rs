//! q5, q7, q11, q12: windows and sessions of bids.

use serde::{Deserialize, Serialize};
use streamkit::prelude::*;

use super::{Bid, Event, bids};
use crate::outcome::Outcome;
use crate::sink::Row;

/// The auctions with the most bids of the last ten seconds, every two seconds.
///
/// A result of a window comes just before the window's end, so the counts of one sliding window
/// are those in one tumbling window of two seconds.
pub(super) fn q5(events: &Stream<Event>) -> Stream<Windowed<(), Hottest>> {
    bids(events)
        .key_by(|bid: &Bid| &bid.auction)
        .window(Sliding::of(seconds(10), seconds(2)))
        .aggregate("bids per auction", count())
        .window_all(Tumbling::of(seconds(2)))
        .aggregate("hottest auctions", MostBids)
        .clone()
}

/// The bids of each ten seconds that are as high as the highest.
pub(super) fn q7(events: &Stream<Event>) -> Stream<Windowed<(), Highest>> {
    bids(events)
        .window_all(Tumbling::of(seconds(10)))
        .aggregate("highest bids", HighestBids)
        .clone()
}

/// Bids of each bidder without a pause of ten seconds.
pub(super) fn q11(events: &Stream<Event>) -> Stream<SessionResult<u64, u64>> {
    bids(events)
        .key_by(|bid: &Bid| &bid.bidder)
        .window(Session::with_gap(seconds(10)))
        .aggregate("sessions", count())
        .clone()
}

/// Bids of each bidder in each ten seconds.
///
/// The original asks the clock of the machine, and so has other results on every run: streamkit
/// has no such windows. Here an event carries the time at which it came, and that is its event
/// time: the same question, with an answer that can be checked.
pub(super) fn q12(events: &Stream<Event>) -> Stream<Windowed<u64, u64>> {
    bids(events)
        .key_by(|bid: &Bid| &bid.bidder)
        .window(Tumbling::of(seconds(10)))
        .aggregate("bids per bidder", count())
        .clone()
}

struct MostBids;

/// The most bids that an auction got, and the auctions that got them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Hottest {
    bids: u64,
    auctions: Vec<u64>,
}

impl Aggregator<Windowed<u64, u64>> for MostBids {
    type Accumulator = Hottest;
    type Output = Hottest;

    fn create(&self) -> Hottest {
        Hottest::default()
    }

    fn add(&self, hottest: &mut Hottest, count: &Windowed<u64, u64>) {
        if count.value > hottest.bids {
            *hottest = Hottest { bids: count.value, auctions: vec![] };
        }
        if count.value == hottest.bids {
            hottest.auctions.push(count.key);
        }
    }

    fn merge(&self, into: &mut Hottest, from: &Hottest) {
        if from.bids > into.bids {
            *into = from.clone();
        } else if from.bids == into.bids {
            into.auctions.extend(&from.auctions);
        }
    }

    fn finish(&self, hottest: &Hottest) -> Hottest {
        hottest.clone()
    }
}

struct HighestBids;

/// The highest price, and who bid it when and for which auction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Highest {
    price: u64,
    bids: Vec<(u64, u64, Timestamp)>,
}

impl Aggregator<Bid> for HighestBids {
    type Accumulator = Highest;
    type Output = Highest;

    fn create(&self) -> Highest {
        Highest::default()
    }

    fn add(&self, highest: &mut Highest, bid: &Bid) {
        if bid.price > highest.price {
            *highest = Highest { price: bid.price, bids: vec![] };
        }
        if bid.price == highest.price {
            highest.bids.push((bid.auction, bid.bidder, bid.time));
        }
    }

    fn merge(&self, into: &mut Highest, from: &Highest) {
        if from.price > into.price {
            *into = from.clone();
        } else if from.price == into.price {
            into.bids.extend(&from.bids);
        }
    }

    fn finish(&self, highest: &Highest) -> Highest {
        highest.clone()
    }
}

impl Row for Windowed<(), Hottest> {
    fn add_to(&self, outcome: &mut Outcome) {
        for auction in &self.value.auctions {
            let end = self.window.end.as_micros() as u64;
            outcome.row([end, *auction, self.value.bids, 0]);
        }
    }
}

impl Row for Windowed<(), Highest> {
    fn add_to(&self, outcome: &mut Outcome) {
        for (auction, bidder, time) in &self.value.bids {
            outcome.row([*auction, *bidder, self.value.price, time.as_micros() as u64]);
        }
    }
}

impl Row for SessionResult<u64, u64> {
    fn add_to(&self, outcome: &mut Outcome) {
        let (start, end) = (self.start.as_micros() as u64, self.end.as_micros() as u64);
        outcome.row([self.key, start, end, self.value]);
    }
}
