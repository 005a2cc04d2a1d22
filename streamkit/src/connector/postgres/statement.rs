//! The statement that is a commit, and its parameters.

use bytes::{BufMut, BytesMut};
use postgres_types::{IsNull, Kind, ToSql, Type, to_sql_checked};

use super::schema::Target;
use crate::connector::table::{Rows, Table, Values, quoted, quoted_list};
use crate::failpoint::bound;

/// Rows and bytes of text in one statement. The server holds a statement's arrays in memory
/// several times, and from some ten thousand rows on a longer one is no faster.
const CHUNK_ROWS: usize = 50_000;
const CHUNK_BYTES: usize = 16 << 20;

/// Where the progress is kept.
pub(super) const PROGRESS_TABLE: &str = "streamkit_progress";

/// The progress of every sink of every job in this schema. The stored text stays as it is written
/// (`json`), and can still be asked: `progress -> 'point' -> 'watermark' ->> 'w'`.
pub(super) const CREATE_PROGRESS_TABLE: &str = "
    CREATE TABLE IF NOT EXISTS streamkit_progress (
        job        text        NOT NULL,
        sink       text        NOT NULL,
        lineage    text        NOT NULL,
        owner      text        NOT NULL,
        version    bigint      NOT NULL,
        progress   json,
        rejected   bigint      NOT NULL DEFAULT 0,
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (job, sink)
    )";

/// For a table that an earlier version has made, which did not count refused rows.
pub(super) const ADD_REJECTED: &str =
    "ALTER TABLE streamkit_progress ADD COLUMN IF NOT EXISTS rejected bigint NOT NULL DEFAULT 0";

/// Moves the progress (`$1`) of a sink (`$2`, `$3`) on condition of its owner and version (`$4`,
/// `$5`), upserts the rows (`$6`, …) if that hit, and returns how often it did: once, or never.
///
/// Both happen in one statement, so there is no moment between them. Rows that would not change
/// are left alone. With `only_new` a row that is there already is an error: without a look at what
/// is there, before each row is put in, the statement costs the server a third less. It relies on
/// the unique key, so it refuses to work without (by a time that must not be null).
pub(super) fn commit<T>(
    progress: &str,
    target: &Target,
    table: &Table<T>,
    only_new: bool,
) -> String {
    let names = table.columns().iter().map(|column| column.name.as_str());
    let columns = quoted_list("", names);
    let key = quoted_list("", table.key_columns().iter().map(String::as_str));
    let types = target.types.iter().zip(6..);
    let arrays: Vec<_> = types.map(|(kind, n)| format!("${n}::{kind}[]")).collect();
    let updates: Vec<_> =
        table.value_columns().map(quoted).map(|c| format!("{c} = EXCLUDED.{c}")).collect();
    let conflict = if only_new {
        String::new()
    } else if updates.is_empty() {
        format!("ON CONFLICT ({key}) DO NOTHING")
    } else {
        format!(
            "ON CONFLICT ({key}) DO UPDATE SET {} WHERE ({}) IS DISTINCT FROM ({})",
            updates.join(", "),
            quoted_list("t.", table.value_columns()),
            quoted_list("EXCLUDED.", table.value_columns()),
        )
    };
    let time = match only_new {
        true => format!(
            "CASE WHEN EXISTS (SELECT FROM pg_index WHERE indexrelid = {} AND indisvalid) THEN now() END",
            target.key
        ),
        false => "now()".to_owned(),
    };
    format!(
        "WITH claim AS (
             UPDATE {progress} SET progress = $1::text::json, updated_at = {time}
              WHERE job = $2 AND sink = $3 AND owner = $4 AND version = $5 RETURNING 1
         ), written AS (
             INSERT INTO {target} AS t ({columns})
             SELECT * FROM unnest({arrays}) WHERE EXISTS (SELECT 1 FROM claim)
             {conflict}
         )
         SELECT count(*) FROM claim",
        target = target.name,
        arrays = arrays.join(", "),
    )
}

/// Divides rows into statements.
pub(super) fn chunks<'a, T>(rows: &Rows<T>, mut order: &'a [u32]) -> Vec<&'a [u32]> {
    let mut chunks = vec![];
    let bytes_of = |row: u32| -> usize { rows.columns().iter().map(|c| c.text(row).len()).sum() };
    while !order.is_empty() {
        let mut bytes = 0;
        let fits = |row: &&u32| {
            bytes += bytes_of(**row);
            bytes <= CHUNK_BYTES
        };
        let len = order.iter().take(bound(CHUNK_ROWS, 4)).take_while(fits).count().max(1);
        let (chunk, rest) = order.split_at(len);
        chunks.push(chunk);
        order = rest;
    }
    if chunks.is_empty() {
        // Progress alone is a commit, too.
        chunks.push(order);
    }
    chunks
}

