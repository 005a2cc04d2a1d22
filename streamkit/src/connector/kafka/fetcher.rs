//! The thread that fetches: one consumer for all partitions of a source.
//!
//! ```text
//! broker ──► RecordQueue ──many at a time──► this thread ──chunks──► Lane 0 ──► reader of partition 0
//!                                                               └──► Lane 1 ──► reader of partition 1
//! ```
//!
//! One queue and one thread, since the client's other ways lose wake-ups or records: its stream,
//! and a queue per partition. Partitions are assigned one by one; the consumer never joins a group.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use rdkafka::consumer::BaseConsumer;

use super::fetching::Work;
use super::lane::Lane;
use super::observer::Observer;
use crate::error::{Error, Result};
use crate::time::seconds;

/// The consumer of a source.
pub(super) type Client = BaseConsumer<Observer>;

/// What the thread is to do.
pub(super) enum Command {
    /// Fetch the lane's partition from this position on.
    Open(Arc<Lane>, u64),
    /// Stop that.
    Close(Arc<Lane>),
}

/// What the thread and those who use it share.
#[derive(Default)]
pub(super) struct Shared {
    commands: Mutex<Vec<Command>>,
    pub(super) stop: AtomicBool,
    /// The thread waits for a reader to make room.
    pub(super) parked: AtomicBool,
}

impl Shared {
    pub(super) fn commands(&self) -> MutexGuard<'_, Vec<Command>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running consumer. It is closed, within a deadline, when this is dropped.
pub(super) struct Fetcher {
    client: Option<Arc<Client>>,
    shared: Arc<Shared>,
    thread: Thread,
    over: Receiver<()>,
}

impl Fetcher {
    pub(super) fn start(
        client: Client,
        bootstrap: &str,
        topic: Arc<str>,
        buffer: usize,
    ) -> Result<Self> {
        let client = Arc::new(client);
        let shared = Arc::new(Shared::default());
        let (done, over) = bounded(1);
        let work = Work::new(
            Arc::clone(&client),
            Arc::clone(&shared),
            bootstrap.to_owned(),
            topic,
            buffer,
        );
        let thread = std::thread::Builder::new()
            .name("kafka-fetch".to_owned())
            .spawn(move || {
                work.run();
                let _ = done.send(());
            })
            .map_err(|e| Error::external("cannot start a thread for Kafka").because(e))?;
        Ok(Self { client: Some(client), shared, thread: thread.thread().clone(), over })
    }

    /// For questions about the topic; any thread may ask.
    pub(super) fn client(&self) -> Option<&Arc<Client>> {
        self.client.as_ref()
    }

    /// Starts to fetch a partition from `position` on.
    pub(super) fn open(&self, lane: Arc<Lane>, position: u64) {
        self.command(Command::Open(lane, position));
    }

    /// Stops to fetch a partition.
    pub(super) fn close(&self, lane: Arc<Lane>) {
        lane.close();
        self.command(Command::Close(lane));
    }

    fn command(&self, command: Command) {
        self.shared.commands().push(command);
        self.thread.unpark();
    }

    /// A reader has made room.
    pub(super) fn drained(&self) {
        if self.shared.parked.load(Ordering::Acquire) {
            self.thread.unpark();
        }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        // The thread drops the consumer: it must be the last to hold it.
        self.client = None;
        self.shared.stop.store(true, Ordering::Release);
        self.thread.unpark();
        if self.over.recv_timeout(seconds(5)) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("a kafka consumer could not be closed within 5 s; left behind");
        }
    }
}
