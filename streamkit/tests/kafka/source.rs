//! Reading a topic.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminOptions, NewPartitions};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use streamkit::connector::kafka::{KafkaSource, Start};
use streamkit::connector::{RawRecord, ReadStatus, Source, Wake};
use streamkit::time::{Clock, SystemClock, Timestamp, millis, seconds};
use streamkit::{ErrorKind, SplitId};

use super::support::{
    Reading, admin, broker, config, create, create_as, producer, send, unique, wait,
};

#[test]
fn reads_everything_with_nulls_keys_and_timestamps() {
    let Some(broker) = broker("reads_everything") else { return };
    let topic = create(&broker, "all", 2, &[]);
    let producer = producer(&broker, None);
    let record = || BaseRecord::<[u8], [u8]>::to(&topic).partition(1);
    let records = [
        record().key(b"k").payload(b"v").timestamp(1_700_000_000_123),
        record().key(b"tombstone"),
        record().payload(b"no key"),
        record().key(b"").payload(b""),
    ];
    for record in records {
        producer.send(record).map_err(|(e, _)| e).unwrap();
    }
    producer.flush(seconds(10)).unwrap();

    let source = KafkaSource::new(&broker, topic.as_str());
    let splits = source.splits(&[]).unwrap();
    let ids: Vec<String> = splits.iter().map(|s| s.id.to_string()).collect();
    assert_eq!(ids, [format!("{topic}/0"), format!("{topic}/1")]);
    assert_eq!((source.start(&splits[1]).unwrap(), source.end(&splits[1]).unwrap()), (0, 4));

    let mut reading = Reading::open(&source, 1, 0);
    reading.caught_up();
    let parts = |r: &RawRecord| {
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        (r.key.as_deref().map(text), r.value.as_deref().map(text), r.offset, r.partition)
    };
    let some = |s: &str| Some(s.to_owned());
    assert_eq!(
        reading.records.iter().map(parts).collect::<Vec<_>>(),
        [
            (some("k"), some("v"), 0, 1),
            (some("tombstone"), None, 1, 1),
            (None, some("no key"), 2, 1),
            (some(""), some(""), 3, 1),
        ]
    );
    let time = reading.records[0].timestamp.unwrap();
    assert_eq!(time, Timestamp::from_millis(1_700_000_000_123).unwrap());
    assert!(reading.records[1].timestamp.is_some());
    assert_eq!(reading.reader.lag(), Some(0));
    // The empty partition is at its end, too.
    Reading::open(&source, 0, 0).caught_up();
}

#[test]
fn resumes_at_a_position_and_sees_what_comes_later() {
    let Some(broker) = broker("resumes") else { return };
    let topic = create(&broker, "resume", 1, &[]);
    let producer = producer(&broker, None);
    send(&producer, &topic, 0, &["a", "b", "c", "d"]);
    let source = KafkaSource::new(&broker, topic.as_str()).start_at(Start::Latest);
    let split = source.splits(&[]).unwrap().remove(0);
    assert_eq!(source.start(&split).unwrap(), 4);

    let mut reading = Reading::open(&source, 0, 2);
    reading.caught_up();
    assert_eq!(reading.values(), ["c", "d"]);
    send(&producer, &topic, 0, &["e"]);
    reading.until("the new one", |reading, _| reading.records.len() == 3);
    reading.caught_up();
    assert_eq!((reading.values().join(""), reading.next), ("cde".to_owned(), 5));
}

#[test]
fn d5_one_partition_is_read_twice_at_once() {
    let Some(broker) = broker("read twice") else { return };
    let topic = create(&broker, "twice", 1, &[]);
    send(&producer(&broker, None), &topic, 0, &["a", "b", "c"]);
    let source = KafkaSource::new(&broker, topic.as_str());
    let (mut main, mut behind) = (Reading::open(&source, 0, 2), Reading::open(&source, 0, 0));
    main.caught_up();
    behind.caught_up();
    assert_eq!((main.values().join(""), behind.values().join("")), ("c".into(), "abc".into()));
    drop(main);
    drop(behind);
    let mut again = Reading::open(&source, 0, 1);
    again.caught_up();
    assert_eq!(again.values(), ["b", "c"]);
}

