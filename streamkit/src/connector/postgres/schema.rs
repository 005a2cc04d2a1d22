//! Is the table there, and is it as the job's row type says?
//!
//! Found out once, before the first row: an upsert into a table without a unique key, or with a
//! column of another type, would fail at the first commit, or worse, not fail.

use std::fmt::Write as _;

use super::error::Failure;
use super::session::Session;
use crate::connector::table::{Column, ColumnKind, Table, quoted};
use crate::error::{Error, Result};

/// What the database says about a table.
#[derive(Debug, Clone, Default)]
struct Facts {
    /// Schema and name, quoted.
    name: String,
    relkind: String,
    /// The privileges that are missing.
    denied: Vec<String>,
    columns: Vec<FoundColumn>,
    /// The unique keys that an upsert can go by: the index's OID, and the columns.
    keys: Vec<(u32, Vec<String>)>,
}

#[derive(Debug, Clone)]
struct FoundColumn {
    name: String,
    /// `text`, `bigint`, `timestamp with time zone`, …
    kind: String,
    /// With its modifiers: `timestamp(0) with time zone`.
    kind_in_full: String,
    /// What comes after the type: a limit on digits or on length, or -1.
    modifier: i32,
    /// An insert that leaves the column out fails.
    required: bool,
    /// A value cannot be inserted.
    generated: bool,
}

/// A table that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Schema and name, quoted.
    pub(super) name: String,
    /// For each column of the model, the type of its parameter.
    pub(super) types: Vec<&'static str>,
    /// The OID of the index that keeps keys unique.
    pub(super) key: u32,
}

/// Looks at the table.
pub(super) async fn find<T>(session: &Session, table: &Table<T>) -> Result<Target, Failure> {
    let facts = match look(session, table.name()).await? {
        Some(facts) => facts,
        None => return Err(missing(session, table).into()),
    };
    let target = fit(&facts, table)?;
    let times: Vec<_> = table.columns().iter().zip(&target.types).collect();
    let zoneless = times.iter().filter(|(_, kind)| **kind == "timestamp");
    let zoneless: Vec<_> = zoneless.map(|(column, _)| column.name.as_str()).collect();
    if !zoneless.is_empty() {
        tracing::info!(
            table = target.name,
            columns = zoneless.join(", "),
            "columns without time zone get the time in UTC"
        );
    }
    Ok(target)
}

/// A table's schema and name, quoted.
pub(super) async fn place(session: &Session, table: &str) -> Result<String, Failure> {
    let sql = "SELECT nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
                WHERE c.oid = to_regclass($1)";
    let row = session.row(&format!("cannot find table {table}"), sql, &[&table]).await?;
    Ok(format!("{}.{}", quoted(row.get(0)), quoted(table)))
}

/// Whether a table has a column.
pub(super) async fn has_column(
    session: &Session,
    table: &str,
    column: &str,
) -> Result<bool, Failure> {
    let sql = "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($1)
                                 AND attname = $2::text AND NOT attisdropped)";
    let doing = format!("cannot look at table {table}");
    Ok(session.row(&doing, sql, &[&table, &column]).await?.get(0))
}

async fn look(session: &Session, table: &str) -> Result<Option<Facts>, Failure> {
    let doing = format!("cannot look at table {table}");
    let sql = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
                      array(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) p
                             WHERE NOT has_table_privilege(c.oid, p))
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.oid = to_regclass($1)";
    let found = session.rows(&doing, sql, &[&quoted(table)]).await?;
    let [row] = found.as_slice() else { return Ok(None) };
    let oid: u32 = row.get(0);
    let (schema, name): (&str, &str) = (row.get(1), row.get(2));
    let mut facts = Facts {
        name: format!("{}.{}", quoted(schema), quoted(name)),
        relkind: row.get(3),
        denied: row.get(4),
        ..Facts::default()
    };
    let sql = "SELECT attname::text, format_type(atttypid, NULL), format_type(atttypid, atttypmod),
                      atttypmod, attnotnull AND NOT atthasdef AND attidentity = '',
                      attgenerated <> '' OR attidentity = 'a'
                 FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
                ORDER BY attnum";
    for row in session.rows(&doing, sql, &[&oid]).await? {
        facts.columns.push(FoundColumn {
            name: row.get(0),
            kind: row.get(1),
            kind_in_full: row.get(2),
            modifier: row.get(3),
            required: row.get(4),
            generated: row.get(5),
        });
    }
    let sql = "SELECT i.indexrelid,
                      array(SELECT a.attname::text FROM pg_attribute a
                             WHERE a.attrelid = i.indrelid
                               AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
                 FROM pg_index i
                WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate
                  AND i.indpred IS NULL AND i.indexprs IS NULL";
    let rows = session.rows(&doing, sql, &[&oid]).await?;
    facts.keys = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    Ok(Some(facts))
}

