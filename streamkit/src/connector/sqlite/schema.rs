//! The tables, as SQL text and as found in the file.

use std::fmt::Write as _;

use chrono::{DateTime, Datelike, Timelike};
use rusqlite::Connection;

use crate::connector::table::{ColumnKind, Table, quoted, quoted_list};
use crate::error::{Error, Result};

/// The progress of every sink of every job in this file.
pub(super) const CREATE_PROGRESS_TABLE: &str = "
    CREATE TABLE IF NOT EXISTS streamkit_progress (
        job        TEXT    NOT NULL,
        sink       TEXT    NOT NULL,
        lineage    TEXT    NOT NULL,
        owner      TEXT    NOT NULL,
        version    INTEGER NOT NULL,
        progress   TEXT,
        updated_at TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
        PRIMARY KEY (job, sink)
    ) WITHOUT ROWID";

fn declared(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text | ColumnKind::Timestamp { .. } => "TEXT",
        ColumnKind::BigInt => "INTEGER",
        ColumnKind::Double => "REAL",
    }
}

/// Rows lie in the order of the key: there is no second tree beside the key's.
pub(super) fn create<T>(table: &Table<T>) -> String {
    let mut sql = format!("CREATE TABLE IF NOT EXISTS {} (", quoted(table.name()));
    for column in table.columns() {
        let _ = write!(sql, "{} {} NOT NULL, ", quoted(&column.name), declared(column.kind));
    }
    let key = quoted_list("", table.key_columns().iter().map(String::as_str));
    let _ = write!(sql, "PRIMARY KEY ({key})) WITHOUT ROWID");
    sql
}

/// A row that would not change is left alone.
pub(super) fn upsert<T>(table: &Table<T>) -> String {
    let values: Vec<_> = (1..=table.columns().len()).map(|n| format!("?{n}")).collect();
    let updates: Vec<_> =
        table.value_columns().map(quoted).map(|c| format!("{c} = excluded.{c}")).collect();
    let conflict = if updates.is_empty() {
        "NOTHING".to_owned()
    } else {
        format!(
            "UPDATE SET {} WHERE ({}) IS NOT ({})",
            updates.join(", "),
            quoted_list("t.", table.value_columns()),
            quoted_list("excluded.", table.value_columns()),
        )
    };
    format!(
        "INSERT INTO {} AS t ({}) VALUES ({}) ON CONFLICT ({}) DO {conflict}",
        quoted(table.name()),
        quoted_list("", table.columns().iter().map(|column| column.name.as_str())),
        values.join(", "),
        quoted_list("", table.key_columns().iter().map(String::as_str)),
    )
}

/// A column as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundColumn {
    name: String,
    kind: String,
    required: bool,
    in_key: bool,
}

/// The columns of a table, in the file's order.
pub(super) fn look(
    connection: &Connection,
    table: &str,
) -> Result<Vec<FoundColumn>, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT name, type, \"notnull\" AND dflt_value IS NULL, pk > 0 FROM pragma_table_info(?1)",
    )?;
    let rows = statement.query_map([table], |row| {
        Ok(FoundColumn {
            name: row.get(0)?,
            kind: row.get(1)?,
            required: row.get(2)?,
            in_key: row.get(3)?,
        })
    })?;
    rows.collect()
}

/// Compares a table of the file with the model.
pub(super) fn fit<T>(found: &[FoundColumn], table: &Table<T>, file: &str) -> Result<()> {
    let name = table.name();
    let refuse = |problem: String| {
        Err(Error::user(format!(
            "table {name} in {file} was made by another program or version: {problem}. \
             Rename the table, or choose another file"
        )))
    };
    for column in table.columns() {
        let expected = declared(column.kind);
        let column = &column.name;
        match found.iter().find(|found| found.name == *column) {
            None => return refuse(format!("it has no column {column} (expected: {expected})")),
            Some(found) if !found.kind.eq_ignore_ascii_case(expected) => {
                let kind = &found.kind;
                return refuse(format!("column {column} is {kind}, and must be {expected}"));
            }
            Some(found) if found.in_key != table.key_columns().contains(column) => {
                let key = table.key_columns().join(", ");
                return refuse(format!("its primary key is not ({key})"));
            }
            Some(_) => {}
        }
    }
    let written = |found: &&FoundColumn| table.columns().iter().any(|c| c.name == found.name);
    match found.iter().find(|found| (found.required || found.in_key) && !written(found)) {
        Some(found) => refuse(format!("column {} must be given, and is not written", found.name)),
        None => Ok(()),
    }
}

