//! How sinks are claimed when a job starts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use streamkit::connector::memory::{Collect, Memory};
use streamkit::connector::{Claim, Commit, Progress, Sink, SinkContext, SinkWriter};
use streamkit::prelude::*;
use streamkit::testing::run;
use streamkit::{Batch, Error, Result};

const SINKS: usize = 3;

/// Cannot be claimed before all the others are being claimed as well.
struct Together(Collect<u32>, Arc<AtomicUsize>);

struct TogetherWriter(Box<dyn SinkWriter<u32>>, Arc<AtomicUsize>);

impl Sink<u32> for Together {
    fn describe(&self) -> String {
        "together".to_owned()
    }

    fn open(&mut self, context: &SinkContext) -> Result<Box<dyn SinkWriter<u32>>> {
        Ok(Box::new(TogetherWriter(self.0.open(context)?, Arc::clone(&self.1))))
    }
}

impl SinkWriter<u32> for TogetherWriter {
    fn recover(&mut self, claim: &Claim) -> Result<Option<Progress>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        for _ in 0..1_000 {
            if self.1.load(Ordering::SeqCst) == SINKS {
                return self.0.recover(claim);
            }
            std::thread::sleep(millis(5));
        }
        Err(Error::user("claimed alone"))
    }

    fn write(&mut self, batch: &Batch<u32>) -> Result<()> {
        self.0.write(batch)
    }

    fn commit(&mut self, progress: &Progress) -> Result<Commit> {
        self.0.commit(progress)
    }
}

/// A cluster answers each of them within some hundred milliseconds: one after the other would be
/// most of what a short run takes.
#[test]
fn sinks_are_claimed_at_the_same_time() {
    let (job, claiming) = (Job::new("claims"), Arc::new(AtomicUsize::new(0)));
    let time = WatermarkStrategy::bounded_out_of_orderness(seconds(1), |_: &u32| {
        Timestamp::from_micros(0)
    });
    let numbers = job.source("numbers", Memory::new([1, 2, 3]), time);
    let outputs: Vec<Collect<u32>> = (0..SINKS).map(|_| Collect::new()).collect();
    for (i, output) in outputs.iter().enumerate() {
        numbers.sink(&format!("sink {i}"), Together(output.clone(), Arc::clone(&claiming)));
    }
    run(job, RunConfig::new()).unwrap();
    assert!(outputs.iter().all(|output| output.rows() == [1, 2, 3]));
}
