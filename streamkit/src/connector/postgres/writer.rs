//! The writer: gathers rows in memory and commits them with the progress.

use std::sync::Arc;

use postgres_types::ToSql;
use tokio_postgres::Statement;

use super::PostgresConfig;
use super::error::Failure;
use super::lease::{self, Lease, Place};
use super::session::{Backend, Session};
use super::statement::{self, Array, PROGRESS_TABLE};
use crate::connector::table::{Rows, Table, quoted, random_owner};
use crate::connector::{Claim, Commit, Progress, SinkContext, SinkWriter};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::failpoint::{broken, failpoint};
use crate::record::Batch;

/// A transaction should not get larger: it would take seconds, during which nobody sees results.
const FULL_ROWS: usize = 100_000;
const FULL_BYTES: usize = 32 << 20;

/// Writes to one table.
pub(super) struct Writer<T> {
    config: PostgresConfig,
    context: SinkContext,
    table: Arc<Table<T>>,
    rows: Rows<T>,
    link: Option<Link>,
    lease: Option<Lease>,
    /// Sessions that were lost, and may still be there for the server.
    lost: Vec<Backend>,
}

/// A connection with what lives and dies with it.
struct Link {
    session: Session,
    /// The progress table, with its schema, quoted.
    progress: String,
    /// The table, with its schema, quoted.
    target: String,
    commit: Statement,
    locked: bool,
}

impl<T: Data> Writer<T> {
    pub(super) fn open(
        config: PostgresConfig,
        table: Arc<Table<T>>,
        context: SinkContext,
    ) -> Result<Self> {
        let rows = Rows::new(Arc::clone(&table));
        let (link, lease, lost) = (None, None, vec![]);
        let mut writer = Self { config, context, table, rows, link, lease, lost };
        let runtime = writer.context.runtime.clone();
        writer.link = Some(runtime.block_on(writer.connect())?);
        Ok(writer)
    }

    async fn connect(&self) -> Result<Link, Failure> {
        let name = format!("streamkit/{}", self.context.job);
        let session = Session::open(&self.config, &name).await?;
        session.ensure_schema(&[PROGRESS_TABLE], statement::CREATE_PROGRESS_TABLE).await?;
        failpoint("postgres.connected");
        let target = super::schema::find(&session, &self.table).await?;
        let sql = "SELECT nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
                    WHERE c.oid = to_regclass($1)";
        let row = session.row("cannot find the progress table", sql, &[&PROGRESS_TABLE]).await?;
        let progress = format!("{}.{}", quoted(row.get(0)), quoted(PROGRESS_TABLE));
        let sql = statement::commit(&progress, &target, &self.table);
        let doing = format!("cannot prepare writing to {} and {progress}", target.name);
        let commit = session.run(&doing, session.client.prepare(&sql)).await?;
        Ok(Link { session, progress, target: target.name, commit, locked: false })
    }

    async fn take(&mut self, claim: &Claim) -> Result<Option<Progress>, Failure> {
        if self.link.as_ref().is_some_and(|link| link.session.is_closed()) {
            self.unlink();
        }
        let link = match self.link.take() {
            Some(link) => link,
            None => self.connect().await?,
        };
        let link = self.link.insert(link);
        let (job, sink) = (&self.context.job, &self.context.sink);
        let place = Place { table: &link.progress, job, sink };
        if !link.locked {
            lease::lock(&link.session, place, claim, &self.lost).await?;
            link.locked = true;
            self.lost.clear();
            failpoint("postgres.locked");
        }
        let owner = random_owner(&self.context.instance);
        let (lease, progress) = lease::claim(&link.session, place, claim, owner).await?;
        failpoint("postgres.claimed");
        self.lease = Some(lease);
        Ok(progress)
    }

