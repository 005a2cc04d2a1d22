//! Writing to a topic, exactly once.

use std::collections::BTreeMap;

use rdkafka::admin::{AdminOptions, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use streamkit::connector::kafka::{KafkaSink, KafkaTarget, TopicSettings};
use streamkit::connector::{Claim, Commit, Point, Progress, Sink, SinkContext, SinkWriter};
use streamkit::time::{Timestamp, millis, seconds};
use streamkit::{Batch, ErrorKind, Position, SplitId};

use super::support::{admin, broker, config, create, producer, read_topic, unique, wait};

/// A sink of lines that carries the row's time as the record's timestamp.
pub(crate) struct Setup {
    pub(crate) broker: String,
    pub(crate) input: String,
    pub(crate) output: String,
    pub(crate) target: KafkaTarget,
    runtime: tokio::runtime::Runtime,
}

impl Setup {
    pub(crate) fn new(broker: String) -> Self {
        let input = create(&broker, "in", 3, &[("max.message.bytes", "2000000")]);
        let target = KafkaTarget::new(&broker, unique("group")).topics_like(&input);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        Self { broker, input, output: unique("out"), target, runtime: runtime.unwrap() }
    }

    pub(crate) fn context(&self, instance: &str) -> SinkContext {
        SinkContext {
            job: "job".to_owned(),
            sink: "lines".to_owned(),
            instance: instance.to_owned(),
            runtime: self.runtime.handle().clone(),
        }
    }

    pub(crate) fn writer_of(&self, instance: &str) -> Box<dyn SinkWriter<String>> {
        let mut sink = KafkaSink::new(
            self.target.clone(),
            self.output.as_str(),
            |line: &String, time, record| {
                record.set_key(&line.as_bytes()[..1]);
                record.set_value(line.as_bytes());
                record.set_timestamp(time);
                record.add_header("length", Some(line.len().to_string().as_bytes()));
                record.add_header("nothing", None);
            },
        );
        sink.open(&self.context(instance)).unwrap()
    }

    pub(crate) fn writer(&self) -> Box<dyn SinkWriter<String>> {
        self.writer_of("0")
    }

    pub(crate) fn rows(&self) -> Vec<String> {
        let mut rows: Vec<String> = read_topic(&self.broker, &self.output, true)
            .iter()
            .map(|r| String::from_utf8(r.value.clone().unwrap().to_vec()).unwrap())
            .collect();
        rows.sort();
        rows
    }
}

pub(crate) fn claim(lineage: &str) -> Claim {
    Claim {
        job: "job".to_owned(),
        sink: "lines".to_owned(),
        lineage: lineage.to_owned(),
        take_over: false,
    }
}

pub(crate) fn lines(lines: &[&str]) -> Batch<String> {
    let time = Timestamp::from_millis(1_700_000_000_123).unwrap();
    Batch::new(lines.iter().map(|&l| l.to_owned()).collect(), vec![time; lines.len()])
}

pub(crate) fn progress(next: u64) -> Progress {
    let position = Position { next, ..Position::default() };
    let point = Point::Positions(BTreeMap::from([(SplitId::new("in/0"), position)]));
    Progress { point, rows: next }
}

#[test]
fn d9_rows_and_progress_are_one_step() {
    let Some(broker) = broker("d9 rows and progress") else { return };
    let setup = Setup::new(broker);
    let mut writer = setup.writer();
    assert_eq!(writer.recover(&claim("l")).unwrap(), None);
    writer.write(&lines(&["a1", "b1"])).unwrap();
    assert!(setup.rows().is_empty(), "visible before the commit");
    assert_eq!(writer.commit(&progress(2)).unwrap(), Commit::Done);
    assert_eq!(setup.rows(), ["a1", "b1"]);
    writer.write(&lines(&["c1"])).unwrap();
    assert_eq!(writer.commit(&progress(3)).unwrap(), Commit::Done);
    // Progress without rows is a commit as well.
    assert_eq!(writer.commit(&progress(9)).unwrap(), Commit::Done);
    // Not committed, and so it is neither there nor counted.
    writer.write(&lines(&["d1"])).unwrap();
    drop(writer);

    let mut writer = setup.writer();
    assert_eq!(writer.recover(&claim("l")).unwrap(), Some(progress(9)));
    assert_eq!(setup.rows(), ["a1", "b1", "c1"]);
    writer.write(&lines(&["d2"])).unwrap();
    assert_eq!(writer.commit(&progress(10)).unwrap(), Commit::Done);
    assert_eq!(setup.rows(), ["a1", "b1", "c1", "d2"]);
    let all = read_topic(&setup.broker, &setup.output, false);
    assert!(all.len() >= 4, "an aborted row may be seen by those who read everything");
}

#[test]
fn d9_recover_drops_what_is_not_committed() {
    let Some(broker) = broker("d9 recover") else { return };
    let setup = Setup::new(broker);
    let mut writer = setup.writer();
    writer.recover(&claim("l")).unwrap();
    writer.write(&lines(&["a1"])).unwrap();
    writer.commit(&progress(1)).unwrap();
    writer.write(&lines(&["lost"])).unwrap();
    // As the runtime does after an error or an unknown outcome.
    assert_eq!(writer.recover(&claim("l")).unwrap(), Some(progress(1)));
    writer.write(&lines(&["a2"])).unwrap();
    assert_eq!(writer.commit(&progress(2)).unwrap(), Commit::Done);
    assert_eq!(setup.rows(), ["a1", "a2"]);
}

#[test]
fn d9_f34_a_second_writer_fences_the_first() {
    let Some(broker) = broker("d9 fence") else { return };
    let setup = Setup::new(broker);
    let mut first = setup.writer();
    first.recover(&claim("l")).unwrap();
    first.write(&lines(&["a1"])).unwrap();
    first.commit(&progress(1)).unwrap();
    first.write(&lines(&["zombie"])).unwrap();

    let mut second = setup.writer();
    assert_eq!(second.recover(&claim("l")).unwrap(), Some(progress(1)));
    let error = first.commit(&progress(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert!(error.to_string().contains("instance"), "{error}");
    assert_eq!(first.write(&lines(&["zombie"])).unwrap_err().kind(), ErrorKind::Fenced);
    // It must not take the sink back either, however it comes to try.
    let error = first.recover(&claim("l")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");

    let commit = |writer: &mut Box<dyn SinkWriter<String>>| {
        writer.write(&lines(&["b1"]))?;
        writer.commit(&progress(2))
    };
    // The attempt to take it back has cost the second one its producer, not its claim.
    if commit(&mut second).is_err() {
        assert_eq!(second.recover(&claim("l")).unwrap(), Some(progress(1)));
        assert_eq!(commit(&mut second).unwrap(), Commit::Done);
    }
    assert_eq!(setup.rows(), ["a1", "b1"]);
}

#[test]
fn d6_progress_of_another_lineage_is_refused() {
    let Some(broker) = broker("d6") else { return };
    let setup = Setup::new(broker);
    let mut writer = setup.writer();
    writer.recover(&claim("first")).unwrap();
    // What was only claimed may be claimed again, by whomever: nothing would be lost.
    assert_eq!(setup.writer().recover(&claim("other")).unwrap(), None);
    let mut writer = setup.writer();
    writer.recover(&claim("first")).unwrap();
    writer.commit(&progress(1)).unwrap();
    drop(writer);
    let error = setup.writer().recover(&claim("second")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    for part in ["first", "second", "job/lines", setup.target.progress_topic().as_str()] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!(setup.writer().recover(&claim("first")).unwrap(), Some(progress(1)));
}

/// A record in a transaction that stays open.
fn open_transaction(producer: &BaseProducer, topic: &str) {
    producer.begin_transaction().unwrap();
    let record = BaseRecord::<str, str>::to(topic).partition(0).key("other").payload("in doubt");
    producer.send(record).map_err(|(e, _)| e).unwrap();
    producer.flush(seconds(10)).unwrap();
}

#[test]
fn d9_another_sinks_open_transaction_hides_no_progress() {
    let Some(broker) = broker("d9 open transaction") else { return };
    let setup = Setup::new(broker);
    setup.target.ensure_topics(&[]).unwrap();
    let progress_topic = setup.target.progress_topic();
    // Another sink's transaction, open from before our commit until some time after our restart.
    let other = producer(&setup.broker, Some(&unique("other")));
    open_transaction(&other, &progress_topic);

    // It is not waited for: it may be of a sink of the same job, whose claim will end it.
    let claim_now = |writer: &mut Box<dyn SinkWriter<String>>| {
        let error = writer.recover(&claim("l")).unwrap_err();
        assert!(error.is_retriable(), "{error}");
        assert!(error.to_string().contains("another sink's transaction is open"), "{error}");
    };
    let mut writer = setup.writer();
    claim_now(&mut writer);
    other.commit_transaction(seconds(10)).unwrap();
    writer.recover(&claim("l")).unwrap();
    writer.commit(&progress(5)).unwrap();

    let other = producer(&setup.broker, Some(&unique("other")));
    open_transaction(&other, &progress_topic);
    writer.commit(&progress(6)).unwrap();
    // A writer that comes back while its job runs has nobody to wait for but others, and does.
    let abort_later = std::thread::spawn(move || {
        std::thread::sleep(millis(1_500));
        other.abort_transaction(seconds(10)).unwrap();
    });
    assert_eq!(writer.recover(&claim("l")).unwrap(), Some(progress(6)));
    abort_later.join().unwrap();
    drop(writer);

    let other = producer(&setup.broker, Some(&unique("other")));
    open_transaction(&other, &progress_topic);
    let mut writer = setup.writer();
    claim_now(&mut writer);
    other.abort_transaction(seconds(10)).unwrap();
    assert_eq!(writer.recover(&claim("l")).unwrap(), Some(progress(6)));
}

#[test]
fn records_arrive_as_they_were_encoded() {
    let Some(broker) = broker("encoded") else { return };
    let setup = Setup::new(broker);
    let mut writer = setup.writer();
    writer.recover(&claim("l")).unwrap();
    let big = "z".repeat(1_900_000);
    writer.write(&lines(&["héllo", &big])).unwrap();
    writer.commit(&progress(2)).unwrap();

    let partitions = setup.target.topic_settings(&setup.output).unwrap().partitions;
    assert_eq!(partitions, setup.target.topic_settings(&setup.input).unwrap().partitions);
    let consumer: BaseConsumer = config(&setup.broker)
        .set("group.id", unique("check"))
        .set("fetch.message.max.bytes", "4000000")
        .create()
        .unwrap();
    {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&setup.output, 0, partitions as i32 - 1);
        list.set_all_offsets(Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
    }
    let mut seen = BTreeMap::new();
    for _ in 0..200 {
        if seen.len() == 2 {
            break;
        }
        let Some(message) = consumer.poll(millis(100)) else { continue };
        let message = message.unwrap();
        let headers = message.headers().unwrap();
        assert_eq!((headers.count(), headers.get(1).key), (2, "nothing"));
        assert_eq!((headers.get(0).key, headers.get(1).value), ("length", None));
        assert_eq!(message.timestamp().to_millis(), Some(1_700_000_000_123));
        let length = std::str::from_utf8(headers.get(0).value.unwrap()).unwrap().to_owned();
        seen.insert(message.key().unwrap().to_vec(), (message.payload().unwrap().len(), length));
    }
    let expected = [("h", 6), ("z", 1_900_000)]
        .map(|(key, length)| (key.as_bytes().to_vec(), (length, length.to_string())));
    assert_eq!(seen, BTreeMap::from(expected));
}

#[test]
fn f08_a_record_that_is_too_large_is_the_users_error_and_not_printed() {
    let Some(broker) = broker("too large") else { return };
    let setup = Setup::new(broker);
    let mut writer = setup.writer();
    writer.recover(&claim("l")).unwrap();
    let error = writer.write(&lines(&[&"canary".repeat(2_000_000)])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User);
    assert!(error.to_string().contains("max.message.bytes"), "{error}");
    assert!(!error.to_string().contains("canary"));
}

#[test]
fn topics_are_created_like_the_input_and_checked() {
    let Some(broker) = broker("topics") else { return };
    let setup = Setup::new(broker);
    setup.target.ensure_topics(&[&setup.output]).unwrap();
    setup.target.ensure_topics(&[&setup.output]).unwrap();
    assert_eq!(
        setup.target.topic_settings(&setup.output).unwrap(),
        TopicSettings {
            partitions: 3,
            max_message_bytes: 2_065_536,
            max_timestamp_ahead_ms: Some(3_600_000),
            compacted: false,
        }
    );
    let progress_topic = setup.target.progress_topic();
    let settings = setup.target.topic_settings(&progress_topic).unwrap();
    assert!(settings.compacted && settings.partitions == 1);

    let strict = KafkaTarget::new(&setup.broker, unique("group"));
    let error = strict.ensure_topics(&["it.there.is.none"]).unwrap_err().to_string();
    assert!(error.contains("it.there.is.none") && error.contains("--create"), "{error}");

    // A progress topic that forgets is refused.
    let resource = ResourceSpecifier::Topic(&progress_topic);
    let alter = rdkafka::admin::AlterConfig::new(resource).set("cleanup.policy", "delete");
    wait(admin(&setup.broker).alter_configs([&alter], &AdminOptions::new())).unwrap();
    let error = setup.target.ensure_topics(&[]).unwrap_err().to_string();
    assert!(error.contains("cleanup.policy=compact"), "{error}");
}