#[test]
fn t8_f49_the_end_is_certain_only_at_the_high_watermark() {
    let Some(broker) = broker("t8") else { return };
    let topic = create(&broker, "t8", 1, &[]);
    let committing = producer(&broker, Some(&unique("t8.tx")));
    committing.begin_transaction().unwrap();
    send(&committing, &topic, 0, &["1", "2", "3", "4", "5"]);
    committing.commit_transaction(seconds(10)).unwrap();

    let source = KafkaSource::new(&broker, topic.as_str());
    let split = source.splits(&[]).unwrap().remove(0);
    let mut reading = Reading::open(&source, 0, 0);
    reading.caught_up();
    // The control record has an offset, too, and the bounded run's end lies behind it.
    assert_eq!((reading.records.len(), reading.next), (5, 6));
    assert_eq!(source.end(&split).unwrap(), 6);

    // An open transaction: nothing to read, yet something is there, so this is not idleness.
    committing.begin_transaction().unwrap();
    send(&committing, &topic, 0, &["x", "y", "z"]);
    reading.until("doubt", |_, status| status == ReadStatus::Waiting);
    assert_eq!((source.end(&split).unwrap(), reading.next), (6, 6));
    assert_eq!(reading.reader.lag(), Some(3));
    // A second reader gets to the bounded end all the same.
    let mut bounded = Reading::open(&source, 0, 0);
    bounded.until("the end", |reading, _| reading.next == 6);
    assert_eq!(bounded.records.len(), 5);

    // Those who want to read open transactions can.
    let all = KafkaSource::new(&broker, topic.as_str()).read_committed(false);
    let mut uncommitted = Reading::open(&all, 0, 0);
    uncommitted.caught_up();
    assert_eq!((uncommitted.records.len(), uncommitted.next), (8, 9));

    committing.abort_transaction(seconds(10)).unwrap();
    reading
        .until("the end", |reading, status| status == ReadStatus::CaughtUp && reading.next == 10);
    assert_eq!(reading.records.len(), 5);
    assert_eq!(source.end(&split).unwrap(), 10);
}

#[test]
fn t8_an_end_stays_certain_for_as_long_as_the_broker_says_so() {
    let Some(broker) = broker("t8 again") else { return };
    let topic = create(&broker, "t8", 1, &[]);
    let producer = producer(&broker, None);
    send(&producer, &topic, 0, &["a"]);
    let source = KafkaSource::new(&broker, topic.as_str());
    let mut reading = Reading::open(&source, 0, 0);
    reading.caught_up();
    // Longer than an end is believed that is reported once only.
    let clock = SystemClock::new();
    while clock.elapsed() < seconds(12) {
        reading.until("nothing", |_, status| {
            assert_eq!(status, ReadStatus::CaughtUp, "{:?}", clock.elapsed());
            true
        });
        std::thread::sleep(millis(20));
    }
    // To ask again and again loses no record, and brings none twice.
    let values: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    for value in &values {
        send(&producer, &topic, 0, &[value]);
        std::thread::sleep(millis(10));
    }
    reading.caught_up();
    assert_eq!(reading.values()[1..], values);
}

#[test]
fn d10_a_bounded_run_reaches_its_end_on_every_partition() {
    let Some(broker) = broker("d10") else { return };
    let topic = create(&broker, "d10", 3, &[]);
    let producer = producer(&broker, Some(&unique("d10.tx")));
    for (partition, commit) in [(0, true), (1, false), (1, true), (0, false)] {
        producer.begin_transaction().unwrap();
        send(&producer, &topic, partition, &["a", "b"]);
        match commit {
            true => producer.commit_transaction(seconds(10)).unwrap(),
            false => producer.abort_transaction(seconds(10)).unwrap(),
        }
    }
    let source = KafkaSource::new(&broker, topic.as_str());
    for (i, split) in source.splits(&[]).unwrap().iter().enumerate() {
        let end = source.end(split).unwrap();
        assert_eq!(end, [6, 6, 0][i]);
        let mut reading = Reading::open(&source, i, 0);
        reading.until("the end", |reading, _| reading.next >= end);
        assert_eq!((reading.records.len(), reading.next), ([2, 2, 0][i], end));
    }
}