/// Appends a time as `2026-01-01T00:00:00Z`, or with as many digits of the second as the column has.
pub(super) fn write_time(text: &mut String, micros: i64, column: ColumnKind) {
    let time = DateTime::from_timestamp_micros(micros).unwrap_or_default();
    let (year, month, day) = (time.year(), time.month(), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    let written = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    debug_assert!(written.is_ok(), "writing to a string cannot fail");
    let digits = match column {
        ColumnKind::Timestamp { digits } => digits.min(6),
        ColumnKind::Text | ColumnKind::BigInt | ColumnKind::Double => 0,
    };
    if digits > 0 {
        let fraction = micros.rem_euclid(1_000_000) / 10_i64.pow(6 - u32::from(digits));
        let _ = write!(text, ".{fraction:0width$}", width = usize::from(digits));
    }
    text.push('Z');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn table() -> Table<(Timestamp, i64)> {
        Table::new("t")
            .key(["at"])
            .timestamp("at", |r: &(Timestamp, i64)| r.0)
            .bigint("n", |r| r.1)
            .double("x", |_| 0.0)
    }

    #[test]
    fn times_have_the_digits_of_their_column() {
        let text = |micros, digits| {
            let mut text = String::new();
            write_time(&mut text, micros, ColumnKind::Timestamp { digits });
            text
        };
        assert_eq!(text(1_767_225_600_123_456, 6), "2026-01-01T00:00:00.123456Z");
        assert_eq!(text(1_767_225_600_000_001, 3), "2026-01-01T00:00:00.000Z");
        assert_eq!(text(1_767_225_660_000_000, 0), "2026-01-01T00:01:00Z");
        assert_eq!(text(-1, 6), "1969-12-31T23:59:59.999999Z");
        assert_eq!(text(-62_135_596_800_000_000, 0), "0001-01-01T00:00:00Z");
        for micros in [0, 1_767_225_600_123_456, -1] {
            assert_eq!(text(micros, 6), Timestamp::from_micros(micros).to_string());
        }
    }

    #[test]
    fn the_texts_are_these() {
        let words = |sql: String| sql.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            words(create(&table())),
            "CREATE TABLE IF NOT EXISTS \"t\" (\"at\" TEXT NOT NULL, \"n\" INTEGER NOT NULL, \
             \"x\" REAL NOT NULL, PRIMARY KEY (\"at\")) WITHOUT ROWID"
        );
        assert_eq!(
            words(upsert(&table())),
            "INSERT INTO \"t\" AS t (\"at\", \"n\", \"x\") VALUES (?1, ?2, ?3) \
             ON CONFLICT (\"at\") DO UPDATE SET \"n\" = excluded.\"n\", \"x\" = excluded.\"x\" \
             WHERE (t.\"n\", t.\"x\") IS NOT (excluded.\"n\", excluded.\"x\")"
        );
    }

    #[test]
    fn a_table_of_another_form_is_refused_by_name() {
        let problem = |sql: &str| {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(sql).unwrap();
            let found = look(&connection, "t").unwrap();
            fit(&found, &table(), "x.db").err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert_eq!(problem(&create(&table())), "");
        let cases = [
            ("CREATE TABLE t (x REAL, n INTEGER, at TEXT PRIMARY KEY, more TEXT)", ""),
            ("CREATE TABLE t (at TEXT PRIMARY KEY, n INTEGER)", "no column x (expected: REAL)"),
            ("CREATE TABLE t (at INTEGER PRIMARY KEY, n INTEGER, x REAL)", "at is INTEGER, and"),
            ("CREATE TABLE t (at TEXT, n INTEGER, x REAL)", "primary key is not (at)"),
            ("CREATE TABLE t (at TEXT PRIMARY KEY, n INTEGER, x REAL, y INT NOT NULL)", "column y"),
        ];
        for (sql, expected) in cases {
            let problem = problem(sql);
            assert!(
                problem.contains(expected) && problem.is_empty() == expected.is_empty(),
                "{problem}"
            );
        }
    }
}
