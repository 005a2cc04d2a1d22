//! q4: what auctions of a category close at.
//!
//! `SELECT category, AVG(final) FROM (SELECT category, MAX(price) AS final FROM auction JOIN bid ON
//! auction.id = bid.auction WHERE bid.time BETWEEN auction.time AND expires GROUP BY auction.id)
//! GROUP BY category`
//!
//! The original corrects its averages with every bid. Here an auction counts once, when it has
//! closed, and a category has a new average at every instant at which auctions of it close.

use serde::{Deserialize, Serialize};
use streamkit::operator::ProcessResult;
use streamkit::prelude::*;

use super::{Event, What};
use crate::outcome::Outcome;
use crate::sink::Row;

pub(super) fn q4(events: &Stream<Event>) -> Stream<ProcessResult<u64, Average>> {
    let opened = events.flat_map(|event| match event.what {
        What::Auction(auction) => Some(OfAuction {
            auction: auction.id,
            side: Side::Opened { category: auction.category, expires: auction.expires },
        }),
        What::Person(_) | What::Bid(_) => None,
    });
    let bids = events.flat_map(|event| match event.what {
        What::Bid(bid) => {
            Some(OfAuction { auction: bid.auction, side: Side::Bid { price: bid.price } })
        }
        What::Person(_) | What::Auction(_) => None,
    });
    opened
        .union(&bids)
        .key_by(|record: &OfAuction| &record.auction)
        .process("closing prices", Closing)
        .map(|closed| closed.value)
        .key_by(|closed: &Closed| &closed.category)
        .process("averages", Averages)
        .clone()
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct OfAuction {
    auction: u64,
    side: Side,
}

/// Records of one instant come in the order of their bytes, and those begin with the variant: an
/// auction comes before the bids of the same millisecond, and those count.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Side {
    Opened { category: u64, expires: Timestamp },
    Bid { price: u64 },
}

struct Closing;

/// An auction that is open.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Open {
    category: u64,
    highest: Option<u64>,
}

/// What an auction has closed at.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Closed {
    category: u64,
    price: u64,
}

impl Process<OfAuction> for Closing {
    type State = Open;
    type Out = Closed;

    fn on_record(&self, record: &OfAuction, cx: &mut ProcessContext<'_, Open, Closed>) {
        match record.side {
            Side::Opened { category, expires } => {
                *cx.state = Some(Open { category, highest: None });
                // A bid at the last moment counts.
                cx.set_timer(expires.next());
            }
            // Without an auction it is too early, or too late.
            Side::Bid { price } => {
                if let Some(open) = cx.state {
                    open.highest = open.highest.max(Some(price));
                }
            }
        }
    }

    fn on_timer(&self, cx: &mut ProcessContext<'_, Open, Closed>) {
        if let Some(Open { category, highest: Some(price) }) = cx.state.take() {
            cx.emit(Closed { category, price });
        }
    }
}

struct Averages;

/// Of the prices so far: how many, and their sum.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Average {
    auctions: u64,
    sum: u64,
}

impl Process<Closed> for Averages {
    type State = Average;
    type Out = Average;

    fn on_record(&self, closed: &Closed, cx: &mut ProcessContext<'_, Average, Average>) {
        let average = cx.state.get_or_insert_default();
        average.auctions += 1;
        average.sum += closed.price;
        // When all that close at this instant are in.
        cx.set_timer(cx.time().next());
    }

    fn on_timer(&self, cx: &mut ProcessContext<'_, Average, Average>) {
        if let Some(average) = *cx.state {
            cx.emit(average);
        }
    }
}

impl Row for ProcessResult<u64, Average> {
    fn add_to(&self, outcome: &mut Outcome) {
        let Average { auctions, sum } = self.value;
        outcome.row([self.key, auctions, sum, 0]);
    }
}
