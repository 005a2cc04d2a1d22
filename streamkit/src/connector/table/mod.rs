//! What a row is to a table: the model that the sinks for databases share.
//!
//! A job says once, next to its row type, which table the rows go to and how each column is read
//! from a row. Names and values stand side by side, so that they cannot get out of step:
//!
//! ```
//! use streamkit::connector::{Table, TableRow};
//! use streamkit::time::Timestamp;
//!
//! struct PageViewCount {
//!     window_start: Timestamp,
//!     page_url: String,
//!     view_count: u64,
//! }
//!
//! impl TableRow for PageViewCount {
//!     fn table() -> Table<Self> {
//!         Table::<Self>::new("page_view_counts")
//!             .key(["window_start", "page_url"])
//!             .timestamp_secs("window_start", |row| row.window_start)
//!             .text("page_url", |row| &row.page_url)
//!             .bigint("view_count", |row| row.view_count)
//!     }
//! }
//! ```
//!
//! Only these names ever become part of an SQL text, they are checked ([`Table`] says how), and
//! they are quoted; values always travel as parameters.

mod rows;

use std::fmt;

use crate::data::Data;
use crate::error::{Error, Result};
use crate::record::Batch;
use crate::time::Timestamp;

#[cfg(feature = "postgres")]
pub(crate) use rows::Refused;
pub(crate) use rows::{Rows, Values};

/// A type whose values are rows of a table.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a row of a table",
    note = "implement `TableRow` for it, or give the sink a `Table` with `with_table(..)`"
)]
pub trait TableRow: Data + Sized {
    /// The table, its columns, and how each is read from a row.
    fn table() -> Table<Self>;
}

/// A table and its mapping from rows of type `T`.
///
/// Names of tables and columns consist of `a`–`z`, `0`–`9` and `_`, do not begin with a digit, and
/// have at most 63 characters: what PostgreSQL folds nothing in and cuts nothing from. That is
/// checked when the sink is opened.
pub struct Table<T> {
    name: String,
    key: Vec<String>,
    columns: Vec<Column>,
    encoders: Vec<Box<Encoder<T>>>,
}

/// Appends one column of a batch's selected rows. Called once per batch, so that the user's closure
/// is inlined in the loop inside; says what is wrong with a value that cannot be stored.
type Encoder<T> = dyn Fn(&Batch<T>, &mut Values) -> Result<(), String> + Send + Sync;

/// The name and the type of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: ColumnKind,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnKind {
    Text,
    BigInt,
    Double,
    /// A point in time with microseconds. `digits` is the length of the fraction where the target
    /// stores times as text.
    Timestamp {
        digits: u8,
    },
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("name", &self.name)
            .field("key", &self.key)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

impl<T: Data> Table<T> {
    /// A table without columns. Write `Table::<Row>::new(..)`: closures need to know the row type
    /// before the columns are named.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), key: vec![], columns: vec![], encoders: vec![] }
    }

    /// The columns that name a row: a later row of the same key replaces an earlier one. They must
    /// be columns of the table, and not floating-point ones.
    #[must_use]
    pub fn key<const N: usize>(mut self, columns: [&str; N]) -> Self {
        self.key = columns.map(str::to_owned).to_vec();
        self
    }

    /// A column of text. A value with U+0000 cannot be stored: PostgreSQL's sink rejects the row,
    /// SQLite's stops the job.
    #[must_use]
    pub fn text(self, name: &str, get: impl Fn(&T) -> &str + Send + Sync + 'static) -> Self {
        self.column(name, ColumnKind::Text, move |batch, values| {
            batch.values().try_for_each(|row| values.push_text(get(row)))
        })
    }

    /// A column of 64-bit signed integers. A value that does not fit cannot be stored; see
    /// [`text`](Self::text).
    #[must_use]
    pub fn bigint<V: TryInto<i64>>(
        self,
        name: &str,
        get: impl Fn(&T) -> V + Send + Sync + 'static,
    ) -> Self {
        self.column(name, ColumnKind::BigInt, move |batch, values| {
            batch.values().try_for_each(|row| match get(row).try_into() {
                Ok(value) => values.push_integer(value),
                Err(_) => Err("an integer that does not fit into 64 bits".to_owned()),
            })
        })
    }

    /// A column of 64-bit floating-point numbers.
    #[must_use]
    pub fn double(self, name: &str, get: impl Fn(&T) -> f64 + Send + Sync + 'static) -> Self {
        self.column(name, ColumnKind::Double, move |batch, values| {
            batch.values().try_for_each(|row| values.push_double(get(row)))
        })
    }

    /// A column of points in time, with microseconds.
    #[must_use]
    pub fn timestamp(
        self,
        name: &str,
        get: impl Fn(&T) -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        self.timestamp_digits(name, 6, get)
    }

    /// A column of points in time on whole seconds, such as the bounds of a window: where the
    /// target stores times as text, there is no fraction. A time between two seconds cannot be
    /// stored; see [`text`](Self::text).
    #[must_use]
    pub fn timestamp_secs(
        self,
        name: &str,
        get: impl Fn(&T) -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        self.timestamp_digits(name, 0, get)
    }

    fn timestamp_digits(
        self,
        name: &str,
        digits: u8,
        get: impl Fn(&T) -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        self.column(name, ColumnKind::Timestamp { digits }, move |batch, values| {
            batch.values().try_for_each(|row| values.push_time(get(row), digits))
        })
    }

    fn column(
        mut self,
        name: &str,
        kind: ColumnKind,
        encode: impl Fn(&Batch<T>, &mut Values) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.columns.push(Column { name: name.to_owned(), kind });
        self.encoders.push(Box::new(encode));
        self
    }
}

