//! How sinks are claimed when a job starts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use streamkit::connector::memory::{Collect, Memory};
use streamkit::connector::{Claim, Commit, Progress, Sink, SinkContext, SinkWriter};
use streamkit::prelude::*;
use streamkit::testing::run;
use streamkit::{Batch, Error, Result};

const SINKS: usize = 3;

/// Cannot be opened before all the others are being opened as well, and only be claimed when all those
/// before it have been.
struct Together {
    rows: Collect<u32>,
    number: usize,
    opening: Arc<AtomicUsize>,
    claimed: Arc<AtomicUsize>,
}

struct Writer {
    inner: Box<dyn SinkWriter<u32>>,
    number: usize,
    claimed: Arc<AtomicUsize>,
}

impl Sink<u32> for Together {
    fn describe(&self) -> String {
        "together".to_owned()
    }

    fn open(&mut self, context: &SinkContext) -> Result<Box<dyn SinkWriter<u32>>> {
        self.opening.fetch_add(1, Ordering::SeqCst);
        for _ in 0..1_000 {
            if self.opening.load(Ordering::SeqCst) == SINKS {
                let (inner, claimed) = (self.rows.open(context)?, Arc::clone(&self.claimed));
                return Ok(Box::new(Writer { inner, number: self.number, claimed }));
            }
            std::thread::sleep(millis(5));
        }
        Err(Error::user("opened alone"))
    }
}

impl SinkWriter<u32> for Writer {
    fn recover(&mut self, claim: &Claim) -> Result<Option<Progress>> {
        match self.claimed.fetch_add(1, Ordering::SeqCst) == self.number {
            true => self.inner.recover(claim),
            false => Err(Error::user("claimed out of order")),
        }
    }

    fn write(&mut self, batch: &Batch<u32>) -> Result<()> {
        self.inner.write(batch)
    }

    fn commit(&mut self, progress: &Progress) -> Result<Commit> {
        self.inner.commit(progress)
    }
}

/// A cluster answers each of them within some hundred milliseconds: one after the other would be
/// most of what a short run takes. A claim shuts others out, though, and the first that is refused must
/// be the last.
#[test]
fn sinks_are_opened_at_the_same_time_and_claimed_in_order() {
    let job = Job::new("claims");
    let (opening, claimed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let time = WatermarkStrategy::bounded_out_of_orderness(seconds(1), |_: &u32| {
        Timestamp::from_micros(0)
    });
    let numbers = job.source("numbers", Memory::new([1, 2, 3]), time);
    let outputs: Vec<Collect<u32>> = (0..SINKS).map(|_| Collect::new()).collect();
    for (number, output) in outputs.iter().enumerate() {
        let (opening, claimed) = (Arc::clone(&opening), Arc::clone(&claimed));
        let sink = Together { rows: output.clone(), number, opening, claimed };
        numbers.sink(&format!("sink {number}"), sink);
    }
    run(job, RunConfig::new()).unwrap();
    assert!(outputs.iter().all(|output| output.rows() == [1, 2, 3]));
}
