//! What the fetching thread does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::fault::{fail, lacks};
use super::fetcher::{Client, Command, Shared};
use super::flow::{self, Load, Switch};
use super::lane::{ChunkBuilder, Lane};
use super::native;
use super::observer::{End, parse_end};
use super::query::{gone_partition, out_of_range, partitions, watermarks};
use super::record_queue::{RecordQueue, Taken};
use crate::error::Error;
use crate::time::{Clock, SystemClock, millis, seconds};

/// Records taken from the client before they are handed on, if it has that many at hand.
const BURST: usize = 4_096;
/// How long a poll may wait for a record. A command waits as long.
const POLL: Duration = millis(20);
/// How long a poll may wait while a partition is paused or none is there: somebody may want one.
const SHORT_POLL: Duration = millis(5);
/// How often the cached watermarks are looked at.
const LOOK: Duration = millis(250);
/// How often the end of a partition is asked for again, so that it is known to be one still.
const ASK_AGAIN: Duration = seconds(2);
/// How long the end of a partition is believed that is not reported again: a broker that has
/// stopped answering is noticed by that, long before the client gives up its connection.
const BELIEVED: Duration = seconds(10);
/// A transaction that keeps records back for so long is worth a line in the log.
const HANGING: Duration = seconds(60);

/// A partition, as the thread sees it.
struct Feed {
    lane: Arc<Lane>,
    /// No record before this one is handed on.
    next: u64,
    chunk: ChunkBuilder,
    paused: bool,
    end: Option<End>,
    /// An end was reported, perhaps before an outage, and no record has come since.
    ended: bool,
    /// When the end was reported or asked for, whichever was last.
    asked: Duration,
    /// When it was reported.
    seen: Duration,
    /// Since when an open transaction has kept records back.
    held: Option<Duration>,
}

impl Feed {
    fn flush(&mut self) {
        if !self.chunk.is_empty() {
            self.lane.push(self.chunk.finish());
        }
    }

    fn load(&self) -> Load {
        Load { bytes: self.lane.load(), paused: self.paused, at_end: self.end.is_some() }
    }
}

/// The thread's own state.
pub(super) struct Work {
    client: Arc<Client>,
    queue: Arc<RecordQueue>,
    shared: Arc<Shared>,
    bootstrap: String,
    topic: Arc<str>,
    buffer: usize,
    /// Indexed by partition.
    feeds: Vec<Option<Feed>>,
    outages: u64,
    complaints: u64,
    clock: SystemClock,
    looked: Duration,
}

impl Work {
    pub(super) fn new(
        client: Arc<Client>,
        shared: Arc<Shared>,
        bootstrap: String,
        topic: Arc<str>,
        buffer: usize,
    ) -> Self {
        let (clock, looked) = (SystemClock::new(), Duration::ZERO);
        let queue = Arc::new(RecordQueue::new(Arc::clone(&client)));
        Self {
            client,
            queue,
            shared,
            bootstrap,
            topic,
            buffer,
            feeds: vec![],
            outages: 0,
            complaints: 0,
            clock,
            looked,
        }
    }

