//! The writer: gathers rows in memory and commits them with the progress.

use std::cell::Cell;
use std::sync::Arc;

use postgres_types::ToSql;
use tokio_postgres::Statement;

use super::error::{Failed, Failure, Refusal};
use super::lease::{self, Lease, Place};
use super::rejects::{self, Next, REJECTS_TABLE};
use super::session::{Backend, Session};
use super::statement::{self, Array, PROGRESS_TABLE};
use super::{OnReject, PostgresConfig, schema};
use crate::connector::table::{Refused, Rows, Table, random_owner};
use crate::connector::{Claim, Commit, Progress, SinkContext, SinkWriter};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::failpoint::{broken, failpoint};
use crate::record::{Batch, Kind};

/// A transaction should not get larger: it would take seconds, during which nobody sees results.
const FULL_ROWS: usize = 100_000;
const FULL_BYTES: usize = 32 << 20;

/// Writes to one table.
pub(super) struct Writer<T> {
    config: PostgresConfig,
    context: SinkContext,
    table: Arc<Table<T>>,
    on_reject: OnReject,
    max_rejects: Option<u64>,
    /// Rows that have been put aside since the job began, as the progress counts them.
    rejected: u64,
    rows: Rows<T>,
    /// Rows since the last commit that no table could store.
    refused: Vec<Refused>,
    /// Whether the last thing that happened was a table of another shape.
    reshaped: bool,
    /// Whether no row has been there before: no running value has come, and the table has none of
    /// these keys.
    only_new: Cell<bool>,
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
    /// The table for refused rows, with its schema, quoted.
    rejects: Option<String>,
    /// The table, with its schema, quoted.
    target: String,
    /// What writes rows that may be there already, and what does not.
    upsert: Statement,
    insert: Statement,
    locked: bool,
}

impl<T: Data> Writer<T> {
    pub(super) fn open(
        config: PostgresConfig,
        table: Arc<Table<T>>,
        (on_reject, max_rejects): (OnReject, Option<u64>),
        context: SinkContext,
    ) -> Result<Self> {
        let mut writer = Self {
            config,
            context,
            on_reject,
            max_rejects,
            rejected: 0,
            rows: Rows::new(Arc::clone(&table)),
            table,
            refused: vec![],
            reshaped: false,
            only_new: Cell::new(true),
            link: None,
            lease: None,
            lost: vec![],
        };
        let runtime = writer.context.runtime.clone();
        writer.link = Some(runtime.block_on(writer.connect())?);
        Ok(writer)
    }

    async fn connect(&self) -> Result<Link, Failure> {
        let name = format!("streamkit/{}", self.context.job);
        let session = Session::open(&self.config, &name).await?;
        session.ensure_schema(&[PROGRESS_TABLE], statement::CREATE_PROGRESS_TABLE).await?;
        if !schema::has_column(&session, PROGRESS_TABLE, "rejected").await? {
            session.batch("cannot count refused rows", statement::ADD_REJECTED).await?;
        }
        failpoint("postgres.connected");
        let target = schema::find(&session, &self.table).await?;
        let progress = schema::place(&session, PROGRESS_TABLE).await?;
        let mut rejects = None;
        if self.on_reject == OnReject::Reject {
            session.ensure_schema(&[REJECTS_TABLE], rejects::CREATE_REJECTS_TABLE).await?;
            rejects = Some(schema::place(&session, REJECTS_TABLE).await?);
        }
        let prepare = async |only_new: bool| {
            let sql = statement::commit(&progress, &target, &self.table, only_new);
            let doing = format!("cannot prepare writing to {} and {progress}", target.name);
            session.run(&doing, session.client.prepare(&sql)).await
        };
        let (upsert, insert) = (prepare(false).await?, prepare(true).await?);
        let target = target.name;
        Ok(Link { session, progress, rejects, target, upsert, insert, locked: false })
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
        let (lease, progress, rejected) = lease::claim(&link.session, place, claim, owner).await?;
        failpoint("postgres.claimed");
        self.lease = Some(lease);
        self.rejected = rejected;
        Ok(progress)
    }