fn missing<T>(session: &Session, table: &Table<T>) -> Error {
    let mut columns = String::new();
    for column in table.columns() {
        let _ = write!(columns, "{} {}, ", column.name, accepted(column.kind)[0]);
    }
    Error::user(format!(
        "there is no table {table} in database {database} at {place}: create it with \
         `psql -f init-db.sql`, or as CREATE TABLE {table} ({columns}PRIMARY KEY ({key}))",
        table = table.name(),
        database = session.database,
        place = session.place(),
        key = table.key_columns().join(", "),
    ))
}

/// The types that a column may have, the preferred one first. Others of the same family are
/// converted by the server, with an error where a value does not fit.
fn accepted(kind: ColumnKind) -> &'static [&'static str] {
    match kind {
        ColumnKind::Text => &["text", "character varying"],
        ColumnKind::BigInt => &["bigint", "integer", "numeric"],
        ColumnKind::Double => &["double precision", "numeric"],
        ColumnKind::Timestamp { .. } => {
            &["timestamp with time zone", "timestamp without time zone"]
        }
    }
}

/// Compares the table with the model.
fn fit<T>(facts: &Facts, table: &Table<T>) -> Result<Target> {
    let name = &facts.name;
    if !matches!(facts.relkind.as_str(), "r" | "p") {
        return Err(Error::user(format!(
            "{name} is not a table; rows can be upserted into tables"
        )));
    }
    if !facts.denied.is_empty() {
        let denied = facts.denied.join(", ");
        return Err(Error::user(format!(
            "the database user may not write to table {name}: GRANT {denied} ON {name} TO that user"
        )));
    }
    let mut types = vec![];
    for column in table.columns() {
        let found = facts.columns.iter().find(|found| found.name == column.name);
        types.push(fit_column(facts, column, found)?);
    }
    for found in facts.columns.iter().filter(|found| found.required) {
        if !table.columns().iter().any(|column| column.name == found.name) {
            let column = &found.name;
            return Err(Error::user(format!(
                "column {column} of table {name} must not be null, and the job does not write it: \
                 ALTER TABLE {name} ALTER COLUMN {column} DROP NOT NULL, or give it a default"
            )));
        }
    }
    let same_columns = |(_, key): &&(u32, Vec<String>)| {
        let of_table = table.key_columns();
        key.len() == of_table.len() && key.iter().all(|column| of_table.contains(column))
    };
    let Some((key, _)) = facts.keys.iter().find(same_columns) else {
        let key = table.key_columns().join(", ");
        let found = match facts.keys.as_slice() {
            [] => "it has none".to_owned(),
            keys => {
                let keys: Vec<_> =
                    keys.iter().map(|(_, key)| format!("({})", key.join(", "))).collect();
                format!("it has {}", keys.join(" and "))
            }
        };
        return Err(Error::user(format!(
            "table {name} has no unique key on ({key}), by which rows are replaced; {found}. \
             ALTER TABLE {name} ADD PRIMARY KEY ({key})"
        )));
    };
    Ok(Target { name: name.clone(), types, key: *key })
}

