//! Looks at a log without touching it, while the job runs or when it is stopped.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use super::codec;
use super::manifest::{Checkpoint, Fact, Manifest};
use super::protocol::{Listing, Object};
use super::reader::Reader;
use super::store::{Location, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::record::SplitId;
use crate::time::Timestamp;

/// Reads the checkpoints of a job; made by [`Checkpoints::inspect`](crate::Checkpoints::inspect).
///
/// Its calls block on a runtime of their own, so they must not come from async code. A running job
/// removes old checkpoints meanwhile: what has gone is left out, and is no damage.
#[derive(Debug)]
pub struct Inspector {
    reader: Reader,
    /// The store's calls are async; this runs them.
    _runtime: tokio::runtime::Runtime,
}

/// One checkpoint, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its number.
    pub number: u64,
    /// The base that it builds on; its own number if it is a base.
    pub base: u64,
    /// The size of its object; an increment holds only what changed.
    pub bytes: u64,
    /// When it was made.
    pub created: Timestamp,
    /// Records that had been read, over all splits.
    pub read: u64,
    /// The job's watermark.
    pub watermark: Timestamp,
    /// The id of the job's history: another one after a rebuild.
    pub lineage: String,
}

/// Everything that a checkpoint says.
///
/// As JSON, all times are microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// The header: positions, plan, idle splits, what every sink had confirmed, totals.
    pub manifest: Manifest,
    /// The size of its object.
    pub bytes: u64,
    /// The state of each operator, with what the checkpoint builds on.
    pub state: BTreeMap<String, OperatorState>,
    /// All facts of the *log*, in order, those after this checkpoint too: a restart takes the state
    /// of one checkpoint and all facts.
    pub facts: Vec<Fact>,
    /// All floors ever set: from this position of the split on, its watermark is at least this
    /// (rule T9). A recomputation in batch needs them.
    pub floors: BTreeMap<SplitId, Vec<(u64, Timestamp)>>,
}

/// The state of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OperatorState {
    /// Entries: an accumulator of a pane, a session, a result that is not delivered yet.
    pub entries: u64,
    /// The bytes of keys and values.
    pub bytes: u64,
}

/// What [`Inspector::verify`] has found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Objects read.
    pub objects: u64,
    /// Bytes read.
    pub bytes: u64,
    /// The numbers of the checkpoints that can be restored.
    pub restorable: Vec<u64>,
    /// What is wrong; empty if nothing is.
    pub damage: Vec<Damage>,
}

