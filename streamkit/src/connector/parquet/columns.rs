//! Columns: from a field of a row to an Arrow array.
//!
//! A batch is written column by column: one virtual call per column and batch, with the user's
//! closure inlined in the loop behind it.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    ArrayBuilder, Int32Builder, Int64Builder, LargeStringBuilder, TimestampMicrosecondBuilder,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::time::Timestamp;

/// Collects the values of one column.
pub(super) trait Fill<T>: Send {
    /// Adds the values of these rows.
    fn fill(&mut self, rows: &[&T]);
    /// About how many bytes have been collected.
    fn weight(&self) -> usize;
    /// Gives out what has been collected, and starts again.
    fn finish(&mut self) -> ArrayRef;
}

type NewFill<T> = dyn Fn() -> Box<dyn Fill<T>> + Send + Sync;

/// The columns of a lake, in order.
pub(super) struct Columns<T>(Vec<Column<T>>);

struct Column<T> {
    field: Field,
    fill: Arc<NewFill<T>>,
}

impl<T> Clone for Columns<T> {
    fn clone(&self) -> Self {
        let copy = |c: &Column<T>| Column { field: c.field.clone(), fill: Arc::clone(&c.fill) };
        Self(self.0.iter().map(copy).collect())
    }
}

/// A builder with what adds the value of a row to it.
struct Filler<B, A> {
    builder: B,
    append: Arc<A>,
}

impl<T, B, A> Fill<T> for Filler<B, A>
where
    B: ArrayBuilder + Weigh,
    A: Fn(&mut B, &T) + Send + Sync,
{
    fn fill(&mut self, rows: &[&T]) {
        for row in rows {
            (self.append)(&mut self.builder, row);
        }
    }

    fn weight(&self) -> usize {
        self.builder.weight()
    }

    fn finish(&mut self) -> ArrayRef {
        ArrayBuilder::finish(&mut self.builder)
    }
}

/// How much a builder holds.
trait Weigh {
    fn weight(&self) -> usize;
}

macro_rules! fixed_width {
    ($($builder:ty: $bytes:literal),*) => {$(
        impl Weigh for $builder {
            fn weight(&self) -> usize {
                self.len() * $bytes
            }
        }
    )*};
}
fixed_width!(Int32Builder: 4, Int64Builder: 8, TimestampMicrosecondBuilder: 8);

impl Weigh for LargeStringBuilder {
    fn weight(&self) -> usize {
        self.values_slice().len() + self.len() * 8
    }
}

impl<T: 'static> Columns<T> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    fn add<B, A>(&mut self, field: Field, new: fn() -> B, append: A)
    where
        B: ArrayBuilder + Weigh,
        A: Fn(&mut B, &T) + Send + Sync + 'static,
    {
        let append = Arc::new(append);
        let fill = move || -> Box<dyn Fill<T>> {
            Box::new(Filler { builder: new(), append: Arc::clone(&append) })
        };
        self.0.push(Column { field, fill: Arc::new(fill) });
    }

    pub(super) fn timestamp(
        &mut self,
        name: &str,
        value: impl Fn(&T) -> Timestamp + Send + Sync + 'static,
    ) {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let new = || TimestampMicrosecondBuilder::new().with_timezone("UTC");
        self.add(Field::new(name, utc, false), new, move |builder, row| {
            builder.append_value(value(row).as_micros());
        });
    }

    pub(super) fn int32(&mut self, name: &str, value: impl Fn(&T) -> i32 + Send + Sync + 'static) {
        let field = Field::new(name, DataType::Int32, false);
        self.add(field, Int32Builder::new, move |builder, row| builder.append_value(value(row)));
    }

    pub(super) fn int64(&mut self, name: &str, value: impl Fn(&T) -> i64 + Send + Sync + 'static) {
        let field = Field::new(name, DataType::Int64, false);
        self.add(field, Int64Builder::new, move |builder, row| builder.append_value(value(row)));
    }

    // "Large" (64-bit offsets) is about the arrays in memory, so that no batch is too big for them;
    // in the file it is an ordinary string.
    pub(super) fn text(
        &mut self,
        name: &str,
        value: impl for<'a> Fn(&'a T) -> &'a str + Send + Sync + 'static,
    ) {
        let field = Field::new(name, DataType::LargeUtf8, false);
        self.add(field, LargeStringBuilder::new, move |builder, row| {
            builder.append_value(value(row));
        });
    }

    pub(super) fn text_or_null(
        &mut self,
        name: &str,
        value: impl for<'a> Fn(&'a T) -> Option<&'a str> + Send + Sync + 'static,
    ) {
        let field = Field::new(name, DataType::LargeUtf8, true);
        self.add(field, LargeStringBuilder::new, move |builder, row| {
            builder.append_option(value(row));
        });
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|column| column.field.name().as_str())
    }

    pub(super) fn schema(&self) -> SchemaRef {
        let fields: Vec<_> = self.0.iter().map(|column| column.field.clone()).collect();
        Arc::new(Schema::new(fields))
    }

    /// Empty builders, one for each column.
    pub(super) fn fillers(&self) -> Vec<Box<dyn Fill<T>>> {
        self.0.iter().map(|column| (column.fill)()).collect()
    }
}