    async fn commit_rows(&self, progress: &Progress) -> Result<(), Failed> {
        let (Some(link), Some(lease)) = (&self.link, &self.lease) else {
            return Err(Error::internal("a commit without a successful recover").into());
        };
        let session = &link.session;
        if session.is_closed() {
            let text = format!("the connection to PostgreSQL at {} was lost", session.place());
            return Err(Failed::Before(Failure::lost(Error::external(text))));
        }
        let order = self.rows.to_write();
        let chunks = statement::chunks(&self.rows, &order);
        let json = progress.to_json();
        if broken("postgres.one_transaction") {
            self.write_chunk(link, lease, &json, &[]).await.map_err(Failed::Deciding)?;
        }
        failpoint("postgres.before_begin");
        if let [all] = chunks.as_slice() {
            return self.write_chunk(link, lease, &json, all).await.map_err(Failed::Deciding);
        }
        session.batch("cannot begin", "BEGIN").await.map_err(Failed::Before)?;
        failpoint("postgres.begun");
        for chunk in chunks {
            // The last statement shows that the transaction is still alive: this client takes the
            // server's answer ROLLBACK to a COMMIT for success.
            self.write_chunk(link, lease, &json, chunk).await.map_err(Failed::Before)?;
            failpoint("postgres.rows_written");
        }
        failpoint("postgres.before_commit");
        session.batch("cannot commit", "COMMIT").await.map_err(Failed::Deciding)
    }

    async fn write_chunk(
        &self,
        link: &Link,
        lease: &Lease,
        progress: &str,
        rows: &[u32],
    ) -> Result<(), Failure> {
        let (job, sink) = (&self.context.job, &self.context.sink);
        let arrays: Vec<_> =
            self.rows.columns().iter().map(|values| Array { values, rows }).collect();
        let mut parameters: Vec<&(dyn ToSql + Sync)> =
            vec![&progress, job, sink, &lease.owner, &lease.version];
        parameters.extend(arrays.iter().map(|array| array as &(dyn ToSql + Sync)));
        let answer = link.session.client.query_one(&link.commit, &parameters);
        let row = link.session.run(&format!("cannot write to {}", link.target), answer).await?;
        if row.get::<_, i64>(0) != 1 {
            let place = Place { table: &link.progress, job, sink };
            return Err(lease::taken_over(&link.session, place).await.into());
        }
        Ok(())
    }

    /// Forgets a connection that is of no use. The server may not know yet that it is.
    fn unlink(&mut self) {
        self.lost.extend(self.link.take().map(|link| link.session.backend.clone()));
    }

    /// Leaves things so that `recover` can go on.
    async fn give_up(&mut self, failure: &Failure) {
        self.lease = None;
        self.rows.clear();
        let Some(link) = &self.link else { return };
        if failure.lost || link.session.roll_back().await.is_err() {
            self.unlink();
        }
    }
}

/// A commit that failed, and whether it failed at the statement that decides.
enum Failed {
    Before(Failure),
    Deciding(Failure),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Before(error.into())
    }
}

impl<T: Data> SinkWriter<T> for Writer<T> {
    fn recover(&mut self, claim: &Claim) -> Result<Option<Progress>> {
        self.rows.clear();
        self.lease = None;
        let runtime = self.context.runtime.clone();
        runtime.block_on(async {
            let taken = self.take(claim).await;
            if let Err(failure) = &taken {
                self.give_up(failure).await;
            }
            Ok(taken?)
        })
    }

    fn write(&mut self, batch: &Batch<T>) -> Result<()> {
        self.rows.push(batch)
    }

    fn commit(&mut self, progress: &Progress) -> Result<Commit> {
        let runtime = self.context.runtime.clone();
        runtime.block_on(async {
            let (failure, deciding) = match self.commit_rows(progress).await {
                Ok(()) => {
                    failpoint("postgres.committed");
                    self.rows.clear();
                    return Ok(Commit::Done);
                }
                Err(Failed::Before(failure)) => (failure, false),
                Err(Failed::Deciding(failure)) => (failure, true),
            };
            self.give_up(&failure).await;
            // What no second attempt could cure is said at once; the next start finds out the rest.
            if deciding && failure.lost && failure.error.is_retriable() {
                tracing::warn!(error = %failure.error, "it is not known whether a commit was done");
                return Ok(Commit::Unknown);
            }
            Err(failure.error)
        })
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= FULL_ROWS || self.rows.text_bytes() >= FULL_BYTES
    }
}