#[test]
fn f41_a_missing_topic_and_an_unreachable_broker_are_said_at_start() {
    let Some(broker) = broker("missing") else { return };
    let error = KafkaSource::new(&broker, "it.there.is.none").splits(&[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User);
    let text = error.to_string();
    for part in ["it.there.is.none", "--create --topic", broker.as_str()] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let clock = SystemClock::new();
    let error = KafkaSource::new("127.0.0.1:1", "a").splits(&[]).unwrap_err();
    assert!(error.is_retriable());
    assert!(error.to_string().contains("Connection refused"), "{error}");
    assert!(clock.elapsed() < seconds(30));
    let wrong = KafkaSource::new(&broker, "a").set("fetch.wait.max.ms", "soon");
    let error = wrong.splits(&[]).unwrap_err();
    assert!(error.to_string().contains("fetch.wait.max.ms"), "{error}");
}

#[test]
fn f44_f46_a_position_out_of_range_stops_with_a_clear_error() {
    let Some(broker) = broker("out of range") else { return };
    let topic = create(&broker, "range", 1, &[]);
    send(&producer(&broker, None), &topic, 0, &["a", "b", "c", "d"]);
    let source = KafkaSource::new(&broker, topic.as_str());
    let split = source.splits(&[]).unwrap().remove(0);
    let error = source.open(&split, 5, Wake::new(|| ())).err().unwrap().to_string();
    for part in [topic.as_str(), "partition 0", "offset 5", "0 to 4", "created again"] {
        assert!(error.contains(part), "{part}: {error}");
    }

    // What retention removes.
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Offset(3)).unwrap();
    wait(admin(&broker).delete_records(&list, &AdminOptions::new())).unwrap();
    let error = source.open(&split, 1, Wake::new(|| ())).err().unwrap().to_string();
    for part in ["offset 1", "3 to 4", "2 records", "retention", "anew"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(source.start(&split).unwrap(), 3);
    let mut reading = Reading::open(&source, 0, 3);
    reading.caught_up();
    assert_eq!(reading.values(), ["d"]);
}

#[test]
fn f44_retention_that_overtakes_a_reader_is_an_error_and_no_gap() {
    let Some(broker) = broker("overtaken") else { return };
    let topic = create(&broker, "overtaken", 1, &[]);
    let producer = producer(&broker, None);
    let value = "v".repeat(1_000);
    for i in 0..40_000 {
        let record = BaseRecord::<str, str>::to(&topic).partition(0).payload(&value);
        producer.send(record).map_err(|(e, _)| e).unwrap();
        if i % 1_000 == 0 {
            producer.flush(seconds(10)).unwrap();
        }
    }
    producer.flush(seconds(30)).unwrap();
    // More than what is fetched ahead, so that the reader has to ask for it again.
    let source = KafkaSource::new(&broker, topic.as_str()).buffer_bytes(1 << 20);
    let mut reading = Reading::open(&source, 0, 0);
    reading.until("some", |reading, _| !reading.records.is_empty());
    std::thread::sleep(millis(500));
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Offset(39_990)).unwrap();
    wait(admin(&broker).delete_records(&list, &AdminOptions::new())).unwrap();
    let error = reading.failure().to_string();
    for part in [topic.as_str(), "partition 0", "39990 to 40000", "retention"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(reading.records.iter().zip(0..).all(|(r, n)| r.offset == n), "a gap");
}

#[test]
fn f41_f42_a_topic_that_is_deleted_while_it_is_read_is_an_error() {
    let Some(broker) = broker("deleted") else { return };
    let topic = create(&broker, "deleted", 1, &[]);
    send(&producer(&broker, None), &topic, 0, &["a"]);
    let source = KafkaSource::new(&broker, topic.as_str());
    let known = source.splits(&[]).unwrap();
    let mut reading = Reading::open(&source, 0, 0);
    reading.caught_up();
    wait(admin(&broker).delete_topics(&[&topic], &AdminOptions::new())).unwrap();
    let start = SystemClock::new();
    while source.splits(&known).is_ok() {
        assert!(start.elapsed() < seconds(20), "the topic is still listed");
        std::thread::sleep(millis(50));
    }
    let error = reading.failure().to_string();
    assert!(error.contains(&topic), "{error}");

    // Another topic of the same name: every position would be in range, and yet wrong.
    create_as(&broker, &topic, 1, &[]);
    send(&producer(&broker, None), &topic, 0, &["b", "c"]);
    let error = source.splits(&known).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User);
    let text = error.to_string();
    for part in [topic.as_str(), known[0].memo.as_str(), "created again", "anew"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(KafkaSource::new(&broker, topic.as_str()).splits(&[]).unwrap().len(), 1);
}

#[test]
fn t8_f27_an_outage_voids_the_evidence_and_the_broker_s_return_restores_it() {
    // A broker within the process: the only kind that a test can take down.
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("outage", 1, 1).unwrap();
    let broker = cluster.bootstrap_servers();
    let producer = producer(&broker, None);
    send(&producer, "outage", 0, &["a", "b"]);
    let source = KafkaSource::new(&broker, "outage");
    let mut reading = Reading::open(&source, 0, 0);
    reading.caught_up();
    cluster.broker_down(1).unwrap();
    reading.until("doubt", |_, status| status == ReadStatus::Waiting);
    // Nothing is certain for as long as nothing answers.
    std::thread::sleep(millis(3_000));
    reading.until("doubt", |_, status| status == ReadStatus::Waiting);
    cluster.broker_up(1).unwrap();
    reading.caught_up();
    assert_eq!((reading.values().join(""), reading.next), ("ab".to_owned(), 2));
    send(&producer, "outage", 0, &["c"]);
    reading.until("the new one", |reading, _| reading.values().join("") == "abc");

    // Closing must not wait for a broker that is gone.
    cluster.broker_down(1).unwrap();
    let clock = SystemClock::new();
    drop((reading, source));
    assert!(clock.elapsed() < seconds(6));
}

#[test]
fn f50_a_wrong_password_is_said_at_start() {
    let Some(broker) = broker("wrong password") else { return };
    let source = KafkaSource::new(&broker, "a")
        .set("security.protocol", "SASL_PLAINTEXT")
        .set("sasl.mechanism", "PLAIN")
        .set("sasl.username", "somebody")
        .set("sasl.password", "canary");
    let error = source.splits(&[]).unwrap_err().to_string();
    assert!(error.contains("security") && error.contains(&broker), "{error}");
    assert!(!error.contains("canary"), "{error}");
}

#[test]
fn d14_f43_new_partitions_join_and_lost_ones_are_an_error() {
    let Some(broker) = broker("d14") else { return };
    let topic = create(&broker, "d14", 1, &[]);
    let source = KafkaSource::new(&broker, topic.as_str());
    let known = source.splits(&[]).unwrap();
    let more = NewPartitions::new(&topic, 2);
    wait(admin(&broker).create_partitions([&more], &AdminOptions::new())).unwrap();
    let start = SystemClock::new();
    let splits = loop {
        let splits = source.splits(&known).unwrap();
        if splits.len() == 2 {
            break splits;
        }
        assert!(start.elapsed() < seconds(20));
        std::thread::sleep(millis(50));
    };
    assert_eq!((&splits[0], splits[1].partition), (&known[0], 1));
    let mut lost = splits[1].clone();
    lost.id = SplitId::new(format!("{topic}/7"));
    let error = source.splits(&[lost]).unwrap_err().to_string();
    assert!(error.contains(&format!("{topic}/7")), "{error}");
}

#[test]
fn f45_the_group_gets_a_copy_of_the_positions_and_is_never_asked() {
    let Some(broker) = broker("group") else { return };
    let topic = create(&broker, "group", 2, &[]);
    let group = unique("group");
    let source = KafkaSource::new(&broker, topic.as_str()).group(&group);
    let splits = source.splits(&[]).unwrap();
    source.committed(&[(splits[0].id.clone(), 3), (splits[1].id.clone(), 8)]);
    drop(source);
    // Whatever the group has, has expired, or was reset to.
    let source = KafkaSource::new(&broker, topic.as_str()).group(&group);
    assert_eq!(source.start(&splits[0]).unwrap(), 0);
    drop(source);
    let consumer: BaseConsumer = config(&broker).set("group.id", &group).create().unwrap();
    let mut offsets = BTreeMap::new();
    {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&topic, 0, 1);
        let stored = consumer.committed_offsets(list, seconds(10)).unwrap();
        for element in stored.elements() {
            offsets.insert(element.partition(), element.offset());
        }
    }
    assert_eq!(offsets, BTreeMap::from([(0, Offset::Offset(3)), (1, Offset::Offset(8))]));
}