/// Some rows of a column, as an array parameter.
#[derive(Debug)]
pub(super) struct Array<'a> {
    pub(super) values: &'a Values,
    pub(super) rows: &'a [u32],
}

/// 2000-01-01 in microseconds since 1970: where PostgreSQL begins to count.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl ToSql for Array<'_> {
    /// The array in the server's binary form: one dimension, no nulls, the type of the elements,
    /// the length, the first index, and each element after its length.
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Kind::Array(element) = ty.kind() else { return Err("not an array".into()) };
        out.put_i32(1);
        out.put_i32(0);
        out.put_u32(element.oid());
        out.put_i32(i32::try_from(self.rows.len())?);
        out.put_i32(1);
        match self.values {
            Values::Text { .. } => {
                for &row in self.rows {
                    let text = self.values.text(row);
                    out.put_i32(i32::try_from(text.len())?);
                    out.put_slice(text.as_bytes());
                }
            }
            Values::BigInt(values) => self.rows.iter().for_each(|&row| {
                out.put_i32(8);
                out.put_i64(values[row as usize]);
            }),
            Values::Double(values) => self.rows.iter().for_each(|&row| {
                out.put_i32(8);
                out.put_f64(values[row as usize]);
            }),
            Values::Timestamp(micros) => self.rows.iter().for_each(|&row| {
                out.put_i32(8);
                out.put_i64(micros[row as usize] - POSTGRES_EPOCH);
            }),
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Array(_))
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::Batch;
    use crate::time::Timestamp;

    #[test]
    fn d8_rows_and_progress_are_one_statement() {
        let table =
            Table::new("t").key(["k"]).text("k", |r: &(String, i64)| &r.0).bigint("n", |r| r.1);
        let target =
            Target { name: "\"s\".\"t\"".to_owned(), types: vec!["text", "bigint"], key: 7 };
        let sql = commit("\"s\".\"p\"", &target, &table, false);
        let words: Vec<_> = sql.split_whitespace().collect();
        assert_eq!(
            words.join(" "),
            "WITH claim AS ( UPDATE \"s\".\"p\" SET progress = $1::text::json, updated_at = now() \
             WHERE job = $2 AND sink = $3 AND owner = $4 AND version = $5 RETURNING 1 ), \
             written AS ( INSERT INTO \"s\".\"t\" AS t (\"k\", \"n\") \
             SELECT * FROM unnest($6::text[], $7::bigint[]) WHERE EXISTS (SELECT 1 FROM claim) \
             ON CONFLICT (\"k\") DO UPDATE SET \"n\" = EXCLUDED.\"n\" \
             WHERE (t.\"n\") IS DISTINCT FROM (EXCLUDED.\"n\") ) SELECT count(*) FROM claim"
        );
        let only_keys = Table::new("t").key(["k"]).text("k", |r: &String| r);
        assert!(commit("p", &target, &only_keys, false).contains("(\"k\") DO NOTHING"));
        let new = commit("p", &target, &table, true);
        assert!(new.contains("indexrelid = 7 AND") && !new.contains("CONFLICT"), "{new}");
    }

    #[test]
    fn long_commits_are_divided_and_empty_ones_are_not() {
        let table = Table::new("t").key(["k"]).text("k", |r: &String| r);
        let mut rows = Rows::new(Arc::new(table));
        assert_eq!(chunks(&rows, &rows.to_write()), [&[] as &[u32]]);
        let texts = vec!["x".repeat(CHUNK_BYTES / 2); 5];
        rows.push(&Batch::new(texts, vec![Timestamp::MIN; 5])).unwrap();
        let order = [0, 1, 2, 3, 4];
        assert_eq!(chunks(&rows, &order), [&[0, 1][..], &[2, 3], &[4]]);
        let huge = vec!["x".repeat(CHUNK_BYTES + 1)];
        rows.push(&Batch::new(huge, vec![Timestamp::MIN])).unwrap();
        assert_eq!(chunks(&rows, &[5, 0]), [&[5][..], &[0]], "one row is the least");
    }
}