    /// Commits, and says how many rows were put aside.
    async fn commit_rows(&self, progress: &Progress) -> Result<u64, Failed> {
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
        if self.refused.is_empty() {
            let mut tried = self.commit_all(link, lease, &json, &chunks).await;
            if Failed::refuses_rows(&tried) && self.only_new.replace(false) {
                if chunks.len() > 1 {
                    session.roll_back().await.map_err(Failed::Before)?;
                }
                tried = self.commit_all(link, lease, &json, &chunks).await;
            }
            if !Failed::refuses_rows(&tried) || link.rejects.is_none() {
                return tried.map(|()| 0);
            }
            if chunks.len() > 1 {
                session.roll_back().await.map_err(Failed::Before)?;
            }
            // A new column without a default refuses every row: that is not the rows' fault.
            schema::find(session, &self.table).await.map_err(Failed::Before)?;
        }
        self.commit_what_fits(link, lease, &json, &chunks).await
    }

    async fn commit_all(
        &self,
        link: &Link,
        lease: &Lease,
        json: &str,
        chunks: &[&[u32]],
    ) -> Result<(), Failed> {
        if let [all] = chunks {
            return self.write_chunk(link, lease, json, all).await.map_err(Failed::Deciding);
        }
        link.session.batch("cannot begin", "BEGIN").await.map_err(Failed::Before)?;
        failpoint("postgres.begun");
        for chunk in chunks {
            self.write_chunk(link, lease, json, chunk).await.map_err(Failed::Before)?;
            failpoint("postgres.rows_written");
        }
        self.end(link, lease, json).await
    }

    /// Commits the rows that the database takes, and puts the others aside.
    async fn commit_what_fits(
        &self,
        link: &Link,
        lease: &Lease,
        json: &str,
        chunks: &[&[u32]],
    ) -> Result<u64, Failed> {
        let session = &link.session;
        let run = async |sql: &str| session.batch(sql, sql).await.map_err(Failed::Before);
        // A constraint that waits for the end of the transaction would refuse it as a whole.
        run("BEGIN; SET CONSTRAINTS ALL IMMEDIATE").await?;
        self.only_new.set(false);
        let mut refused = self.refused.clone();
        self.look_at_limit(link, &refused)?;
        let mut why = String::new();
        let mut todo: Vec<_> = chunks.iter().rev().map(|rows| Next::Rows(rows)).collect();
        while let Some(next) = todo.pop() {
            let rows = match next {
                Next::Rows(rows) => rows,
                Next::Refused(row) => {
                    refused.extend(self.rows.refused(row, &why));
                    self.look_at_limit(link, &refused)?;
                    continue;
                }
            };
            run("SAVEPOINT rows").await?;
            match self.write_chunk(link, lease, json, rows).await {
                Ok(()) => run("RELEASE SAVEPOINT rows").await?,
                Err(failure) if failure.refused == Some(Refusal::Row) && !rows.is_empty() => {
                    run("ROLLBACK TO SAVEPOINT rows").await?;
                    failure.error.message().clone_into(&mut why);
                    todo.extend(rejects::divide(rows).into_iter().rev());
                }
                Err(failure) => return Err(Failed::Before(failure)),
            }
        }
        // So that the progress moves even if all rows are refused.
        self.write_chunk(link, lease, json, &[]).await.map_err(Failed::Before)?;
        if let (Some(rejects), [first, ..]) = (&link.rejects, refused.as_slice()) {
            let about = (rejects.as_str(), link.target.as_str(), lease.lineage.as_str());
            rejects::put_aside(session, self.place(link), lease, about, &refused)
                .await
                .map_err(Failed::Before)?;
            let (sink, rows, error) = (&self.context.sink, refused.len(), &first.why);
            tracing::warn!(%sink, rows, %error, "the database refuses rows; they go into {rejects}");
        }
        self.end(link, lease, json).await?;
        Ok(refused.len() as u64)
    }

    /// Stops a job too many of whose rows are refused: that is rather a table that does not fit.
    fn look_at_limit(&self, link: &Link, refused: &[Refused]) -> Result<(), Failed> {
        let (Some(limit), Some(last)) = (self.max_rejects, refused.last()) else { return Ok(()) };
        let (table, all) = (&link.target, self.rejected + refused.len() as u64);
        if all <= limit {
            return Ok(());
        }
        Err(Error::user(format!(
            "table {table} refuses more rows than max_rejects = {limit} allows: {before} since the \
             job began, and {now} or more now, of which none is written or put aside yet. The last \
             one: {why}. If the table is as it should be, raise the limit",
            before = self.rejected,
            now = refused.len(),
            why = last.why,
        ))
        .into())
    }

