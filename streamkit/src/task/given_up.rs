//! Records that are given up: a worker finds them, the coordinator makes each a fact, and only then
//! does the worker go on without them (rule D1).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::record::SplitId;

/// A record that no step can be asked to process again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenUp {
    pub(crate) split: SplitId,
    pub(crate) at: u64,
    /// What went wrong, as the dead letter says it.
    pub(crate) error: String,
}

/// Between the workers and the coordinator.
#[derive(Debug, Default)]
pub(crate) struct GivenUps(Mutex<BTreeMap<u32, State>>);

#[derive(Debug)]
enum State {
    Asked(Vec<GivenUp>),
    Durable,
}

impl GivenUps {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reader of a split, by its index, waits until these are facts.
    pub(crate) fn ask(&self, split: u32, records: Vec<GivenUp>) {
        self.lock().insert(split, State::Asked(records));
    }

    /// What has been asked for and not granted yet.
    pub(crate) fn asked(&self) -> Vec<(u32, Vec<GivenUp>)> {
        let all = self.lock();
        let asked = all.iter().filter_map(|(split, state)| match state {
            State::Asked(records) => Some((*split, records.clone())),
            State::Durable => None,
        });
        asked.collect()
    }

    /// They are facts.
    pub(crate) fn grant(&self, split: u32) {
        self.lock().insert(split, State::Durable);
    }

    /// Whether the reader may go on. It is told so once.
    pub(crate) fn is_granted(&self, split: u32) -> bool {
        let mut all = self.lock();
        let granted = matches!(all.get(&split), Some(State::Durable));
        if granted {
            all.remove(&split);
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
        desk.ask(3, vec![record.clone()]);
        assert!(!desk.is_granted(3));
        assert_eq!(desk.asked(), [(3, vec![record])]);
        desk.grant(3);
        assert!(desk.asked().is_empty() && !desk.is_granted(2));
        assert!(desk.is_granted(3));
        assert!(!desk.is_granted(3), "the next one must be asked for again");
    }
}