/// An object that is damaged or missing, or a checkpoint that cannot be restored because of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The object, as a person finds it.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Inspector {
    pub(crate) fn open(location: Location, job: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|e| Error::external("a runtime cannot be started").because(e))?;
        let store = Store::open_to_read(location, job, runtime.handle().clone())?;
        Ok(Self { reader: Reader { store, job: job.to_owned() }, _runtime: runtime })
    }

    /// Where the objects are, for messages.
    pub fn folder(&self) -> &str {
        self.reader.store.folder()
    }

    /// The kept checkpoints, oldest first.
    ///
    /// # Errors
    /// If the log cannot be read, or a header is damaged.
    pub fn list(&self) -> Result<Vec<Summary>> {
        let listing = self.reader.store.list()?;
        let mut all = vec![];
        for (&number, &bytes) in &listing.checkpoints {
            match self.reader.manifest(number, bytes) {
                Ok(manifest) => all.push(summary(&manifest, bytes)),
                Err(error) => self.unless_gone(Object::Checkpoint(number), error)?,
            }
        }
        Ok(all)
    }

    /// Everything that a checkpoint says: of this one, or of the newest. `None` if it is not there.
    ///
    /// # Errors
    /// If the log cannot be read, or an object that it takes is damaged.
    pub fn show(&self, number: Option<u64>) -> Result<Option<Detail>> {
        let listing = self.reader.store.list()?;
        let newest = listing.checkpoints.last_key_value().map(|(&number, _)| number);
        let Some(number) = number.or(newest) else { return Ok(None) };
        let Some(&bytes) = listing.checkpoints.get(&number) else { return Ok(None) };
        let manifest = self.reader.manifest(number, bytes)?;
        let (state, _) = self.reader.state(&manifest)?;
        let size = |(name, entries): (String, crate::state::Entries)| {
            let (entries, bytes) = entries.size();
            (name, OperatorState { entries, bytes })
        };
        let facts = self.facts(&listing)?;
        let floors = floors(&facts);
        let state = state.into_iter().map(size).collect();
        Ok(Some(Detail { manifest, bytes, state, facts, floors }))
    }

    /// Reads every object, checks every checksum, and finds out which checkpoints can be restored.
    ///
    /// # Errors
    /// If the log cannot be read at all. Damage is no error, but what is returned.
    pub fn verify(&self) -> Result<Verification> {
        let listing = self.reader.store.list()?;
        let mut found = Verification::default();
        let mut whole: BTreeMap<u64, Manifest> = BTreeMap::new();
        for &number in listing.checkpoints.keys() {
            if let Some(checkpoint) =
                self.check(Object::Checkpoint(number), &mut found, |bytes| {
                    codec::decode(bytes).and_then(|c| self.ours(c, number))
                })?
            {
                whole.insert(number, checkpoint.manifest);
            }
        }
        for (number, manifest) in &whole {
            let fits = |at: &u64| {
                whole.get(at).is_some_and(|part| {
                    part.base == manifest.base && part.lineage == manifest.lineage
                })
            };
            match (manifest.base..=*number).find(|at| !fits(at)) {
                None => found.restorable.push(*number),
                Some(part) => {
                    let part = self.reader.store.shown(Object::Checkpoint(part));
                    let problem = format!(
                        "it cannot be restored: it builds on {part}, which is damaged, missing or \
                         of something else"
                    );
                    self.note(Object::Checkpoint(*number), problem, &mut found)?;
                }
            }
        }
        for &number in &listing.facts {
            self.check(Object::Fact(number), &mut found, |bytes| {
                let stored = codec::decode_fact(bytes)?;
                self.reader.must_be(Object::Fact(number), &stored.job, stored.number)
            })?;
        }
        let through = whole.last_key_value().map_or(0, |(_, manifest)| manifest.facts_through);
        let last = listing.facts.last().copied().unwrap_or(0);
        for number in (through + 1..=last).filter(|number| !listing.facts.contains(number)) {
            let object = self.reader.store.shown(Object::Fact(number));
            found.damage.push(Damage { object, problem: "it is missing".to_owned() });
        }
        if whole.is_empty() && listing.checkpoints.is_empty() && last > 0 {
            let object = self.reader.store.folder().to_owned();
            let problem = "it has facts and no checkpoint: checkpoints were removed".to_owned();
            found.damage.push(Damage { object, problem });
        }
        Ok(found)
    }

    /// Reads and judges an object, and notes what is wrong with it.
    fn check<R>(
        &self,
        object: Object,
        found: &mut Verification,
        judge: impl FnOnce(&Bytes) -> Result<R>,
    ) -> Result<Option<R>> {
        let judged = self.reader.store.get(object).and_then(|bytes| {
            found.objects += 1;
            found.bytes += bytes.len() as u64;
            judge(&bytes)
        });
        match judged {
            Ok(judged) => Ok(Some(judged)),
            Err(error) => {
                self.note(object, error.to_string(), found)?;
                Ok(None)
            }
        }
    }

    /// Notes damage, unless the running job has removed the object meanwhile.
    fn note(&self, object: Object, problem: String, found: &mut Verification) -> Result<()> {
        if self.is_there(object)? {
            found.damage.push(Damage { object: self.reader.store.shown(object), problem });
        }
        Ok(())
    }

    fn ours(&self, checkpoint: Checkpoint, number: u64) -> Result<Checkpoint> {
        let Manifest { job, number: says, .. } = &checkpoint.manifest;
        self.reader.must_be(Object::Checkpoint(number), job, *says)?;
        Ok(checkpoint)
    }

    /// The facts that the newest checkpoint contains, and those after it.
    fn facts(&self, listing: &Listing) -> Result<Vec<Fact>> {
        let Some((&newest, &bytes)) = listing.checkpoints.last_key_value() else {
            return Ok(vec![]);
        };
        let Manifest { mut facts, facts_through, .. } = self.reader.manifest(newest, bytes)?;
        for &number in listing.facts.range(facts_through.saturating_add(1)..) {
            facts.push(self.reader.fact(number)?);
        }
        Ok(facts)
    }

    fn is_there(&self, object: Object) -> Result<bool> {
        let listing = self.reader.store.list()?;
        Ok(match object {
            Object::Checkpoint(number) => listing.checkpoints.contains_key(&number),
            Object::Fact(number) => listing.facts.contains(&number),
        })
    }

    fn unless_gone(&self, object: Object, error: Error) -> Result<()> {
        if error.kind() == ErrorKind::External && !self.is_there(object)? {
            return Ok(());
        }
        Err(error)
    }
}

fn summary(manifest: &Manifest, bytes: u64) -> Summary {
    Summary {
        number: manifest.number,
        base: manifest.base,
        bytes,
        created: manifest.created,
        read: manifest.splits.iter().map(|entry| entry.position.read).sum(),
        watermark: manifest.watermark,
        lineage: manifest.lineage.clone(),
    }
}

fn floors(facts: &[Fact]) -> BTreeMap<SplitId, Vec<(u64, Timestamp)>> {
    let mut floors: BTreeMap<SplitId, Vec<(u64, Timestamp)>> = BTreeMap::new();
    for fact in facts {
        if let Fact::Floor { split, from, floor } = fact {
            floors.entry(split.clone()).or_default().push((*from, *floor));
        }
    }
    floors
}