    pub(super) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            self.obey();
            self.look();
            let count = self.feeds.iter().flatten().count();
            let limit = flow::lane_limit(self.buffer, count);
            self.switch(limit);
            if flow::should_wait(self.feeds.iter().flatten().map(Feed::load), limit) {
                self.wait();
            }
            let paused = self.feeds.iter().flatten().any(|feed| feed.paused);
            self.burst(if paused || count == 0 { SHORT_POLL } else { POLL });
        }
        let _ = self.client.unassign();
    }

    fn feed(&mut self, partition: i32) -> Option<&mut Feed> {
        self.feeds.get_mut(usize::try_from(partition).ok()?)?.as_mut()
    }

    fn one(&self, partition: i32, offset: Offset) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(1);
        // Fails for offsets that cannot be written only; these come from numbers.
        let _ = list.add_partition_offset(&self.topic, partition, offset);
        list
    }

    fn obey(&mut self) {
        let commands = std::mem::take(&mut *self.shared.commands());
        for command in commands {
            match command {
                Command::Open(lane, position) => self.open(lane, position),
                Command::Close(lane) => {
                    // Not if the partition was opened again meanwhile.
                    let ours = |feed: &mut Feed| Arc::ptr_eq(&feed.lane, &lane);
                    if self.feed(lane.partition).is_some_and(ours) {
                        self.forget(lane.partition);
                    }
                }
            }
        }
    }

    fn forget(&mut self, partition: i32) {
        if let Some(feed) = usize::try_from(partition).ok().and_then(|i| self.feeds.get_mut(i)) {
            *feed = None;
            let list = self.one(partition, Offset::Invalid);
            let _ = self.client.incremental_unassign(&list);
        }
    }

    fn open(&mut self, lane: Arc<Lane>, position: u64) {
        let (partition, offset) = (lane.partition, i64::try_from(position).unwrap_or(i64::MAX));
        if self.feed(partition).is_some() {
            self.forget(partition);
        }
        let Ok(index) = usize::try_from(partition) else { return };
        if self.feeds.len() <= index {
            self.feeds.resize_with(index + 1, || None);
        }
        let feed = Feed {
            lane,
            next: position,
            chunk: ChunkBuilder::default(),
            paused: false,
            end: None,
            ended: false,
            asked: Duration::ZERO,
            seen: Duration::ZERO,
            held: None,
        };
        let list = self.one(partition, Offset::Offset(offset));
        if let Err(error) = self.client.incremental_assign(&list) {
            let what = format!("cannot read topic {} partition {partition}", self.topic);
            feed.lane.fail(fail(what, error));
        }
        self.queue.route(&self.topic, partition);
        self.feeds[index] = Some(feed);
    }

    /// Looks after what no record tells: outages, and ends that are none any more.
    fn look(&mut self) {
        let complaints = self.client.context().complaints();
        if std::mem::replace(&mut self.complaints, complaints) != complaints {
            self.find_what_is_gone();
        }
        let now = self.clock.elapsed();
        let outages = self.client.context().outages();
        if outages == self.outages && now.saturating_sub(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        let outage = outages != self.outages;
        self.outages = outages;
        for feed in self.feeds.iter_mut().flatten() {
            let partition = feed.lane.partition;
            // The client ends the route of a partition that is no longer read some time after it was
            // told so: perhaps after the partition was opened again. What has come meanwhile is kept.
            self.queue.route(&self.topic, partition);
            let cached = native::cached_watermarks(self.client.client(), &self.topic, partition);
            if let Some((_, high)) = cached {
                feed.lane.set_high(high);
                // Records of an open transaction lie behind the end that was reported.
                if let Some(end) = &mut feed.end
                    && end.high != high
                {
                    end.high = high;
                    feed.lane.set_end(Some(*end));
                }
            }
            if let Some(end) = feed.end {
                let (since, say) = held(feed.held, end.offset < end.high, now);
                feed.held = since;
                if say {
                    tracing::warn!(
                        topic = %self.topic,
                        partition,
                        offset = end.offset,
                        behind = end.high - end.offset,
                        "an open transaction has kept the records behind it back for a minute"
                    );
                }
            }
            let old = now.saturating_sub(feed.seen) >= BELIEVED;
            if (outage || old) && feed.end.take().is_some() {
                feed.lane.set_end(None);
            }
            // The client reports an end once. A seek to where it stands makes it fetch and report
            // again, as soon as the broker answers.
            let ask = outage || now.saturating_sub(feed.asked) >= ASK_AGAIN;
            if feed.ended && ask {
                feed.asked = now;
                let _ = seek(&self.client, &self.topic, feed);
            }
        }
    }

    fn switch(&mut self, limit: usize) {
        for index in 0..self.feeds.len() {
            let Some(feed) = &self.feeds[index] else { continue };
            let list = || self.one(feed.lane.partition, Offset::Invalid);
            let (done, paused) = match flow::switch(feed.load(), limit) {
                Switch::Leave => continue,
                Switch::Pause => (self.client.pause(&list()), true),
                Switch::Resume => {
                    let sought = seek(&self.client, &self.topic, feed);
                    (sought.and_then(|()| self.client.resume(&list())), false)
                }
            };
            if let (Ok(()), Some(feed)) = (done, &mut self.feeds[index]) {
                feed.paused = paused;
            }
        }
    }

    /// Waits for a reader to make room. Not for long: what the client has to say must be heard.
    fn wait(&self) {
        self.shared.parked.store(true, Ordering::Release);
        std::thread::park_timeout(millis(20));
        self.shared.parked.store(false, Ordering::Release);
    }

    /// Takes what the client has, waiting for the first record only.
    fn burst(&mut self, wait: Duration) {
        self.serve();
        let queue = Arc::clone(&self.queue);
        for taken in queue.take(BURST, wait).iter() {
            match taken {
                Taken::Record { partition, offset, millis, key, value } => {
                    self.push(partition, offset, millis, key, value);
                }
                Taken::Error { partition, code: Code::PartitionEOF, text } => {
                    self.end(partition, parse_end(&text));
                }
                Taken::Error { code, text, .. } => {
                    let error = KafkaError::MessageConsumption(code);
                    self.client.context().error(error.clone(), &text);
                    self.trouble(error);
                }
            }
        }
        self.feeds.iter_mut().flatten().for_each(Feed::flush);
    }

    /// Hears what the client has to say beside records. Records that came this way came before those
    /// that come by their route, so they are taken first.
    fn serve(&mut self) {
        let client = Arc::clone(&self.client);
        while let Some(polled) = client.poll(Duration::ZERO) {
            match polled {
                Ok(message) => {
                    let time = message.timestamp().to_millis();
                    let offset = u64::try_from(message.offset()).unwrap_or(0);
                    self.push(message.partition(), offset, time, message.key(), message.payload());
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    let end = self.client.context().take_end();
                    self.end(partition, end);
                }
                Err(error) => self.trouble(error),
            }
        }
    }

    #[inline]
    fn push(
        &mut self,
        partition: i32,
        offset: u64,
        millis: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        let Some(feed) = self.feed(partition) else { return };
        if offset < feed.next {
            return;
        }
        feed.chunk.push(offset, millis, key, value);
        feed.next = offset + 1;
        feed.end = None;
        feed.ended = false;
        feed.held = None;
        if feed.chunk.is_full() {
            feed.flush();
        }
    }

    fn end(&mut self, partition: i32, end: Option<End>) {
        let cached = native::cached_watermarks(self.client.client(), &self.topic, partition);
        let now = self.clock.elapsed();
        let Some(feed) = self.feed(partition) else { return };
        // Without words that can be read, the position after the last record is a safe answer.
        let end = end.unwrap_or_else(|| End {
            offset: feed.next,
            high: cached.map_or(u64::MAX, |(_, high)| high),
        });
        if end.offset < feed.next {
            return;
        }
        feed.flush();
        if end.offset > feed.next {
            feed.held = None;
        }
        feed.next = end.offset;
        feed.end = Some(end);
        (feed.ended, feed.asked, feed.seen) = (true, now, now);
        feed.lane.set_end(Some(end));
    }

    fn trouble(&mut self, error: KafkaError) {
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation) => {
                self.find_out_of_range(error);
            }
            Some(
                Code::BadMessage
                | Code::InvalidMessage
                | Code::BadCompression
                | Code::InvalidMessageSize
                | Code::TopicAuthorizationFailed
                | Code::SaslAuthenticationFailed
                | Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::UnknownTopicId
                | Code::Fatal,
            ) => self.fail_all(error),
            // Passes by itself; the evidence of ends is void (the observer counts outages).
            _ => tracing::debug!("kafka topic {}: {error}", self.topic),
        }
    }

    fn fail_all(&mut self, error: KafkaError) {
        // The client leaves a damaged batch out and goes on behind it, which nobody may.
        let damaged = match error.rdkafka_error_code() {
            Some(Code::BadMessage | Code::InvalidMessage | Code::InvalidMessageSize) => {
                "; records were damaged on their way, or are on the broker's disk. Start again; if \
                 it is the same offset again, the broker's log is damaged"
            }
            Some(Code::BadCompression) => {
                "; a batch of records cannot be unpacked: it becomes larger than the client's property \
                 receive.message.max.bytes (100000000 unless it was set), which can be raised, or it \
                 is damaged"
            }
            _ => "",
        };
        for feed in self.feeds.iter_mut().flatten() {
            feed.flush();
            let right = lacks(&error, format_args!("Read on topic {}", self.topic));
            let what = format!(
                "cannot read topic {} partition {} from offset {} on{right}{damaged}",
                self.topic, feed.lane.partition, feed.next
            );
            feed.lane.fail(fail(what, error.clone()));
        }
    }

    /// The client has complained in its log: perhaps that there is no such topic or partition.
    fn find_what_is_gone(&mut self) {
        let client = self.client.client();
        let there = partitions(client, &self.bootstrap, &self.topic, true, seconds(5));
        if there.as_ref().is_err_and(Error::is_retriable) {
            return; // An outage: whoever asks next finds out.
        }
        for feed in self.feeds.iter_mut().flatten() {
            let partition = feed.lane.partition;
            let error = match &there {
                Ok(there) if there.contains(&partition) => continue,
                Ok(_) => gone_partition(&self.bootstrap, &self.topic, partition),
                Err(error) => Error::user(error.message()),
            };
            feed.flush();
            feed.lane.fail(error);
        }
    }

    /// The client does not say which partition it is.
    fn find_out_of_range(&mut self, error: KafkaError) {
        let mut found = false;
        for feed in self.feeds.iter_mut().flatten() {
            let partition = feed.lane.partition;
            let Ok((low, high)) = watermarks(&self.client, &self.topic, partition) else {
                continue;
            };
            if let Some(error) = out_of_range(&self.topic, partition, feed.next, low, high) {
                feed.flush();
                feed.lane.fail(error);
                found = true;
            }
        }
        if !found {
            self.fail_all(error);
        }
    }
}

/// Has the client go on with the record after the last one that it has handed out; it is not waited
/// for. After a pause the client would do so by itself, but for the report of an end: if that is taken
/// together with records, it counts as one, and the next record would be left out.
fn seek(client: &Client, topic: &str, feed: &Feed) -> Result<(), KafkaError> {
    let offset = Offset::Offset(i64::try_from(feed.next).unwrap_or(i64::MAX));
    client.seek(topic, feed.lane.partition, offset, Duration::ZERO)
}

/// Since when records have been kept back, and whether it is time to say so.
fn held(since: Option<Duration>, open: bool, now: Duration) -> (Option<Duration>, bool) {
    match since {
        _ if !open => (None, false),
        None => (Some(now), false),
        Some(since) if now.saturating_sub(since) >= HANGING => (Some(now), true),
        since => (since, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f49_a_transaction_that_hangs_is_told_of_once_a_minute() {
        let (mut since, mut told) = (None, vec![]);
        for second in 0..200 {
            let open = second != 70;
            let (next, say) = held(since, open, seconds(second));
            since = next;
            if say {
                told.push(second);
            }
        }
        assert_eq!(told, [60, 131, 191]);
    }
}
