//! The checkpoint log of one job, as one process sees it.

use std::collections::BTreeMap;

use tokio::runtime::Handle;

use super::codec;
use super::manifest::{Checkpoint, FORMAT, Fact, Manifest};
use super::protocol::{
    Chain, Choice, Kept, Listing, Object, Ours, choose, facts_to_drop, is_fenced, next_number,
    which_to_keep,
};
use super::reader::Reader;
use super::store::{Location, Put, Store};
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::state::Entries;
use crate::time::Timestamp;

/// The log. Open it, [`recover`](Self::recover), then append.
///
/// Every call blocks on I/O and must come from a thread that is no worker of the runtime.
#[derive(Debug)]
pub(crate) struct CheckpointLog {
    reader: Reader,
    standing: Standing,
    ours: Ours,
    /// The facts that the newest checkpoint contains: a later one contains no fewer.
    through: u64,
    /// What the next increment builds on; `None` if the next checkpoint must be a base.
    chain: Option<Chain>,
    /// What was read of headers, for retention. `None`: the header is damaged.
    kept: BTreeMap<u64, Option<Kept>>,
}

/// Whether this process may append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing was recovered yet.
    Opened,
    Ready,
    /// Another process took over.
    Fenced,
    /// A put has an unknown outcome: only a new recovery helps.
    Unknown,
}

/// What a job goes on from.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Of the newest checkpoint that fits.
    pub(crate) manifest: Manifest,
    /// By operator: the base with the increments applied.
    pub(crate) state: BTreeMap<String, Entries>,
    /// Of the *newest* checkpoint, and those appended since, in order (rule D7).
    pub(crate) facts: Vec<Fact>,
    /// The number of the newest checkpoint; the next is one more.
    pub(crate) newest: u64,
}

impl CheckpointLog {
    /// Opens the log of a job. Nothing is read yet.
    pub(crate) fn open(location: Location, job: &str, runtime: Handle) -> Result<Self> {
        Ok(Self {
            reader: Reader { store: Store::open(location, job, runtime)?, job: job.to_owned() },
            through: 0,
            standing: Standing::Opened,
            ours: Ours::default(),
            chain: None,
            kept: BTreeMap::new(),
        })
    }

    /// Where the log is, for messages.
    pub(crate) fn folder(&self) -> &str {
        self.reader.store.folder()
    }

    /// The kept checkpoints, oldest first. An older one whose header is damaged is left out: no
    /// recovery takes it.
    ///
    /// # Errors
    /// If the log cannot be read, or the header of the newest is damaged.
    pub(crate) fn manifests(&self) -> Result<Vec<Manifest>> {
        let listing = self.reader.store.list()?;
        let seen = self.reader.manifests(&listing)?;
        if let Some((&newest, None)) = seen.last_key_value() {
            let size = listing.checkpoints.get(&newest).copied().unwrap_or(0);
            // Reads it again, for the error that says what is wrong.
            self.reader.manifest(newest, size)?;
        }
        Ok(seen.into_values().flatten().collect())
    }

    /// Gets ready to append a checkpoint that takes up nothing of those before it, damaged ones
    /// included. Returns the newest that can be read, with the facts since, for what is still of
    /// use in them.
    ///
    /// # Errors
    /// If the log cannot be read, or a fact is damaged.
    pub(crate) fn start_over(&mut self) -> Result<Option<(Manifest, Vec<Fact>)>> {
        let listing = self.reader.store.list()?;
        let seen = self.reader.manifests(&listing)?;
        let newest = seen.values().rev().flatten().next().cloned();
        let through = newest.as_ref().map_or(0, |newest| newest.facts_through);
        let facts = newest.as_ref().map(|newest| self.facts(newest, &listing)).transpose()?;
        self.kept = seen.into_iter().map(|(n, manifest)| (n, manifest.map(kept))).collect();
        self.ready(&listing, through);
        Ok(newest.zip(facts))
    }

    /// The facts that a checkpoint contains, and those appended since.
    fn facts(&self, newest: &Manifest, listing: &Listing) -> Result<Vec<Fact>> {
        let mut facts = newest.facts.clone();
        let first = newest.facts_through.saturating_add(1);
        for number in first..=listing.facts.last().copied().unwrap_or(0) {
            if !listing.facts.contains(&number) {
                let missing = self.reader.store.shown(Object::Fact(number));
                return Err(Error::corrupt(format!("{missing} is missing")));
            }
            facts.push(self.reader.fact(number)?);
        }
        Ok(facts)
    }

