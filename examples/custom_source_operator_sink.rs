//! The three traits behind every connector and step: a source that counts, an operator that
//! splits numbers into their prime factors, and a sink that stores rows together with progress.
//!
//! `cargo run -p streamkit --example custom_source_operator_sink` prints
//!
//! ```text
//! first run, to 13: 7 8=2*2*2 9=3*3 10=2*5 11 12=2*2*3
//! second run, to 17: 13 14=2*7 15=3*5 16=2*2*2*2
//! ```

use std::error::Error;
use std::sync::{Arc, Mutex};

use streamkit::connector::{
    Claim, Commit, Progress, ReadBatch, ReadStatus, Sink, SinkContext, SinkWriter, SplitReader,
    Wake,
};
use streamkit::operator::{Operator, Output};
use streamkit::prelude::*;
use streamkit::{Batch, Result, Split, SplitId};

/// Numbers as one split. A record's position is the number itself.
pub struct Numbers {
    /// They are those from 7 to before this one.
    pub end: u64,
}

impl Source for Numbers {
    type Item = u64;

    fn describe(&self) -> String {
        format!("numbers to {}", self.end)
    }

    fn splits(&self, _known: &[Split]) -> Result<Vec<Split>> {
        let id = SplitId::new("numbers/0");
        Ok(vec![Split { id, topic: "numbers".into(), partition: 0, memo: String::new() }])
    }

    fn start(&self, _split: &Split) -> Result<u64> {
        Ok(7)
    }

    fn end(&self, _split: &Split) -> Result<u64> {
        Ok(self.end)
    }

    fn open(&self, _: &Split, next: u64, _: Wake) -> Result<Box<dyn SplitReader<Item = u64>>> {
        Ok(Box::new(Reader { next, end: self.end }))
    }
}

struct Reader {
    next: u64,
    end: u64,
}

impl SplitReader for Reader {
    type Item = u64;

    fn read(&mut self, batch: &mut ReadBatch<u64>, max: usize) -> Result<ReadStatus> {
        while self.next < self.end && batch.len() < max {
            batch.push(self.next, self.next);
            self.next += 1;
        }
        Ok(if self.next < self.end { ReadStatus::More } else { ReadStatus::Ended })
    }
}

/// One batch in, one batch out. What `map` does can be done in a closure; this is for operators
/// with settings of their own, or that do something once per batch.
struct Factorize;

impl Operator<u64> for Factorize {
    type Out = String;

    fn on_batch(&self, input: &Batch<u64>, out: &mut Output<'_, String>) -> Result<()> {
        for (row, (&number, time)) in input.iter().enumerate() {
            let (mut rest, mut factors) = (number, vec![]);
            while let Some(factor) = (2..=rest).find(|f| rest % f == 0) {
                factors.push(factor.to_string());
                rest /= factor;
            }
            let product =
                if factors.len() > 1 { format!("={}", factors.join("*")) } else { String::new() };
            out.push(row, time, format!(" {number}{product}"));
        }
        Ok(())
    }
}

/// A target that outlives a run. Rows and progress change under one lock, in one step: that is
/// all it takes for every row to be there exactly once, whatever is interrupted when.
#[derive(Clone, Default)]
pub struct Shelf(Arc<Mutex<(Vec<String>, Option<Progress>)>>);

impl Shelf {
    /// The rows that are there; they are taken off.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no panic under this lock").0)
    }
}

impl Sink<String> for Shelf {
    fn describe(&self) -> String {
        "shelf".to_owned()
    }

    fn open(&mut self, _context: &SinkContext) -> Result<Box<dyn SinkWriter<String>>> {
        Ok(Box::new(Writer { shelf: self.clone(), uncommitted: vec![] }))
    }
}

struct Writer {
    shelf: Shelf,
    uncommitted: Vec<String>,
}

impl SinkWriter<String> for Writer {
    /// A target that other processes can reach would also check whose it is: see [`Claim`].
    fn recover(&mut self, _claim: &Claim) -> Result<Option<Progress>> {
        self.uncommitted.clear();
        Ok(self.shelf.0.lock().expect("no panic under this lock").1.clone())
    }

    fn write(&mut self, batch: &Batch<String>) -> Result<()> {
        self.uncommitted.extend(batch.values().cloned());
        Ok(())
    }

    fn commit(&mut self, progress: &Progress) -> Result<Commit> {
        let mut target = self.shelf.0.lock().expect("no panic under this lock");
        target.0.append(&mut self.uncommitted);
        target.1 = Some(progress.clone());
        Ok(Commit::Done)
    }
}

/// The job, from any source of numbers into any sink.
pub fn job(numbers: impl Source<Item = u64>, out: impl Sink<String>) -> Job {
    let job = Job::new("factors");
    let time = WatermarkStrategy::monotonous(|n: &u64| Timestamp::from_micros(*n as i64));
    job.source("numbers", numbers, time).apply(Factorize).sink("shelf", out);
    job
}

/// What `main` prints.
pub async fn run() -> Result<String, Box<dyn Error>> {
    let (shelf, checkpoints) = (Shelf::default(), Checkpoints::shared());
    let mut printed = String::new();
    for (which, end) in [("first", 13), ("second", 17)] {
        // The second run goes on where the first one stopped: it reads from 13.
        let config = RunConfig::new().checkpoints(checkpoints.clone()).at_end(InputEnd::KeepOpen);
        job(Numbers { end }, shelf.clone()).run(config).await?;
        printed += &format!("{which} run, to {end}:{}\n", shelf.take().concat());
    }
    Ok(printed)
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn Error>> {
    print!("{}", run().await?);
    Ok(())
}
