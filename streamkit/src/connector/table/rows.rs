//! Rows on their way into a table, as columns.
//!
//! A batch is taken apart once, when it is written, into one vector per column; that is the form in
//! which PostgreSQL takes many rows in one statement, and nothing of a row is cloned twice. Before
//! a commit the rows are sorted by key, and of several with one key only the last stays: a database
//! refuses to update a row twice in one statement, and two writers that go through the same rows in
//! the same order cannot lock each other out.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{ColumnKind, Table};
use crate::error::{Error, Result};
use crate::record::{Batch, Kind};
use crate::time::Timestamp;

/// One column of many rows.
#[derive(Debug)]
pub(crate) enum Values {
    /// All texts in one string, and where each ends.
    Text {
        text: String,
        ends: Vec<usize>,
    },
    BigInt(Vec<i64>),
    Double(Vec<f64>),
    /// Microseconds since 1970, in years 1 to 9999.
    Timestamp(Vec<i64>),
}

/// 0001-01-01T00:00:00Z and 10000-01-01T00:00:00Z. Both databases can store any time between them,
/// and their texts have four digits for the year, so that they sort as times do.
const FIRST_MICROS: i64 = -62_135_596_800_000_000;
const END_MICROS: i64 = 253_402_300_800_000_000;

impl Values {
    fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Text => Self::Text { text: String::new(), ends: vec![] },
            ColumnKind::BigInt => Self::BigInt(vec![]),
            ColumnKind::Double => Self::Double(vec![]),
            ColumnKind::Timestamp { .. } => Self::Timestamp(vec![]),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Text { text, ends } => {
                text.clear();
                ends.clear();
            }
            Self::BigInt(values) | Self::Timestamp(values) => values.clear(),
            Self::Double(values) => values.clear(),
        }
    }

    fn truncate(&mut self, rows: usize) {
        match self {
            Self::Text { text, ends } => {
                ends.truncate(rows);
                text.truncate(ends.last().copied().unwrap_or_default());
            }
            Self::BigInt(values) | Self::Timestamp(values) => values.truncate(rows),
            Self::Double(values) => values.truncate(rows),
        }
    }

    pub(super) fn push_text(&mut self, value: &str) -> Result<(), String> {
        let Self::Text { text, ends } = self else { return Err(MISMATCH.to_owned()) };
        if value.as_bytes().contains(&0) {
            return Err(format!("U+0000, which a table cannot store, in {value:?}"));
        }
        text.push_str(value);
        ends.push(text.len());
        Ok(())
    }

    pub(super) fn push_integer(&mut self, value: i64) -> Result<(), String> {
        let Self::BigInt(values) = self else { return Err(MISMATCH.to_owned()) };
        values.push(value);
        Ok(())
    }

    pub(super) fn push_double(&mut self, value: f64) -> Result<(), String> {
        let Self::Double(values) = self else { return Err(MISMATCH.to_owned()) };
        values.push(value);
        Ok(())
    }

    pub(super) fn push_time(&mut self, value: Timestamp, to_digits: u8) -> Result<(), String> {
        let Self::Timestamp(micros) = self else { return Err(MISMATCH.to_owned()) };
        let value_micros = value.as_micros();
        if !(FIRST_MICROS..END_MICROS).contains(&value_micros) {
            return Err(format!("the time {value}, which is not in the years 1 to 9999"));
        }
        if to_digits == 0 && value_micros.rem_euclid(1_000_000) != 0 {
            return Err(format!("the time {value} in a column of whole seconds"));
        }
        micros.push(value_micros);
        Ok(())
    }

    /// The text of a row; empty if this is no column of text.
    pub(crate) fn text(&self, row: u32) -> &str {
        let Self::Text { text, ends } = self else { return "" };
        let row = row as usize;
        let start = if row == 0 { 0 } else { ends[row - 1] };
        &text[start..ends[row]]
    }

    fn compare(&self, a: u32, b: u32) -> Ordering {
        match self {
            Self::Text { .. } => self.text(a).cmp(self.text(b)),
            Self::BigInt(values) | Self::Timestamp(values) => {
                values[a as usize].cmp(&values[b as usize])
            }
            Self::Double(values) => values[a as usize].total_cmp(&values[b as usize]),
        }
    }

    /// The value of a row, as JSON.
    #[cfg(feature = "postgres")]
    fn json(&self, row: u32) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match self {
            Self::Text { .. } => quoted(self.text(row)),
            Self::BigInt(values) => values[row as usize].to_string(),
            Self::Double(values) => match values[row as usize] {
                value if value.is_finite() => value.to_string(),
                value => quoted(&value.to_string()),
            },
            Self::Timestamp(values) => {
                quoted(&Timestamp::from_micros(values[row as usize]).to_string())
            }
        }
    }
}

