//! The built-in generator as a source: what `cargo run -p pipeline-app` reads.
//!
//! Event time starts where the options say, two hours back by default, and catches up at full speed,
//! so that there is something to see at once; from then on records come as they would arrive. Content is a function of the seed,
//! the options and the start time; the start time is remembered with the splits, so that a restart
//! goes on where the job was.

use std::sync::Arc;

use bytes::Bytes;
use streamkit::connector::{RawRecord, ReadBatch, ReadStatus, Source, SplitReader, Wake};
use streamkit::time::{Clock, SystemClock, Timestamp};
use streamkit::{Error, Result, Split, SplitId};

use crate::generate::{GeneratedSpan, Generator, GeneratorOptions, SplitGenerator};

/// A source of generated records.
#[derive(Debug)]
pub struct GeneratorSource {
    options: GeneratorOptions,
    clock: Arc<SystemClock>,
}

impl GeneratorSource {
    /// A generator with these options. Their start time counts at the first start only.
    pub fn new(options: GeneratorOptions) -> Self {
        Self { options, clock: Arc::new(SystemClock::new()) }
    }

    /// What the splits remember: the start time, and what the content depends on besides.
    fn memo(&self, start: i64) -> String {
        let options = GeneratorOptions { start_time_micros: start, ..self.options.clone() };
        format!("start={start} options={:016x}", options.fingerprint())
    }

    /// The generator that the split was first seen with.
    fn of(&self, split: &Split) -> Result<Generator> {
        let start: i64 = split
            .memo
            .strip_prefix("start=")
            .and_then(|memo| memo.split(' ').next())
            .and_then(|start| start.parse().ok())
            .ok_or_else(|| {
                Error::corrupt(format!("{}: unknown memo {:?}", split.id, split.memo))
            })?;
        if split.memo != self.memo(start) {
            return Err(Error::user(
                "the generator's options are not those that this data folder was made with: use the same options, another --data-dir, or `pipeline-app reset`",
            ));
        }
        let options = GeneratorOptions { start_time_micros: start, ..self.options.clone() };
        Generator::new(&options)
            .map_err(|e| Error::user("the generator's options are wrong").because(e))
    }
}

impl Source for GeneratorSource {
    type Item = RawRecord;

    fn describe(&self) -> String {
        format!("generator with seed {}", self.options.seed)
    }

    fn splits(&self, known: &[Split]) -> Result<Vec<Split>> {
        let start = self.options.start_time_micros;
        let split = |i: u32| {
            let id = SplitId::new(format!("generator/{i}"));
            let seen = known.iter().find(|split| split.id == id).cloned();
            seen.unwrap_or_else(|| Split {
                id,
                topic: "generator".into(),
                partition: i32::try_from(i).unwrap_or(i32::MAX),
                memo: self.memo(start),
            })
        };
        Ok((0..self.options.splits).map(split).collect())
    }

    fn start(&self, _split: &Split) -> Result<u64> {
        Ok(0)
    }

    /// What would have arrived by now.
    fn end(&self, split: &Split) -> Result<u64> {
        let number = u32::try_from(split.partition).unwrap_or(0);
        Ok(self.of(split)?.next_at_or_after(number, self.clock.now().as_micros()))
    }

    fn open(
        &self,
        split: &Split,
        position: u64,
        _wake: Wake,
    ) -> Result<Box<dyn SplitReader<Item = RawRecord>>> {
        let number = u32::try_from(split.partition).unwrap_or(0);
        let generator = self.of(split)?;
        Ok(Box::new(Reader {
            partition: split.partition,
            number,
            records: generator.reader(number, position),
            generator,
            clock: Arc::clone(&self.clock),
            spans: vec![],
            now: Timestamp::MIN,
        }))
    }
}

struct Reader {
    partition: i32,
    number: u32,
    generator: Generator,
    records: SplitGenerator,
    clock: Arc<SystemClock>,
    spans: Vec<GeneratedSpan>,
    now: Timestamp,
}

impl SplitReader for Reader {
    type Item = RawRecord;

    fn read(&mut self, batch: &mut ReadBatch<RawRecord>, max: usize) -> Result<ReadStatus> {
        self.now = self.clock.now();
        // As many as have arrived by now. The next arrival after n records is monotonous in n.
        let due = self.generator.next_at_or_after(self.number, self.now.as_micros());
        let ready = due.saturating_sub(self.records.position());
        let n = usize::try_from(ready).unwrap_or(max).min(max);
        if n == 0 {
            return Ok(ReadStatus::CaughtUp);
        }
        let mut arena = Vec::with_capacity(n * 160);
        self.spans.clear();
        self.records.fill(&mut arena, &mut self.spans, n);
        // One allocation for the batch; the records are slices of it.
        let arena = Bytes::from(arena);
        for span in &self.spans {
            let slice = |from: u32, to: u32| arena.slice(from as usize..to as usize);
            let key = (!span.key.is_empty()).then(|| slice(span.key.start, span.key.end));
            batch.push(
                span.n,
                RawRecord {
                    key,
                    value: Some(slice(span.value.start, span.value.end)),
                    timestamp: Some(Timestamp::from_micros(span.timestamp)),
                    partition: self.partition,
                    offset: span.n,
                },
            );
        }
        Ok(ReadStatus::More)
    }

    fn lag(&self) -> Option<u64> {
        let due = self.generator.next_at_or_after(self.number, self.now.as_micros());
        Some(due.saturating_sub(self.records.position()))
    }
}
