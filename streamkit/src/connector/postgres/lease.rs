//! Who may write (rule D8): a session lock that turns a second writer away, and a version of the
//! progress row without which no commit hits.

use std::time::Duration;

use postgres_types::ToSql;
use xxhash_rust::xxh3::xxh3_64;

use super::error::Failure;
use super::session::{Backend, Session};
use crate::connector::{Claim, Progress};
use crate::error::Error;
use crate::time::millis;

/// How often, and how many times, a lock that is held is asked for. A process that has just been
/// killed keeps it for a moment, until the server has seen the end of its connection.
const LOCK_PAUSE: Duration = millis(100);
const LOCK_ATTEMPTS: u32 = 30;

/// The right to write: what every commit is conditional on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) owner: String,
    pub(super) version: i64,
    pub(super) lineage: String,
}

/// Where a sink's progress is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The progress table, with its schema, quoted.
    pub(super) table: &'a str,
    pub(super) job: &'a str,
    pub(super) sink: &'a str,
}

impl Place<'_> {
    /// The number of the session lock. Locks are per database; schemas are told apart here.
    fn lock(&self) -> i64 {
        let name = format!("streamkit\0{}\0{}\0{}", self.table, self.job, self.sink);
        i64::from_ne_bytes(xxh3_64(name.as_bytes()).to_ne_bytes())
    }
}

/// The process that holds the lock.
struct Holder {
    backend: Backend,
    description: String,
}