/// A row that cannot be stored: its columns as a JSON object, and why.
#[cfg(feature = "postgres")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) row: String,
    pub(crate) why: String,
}

/// A defect, said as the encoders say what is wrong with a value.
const MISMATCH: &str = "a value of another type than its column's (a defect of streamkit)";

/// The rows between two commits.
#[derive(Debug)]
pub(crate) struct Rows<T> {
    table: Arc<Table<T>>,
    columns: Vec<Values>,
    /// The key's columns, as indices into `columns`.
    key: Vec<usize>,
    /// Of each row, whether it is final.
    finals: Vec<bool>,
}

impl<T> Rows<T> {
    /// No rows. The table must have passed [`Table::check`].
    pub(crate) fn new(table: Arc<Table<T>>) -> Self {
        let columns = table.columns().iter().map(|column| Values::new(column.kind)).collect();
        let index = |key: &String| table.columns().iter().position(|column| column.name == *key);
        let key = table.key_columns().iter().filter_map(index).collect();
        Self { columns, key, finals: vec![], table }
    }

    pub(crate) fn clear(&mut self) {
        self.columns.iter_mut().for_each(Values::clear);
        self.finals.clear();
    }

    /// The number of rows, repeated keys included.
    pub(crate) fn len(&self) -> usize {
        self.finals.len()
    }

    /// The bytes of text in all rows.
    pub(crate) fn text_bytes(&self) -> usize {
        let bytes = |values: &Values| match values {
            Values::Text { text, .. } => text.len(),
            Values::BigInt(_) | Values::Double(_) | Values::Timestamp(_) => 0,
        };
        self.columns.iter().map(bytes).sum()
    }

    pub(crate) fn columns(&self) -> &[Values] {
        &self.columns
    }

    /// Takes the selected rows of a batch; none of them after an error.
    pub(crate) fn push(&mut self, batch: &Batch<T>) -> Result<()> {
        let table = &self.table;
        let encoders = table.encoders.iter().zip(table.columns());
        let pushed = encoders.zip(&mut self.columns).try_for_each(|((encode, column), values)| {
            encode(batch, values).map_err(|what| {
                Error::user(format!("table {}, column {}: {what}", table.name(), column.name))
            })
        });
        match pushed {
            Ok(()) => {
                let is_final = batch.kind() == Kind::Final;
                self.finals.resize(self.finals.len() + batch.len(), is_final);
            }
            Err(_) => self.columns.iter_mut().for_each(|values| values.truncate(self.finals.len())),
        }
        pushed
    }

    /// Takes those rows of a batch that can be stored. Of the others it returns the final ones.
    #[cfg(feature = "postgres")]
    pub(crate) fn push_what_fits(&mut self, batch: &Batch<T>) -> Vec<Refused> {
        if self.push(batch).is_ok() {
            return vec![];
        }
        let mut refused = vec![];
        for row in batch.indices() {
            let one = batch.select(vec![row]);
            if let Err(error) = self.push(&one)
                && batch.kind() == Kind::Final
            {
                refused.push(Refused { row: self.show(&one), why: error.message().to_owned() });
            }
        }
        refused
    }

