//! How long records stand still for a checkpoint is what the job says it is.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize, Serializer};
use streamkit::connector::memory::Collect;
use streamkit::prelude::*;
use streamkit::testing::{Gate, Running, Script, ScriptedSource};
use streamkit::time::ManualClock;

static CLOCK: LazyLock<ManualClock> = LazyLock::new(ManualClock::default);

/// A count that takes a while to be put into a checkpoint.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
struct Slow(u64);

impl Serialize for Slow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        CLOCK.advance(millis(7));
        self.0.serialize(serializer)
    }
}

struct SlowCount;

impl<T> Aggregator<T> for SlowCount {
    type Accumulator = Slow;
    type Output = u64;

    fn create(&self) -> Slow {
        Slow(0)
    }

    fn add(&self, count: &mut Slow, _: &T) {
        count.0 += 1;
    }

    fn merge(&self, into: &mut Slow, from: &Slow) {
        into.0 += from.0;
    }

    fn finish(&self, count: &Slow) -> u64 {
        count.0
    }
}

#[test]
fn the_pause_is_the_time_that_the_slowest_worker_took_for_its_state() {
    let gate = Gate::new();
    let events = [(1, "a"), (2, "b"), (3, "c"), (4, "a")];
    let source = ScriptedSource::new([Script::new().emit(events).until(&gate)]);
    let time = |event: &(i64, &'static str)| Timestamp::from_micros(event.0 * 1_000_000);
    let job = Job::new("slow");
    job.source("events", source, WatermarkStrategy::monotonous(time))
        .key_by_value(|event| event.1.to_owned())
        .window(Tumbling::of(minutes(1)))
        .aggregate("counts", SlowCount)
        .sink("rows", Collect::new());
    let running = Running::start(job, RunConfig::new().workers(1).clock(CLOCK.clone()));
    let counted = |p: &streamkit::JobProgress| p.counted.get("counts") == Some(&4);
    running.until("all events counted", counted);
    // The last thing that a job does is a checkpoint.
    let checkpoint = running.stop().unwrap().checkpoint.unwrap();
    assert_eq!(checkpoint.pause, millis(3 * 7), "three keys: {checkpoint:?}");
    assert!(checkpoint.duration >= checkpoint.pause);
}