    /// The state of the newest checkpoint that fits, and the facts of the newest (rule D7). `None`
    /// if the log is empty.
    ///
    /// # Errors
    /// If the newest checkpoint or one that it takes to restore the chosen one is damaged (an older
    /// one is never taken instead: what the newest decided has left the job), and if none fits.
    pub(crate) fn recover(
        &mut self,
        fits: impl Fn(&Manifest) -> bool,
    ) -> Result<Option<Recovered>> {
        self.standing = Standing::Opened;
        let listing = self.reader.store.list()?;
        let seen = self.reader.manifests(&listing)?;
        let chosen = match choose(&seen, fits) {
            Choice::Empty => return self.nothing(&listing).map(|()| None),
            Choice::Take(number) => number,
            Choice::NoneFits => return Err(self.reader.none_fits(&seen)),
            Choice::Incomplete { number, missing } => {
                return Err(Error::corrupt(format!(
                    "{} cannot be restored: {} is missing",
                    self.reader.store.shown(Object::Checkpoint(number)),
                    self.reader.store.shown(Object::Checkpoint(missing)),
                )));
            }
            Choice::Damaged(number) => {
                // Reads it again, for the error that says what is wrong.
                let size = listing.checkpoints.get(&number).copied().unwrap_or(0);
                self.reader.manifest(number, size)?;
                return Err(Error::external("the newest checkpoint is read differently each time"));
            }
        };
        let newest = listing.checkpoints.last_key_value().map_or(chosen, |(&number, _)| number);
        let manifest_of = |number| match seen.get(&number) {
            Some(Some(manifest)) => Ok(Manifest::clone(manifest)),
            _ => Err(Error::internal("a checkpoint was chosen that was not seen")),
        };
        let (manifest, newest_manifest) = (manifest_of(chosen)?, manifest_of(newest)?);
        let (state, chain) = self.reader.state(&manifest)?;
        let facts = self.facts(&newest_manifest, &listing)?;
        let through = newest_manifest.facts_through;
        self.kept = seen.into_iter().map(|(n, manifest)| (n, manifest.map(kept))).collect();
        self.ready(&listing, through);
        // The state of an older one is not what an increment on the newest would build on.
        self.chain = (chosen == newest).then_some(chain);
        Ok(Some(Recovered { manifest, state, facts, newest }))
    }

    /// The number that the next checkpoint must have.
    pub(crate) fn next_number(&self) -> u64 {
        next_number(self.ours.checkpoint)
    }

    /// The number of the newest fact, which is what the `facts_through` of a checkpoint is that
    /// contains all of them. 0 if there was none.
    pub(crate) fn last_fact(&self) -> u64 {
        self.ours.fact
    }

    /// The base that the next increment builds on; `None` if there is none, so that the next
    /// checkpoint must be a base.
    pub(crate) fn base(&self) -> Option<u64> {
        self.chain.map(|chain| chain.base)
    }

    /// Whether the next checkpoint must or should be a base.
    pub(crate) fn next_is_base(&self) -> bool {
        self.chain.is_none_or(Chain::base_is_due)
    }

    /// Appends a checkpoint, durably, and returns its size in bytes.
    ///
    /// # Errors
    /// Fenced if another process appends to this log (rule D8). After a retriable error the log is
    /// as it was, or has this checkpoint: ask [`next_number`](Self::next_number) again, and append a
    /// base. Any other error ends this process's part.
    pub(crate) fn append_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<u64> {
        let Manifest { number, base, facts_through, .. } = checkpoint.manifest;
        self.must_be_ready()?;
        self.must_be_next(&checkpoint.manifest)?;
        let bytes = codec::encode(&checkpoint)?;
        let meta = kept(checkpoint.manifest);
        // The state is in `bytes` now; it need not be in memory twice while they are written.
        drop(checkpoint.changes);
        let size = bytes.len() as u64;
        // What an increment would hold is gone from the operators' lists of changes: if this fails,
        // the next one must be a base.
        let chain = self.chain.take();
        let object = Object::Checkpoint(number);
        self.put(object, bytes, Ours { checkpoint: Some(number), fact: self.ours.fact })?;
        self.kept.insert(number, Some(meta));
        self.through = facts_through;
        self.chain = match chain {
            Some(chain) if base != number => Some(chain.and(size)),
            _ => Some(Chain::new(number, size)),
        };
        tracing::debug!(number, base, size, facts_through, "checkpoint written");
        Ok(size)
    }

    /// Appends a fact, durably; only then may anything decided by it leave (rule D1). Returns its
    /// number.
    ///
    /// # Errors
    /// As [`append_checkpoint`](Self::append_checkpoint); after a retriable one the fact may be in
    /// the log, and appending it again is right.
    pub(crate) fn append_fact(&mut self, fact: &Fact) -> Result<u64> {
        self.must_be_ready()?;
        if self.ours.checkpoint.is_none() {
            return Err(Error::internal("a fact before checkpoint 0, which makes the lineage"));
        }
        let number = self.ours.fact.saturating_add(1);
        let bytes = codec::encode_fact(&self.reader.job, number, fact)?;
        self.put(Object::Fact(number), bytes, Ours { fact: number, ..self.ours })?;
        Ok(number)
    }

