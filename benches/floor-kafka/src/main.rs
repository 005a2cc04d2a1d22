//! The job by hand, on librdkafka alone: what dev/peer-bench measures everything else against.
//!
//!     floor-kafka aggregates|full
//!
//! Drains BENCH_TOPIC. `aggregates` counts what the three tables would hold and writes no table.
//! `full` also writes the enriched topic, in transactions with the positions, and a Parquet file.
//! It has no watermark, so it never sets anything free, and takes only events as the comparison's
//! generator writes them. Prints sums to be compared.

mod event;
mod kafka;
mod lake;
mod state;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::{Reader, Writer};
use crate::lake::Lake;
use crate::state::State;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WAIT: Duration = Duration::from_secs(20);
const COMMIT_EVERY: Duration = Duration::from_millis(500);

fn main() {
    let full = match std::env::args().nth(1).as_deref() {
        Some("aggregates") => false,
        Some("full") => true,
        _ => panic!("usage: floor-kafka aggregates|full"),
    };
    let topic = variable("BENCH_TOPIC");
    let consumer: BaseConsumer = client()
        .set("group.id", variable("BENCH_RUN"))
        .set("enable.auto.commit", "false")
        .set("check.crcs", "false")
        .set("fetch.message.max.bytes", "4194304")
        .set("queued.min.messages", "400000")
        .set("fetch.wait.max.ms", "10")
        .create()
        .expect("a consumer");

    let (mut positions, mut left) = (TopicPartitionList::new(), 0);
    let metadata = consumer.fetch_metadata(Some(&topic), WAIT).expect("the topic is there");
    for partition in metadata.topics()[0].partitions() {
        let (low, high) =
            consumer.fetch_watermarks(&topic, partition.id(), WAIT).expect("its ends");
        left += high - low;
        positions
            .add_partition_offset(&topic, partition.id(), Offset::Offset(low))
            .expect("a position");
    }
    consumer.assign(&positions).expect("its partitions");

    let mut state = State::new();
    let mut outputs = full.then(|| Outputs::new(&topic, &consumer));
    let mut reader = Reader::new(&consumer);
    let mut refused = 0;
    while left > 0 {
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_millis()
                as i64;
        reader.read(|record| {
            left -= 1;
            let Some(event) = event::parse(record.value) else {
                refused += 1;
                return;
            };
            state.apply(&event);
            if let Some(outputs) = &mut outputs {
                outputs.write(&record, &event, now);
            }
        });
        if let Some(outputs) = &mut outputs {
            outputs.send(left == 0);
        }
    }
    if let Some(outputs) = outputs {
        outputs.lake.close();
    }
    println!(
        "views={} active={} sessions={} refused={refused}",
        state.views(),
        state.active(),
        state.sessions
    );
    // Without waiting for librdkafka's threads to end one by one.
    std::process::exit(0);
}

struct Outputs<'a> {
    consumer: &'a BaseConsumer,
    topic: String,
    producer: BaseProducer,
    enriched: Writer,
    lake: Lake,
    /// The next offset of each partition.
    positions: Vec<i64>,
    committed: Instant,
    /// `2026-01-31`, and the days since 1970 that it stands for.
    date: (i64, String),
    now: (i64, String),
}

impl<'a> Outputs<'a> {
    fn new(topic: &str, consumer: &'a BaseConsumer) -> Self {
        let producer: BaseProducer = client()
            .set("linger.ms", "20")
            .set("batch.size", "1000000")
            .set("queue.buffering.max.messages", "2000000")
            .set("queue.buffering.max.kbytes", "1000000")
            .set("delivery.report.only.error", "true")
            .set("transactional.id", variable("BENCH_RUN"))
            .create()
            .expect("a producer");
        producer.init_transactions(WAIT).expect("transactions");
        producer.begin_transaction().expect("the first transaction");
        let lake = std::path::PathBuf::from(variable("BENCH_LAKE"));
        std::fs::create_dir_all(&lake).expect("the lake's folder");
        Self {
            consumer,
            topic: topic.to_owned(),
            enriched: Writer::new(&producer, &variable("BENCH_ENRICHED")),
            producer,
            lake: Lake::create(lake.join("events.parquet")),
            positions: Vec::new(),
            committed: Instant::now(),
            date: (i64::MIN, String::new()),
            now: (i64::MIN, String::new()),
        }
    }

    fn write(&mut self, record: &kafka::Record<'_>, event: &event::Event<'_>, now: i64) {
        let day = event.time.div_euclid(86_400_000);
        if self.date.0 != day {
            self.date = (day, date(day));
        }
        if self.now.0 != now {
            let (day, ms) = (now.div_euclid(86_400_000), now.rem_euclid(86_400_000));
            let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
            let (seconds, ms) = (ms / 1000 % 60, ms % 1000);
            self.now =
                (now, format!("{}T{hours:02}:{minutes:02}:{seconds:02}.{ms:03}Z", date(day)));
        }
        let category = event.page.trim_start_matches('/').split('/').next().unwrap_or_default();
        self.enriched.push(record.partition, record.key, |value| {
            value.extend_from_slice(&record.value[..record.value.len() - 1]);
            for (name, text) in [
                ("processing_time", &*self.now.1),
                ("event_date", &self.date.1),
                ("page_category", category),
            ] {
                for part in [",\"", name, "\":\"", text, "\""] {
                    value.extend_from_slice(part.as_bytes());
                }
            }
            value.push(b'}');
        });
        self.lake.append(event, now, record.partition, record.offset);
        let partition = record.partition as usize;
        if self.positions.len() <= partition {
            self.positions.resize(partition + 1, 0);
        }
        self.positions[partition] = record.offset + 1;
    }

    fn send(&mut self, last: bool) {
        self.enriched.send(&self.producer);
        self.producer.poll(Duration::ZERO);
        if !last && self.committed.elapsed() < COMMIT_EVERY {
            return;
        }
        // The positions would wait in the queue behind the records.
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::from_millis(1));
        }
        let mut positions = TopicPartitionList::new();
        for (partition, &next) in self.positions.iter().enumerate() {
            positions
                .add_partition_offset(&self.topic, partition as i32, Offset::Offset(next))
                .expect("a position");
        }
        let group = self.consumer.group_metadata().expect("the consumer has a group");
        self.producer
            .send_offsets_to_transaction(&positions, &group, WAIT)
            .expect("the positions are sent");
        self.producer.commit_transaction(WAIT).expect("a commit");
        if !last {
            self.producer.begin_transaction().expect("the next transaction");
        }
        self.committed = Instant::now();
    }
}

/// `2026-01-31`, from days since 1970, in a calendar whose years begin with March.
fn date(days: i64) -> String {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    format!("{:04}-{month:02}-{day:02}", year_of_era + era * 400 + i64::from(month <= 2))
}

fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", variable("BENCH_BOOTSTRAP"));
    config
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; see benches/peers/README.md"))
}
