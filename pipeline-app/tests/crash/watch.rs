//! A thread that reads the tables all the time, while the program is being killed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::reader::Reader;
use super::tables::{Finals, Tables};
use crate::oracle::Expected;

const PAUSE: Duration = Duration::from_millis(100);

/// The thread.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// What it has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// How often the tables could be read.
    pub times: u64,
    /// What nobody may see, the first time that it was seen.
    pub problem: Option<String>,
    /// What cannot be judged before the end.
    pub finals: BTreeSet<Finals>,
}

impl Watch {
    /// `expected`: what there will be in the end, if that is known already.
    pub fn start(reader: Reader, expected: Option<Expected>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = Runtime::new().unwrap();
            let (mut seen, mut before) = (Seen::default(), Tables::default());
            while seen.problem.is_none() {
                // Once more after the end, so that nothing is missed.
                let last = stopped.load(Ordering::Relaxed);
                if let Ok(now) = reader.read(&runtime) {
                    seen.times += 1;
                    seen.problem = now.problem(&before, expected.as_ref());
                    if expected.is_none() {
                        seen.finals.extend(now.finals());
                    }
                    before = now;
                }
                if last {
                    break;
                }
                std::thread::sleep(PAUSE);
            }
            seen
        });
        Self { stop, thread }
    }

    /// Ends the thread.
    pub fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