/// Takes the lock, which the session then keeps until it ends.
///
/// `mine` are earlier sessions of this same writer: if the network took one away, the server may
/// not know yet, and its transaction may still be open. It is ended, so that a new session finds
/// every commit of the old one decided.
pub(super) async fn lock(
    session: &Session,
    place: Place<'_>,
    claim: &Claim,
    mine: &[Backend],
) -> Result<(), Failure> {
    let lock = place.lock();
    let doing = "cannot lock the sink's progress";
    let mut stolen = false;
    let mut held_by = "a process that has just ended".to_owned();
    for _ in 0..LOCK_ATTEMPTS {
        let sql = "SELECT pg_try_advisory_lock($1)";
        let row = session.row(doing, sql, &[&lock]).await?;
        if row.get(0) {
            return Ok(());
        }
        if let Some(holder) = holder(session, lock).await? {
            if mine.contains(&holder.backend) {
                end(session, &holder.backend).await?;
            } else if claim.take_over {
                if !stolen {
                    // Even if its session cannot be ended, it cannot commit any more.
                    steal(session, place, claim).await?;
                    stolen = true;
                    let by = holder.description.as_str();
                    tracing::warn!(sink = place.sink, by, "taking over from another writer");
                }
                end(session, &holder.backend).await?;
            }
            held_by = holder.description;
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    let what_to_do = if claim.take_over {
        "it could not be ended: stop that process, or have an administrator end its session"
    } else {
        "stop that process, or start this one with --take-over"
    };
    Err(Error::fenced(format!(
        "sink {} of job {} is being written by another process ({held_by}): {what_to_do}",
        place.sink, place.job
    ))
    .into())
}

async fn holder(session: &Session, lock: i64) -> Result<Option<Holder>, Failure> {
    // A lock of 64 bits is listed as two halves.
    let sql = "SELECT a.pid, a.backend_start::text,
                      concat_ws(', ', 'pid ' || a.pid, nullif(a.application_name, ''),
                                'from ' || host(a.client_addr),
                                'connected since ' || date_trunc('second', a.backend_start))
                 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND (l.classid::bigint << 32) | l.objid::bigint = $1";
    let rows = session.rows("cannot find out who holds the lock", sql, &[&lock]).await?;
    Ok(rows.first().map(|row| Holder {
        backend: Backend {
            pid: row.get(0),
            started: row.get::<_, Option<_>>(1).unwrap_or_default(),
        },
        description: row.get(2),
    }))
}

/// Ends a session, if that is allowed.
async fn end(session: &Session, backend: &Backend) -> Result<(), Failure> {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE pid = $1 AND backend_start::text = $2";
    let which: [&(dyn ToSql + Sync); 2] = [&backend.pid, &backend.started];
    match session.rows("cannot end another session", sql, &which).await {
        Err(failure) if failure.lost => Err(failure),
        // Of another user: the lock stays, and that is what will be reported.
        Err(failure) => {
            tracing::warn!(error = %failure.error);
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

async fn steal(session: &Session, place: Place<'_>, claim: &Claim) -> Result<(), Failure> {
    let table = place.table;
    let sql = format!(
        "UPDATE {table} SET version = version + 1 WHERE job = $1 AND sink = $2 AND lineage = $3"
    );
    let which: [&(dyn ToSql + Sync); 3] = [&place.job, &place.sink, &claim.lineage];
    session.rows("cannot take over", &sql, &which).await?;
    Ok(())
}

/// Makes `owner` the only one who can commit, and reads the progress and how many rows it counts as
/// refused.
pub(super) async fn claim(
    session: &Session,
    place: Place<'_>,
    claim: &Claim,
    owner: String,
) -> Result<(Lease, Option<Progress>, u64), Failure> {
    // A row without progress stands for no rows: a job of another lineage ended between its claim
    // and its first commit. That is no reason to refuse.
    let sql = format!(
        "INSERT INTO {table} AS p (job, sink, lineage, owner, version) VALUES ($1, $2, $3, $4, 1)
         ON CONFLICT (job, sink) DO UPDATE
            SET lineage = EXCLUDED.lineage, owner = EXCLUDED.owner, version = p.version + 1,
                updated_at = now()
          WHERE p.lineage = EXCLUDED.lineage OR p.progress IS NULL
         RETURNING version, progress::text, rejected",
        table = place.table
    );
    let doing = format!("cannot claim the sink's progress in {}", place.table);
    let values: [&(dyn ToSql + Sync); 4] = [&place.job, &place.sink, &claim.lineage, &owner];
    let rows = session.rows(&doing, &sql, &values).await?;
    let [row] = rows.as_slice() else {
        return Err(other_lineage(session, place, claim).await?.into());
    };
    let progress: Option<&str> = row.get(1);
    let progress = progress.map(Progress::from_json).transpose()?;
    let lease = Lease { owner, version: row.get(0), lineage: claim.lineage.clone() };
    Ok((lease, progress, u64::try_from(row.get::<_, i64>(2)).unwrap_or(0)))
}

async fn other_lineage(
    session: &Session,
    place: Place<'_>,
    claim: &Claim,
) -> Result<Error, Failure> {
    let (lineage, updated) = stored(session, place, "lineage").await?.unwrap_or_default();
    Ok(Error::fenced(format!(
        "sink {sink} of job {job}: the progress in {table} at {at} is of lineage {lineage} (last \
         written {updated}), and this job is of lineage {ours}. Either the checkpoint folder or \
         the database is not the one that belongs to this job",
        sink = place.sink,
        job = place.job,
        table = place.table,
        at = session.place(),
        ours = claim.lineage,
    ))
    .of_lineage(&lineage))
}

/// What to say when a commit found another owner.
pub(super) async fn taken_over(session: &Session, place: Place<'_>) -> Error {
    let by = match stored(session, place, "owner").await {
        Ok(Some((owner, when))) => {
            let instance = owner.split(':').next().unwrap_or_default();
            format!("by instance {instance} at {when}")
        }
        Ok(None) => format!("by somebody who deleted its row in {}", place.table),
        Err(failure) => format!("by another process ({})", failure.error),
    };
    let (sink, job) = (place.sink, place.job);
    Error::fenced(format!("sink {sink} of job {job} was taken over {by}; nothing was written"))
}

/// Whether the progress that a commit has stored is there (F66): a transaction that died unnoticed is
/// answered with ROLLBACK, which this client takes for success.
pub(super) async fn has(
    session: &Session,
    place: Place<'_>,
    lease: &Lease,
    progress: &str,
) -> Result<bool, Failure> {
    let sql = format!(
        "SELECT progress::text IS NOT DISTINCT FROM $5 FROM {}
          WHERE job = $1 AND sink = $2 AND owner = $3 AND version = $4",
        place.table
    );
    let values: [&(dyn ToSql + Sync); 5] =
        [&place.job, &place.sink, &lease.owner, &lease.version, &progress];
    let rows = session.rows("cannot look for the commit", &sql, &values).await?;
    // No row: somebody has taken over since, and only that is certain. The claim will say so.
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// A column of the progress row, and when the row was written.
async fn stored(
    session: &Session,
    place: Place<'_>,
    column: &str,
) -> Result<Option<(String, String)>, Failure> {
    let sql = format!(
        "SELECT {column}, date_trunc('second', updated_at)::text FROM {}
          WHERE job = $1 AND sink = $2",
        place.table
    );
    let which: [&(dyn ToSql + Sync); 2] = [&place.job, &place.sink];
    let rows = session.rows("cannot read the sink's progress", &sql, &which).await?;
    Ok(rows.first().map(|row| (row.get(0), row.get(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d8_locks_of_different_sinks_differ_and_never_change() {
        let lock = |table, job, sink| Place { table, job, sink }.lock();
        let first = lock("\"public\".\"streamkit_progress\"", "user-activity", "active_users");
        assert_eq!(
            first, 5_102_043_914_256_953_545,
            "a lock's number is the same in every version of the program"
        );
        assert_ne!(lock("t", "ab", "c"), lock("t", "a", "bc"));
        assert_ne!(lock("t", "a", "b"), lock("u", "a", "b"));
    }
}