    /// A batch of one row as JSON; a value that cannot be stored is `null`.
    #[cfg(feature = "postgres")]
    fn show(&self, one: &Batch<T>) -> String {
        let encoders = self.table.encoders.iter().zip(self.table.columns());
        object(encoders.map(|(encode, column)| {
            let mut values = Values::new(column.kind);
            let encoded = encode(one, &mut values);
            (&*column.name, encoded.map_or_else(|_| "null".to_owned(), |()| values.json(0)))
        }))
    }

    /// A row that the database has refused; `None` if it is not final.
    #[cfg(feature = "postgres")]
    pub(crate) fn refused(&self, row: u32, why: &str) -> Option<Refused> {
        let values = self.table.columns().iter().zip(&self.columns);
        let text = || object(values.map(|(column, values)| (&*column.name, values.json(row))));
        self.finals[row as usize].then(|| Refused { row: text(), why: why.to_owned() })
    }

    /// The rows to write, sorted by key, one per key: the last final one, or if there is none, the
    /// last running one.
    pub(crate) fn to_write(&self) -> Vec<u32> {
        let compare_keys = |a: u32, b: u32| {
            let mut columns = self.key.iter().map(|&column| self.columns[column].compare(a, b));
            columns.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        };
        let rank = |row: u32| (self.finals[row as usize], row);
        let mut rows: Vec<u32> = (0..u32::try_from(self.len()).unwrap_or(u32::MAX)).collect();
        // The winner of each key comes first, and the others are dropped.
        rows.sort_unstable_by(|&a, &b| compare_keys(a, b).then_with(|| rank(b).cmp(&rank(a))));
        rows.dedup_by(|later, first| compare_keys(*later, *first).is_eq());
        rows
    }
}