impl<T> Table<T> {
    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The names of the key columns.
    pub(crate) fn key_columns(&self) -> &[String] {
        &self.key
    }

    /// The names of the columns that are not part of the key.
    pub(crate) fn value_columns(&self) -> impl Iterator<Item = &str> {
        let names = self.columns.iter().map(|column| column.name.as_str());
        names.filter(|name| !self.key.iter().any(|key| key == name))
    }

    /// Finds every mistake that can be seen without the database.
    pub(crate) fn check(&self) -> Result<()> {
        let table = &self.name;
        check_name("table", table)?;
        for (i, column) in self.columns.iter().enumerate() {
            check_name(&format!("column of table {table}"), &column.name)?;
            if self.columns[..i].iter().any(|other| other.name == column.name) {
                return Err(Error::user(format!("table {table} has column {} twice", column.name)));
            }
        }
        if self.key.is_empty() {
            return Err(Error::user(format!(
                "table {table} has no key: say which columns name a row, \
                 with `Table::new(\"{table}\").key([..])`"
            )));
        }
        for (i, key) in self.key.iter().enumerate() {
            let problem = match self.columns.iter().find(|column| column.name == *key) {
                _ if self.key[..i].contains(key) => "is in it twice",
                None => "is not a column of the table",
                // Two floats can be equal to the database and not to us (0.0 and -0.0).
                Some(Column { kind: ColumnKind::Double, .. }) => "is a floating-point number",
                Some(_) => continue,
            };
            return Err(Error::user(format!(
                "the key of table {table} names {key}, which {problem}"
            )));
        }
        Ok(())
    }
}

/// Refuses any name that would have to be escaped, or that PostgreSQL would fold or cut.
fn check_name(what: &str, name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    let rest = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if first && rest && name.len() <= 63 {
        return Ok(());
    }
    Err(Error::user(format!(
        "{name:?} cannot be the name of a {what}: use a-z, 0-9 and _, \
         not beginning with a digit, at most 63 characters"
    )))
}

/// A name that passed [`Table::check`], or that the database itself reported, as SQL text.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quoted names, separated by commas, each after `prefix`.
pub(crate) fn quoted_list<'a>(prefix: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.into_iter().map(|n| format!("{prefix}{}", quoted(n))).collect();
    names.join(", ")
}

/// A text that no other process makes: who owns a target. It begins with the copy of the program,
/// so that a message can say who took over.
pub(crate) fn random_owner(instance: &str) -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The standard library seeds these from the system's random numbers.
    let random = || RandomState::new().build_hasher().finish();
    format!("{instance}:{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table<(String, u64, f64)> {
        Table::<(String, u64, f64)>::new("t")
            .text("name", |r| &r.0)
            .bigint("n", |r| r.1)
            .double("x", |r| r.2)
    }

    fn problem<T>(table: &Table<T>) -> String {
        table.check().unwrap_err().to_string()
    }

    #[test]
    fn names_that_need_escaping_are_refused() {
        for name in ["", "1a", "A", "a b", "a\"b", "ä", "a.b", "a;--", &"x".repeat(64)] {
            let table: Table<u64> = Table::new(name).bigint("n", |r| *r).key(["n"]);
            assert!(problem(&table).contains("cannot be the name of a table"), "{name}");
            let table: Table<u64> = Table::new("t").bigint(name, |r| *r).key([name]);
            assert!(problem(&table).contains("cannot be the name of a column"), "{name}");
        }
        let table: Table<u64> = Table::new("_a1").bigint("order", |r| *r).key(["order"]);
        table.check().unwrap();
    }

    /// What passes the check is an identifier that needs no quoting; what the database reports may be
    /// anything, and stays one identifier.
    #[test]
    fn fuzz_identifier() {
        let seeds = ["counts", "_a1", "a\"b", "a\"; DROP TABLE x; --", "Größe", "\"\""];
        let seeds = seeds.map(|seed| seed.as_bytes().to_vec());
        crate::testing::fuzz("identifier", &seeds, |bytes| {
            let name = String::from_utf8_lossy(bytes);
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            assert!(check_name("table", &name).is_err() || (plain && !name.is_empty()), "{name:?}");
            let quoted = quoted(&name);
            let inner = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"')).unwrap();
            // Read as SQL does: a quote within is always two.
            assert_eq!(inner.replace("\"\"", "").matches('"').count(), 0, "{quoted}");
            assert_eq!(inner.replace("\"\"", "\""), name);
        });
    }

    #[test]
    fn a_key_must_be_there_and_comparable() {
        assert!(problem(&table()).contains("has no key"));
        assert!(problem(&table().key(["m"])).contains("not a column"));
        assert!(problem(&table().key(["x"])).contains("floating-point"));
        assert!(problem(&table().key(["n", "n"])).contains("twice"));
        let table = table().key(["n"]);
        table.check().unwrap();
        assert_eq!(table.value_columns().collect::<Vec<_>>(), ["name", "x"]);
    }

    #[test]
    fn owners_differ() {
        assert_ne!(random_owner("0"), random_owner("0"));
        assert!(random_owner("7").starts_with("7:"));
    }
}
