//! The aggregates that everybody needs.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

use super::Aggregator;
use crate::data::{Data, State};

/// A number that can be summed.
pub trait Number: State + Copy + PartialOrd {
    /// Nothing.
    const ZERO: Self;
    /// The sum. Integers stay at their bound instead of wrapping.
    #[must_use]
    fn plus(self, other: Self) -> Self;
    /// The nearest `f64`.
    fn as_f64(self) -> f64;
}

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl Number for $int {
            const ZERO: Self = 0;
            fn plus(self, other: Self) -> Self {
                self.saturating_add(other)
            }
            fn as_f64(self) -> f64 {
                self as f64
            }
        }
    )*};
}
integers!(u32, u64, i32, i64);

impl Number for f64 {
    const ZERO: Self = 0.0;
    fn plus(self, other: Self) -> Self {
        self + other
    }
    fn as_f64(self) -> f64 {
        self
    }
}

/// How many records.
pub fn count() -> Count {
    Count
}

/// See [`count`].
#[derive(Debug, Clone, Copy)]
pub struct Count;

impl<In> Aggregator<In> for Count {
    type Accumulator = u64;
    type Output = u64;
    fn create(&self) -> u64 {
        0
    }
    fn add(&self, accumulator: &mut u64, _: &In) {
        *accumulator += 1;
    }
    fn merge(&self, into: &mut u64, from: &u64) {
        *into += from;
    }
    fn finish(&self, accumulator: &u64) -> u64 {
        *accumulator
    }
}

/// The sum of `value`. The sum of `f64`s may differ in its last digits with the order of arrival,
/// since floating-point addition is not associative; sum integers where that matters.
pub fn sum<In, V: Number>(value: impl Fn(&In) -> V + Send + Sync + 'static) -> Sum<In, V> {
    Sum { value: Box::new(value) }
}

/// See [`sum`].
pub struct Sum<In, V> {
    value: Box<dyn Fn(&In) -> V + Send + Sync>,
}

impl<In: 'static, V: Number> Aggregator<In> for Sum<In, V> {
    type Accumulator = V;
    type Output = V;
    fn create(&self) -> V {
        V::ZERO
    }
    fn add(&self, accumulator: &mut V, record: &In) {
        *accumulator = accumulator.plus((self.value)(record));
    }
    fn merge(&self, into: &mut V, from: &V) {
        *into = into.plus(*from);
    }
    fn finish(&self, accumulator: &V) -> V {
        *accumulator
    }
}

/// The arithmetic mean of `value`.
pub fn average<In, V: Number>(value: impl Fn(&In) -> V + Send + Sync + 'static) -> Average<In, V> {
    Average { value: Box::new(value) }
}

/// See [`average`].
pub struct Average<In, V> {
    value: Box<dyn Fn(&In) -> V + Send + Sync>,
}

impl<In: 'static, V: Number> Aggregator<In> for Average<In, V> {
    type Accumulator = (u64, V);
    type Output = f64;
    fn create(&self) -> (u64, V) {
        (0, V::ZERO)
    }
    fn add(&self, (n, total): &mut (u64, V), record: &In) {
        *n += 1;
        *total = total.plus((self.value)(record));
    }
    fn merge(&self, into: &mut (u64, V), from: &(u64, V)) {
        into.0 += from.0;
        into.1 = into.1.plus(from.1);
    }
    fn finish(&self, (n, total): &(u64, V)) -> f64 {
        total.as_f64() / (*n).max(1) as f64
    }
}

/// The smallest `value`.
pub fn min<In, V: State + Clone + PartialOrd>(
    value: impl Fn(&In) -> V + Send + Sync + 'static,
) -> Extreme<In, V> {
    Extreme { value: Box::new(value), better: |a, b| a < b }
}

/// The largest `value`.
pub fn max<In, V: State + Clone + PartialOrd>(
    value: impl Fn(&In) -> V + Send + Sync + 'static,
) -> Extreme<In, V> {
    Extreme { value: Box::new(value), better: |a, b| a > b }
}

/// See [`min`] and [`max`]. The result is `None` only if no record was added.
pub struct Extreme<In, V> {
    value: Box<dyn Fn(&In) -> V + Send + Sync>,
    better: fn(&V, &V) -> bool,
}

impl<In, V> Extreme<In, V> {
    fn offer(&self, best: &mut Option<V>, value: V) {
        if best.as_ref().is_none_or(|best| (self.better)(&value, best)) {
            *best = Some(value);
        }
    }
}

impl<In: 'static, V: State + Clone + PartialOrd> Aggregator<In> for Extreme<In, V> {
    type Accumulator = Option<V>;
    type Output = Option<V>;
    fn create(&self) -> Option<V> {
        None
    }
    fn add(&self, accumulator: &mut Option<V>, record: &In) {
        self.offer(accumulator, (self.value)(record));
    }
    fn merge(&self, into: &mut Option<V>, from: &Option<V>) {
        if let Some(value) = from {
            self.offer(into, value.clone());
        }
    }
    fn finish(&self, accumulator: &Option<V>) -> Option<V> {
        accumulator.clone()
    }
}

/// The exact number of distinct values. It holds every value; to count distinct *keys*, use
/// [`count_keys`](crate::stream::KeyedWindowAll::count_keys), which needs a bit for each.
pub fn count_distinct<In, V: State + Clone + Ord>(
    value: impl Fn(&In) -> V + Send + Sync + 'static,
) -> CountDistinct<In, V> {
    CountDistinct { value: Box::new(value) }
}