    /// Commits an open transaction, and looks whether that is what happened.
    async fn end(&self, link: &Link, lease: &Lease, json: &str) -> Result<(), Failed> {
        failpoint("postgres.before_commit");
        link.session.batch("cannot commit", "COMMIT").await.map_err(Failed::Deciding)?;
        let done = lease::has(&link.session, self.place(link), lease, json).await;
        if done.map_err(Failed::Deciding)? {
            return Ok(());
        }
        let text = "PostgreSQL has rolled a transaction back instead of committing it";
        Err(Failed::Before(Error::external(text).retriable().into()))
    }

    fn place<'a>(&'a self, link: &'a Link) -> Place<'a> {
        Place { table: &link.progress, job: &self.context.job, sink: &self.context.sink }
    }

    /// What to do about a table whose shape does not fit the statement any more (F63): say what is
    /// different, or, if it fits as it is now, prepare again; but not twice in a row.
    async fn reshape(&mut self, failure: Failure) -> Failure {
        let Some(link) = &self.link else { return failure };
        if link.session.roll_back().await.is_err() || self.reshaped {
            return failure;
        }
        match schema::find(&link.session, &self.table).await {
            Err(difference) => difference,
            Ok(_) => {
                self.reshaped = true;
                Failure { error: failure.error.retriable(), lost: true, refused: None }
            }
        }
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
        let statement = if self.only_new.get() { &link.insert } else { &link.upsert };
        let answer = link.session.client.query_one(statement, &parameters);
        let row = link.session.run(&format!("cannot write to {}", link.target), answer).await?;
        if row.get::<_, i64>(0) != 1 {
            return Err(lease::taken_over(&link.session, self.place(link)).await.into());
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.refused.clear();
    }

    /// Forgets a connection that is of no use. The server may not know yet that it is.
    fn unlink(&mut self) {
        self.lost.extend(self.link.take().map(|link| link.session.backend.clone()));
    }

    /// Leaves things so that `recover` can go on.
    async fn give_up(&mut self, failure: &Failure) {
        self.lease = None;
        self.clear();
        let Some(link) = &self.link else { return };
        if failure.lost || link.session.roll_back().await.is_err() {
            self.unlink();
        }
    }
}

impl<T: Data> SinkWriter<T> for Writer<T> {
    fn recover(&mut self, claim: &Claim) -> Result<Option<Progress>> {
        self.clear();
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
        if batch.kind() == Kind::Running {
            self.only_new.set(false);
        }
        match self.on_reject {
            OnReject::Stop => self.rows.push(batch),
            OnReject::Reject => {
                self.refused.extend(self.rows.push_what_fits(batch));
                Ok(())
            }
        }
    }

    fn commit(&mut self, progress: &Progress) -> Result<Commit> {
        let runtime = self.context.runtime.clone();
        runtime.block_on(async {
            let (mut failure, mut deciding) = match self.commit_rows(progress).await {
                Ok(rejected) => {
                    failpoint("postgres.committed");
                    self.rejected += rejected;
                    self.clear();
                    self.reshaped = false;
                    return Ok(Commit::Done);
                }
                Err(Failed::Before(failure)) => (failure, false),
                Err(Failed::Deciding(failure)) => (failure, true),
            };
            if failure.refused == Some(Refusal::Shape) {
                (failure, deciding) = (self.reshape(failure).await, false);
            }
            self.give_up(&failure).await;
            // What no second attempt could cure is said at once; the next start finds out the rest.
            if deciding && failure.lost && failure.error.is_retriable() {
                tracing::warn!(error = %failure.error, "it is not known whether a commit was done");
                return Ok(Commit::Unknown);
            }
            Err(failure.error)
        })
    }

    fn rejected(&self) -> u64 {
        self.rejected
    }

    fn is_full(&self) -> bool {
        self.rows.len() + self.refused.len() >= FULL_ROWS || self.rows.text_bytes() >= FULL_BYTES
    }
}
