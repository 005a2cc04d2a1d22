//! The contract of an aggregate.

use crate::data::{Data, State};

/// An incremental aggregate, in the four steps of Flink's `AggregateFunction`.
///
/// `merge` is required: windows are merged from panes, sessions grow together, and a worker may
/// combine records before it sends them on. So `add` and `merge` must be associative and
/// commutative: the result may not depend on the order in which records arrive.
///
/// The accumulator is what a checkpoint holds. Changing its type is a change of the stored state;
/// give the aggregate a new name then.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not aggregate `{In}` records",
    note = "use count(), sum(..), min(..), max(..), average(..), count_distinct(..), top_k(..), collect(..), a tuple of these, or implement `Aggregator`"
)]
pub trait Aggregator<In>: Send + Sync + 'static {
    /// What is kept for each key and pane.
    type Accumulator: State + Clone;
    /// What comes out.
    type Output: Data;

    /// An accumulator of no records.
    fn create(&self) -> Self::Accumulator;

    /// Adds one record.
    fn add(&self, accumulator: &mut Self::Accumulator, record: &In);

    /// Adds everything that is in `from`.
    fn merge(&self, into: &mut Self::Accumulator, from: &Self::Accumulator);

    /// The result.
    fn finish(&self, accumulator: &Self::Accumulator) -> Self::Output;
}

macro_rules! tuples {
    ($(($($name:ident $index:tt),+))+) => {$(
        impl<In, $($name: Aggregator<In>),+> Aggregator<In> for ($($name,)+) {
            type Accumulator = ($($name::Accumulator,)+);
            type Output = ($($name::Output,)+);
            fn create(&self) -> Self::Accumulator {
                ($(self.$index.create(),)+)
            }
            fn add(&self, accumulator: &mut Self::Accumulator, record: &In) {
                $(self.$index.add(&mut accumulator.$index, record);)+
            }
            fn merge(&self, into: &mut Self::Accumulator, from: &Self::Accumulator) {
                $(self.$index.merge(&mut into.$index, &from.$index);)+
            }
            fn finish(&self, accumulator: &Self::Accumulator) -> Self::Output {
                ($(self.$index.finish(&accumulator.$index),)+)
            }
        }
    )+};
}
tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
}
