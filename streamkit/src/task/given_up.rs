//! Records that are given up: a worker finds them, the coordinator makes each a fact, and only then
//! does the worker go on without them (rule D1).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::record::{Run, SplitId};

/// A record that no step can be asked to process again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenUp {
    pub(crate) split: SplitId,
    pub(crate) at: u64,
    /// What went wrong, as the dead letter says it.
    pub(crate) error: String,
}

/// A record that one operator has given up, after every branch had accepted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenUpBy {
    pub(crate) operator: String,
    pub(crate) at: u64,
    pub(crate) error: String,
    /// Its dead letter is sent when the split has been read to here. No sink was further when it was
    /// given up, so none takes the letter for something that it has.
    pub(crate) letter_at: u64,
}

impl GivenUpBy {
    pub(crate) fn new(operator: &str, at: u64, error: &str, letter_at: Option<u64>) -> Self {
        let letter_at = letter_at.unwrap_or(at.saturating_add(1));
        Self { operator: operator.to_owned(), at, error: error.to_owned(), letter_at }
    }
}

/// For each operator, the records that it has given up: split, by its index, and position.
pub(crate) type GivenUpFor = BTreeMap<String, BTreeSet<(u32, u64)>>;

/// What an operator behind an exchange has failed on: one of these records, and nobody knows which
/// if there are several.
#[derive(Debug, Clone)]
pub(crate) struct Accusation {
    pub(crate) operator: Arc<str>,
    pub(crate) run: Run,
    pub(crate) error: String,
}

/// Who waits: the reader of a split, by its index, or (`true`) the one that catches up on it.
pub(crate) type Asker = (u32, bool);

/// Between the workers and the coordinator.
#[derive(Debug, Default)]
pub(crate) struct GivenUps(Mutex<BTreeMap<Asker, State>>);

#[derive(Debug)]
enum State {
    Asked(Vec<GivenUp>),
    Durable,
}

impl GivenUps {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Asker, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader waits until these are facts.
    pub(crate) fn ask(&self, asker: Asker, records: Vec<GivenUp>) {
        self.lock().insert(asker, State::Asked(records));
    }

    /// What has been asked for and not granted yet.
    pub(crate) fn asked(&self) -> Vec<(Asker, Vec<GivenUp>)> {
        let all = self.lock();
        let asked = all.iter().filter_map(|(asker, state)| match state {
            State::Asked(records) => Some((*asker, records.clone())),
            State::Durable => None,
        });
        asked.collect()
    }

    /// They are facts.
    pub(crate) fn grant(&self, asker: Asker) {
        self.lock().insert(asker, State::Durable);
    }

    /// Whether the reader may go on. It is told so once.
    pub(crate) fn is_granted(&self, asker: Asker) -> bool {
        let mut all = self.lock();
        let granted = matches!(all.get(&asker), Some(State::Durable));
        if granted {
            all.remove(&asker);
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d1_a_reader_goes_on_only_when_its_records_are_facts() {
        let desk = GivenUps::default();
        let record = GivenUp { split: SplitId::new("s"), at: 7, error: "boom".into() };
        let asker = (3, false);
        desk.ask(asker, vec![record.clone()]);
        assert!(!desk.is_granted(asker));
        assert_eq!(desk.asked(), [(asker, vec![record])]);
        desk.grant(asker);
        assert!(desk.asked().is_empty() && !desk.is_granted((3, true)));
        assert!(desk.is_granted(asker));
        assert!(!desk.is_granted(asker), "the next one must be asked for again");
    }
}
