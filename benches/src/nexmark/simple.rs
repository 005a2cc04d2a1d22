//! q0 to q2: one bid in, at most one row out.

use streamkit::prelude::*;

use super::{Bid, Event, bids};
use crate::outcome::Outcome;
use crate::sink::Row;

/// `SELECT auction, bidder, price, time, extra FROM bid`
pub(super) fn q0(events: &Stream<Event>) -> Stream<Bid> {
    bids(events)
}

/// `SELECT auction, bidder, 0.908 * price, time, extra FROM bid`; in thousandths of a cent, so that
/// it is exact.
pub(super) fn q1(events: &Stream<Event>) -> Stream<Bid> {
    bids(events).map(|bid| Bid { price: bid.price * 908, ..*bid })
}

/// `SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0`
pub(super) fn q2(events: &Stream<Event>) -> Stream<Selected> {
    bids(events)
        .filter(|bid| bid.auction % 123 == 0)
        .map(|bid| Selected { auction: bid.auction, price: bid.price })
}

/// A row of q2.
pub(super) struct Selected {
    auction: u64,
    price: u64,
}

impl Row for Bid {
    fn add_to(&self, outcome: &mut Outcome) {
        let time = self.time.as_micros() as u64 ^ (self.extra.len() as u64) << 56;
        outcome.row([self.auction, self.bidder, self.price, time]);
    }
}

impl Row for Selected {
    fn add_to(&self, outcome: &mut Outcome) {
        outcome.row([self.auction, self.price, 0, 0]);
    }
}
