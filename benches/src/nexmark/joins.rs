//! q3 and q8: persons put together with the auctions that they sell.
//!
//! Both sides become one type, are united, and meet behind `key_by`: there each person's records
//! come in the order of their times, and the state holds what waits for the other side.

use serde::{Deserialize, Serialize};
use streamkit::operator::ProcessResult;
use streamkit::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::{Event, What};
use crate::outcome::Outcome;
use crate::sink::Row;

/// One side or the other, with what the queries need of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Side {
    Person { name: String, city: String, state: String },
    Auction { id: u64 },
}

/// A record of a person, or of an auction of that person.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct OfPerson {
    person: u64,
    side: Side,
}

/// The auctions of category 10 by persons of three states, for as long as the job runs.
///
/// `SELECT name, city, state, auction.id FROM auction JOIN person ON seller = person.id
/// WHERE category = 10 AND state IN ('or', 'id', 'ca')`
pub(super) fn q3(events: &Stream<Event>) -> Stream<ProcessResult<u64, Sale>> {
    let persons = persons(events, |state| matches!(state, "or" | "id" | "ca"));
    let auctions = auctions(events, |category| category == 10);
    persons
        .union(&auctions)
        .key_by(|record: &OfPerson| &record.person)
        .process("sales", Sales)
        .clone()
}

/// The persons who signed up and opened an auction within the same ten seconds of the clock.
///
/// `SELECT person.id, name, window_start FROM` persons of a window of 10 s `JOIN` the sellers of
/// the same window `ON person.id = seller`
pub(super) fn q8(events: &Stream<Event>) -> Stream<ProcessResult<u64, NewSeller>> {
    let persons = persons(events, |_| true);
    let auctions = auctions(events, |_| true);
    persons
        .union(&auctions)
        .key_by(|record: &OfPerson| &record.person)
        .process("new sellers", NewSellers)
        .clone()
}

fn persons(
    events: &Stream<Event>,
    wanted: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> Stream<OfPerson> {
    events.flat_map(move |event| match event.what {
        What::Person(person) if wanted(person.state) => Some(OfPerson {
            person: person.id,
            side: Side::Person {
                name: person.name.to_owned(),
                city: person.city.to_owned(),
                state: person.state.to_owned(),
            },
        }),
        What::Person(_) | What::Auction(_) | What::Bid(_) => None,
    })
}

fn auctions(
    events: &Stream<Event>,
    wanted: impl Fn(u64) -> bool + Send + Sync + 'static,
) -> Stream<OfPerson> {
    events.flat_map(move |event| match event.what {
        What::Auction(auction) if wanted(auction.category) => {
            Some(OfPerson { person: auction.seller, side: Side::Auction { id: auction.id } })
        }
        What::Person(_) | What::Auction(_) | What::Bid(_) => None,
    })
}

/// A row of q3; the key is the person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sale {
    name: String,
    city: String,
    state: String,
    auction: u64,
}

struct Sales;

/// The person, or auctions that wait for it: a seller may be seen before the person is.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Seller {
    Known { name: String, city: String, state: String },
    Unknown { auctions: Vec<u64> },
}

impl Process<OfPerson> for Sales {
    type State = Seller;
    type Out = Sale;

    fn on_record(&self, record: &OfPerson, cx: &mut ProcessContext<'_, Seller, Sale>) {
        let sale = |name: &String, city: &String, state: &String, auction| Sale {
            name: name.clone(),
            city: city.clone(),
            state: state.clone(),
            auction,
        };
        match (&record.side, cx.state.take()) {
            (Side::Person { name, city, state }, before) => {
                if let Some(Seller::Unknown { auctions }) = before {
                    for auction in auctions {
                        cx.emit(sale(name, city, state, auction));
                    }
                }
                let (name, city, state) = (name.clone(), city.clone(), state.clone());
                *cx.state = Some(Seller::Known { name, city, state });
            }
            (Side::Auction { id }, Some(Seller::Known { name, city, state })) => {
                cx.emit(sale(&name, &city, &state, *id));
                *cx.state = Some(Seller::Known { name, city, state });
            }
            (Side::Auction { id }, before) => {
                let mut auctions = match before {
                    Some(Seller::Unknown { auctions }) => auctions,
                    Some(Seller::Known { .. }) | None => vec![],
                };
                auctions.push(*id);
                *cx.state = Some(Seller::Unknown { auctions });
            }
        }
    }
}

/// A row of q8; the key is the person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct NewSeller {
    name: String,
    window_start: Timestamp,
}

struct NewSellers;

/// What has been seen of a person in the window that is open.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Newcomer {
    name: Option<String>,
    sells: bool,
    told: bool,
}

impl Process<OfPerson> for NewSellers {
    type State = Newcomer;
    type Out = NewSeller;

    fn on_record(&self, record: &OfPerson, cx: &mut ProcessContext<'_, Newcomer, NewSeller>) {
        let window_start = cx.time().floor_to(seconds(10));
        cx.set_timer(window_start.saturating_add(seconds(10)));
        let seen = cx.state.get_or_insert_default();
        match &record.side {
            Side::Person { name, .. } => seen.name = Some(name.clone()),
            Side::Auction { .. } => seen.sells = true,
        }
        if let (Some(name), true, false) = (&seen.name, seen.sells, seen.told) {
            seen.told = true;
            let row = NewSeller { name: name.clone(), window_start };
            cx.emit(row);
        }
    }

    /// The window is over, and the next one knows nothing of it.
    fn on_timer(&self, cx: &mut ProcessContext<'_, Newcomer, NewSeller>) {
        *cx.state = None;
    }
}

impl Row for ProcessResult<u64, Sale> {
    fn add_to(&self, outcome: &mut Outcome) {
        let Sale { name, city, state, auction } = &self.value;
        let text = xxh3_64(format!("{name}|{city}|{state}").as_bytes());
        outcome.row([self.key, *auction, text, 0]);
    }
}

impl Row for ProcessResult<u64, NewSeller> {
    fn add_to(&self, outcome: &mut Outcome) {
        let start = self.value.window_start.as_micros() as u64;
        outcome.row([self.key, xxh3_64(self.value.name.as_bytes()), start, 0]);
    }
}