#[test]
fn a_reader_that_is_not_read_is_bounded_and_goes_on_later() {
    let Some(broker) = broker("back-pressure") else { return };
    let topic = create(&broker, "pressure", 2, &[]);
    let producer = producer(&broker, None);
    let value = "v".repeat(1_000);
    for i in 0..20_000 {
        let record = BaseRecord::<str, str>::to(&topic).partition(i % 2).payload(&value);
        producer.send(record).map_err(|(e, _)| e).unwrap();
        if i % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(seconds(30)).unwrap();
    // Each partition has some 10 MB, and each queue may have 512 KiB.
    let source = KafkaSource::new(&broker, topic.as_str()).buffer_bytes(1 << 20);
    let mut slow = Reading::open(&source, 0, 0);
    let mut fast = Reading::open(&source, 1, 0);
    fast.caught_up();
    assert_eq!(fast.records.len(), 10_000);
    slow.until("caught up", |reading, status| {
        std::thread::sleep(millis(5));
        status == ReadStatus::CaughtUp && reading.records.len() == 10_000
    });
    assert!(slow.records.iter().zip(0..).all(|(r, n)| r.offset == n), "a gap or a repetition");
}

/// The client takes the position after the report of an end for the one that it goes on with when a
/// partition was paused, which leaves the next record out.
#[test]
fn a_partition_that_was_paused_at_its_end_goes_on_with_the_very_next_record() {
    let Some(broker) = broker("paused-at-end") else { return };
    let topic = create(&broker, "paused-at-end", 1, &[]);
    let producer = producer(&broker, None);
    let send = |from: usize, to: usize| {
        for n in from..to {
            let value = format!("{n:0100}");
            let record = BaseRecord::<str, str>::to(&topic).partition(0).payload(&value);
            producer.send(record).map_err(|(e, _)| e).unwrap();
            if n % 200 == 0 {
                producer.flush(seconds(10)).unwrap();
            }
        }
        producer.flush(seconds(10)).unwrap();
    };
    send(0, 4_500);
    // The queue may have 256 KiB, is full after some fetches, and twice as full with the last ones.
    let source = KafkaSource::new(&broker, topic.as_str())
        .buffer_bytes(1)
        .set("fetch.message.max.bytes", "100000");
    let mut reading = Reading::open(&source, 0, 0);
    std::thread::sleep(millis(500));
    send(4_500, 4_510);
    std::thread::sleep(millis(100));
    reading.until("read", |reading, status| {
        status == ReadStatus::CaughtUp && reading.records.len() >= 4_509
    });
    assert!(reading.records.iter().zip(0..).all(|(r, n)| r.offset == n), "a gap");
    assert_eq!(reading.records.len(), 4_510);
}
