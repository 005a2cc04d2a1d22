//! The same results by plain loops: slow, obvious, and nothing shared with the library.
//!
//! All events are at hand, so there are no watermarks, and nothing is late: the benchmark's events
//! are out of order by less than the delay.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64;

use super::{Auction, Bid, Event, Person, Query, What};
use crate::outcome::Outcome;

const SECOND: i64 = 1_000_000;

/// The result of a query.
#[must_use]
pub fn batch(query: Query, events: &[Event]) -> Outcome {
    let all = Tables::new(events);
    let mut outcome = Outcome::default();
    for row in match query {
        Query::Q0 => all.bids(1),
        Query::Q1 => all.bids(908),
        Query::Q2 => all.q2(),
        Query::Q3 => all.q3(),
        Query::Q4 => all.q4(),
        Query::Q5 => all.q5(),
        Query::Q7 => all.q7(),
        Query::Q8 => all.q8(),
        Query::Q11 => all.q11(),
        Query::Q12 => q12(events),
    } {
        outcome.row(row);
    }
    outcome
}

type Rows = Vec<[u64; 4]>;

/// The three tables, with times in microseconds.
struct Tables {
    persons: Vec<(i64, &'static Person)>,
    auctions: Vec<(i64, Auction)>,
    bids: Vec<Bid>,
}

impl Tables {
    fn new(events: &[Event]) -> Self {
        let mut tables = Self { persons: vec![], auctions: vec![], bids: vec![] };
        for event in events {
            let time = event.time.as_micros();
            match event.what {
                What::Person(person) => tables.persons.push((time, person)),
                What::Auction(auction) => tables.auctions.push((time, auction)),
                What::Bid(bid) => tables.bids.push(bid),
            }
        }
        tables
    }

    /// q0 and q1: all bids, their prices times `factor`.
    fn bids(&self, factor: u64) -> Rows {
        let time = |bid: &Bid| bid.time.as_micros() as u64 ^ (bid.extra.len() as u64) << 56;
        let row = |bid: &Bid| [bid.auction, bid.bidder, bid.price * factor, time(bid)];
        self.bids.iter().map(row).collect()
    }

    fn q2(&self) -> Rows {
        let selected = self.bids.iter().filter(|bid| bid.auction % 123 == 0);
        selected.map(|bid| [bid.auction, bid.price, 0, 0]).collect()
    }

    fn q3(&self) -> Rows {
        let mut rows = vec![];
        let persons: BTreeMap<u64, &Person> =
            self.persons.iter().map(|(_, p)| (p.id, *p)).collect();
        for (_, auction) in &self.auctions {
            if let Some(Person { id, name, city, state }) = persons.get(&auction.seller)
                && auction.category == 10
                && ["or", "id", "ca"].contains(state)
            {
                let text = xxh3_64(format!("{name}|{city}|{state}").as_bytes());
                rows.push([*id, auction.id, text, 0]);
            }
        }
        rows
    }

    fn q4(&self) -> Rows {
        let mut by_auction: BTreeMap<u64, Vec<&Bid>> = BTreeMap::new();
        for bid in &self.bids {
            by_auction.entry(bid.auction).or_default().push(bid);
        }
        // By category and moment: the prices of the auctions that close then.
        let mut closed: BTreeMap<(u64, i64), Vec<u64>> = BTreeMap::new();
        for (opened, auction) in &self.auctions {
            let expires = auction.expires.as_micros();
            let in_time = |bid: &&&Bid| (*opened..=expires).contains(&bid.time.as_micros());
            let bids = by_auction.get(&auction.id).into_iter().flatten();
            if let Some(price) = bids.filter(in_time).map(|bid| bid.price).max() {
                closed.entry((auction.category, expires)).or_default().push(price);
            }
        }
        let mut sums: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let mut rows = vec![];
        for ((category, _), prices) in closed {
            let (auctions, sum) = sums.entry(category).or_default();
            *auctions += prices.len() as u64;
            *sum += prices.iter().sum::<u64>();
            rows.push([category, *auctions, *sum, 0]);
        }
        rows
    }

    fn q5(&self) -> Rows {
        let mut counts: BTreeMap<i64, BTreeMap<u64, u64>> = BTreeMap::new();
        for bid in &self.bids {
            let time = bid.time.as_micros();
            // The ends of the five windows that it is in.
            let first = (time.div_euclid(2 * SECOND) + 1) * 2 * SECOND;
            for end in (0..5).map(|n| first + n * 2 * SECOND) {
                *counts.entry(end).or_default().entry(bid.auction).or_default() += 1;
            }
        }
        let mut rows = vec![];
        for (end, counts) in counts {
            let most = counts.values().copied().max().unwrap_or_default();
            let hottest = counts.iter().filter(|(_, bids)| **bids == most);
            rows.extend(hottest.map(|(auction, bids)| [end as u64, *auction, *bids, 0]));
        }
        rows
    }

    fn q7(&self) -> Rows {
        let window = |bid: &Bid| bid.time.as_micros().div_euclid(10 * SECOND);
        let mut highest: BTreeMap<i64, u64> = BTreeMap::new();
        for bid in &self.bids {
            let price = highest.entry(window(bid)).or_default();
            *price = bid.price.max(*price);
        }
        let among = self.bids.iter().filter(|bid| highest.get(&window(bid)) == Some(&bid.price));
        among.map(|bid| [bid.auction, bid.bidder, bid.price, bid.time.as_micros() as u64]).collect()
    }

    fn q8(&self) -> Rows {
        let window = |time: i64| time.div_euclid(10 * SECOND);
        let sellers: BTreeSet<(i64, u64)> =
            self.auctions.iter().map(|(time, auction)| (window(*time), auction.seller)).collect();
        let among =
            self.persons.iter().filter(|(time, p)| sellers.contains(&(window(*time), p.id)));
        among
            .map(|(time, person)| {
                let start = window(*time) * 10 * SECOND;
                [person.id, xxh3_64(person.name.as_bytes()), start as u64, 0]
            })
            .collect()
    }

    fn q11(&self) -> Rows {
        let mut times: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
        for bid in &self.bids {
            times.entry(bid.bidder).or_default().push(bid.time.as_micros());
        }
        let mut rows = vec![];
        for (bidder, mut times) in times {
            times.sort_unstable();
            for session in times.chunk_by(|before, after| after - before < 10 * SECOND) {
                let (start, end) = (session[0], session[session.len() - 1]);
                rows.push([bidder, start as u64, end as u64, session.len() as u64]);
            }
        }
        rows
    }
}

fn q12(events: &[Event]) -> Rows {
    let mut counts: BTreeMap<(i64, u64), u64> = BTreeMap::new();
    for event in events {
        if let What::Bid(bid) = event.what {
            let start = event.arrived.as_micros().div_euclid(10 * SECOND) * 10 * SECOND;
            *counts.entry((start, bid.bidder)).or_default() += 1;
        }
    }
    counts.into_iter().map(|((start, bidder), bids)| [start as u64, bidder, bids, 0]).collect()
}