    /// Removes what no recovery needs any more. Kept are the newest ten checkpoints, the first of
    /// every hour for a day, and what these build on.
    ///
    /// # Errors
    /// Fenced if another process appends to this log; then nothing is removed.
    pub(crate) fn collect_garbage(&mut self, now: Timestamp) -> Result<()> {
        self.must_be_ready()?;
        failpoint("log.before_garbage");
        let listing = self.reader.store.list()?;
        self.must_not_be_fenced(&listing)?;
        self.kept.retain(|number, _| listing.checkpoints.contains_key(number));
        let mut unread = listing.clone();
        unread.checkpoints.retain(|number, _| !self.kept.contains_key(number));
        let read = self.reader.manifests(&unread)?;
        self.kept.extend(read.into_iter().map(|(number, manifest)| (number, manifest.map(kept))));
        let all: Vec<Kept> = self.kept.values().flatten().copied().collect();
        let keep = which_to_keep(&all, now);
        // Newest first: what a crash leaves of a base and its increments can still be restored. A
        // damaged one stays, for a person to look at.
        for one in all.iter().rev().filter(|one| !keep.contains(&one.number)) {
            self.reader.store.delete(Object::Checkpoint(one.number))?;
            self.kept.remove(&one.number);
        }
        for number in facts_to_drop(&all, &listing.facts) {
            self.reader.store.delete(Object::Fact(number))?;
        }
        self.reader.store.sweep(&self.ours)
    }

    fn put(&mut self, object: Object, bytes: Vec<u8>, ours: Ours) -> Result<()> {
        match self.reader.store.put(object, bytes) {
            Put::Done => {}
            Put::Taken => return Err(self.fenced(object)),
            Put::Failed(error) => return Err(error),
            Put::Unknown(error) => {
                self.standing = Standing::Unknown;
                return Err(error);
            }
        }
        self.ours = ours;
        // It is durable, but perhaps too late. If this fails, the next put finds out.
        let listing = self.reader.store.list()?;
        failpoint("log.listed");
        self.must_not_be_fenced(&listing)
    }

    fn nothing(&mut self, listing: &Listing) -> Result<()> {
        if let Some(&fact) = listing.facts.last() {
            return Err(Error::corrupt(format!(
                "{} has no checkpoint but {}: checkpoints were removed, and the state with them; \
                 restore them from a backup, or rebuild the job: --rebuild (RunConfig::rebuild)",
                self.reader.store.folder(),
                self.reader.store.shown(Object::Fact(fact)),
            )));
        }
        self.kept.clear();
        self.ready(listing, 0);
        Ok(())
    }

    fn ready(&mut self, listing: &Listing, facts_through: u64) {
        let fact = listing.facts.last().copied().unwrap_or(0).max(facts_through);
        let checkpoint = listing.checkpoints.last_key_value().map(|(&number, _)| number);
        self.ours = Ours { checkpoint, fact };
        self.through = facts_through;
        self.chain = None;
        self.standing = Standing::Ready;
    }

    fn must_be_ready(&self) -> Result<()> {
        match self.standing {
            Standing::Ready => Ok(()),
            Standing::Opened => Err(Error::internal("the checkpoint log was not recovered yet")),
            Standing::Fenced => {
                Err(Error::fenced(format!("another process runs job {:?}", self.reader.job)))
            }
            Standing::Unknown => Err(Error::external(
                "an earlier write to the checkpoint log has an unknown outcome",
            )),
        }
    }

    fn must_be_next(&self, manifest: &Manifest) -> Result<()> {
        let Manifest { number, base, facts_through, .. } = *manifest;
        let defect = if manifest.format != FORMAT || manifest.job != self.reader.job {
            format!("format {} of job {:?}", manifest.format, manifest.job)
        } else if number != self.next_number() {
            format!("it should be number {}", self.next_number())
        } else if !(self.through..=self.ours.fact).contains(&facts_through) {
            let Self { through, ours, .. } = self;
            format!("facts through {facts_through} and not from {through} to {}", ours.fact)
        } else if base != number && Some(base) != self.base() {
            format!("it builds on {base} and not on {:?}", self.base())
        } else {
            return Ok(());
        };
        Err(Error::internal(format!("checkpoint {number} cannot be appended: {defect}")))
    }

    fn must_not_be_fenced(&mut self, listing: &Listing) -> Result<()> {
        match is_fenced(listing, &self.ours) {
            Some(object) => Err(self.fenced(object)),
            None => Ok(()),
        }
    }

    fn fenced(&mut self, by: Object) -> Error {
        self.standing = Standing::Fenced;
        Error::fenced(format!(
            "another process runs job {:?}: it wrote {}; this one stops",
            self.reader.job,
            self.reader.store.shown(by),
        ))
    }
}

/// What retention needs to know.
fn kept(manifest: Manifest) -> Kept {
    let Manifest { number, base, created, facts_through, .. } = manifest;
    Kept { number, base, created, facts_through }
}