/// The type of a column's parameter.
fn fit_column(facts: &Facts, column: &Column, found: Option<&FoundColumn>) -> Result<&'static str> {
    let (table, name) = (&facts.name, &column.name);
    let accepted = accepted(column.kind);
    let expected = accepted[0];
    let Some(found) = found else {
        let names: Vec<_> = facts.columns.iter().map(|column| column.name.as_str()).collect();
        return Err(Error::user(format!(
            "table {table} has no column {name} (expected: {expected}); it has {}. It was not \
             made by this job's init-db.sql: rename or drop it, then `psql -f init-db.sql`",
            names.join(", ")
        )));
    };
    let digits = match column.kind {
        ColumnKind::Timestamp { digits } => i32::from(digits),
        ColumnKind::Text | ColumnKind::BigInt | ColumnKind::Double => 0,
    };
    // A precision of times rounds, so that two keys may become one. A limit on length is an error
    // where a text is longer, and so are the digits of a number.
    let rounds = digits > 0 && (0..digits).contains(&found.modifier);
    if found.generated || rounds || !accepted.contains(&found.kind.as_str()) {
        let kind = &found.kind_in_full;
        let change = if found.generated {
            "the server computes it, and the job must write it".to_owned()
        } else {
            format!("ALTER TABLE {table} ALTER COLUMN {name} TYPE {expected}")
        };
        return Err(Error::user(format!(
            "column {name} of table {table} is {kind}, and must be {expected}: {change}"
        )));
    }
    Ok(match column.kind {
        ColumnKind::Text => "text",
        ColumnKind::BigInt => "bigint",
        ColumnKind::Double => "double precision",
        ColumnKind::Timestamp { .. } if found.kind == expected => "timestamptz",
        ColumnKind::Timestamp { .. } => "timestamp",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    type Row = (Timestamp, String, u64);
    type Change = fn(&mut Facts);

    fn table() -> Table<Row> {
        Table::new("t")
            .key(["at", "name"])
            .timestamp("at", |r: &Row| r.0)
            .text("name", |r| &r.1)
            .bigint("n", |r| r.2)
    }

    fn column(name: &str, kind: &str) -> FoundColumn {
        FoundColumn {
            name: name.to_owned(),
            kind: kind.to_owned(),
            kind_in_full: kind.to_owned(),
            modifier: -1,
            required: false,
            generated: false,
        }
    }

    fn facts() -> Facts {
        Facts {
            name: "\"s\".\"t\"".to_owned(),
            relkind: "r".to_owned(),
            columns: vec![
                column("n", "integer"),
                column("name", "character varying"),
                column("at", "timestamp without time zone"),
                column("note", "text"),
            ],
            keys: vec![(6, vec!["n".to_owned()]), (7, vec!["name".to_owned(), "at".to_owned()])],
            denied: vec![],
        }
    }

    #[test]
    fn a_table_of_another_order_and_of_wider_types_fits() {
        let target = fit(&facts(), &table()).unwrap();
        assert_eq!(target.types, ["timestamp", "text", "bigint"]);
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_to_do() {
        let problem = |change: Change| {
            let mut facts = facts();
            change(&mut facts);
            fit(&facts, &table()).unwrap_err().to_string()
        };
        let cases: [(Change, &str); 8] = [
            (|f| f.relkind = "v".to_owned(), "not a table"),
            (|f| f.denied.push("INSERT".to_owned()), "GRANT INSERT ON"),
            (|f| f.columns[3].required = true, "column note of table"),
            (
                |f| drop(f.columns.remove(0)),
                "no column n (expected: bigint); it has name, at, note",
            ),
            (|f| f.columns[0].kind = "text".to_owned(), "ALTER COLUMN n TYPE bigint"),
            (|f| f.columns[0].generated = true, "the server computes it"),
            (|f| f.columns[2].modifier = 3, "ALTER COLUMN at TYPE timestamp with time zone"),
            (
                |f| drop(f.keys.pop()),
                "it has (n). ALTER TABLE \"s\".\"t\" ADD PRIMARY KEY (at, name)",
            ),
        ];
        for (change, expected) in cases {
            let problem = problem(change);
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