/// See [`count_distinct`].
pub struct CountDistinct<In, V> {
    value: Box<dyn Fn(&In) -> V + Send + Sync>,
}

impl<In: 'static, V: State + Clone + Ord> Aggregator<In> for CountDistinct<In, V> {
    type Accumulator = BTreeSet<V>;
    type Output = u64;
    fn create(&self) -> BTreeSet<V> {
        BTreeSet::new()
    }
    fn add(&self, accumulator: &mut BTreeSet<V>, record: &In) {
        accumulator.insert((self.value)(record));
    }
    fn merge(&self, into: &mut BTreeSet<V>, from: &BTreeSet<V>) {
        into.extend(from.iter().cloned());
    }
    fn finish(&self, accumulator: &BTreeSet<V>) -> u64 {
        accumulator.len() as u64
    }
}

/// The `k` most frequent values with their counts: the most frequent first, and among equals the
/// smaller value. Exact, so it counts every distinct value.
pub fn top_k<In, V: State + Clone + Ord>(
    k: usize,
    value: impl Fn(&In) -> V + Send + Sync + 'static,
) -> TopK<In, V> {
    TopK { k, value: Box::new(value) }
}

/// See [`top_k`].
pub struct TopK<In, V> {
    k: usize,
    value: Box<dyn Fn(&In) -> V + Send + Sync>,
}

impl<In: 'static, V: State + Clone + Ord> Aggregator<In> for TopK<In, V> {
    type Accumulator = BTreeMap<V, u64>;
    type Output = Vec<(V, u64)>;
    fn create(&self) -> BTreeMap<V, u64> {
        BTreeMap::new()
    }
    fn add(&self, accumulator: &mut BTreeMap<V, u64>, record: &In) {
        *accumulator.entry((self.value)(record)).or_default() += 1;
    }
    fn merge(&self, into: &mut BTreeMap<V, u64>, from: &BTreeMap<V, u64>) {
        for (value, n) in from {
            *into.entry(value.clone()).or_default() += n;
        }
    }
    fn finish(&self, accumulator: &BTreeMap<V, u64>) -> Vec<(V, u64)> {
        let mut all: Vec<_> = accumulator.iter().map(|(v, n)| (v.clone(), *n)).collect();
        all.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
        all.truncate(self.k);
        all
    }
}

/// All values, sorted, so that the result does not depend on the order of arrival.
pub fn collect<In, V: State + Clone + Ord>(
    value: impl Fn(&In) -> V + Send + Sync + 'static,
) -> Collect<In, V> {
    Collect { value: Box::new(value), order: PhantomData }
}

/// See [`collect`].
pub struct Collect<In, V> {
    value: Box<dyn Fn(&In) -> V + Send + Sync>,
    order: PhantomData<V>,
}

impl<In: Data, V: State + Clone + Ord> Aggregator<In> for Collect<In, V> {
    type Accumulator = Vec<V>;
    type Output = Vec<V>;
    fn create(&self) -> Vec<V> {
        vec![]
    }
    fn add(&self, accumulator: &mut Vec<V>, record: &In) {
        accumulator.push((self.value)(record));
    }
    fn merge(&self, into: &mut Vec<V>, from: &Vec<V>) {
        into.extend(from.iter().cloned());
    }
    fn finish(&self, accumulator: &Vec<V>) -> Vec<V> {
        let mut all = accumulator.clone();
        all.sort();
        all
    }
}

macro_rules! opaque_debug {
    ($($name:ident),*) => {$(
        impl<In, V> std::fmt::Debug for $name<In, V> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}
opaque_debug!(Sum, Average, Extreme, CountDistinct, TopK, Collect);

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of all records in one accumulator, and of every way to cut them in two.
    fn check<A: Aggregator<i64>>(aggregator: &A, records: &[i64], expected: A::Output)
    where
        A::Output: PartialEq + std::fmt::Debug,
    {
        let add = |records: &[i64]| {
            let mut accumulator = aggregator.create();
            records.iter().for_each(|record| aggregator.add(&mut accumulator, record));
            accumulator
        };
        for cut in 0..=records.len() {
            let (left, right) = records.split_at(cut);
            let mut accumulator = add(right);
            aggregator.merge(&mut accumulator, &add(left));
            assert_eq!(aggregator.finish(&accumulator), expected, "cut at {cut}");
        }
    }

    #[test]
    fn merging_in_any_way_gives_the_same_result() {
        let records = [3, 1, 4, 1, 5];
        check(&count(), &records, 5);
        check(&sum(|r: &i64| *r), &records, 14);
        check(&average(|r: &i64| *r), &records, 2.8);
        check(&min(|r: &i64| *r), &records, Some(1));
        check(&max(|r: &i64| *r), &records, Some(5));
        check(&min(|r: &i64| *r), &[], None);
        check(&count_distinct(|r: &i64| *r), &records, 4);
        check(&top_k(2, |r: &i64| *r), &records, vec![(1, 2), (3, 1)]);
        check(&collect(|r: &i64| *r), &records, vec![1, 1, 3, 4, 5]);
        check(&(count(), sum(|r: &i64| *r)), &records, (5, 14));
        check(&sum(|_: &i64| i64::MAX), &records, i64::MAX);
    }
}
