//! Results that came before their time: W has not reached their fire time (rule D2).

use crate::failpoint::broken;
use crate::record::Batch;
use crate::time::Timestamp;

/// Rows that wait. With the earliest time of each batch, so that those that wait for long are not
/// looked through for every batch that comes.
#[derive(Debug)]
pub(super) struct Held<T>(Vec<(Timestamp, Batch<T>)>);

impl<T> Held<T> {
    pub(super) fn new() -> Self {
        Self(vec![])
    }

    /// Returns the rows whose fire time `w` has reached, and holds the others.
    pub(super) fn sort_out(&mut self, batch: Batch<T>, w: Timestamp) -> Option<Batch<T>> {
        let (first, last) = batch.times_within()?;
        if is_due(last, w) {
            return Some(batch);
        }
        if !is_due(first, w) {
            self.0.push((first, batch));
            return None;
        }
        let (due, rest): (Vec<u32>, Vec<u32>) =
            batch.indices().partition(|&row| is_due(batch.time(row), w));
        let rest = batch.select(rest);
        if let Some((first, _)) = rest.times_within() {
            self.0.push((first, rest));
        }
        Some(batch.select(due))
    }

    /// The rows whose fire time `w` has reached, in the order in which they came.
    pub(super) fn release(&mut self, w: Timestamp) -> Vec<Batch<T>> {
        let mut due = vec![];
        for (first, batch) in std::mem::take(&mut self.0) {
            match is_due(first, w) {
                true => due.extend(self.sort_out(batch, w)),
                false => self.0.push((first, batch)),
            }
        }
        due
    }
}

/// A row's time is the microsecond before its fire time.
fn is_due(time: Timestamp, w: Timestamp) -> bool {
    time < w || broken("sink.holds_back")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn d2_a_row_comes_out_once_and_not_before_w_is_behind_it(
            steps in proptest::collection::vec((proptest::collection::vec(0i64..50, 0..6), 0i64..5), 0..30),
        ) {
            let at = Timestamp::from_micros;
            let (mut held, mut w) = (Held::new(), 0);
            let (mut out, mut all): (Vec<i64>, Vec<i64>) = (vec![], vec![]);
            for (times, step) in steps {
                all.extend(&times);
                let stamps = times.iter().copied().map(at).collect();
                let due = held.sort_out(Batch::new(times, stamps), at(w));
                w += step;
                for batch in due.into_iter().chain(held.release(at(w))) {
                    prop_assert!(batch.values().all(|&time| time < w));
                    out.extend(batch.values());
                }
                let mut expected: Vec<i64> = all.iter().copied().filter(|&time| time < w).collect();
                let mut found = out.clone();
                expected.sort_unstable();
                found.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