/// A JSON object with its columns in order; names need no escapes.
#[cfg(feature = "postgres")]
fn object<'a>(columns: impl Iterator<Item = (&'a str, String)>) -> String {
    let columns: Vec<_> = columns.map(|(name, value)| format!("\"{name}\": {value}")).collect();
    format!("{{{}}}", columns.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::connector::TableRow;
    use crate::record::BatchBuilder;

    #[derive(Debug, Clone)]
    struct Row {
        at: i64,
        name: String,
        n: u64,
    }

    impl TableRow for Row {
        fn table() -> Table<Self> {
            Table::<Self>::new("t")
                .key(["at", "name"])
                .bigint("n", |row| row.n)
                .timestamp("at", |row| Timestamp::from_micros(row.at))
                .text("name", |row| &row.name)
        }
    }

    fn batch(kind: Kind, rows: impl IntoIterator<Item = Row>) -> Batch<Row> {
        let mut builder = BatchBuilder::with_capacity(0);
        rows.into_iter().for_each(|row| builder.push(row, Timestamp::MIN, None));
        builder.finish(None, kind)
    }

    type Batches<'a> = &'a [(Kind, &'a [(i64, &'a str, u64)])];

    fn rows(batches: Batches<'_>) -> Rows<Row> {
        let mut rows = Rows::new(Arc::new(Row::table()));
        for (kind, values) in batches {
            let row = |&(at, name, n): &(i64, &str, u64)| Row { at, name: name.to_owned(), n };
            rows.push(&batch(*kind, values.iter().map(row))).unwrap();
        }
        rows
    }

    fn written(rows: &Rows<Row>) -> Vec<i64> {
        let Values::BigInt(n) = &rows.columns()[0] else { panic!() };
        rows.to_write().iter().map(|&row| n[row as usize]).collect()
    }

    #[test]
    fn sorted_by_key_and_the_last_one_wins() {
        let rows = rows(&[
            (Kind::Final, &[(2, "b", 1), (1, "b", 2), (1, "a", 3)]),
            (Kind::Final, &[(1, "b", 4), (1, "", 5)]),
        ]);
        assert_eq!(written(&rows), [5, 3, 4, 1]);
        assert_eq!((rows.len(), rows.text_bytes()), (5, 4));
    }

    #[test]
    fn d3_a_final_row_beats_a_running_one_whatever_their_order() {
        let (early, late): (&[_], &[_]) = (&[(1, "a", 1)], &[(1, "a", 2)]);
        assert_eq!(written(&rows(&[(Kind::Final, early), (Kind::Running, late)])), [1]);
        assert_eq!(written(&rows(&[(Kind::Running, early), (Kind::Final, late)])), [2]);
        assert_eq!(written(&rows(&[(Kind::Running, early), (Kind::Running, late)])), [2]);
    }

    #[test]
    fn values_that_no_table_can_store_are_refused_by_name() {
        let problem = |row: Row| {
            let mut rows = Rows::new(Arc::new(Row::table()));
            rows.push(&Batch::new(vec![row], vec![Timestamp::MIN])).unwrap_err().to_string()
        };
        let row = Row { at: 0, name: "x".to_owned(), n: 0 };
        assert!(problem(Row { n: u64::MAX, ..row.clone() }).contains("table t, column n: an int"));
        assert!(problem(Row { name: "a\0".to_owned(), ..row.clone() }).contains("U+0000"));
        assert!(problem(Row { at: i64::MIN, ..row.clone() }).contains("not in the years"));
        assert!(problem(Row { at: END_MICROS, ..row }).contains("not in the years"));

        let table = Table::new("t").key(["at"]).timestamp_secs("at", |t: &Timestamp| *t);
        let mut rows = Rows::new(Arc::new(table));
        let time = Timestamp::from_micros(1);
        let error = rows.push(&Batch::new(vec![time], vec![time])).unwrap_err().to_string();
        assert!(error.contains("column of whole seconds"), "{error}");
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn f59_what_fits_is_taken_and_the_rest_is_shown() {
        let mut rows = Rows::new(Arc::new(Row::table()));
        let row = |at, name: &str, n| Row { at, name: name.to_owned(), n };
        let some = vec![row(1, "a", 1), row(2, "b\0", 2), row(3, "\"", u64::MAX), row(4, "d", 4)];
        assert_eq!(rows.push_what_fits(&batch(Kind::Running, some.clone())), []);
        let refused = rows.push_what_fits(&batch(Kind::Final, some));
        assert_eq!(written(&rows), [1, 4]);
        assert_eq!((rows.len(), rows.text_bytes()), (4, 4));
        let shown: Vec<_> = refused.iter().map(|refused| refused.row.as_str()).collect();
        let time = |n| format!("1970-01-01T00:00:00.00000{n}Z");
        assert_eq!(
            shown,
            [
                format!(r#"{{"n": 2, "at": "{}", "name": null}}"#, time(2)),
                format!(r#"{{"n": null, "at": "{}", "name": "\""}}"#, time(3)),
            ]
        );
        assert!(refused[0].why.contains("U+0000, which a table cannot store, in \"b\\0\""));
        assert_eq!(rows.refused(0, "x"), None, "running");
        let taken = rows.refused(3, "x").unwrap();
        assert_eq!(taken.row, format!(r#"{{"n": 4, "at": "{}", "name": "d"}}"#, time(4)));
    }

    #[test]
    fn the_bounds_of_times_are_what_they_say() {
        let text = |micros| Timestamp::from_micros(micros).to_string();
        assert_eq!(text(FIRST_MICROS), "0001-01-01T00:00:00.000000Z");
        assert_eq!(text(END_MICROS - 1), "9999-12-31T23:59:59.999999Z");
    }

    proptest! {
        #[test]
        fn as_a_map_that_finals_overwrite(writes in proptest::collection::vec((any::<bool>(), 0i64..4, "[ab]{0,2}"), 0..60)) {
            let mut rows = Rows::new(Arc::new(Row::table()));
            let mut map = std::collections::BTreeMap::new();
            for (n, (is_final, at, name)) in writes.into_iter().enumerate() {
                let kind = if is_final { Kind::Final } else { Kind::Running };
                let row = Row { at, name: name.clone(), n: n as u64 };
                rows.push(&batch(kind, [row])).unwrap();
                let entry = map.entry((at, name)).or_insert((is_final, n as i64));
                if is_final || !entry.0 {
                    *entry = (is_final, n as i64);
                }
            }
            prop_assert_eq!(written(&rows), map.into_values().map(|(_, n)| n).collect::<Vec<_>>());
        }
    }
}
