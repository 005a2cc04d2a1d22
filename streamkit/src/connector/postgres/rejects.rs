//! Rows that the database refuses (F59): found by halving, and put aside in the same transaction.
//!
//! ```text
//! BEGIN
//!   rows 0..8   refused ─┬─ rows 0..4   written
//!                        └─ rows 4..8   refused ─┬─ rows 4..6   written
//!                                                └─ rows 6..8   …  row 7 into streamkit_rejects
//!   rejected = rejected + 1                       in the sink's progress, if it is still ours
//! COMMIT
//! ```
//!
//! So a row is in its table or among the rejects, as surely as in either of them, and once: final
//! rows that the progress counts are those of the table's commits and the `rejected` ones. A running
//! row that is refused is left out, since its final one comes, and is judged then.

use postgres_types::ToSql;

use super::error::Failure;
use super::lease::{Lease, Place, taken_over};
use super::session::Session;
use crate::connector::table::Refused;

/// Where refused rows are kept.
pub(super) const REJECTS_TABLE: &str = "streamkit_rejects";

/// Refused rows of every sink of every job in this schema.
pub(super) const CREATE_REJECTS_TABLE: &str = "
    CREATE TABLE IF NOT EXISTS streamkit_rejects (
        id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        job         text        NOT NULL,
        sink        text        NOT NULL,
        lineage     text        NOT NULL,
        target      text        NOT NULL,
        refused_row text        NOT NULL,
        error       text        NOT NULL,
        rejected_at timestamptz NOT NULL DEFAULT now()
    )";

/// What happens to a row that the database refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnReject {
    /// It goes, as text and with the reason, into the table `streamkit_rejects`; the others are
    /// written.
    #[default]
    Reject,
    /// The job stops.
    Stop,
}

/// A part of a commit's rows that has still to be written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Next<'a> {
    /// Written as one statement.
    Rows(&'a [u32]),
    /// Put aside.
    Refused(u32),
}

/// What comes of rows that were refused as a whole: halves, in order, or the one that it is.
pub(super) fn divide(rows: &[u32]) -> Vec<Next<'_>> {
    match rows {
        [] => vec![],
        [one] => vec![Next::Refused(*one)],
        rows => {
            let (first, second) = rows.split_at(rows.len() / 2);
            vec![Next::Rows(first), Next::Rows(second)]
        }
    }
}

/// Puts rows aside and counts them, on condition that the progress is still ours.
pub(super) async fn put_aside(
    session: &Session,
    place: Place<'_>,
    lease: &Lease,
    (rejects, target, lineage): (&str, &str, &str),
    refused: &[Refused],
) -> Result<(), Failure> {
    let rows: Vec<&str> = refused.iter().map(|refused| refused.row.as_str()).collect();
    let errors: Vec<&str> = refused.iter().map(|refused| refused.why.as_str()).collect();
    let sql = format!(
        "INSERT INTO {rejects} (job, sink, lineage, target, refused_row, error)
         SELECT $1, $2, $3, $4, * FROM unnest($5::text[], $6::text[])"
    );
    let values: [&(dyn ToSql + Sync); 6] =
        [&place.job, &place.sink, &lineage, &target, &rows, &errors];
    session.rows(&format!("cannot write to {rejects}"), &sql, &values).await?;
    let sql = format!(
        "UPDATE {} SET rejected = rejected + $1
          WHERE job = $2 AND sink = $3 AND owner = $4 AND version = $5 RETURNING 1",
        place.table
    );
    let count = i64::try_from(refused.len()).unwrap_or(i64::MAX);
    let values: [&(dyn ToSql + Sync); 5] =
        [&count, &place.job, &place.sink, &lease.owner, &lease.version];
    let hit = session.rows("cannot count refused rows", &sql, &values).await?;
    if hit.len() == 1 { Ok(()) } else { Err(taken_over(session, place).await.into()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Halves until every row is written or refused; a statement is refused if it has a bad row.
    fn halve(rows: &[u32], bad: &[u32]) -> (Vec<u32>, Vec<u32>, usize) {
        let (mut written, mut refused, mut statements) = (vec![], vec![], 0);
        let mut todo = vec![Next::Rows(rows)];
        while let Some(next) = todo.pop() {
            match next {
                Next::Refused(row) => refused.push(row),
                Next::Rows(rows) => {
                    statements += 1;
                    if rows.iter().any(|row| bad.contains(row)) {
                        todo.extend(divide(rows).into_iter().rev());
                    } else {
                        written.extend(rows);
                    }
                }
            }
        }
        (written, refused, statements)
    }

    proptest! {
        #[test]
        fn f59_halving_finds_the_bad_rows_and_no_other(n in 1u32..200, bad in proptest::collection::vec(0u32..200, 0..6)) {
            let rows: Vec<u32> = (0..n).collect();
            let (written, refused, statements) = halve(&rows, &bad);
            let (is_bad, is_good): (Vec<u32>, Vec<u32>) = rows.iter().partition(|row| bad.contains(row));
            prop_assert_eq!(&refused, &is_bad);
            prop_assert_eq!(&written, &is_good);
            prop_assert!(statements <= 1 + is_bad.len() * 2 * 8);
        }
    }
}
