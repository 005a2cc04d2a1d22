//! Faults of the catalogue that a broker need not be taken down for.

use rdkafka::admin::{AdminOptions, NewPartitions};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use streamkit::connector::kafka::{KafkaSource, KafkaTarget, Start};
use streamkit::connector::{Commit, Source, Wake};
use streamkit::time::{Clock, SystemClock, Timestamp, millis, seconds};
use streamkit::{Batch, Error, ErrorKind};

use super::sink::{Setup, claim, lines, progress};
use super::support::{
    Reading, admin, broker, config, create, create_as, producer, send, unique, wait,
};

/// Waits until no transaction is open in the topic.
fn wait_until_nothing_is_open(setup: &Setup) {
    let ends = |committed| -> u64 {
        let source =
            KafkaSource::new(&setup.broker, setup.output.as_str()).read_committed(committed);
        let splits = source.splits(&[]).unwrap();
        splits.iter().map(|split| source.end(split).unwrap()).sum()
    };
    let start = SystemClock::new();
    while ends(true) != ends(false) {
        assert!(start.elapsed() < seconds(60), "the transaction is still open");
        std::thread::sleep(millis(100));
    }
}

/// What a commit that must not work says.
fn refused(commit: Result<Commit, Error>) -> Option<Error> {
    match commit {
        Ok(Commit::Done) => panic!("it was committed"),
        Ok(Commit::Unknown) => None,
        Err(error) => Some(error),
    }
}

#[test]
fn f35_a_transaction_that_ran_out_is_written_again_and_is_no_take_over() {
    let Some(broker) = broker("f35") else { return };
    let mut setup = Setup::new(broker);
    setup.target =
        setup.target.clone().set("transaction.timeout.ms", "1000").set("socket.timeout.ms", "1000");
    let mut writer = setup.writer();
    writer.recover(&claim("l")).unwrap();
    writer.write(&lines(&["a1"])).unwrap();
    assert_eq!(writer.commit(&progress(1)).unwrap(), Commit::Done);
    writer.write(&lines(&["b1"])).unwrap();
    std::thread::sleep(millis(1_500));
    wait_until_nothing_is_open(&setup);
    if let Some(error) = refused(writer.commit(&progress(2))) {
        assert!(error.is_retriable(), "{error}");
        assert!(error.to_string().contains("transaction.timeout.ms"), "{error}");
    }
    assert_eq!(writer.recover(&claim("l")).unwrap(), Some(progress(1)));
    writer.write(&lines(&["b1"])).unwrap();
    assert_eq!(writer.commit(&progress(2)).unwrap(), Commit::Done);
    assert_eq!(setup.rows(), ["a1", "b1"]);
}

#[test]
fn f35_f37_a_process_that_comes_back_late_leaves_the_new_owner_alone() {
    let Some(broker) = broker("f35 zombie") else { return };
    let mut setup = Setup::new(broker);
    setup.target =
        setup.target.clone().set("transaction.timeout.ms", "1000").set("socket.timeout.ms", "1000");
    let mut late = setup.writer();
    late.recover(&claim("l")).unwrap();
    late.write(&lines(&["a1"])).unwrap();
    late.commit(&progress(1)).unwrap();
    late.write(&lines(&["zombie"])).unwrap();
    std::thread::sleep(millis(1_500));
    wait_until_nothing_is_open(&setup);

    let mut owner = setup.writer();
    assert_eq!(owner.recover(&claim("l")).unwrap(), Some(progress(1)));
    if let Some(error) = refused(late.commit(&progress(2))) {
        assert!(error.is_retriable(), "{error}");
    }
    let error = late.recover(&claim("l")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert!(error.to_string().contains("taken over by another process"), "{error}");
    // It has looked, and not touched: the owner's producer is as good as before.
    owner.write(&lines(&["b1"])).unwrap();
    assert_eq!(owner.commit(&progress(2)).unwrap(), Commit::Done);
    assert_eq!(setup.rows(), ["a1", "b1"]);
}

#[test]
fn f36_a_transaction_timeout_above_the_brokers_is_said_at_start() {
    let Some(broker) = broker("f36") else { return };
    let mut setup = Setup::new(broker);
    setup.target = setup.target.clone().set("transaction.timeout.ms", "3600000");
    let error = setup.writer().recover(&claim("l")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User, "{error}");
    for part in ["transaction.timeout.ms is 3600000", "transaction.max.timeout.ms", "lower"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[test]
fn f47_progress_that_disappears_while_the_job_runs_stops_it() {
    let Some(broker) = broker("f47") else { return };
    let setup = Setup::new(broker);
    let mut writer = setup.writer();
    writer.recover(&claim("l")).unwrap();
    writer.write(&lines(&["a1"])).unwrap();
    assert_eq!(writer.commit(&progress(1)).unwrap(), Commit::Done);
    let topic = setup.target.progress_topic();
    wait(admin(&setup.broker).delete_topics(&[&topic], &AdminOptions::new())).unwrap();
    recreate(&setup.broker, &topic);
    let error = writer.recover(&claim("l")).unwrap_err();
    assert!(!error.is_retriable(), "{error}");
    for part in [topic.as_str(), "job/lines", "deleted"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

/// Creates a topic whose deletion may not be over yet.
pub(crate) fn recreate(broker: &str, topic: &str) {
    let start = SystemClock::new();
    while KafkaSource::new(broker, topic).splits(&[]).is_ok() {
        assert!(start.elapsed() < seconds(20), "the topic is still listed");
    }
    create_as(broker, topic, 1, &[]);
}

#[test]
fn f53_a_full_queue_slows_the_writer_down_and_loses_nothing() {
    let Some(broker) = broker("f53") else { return };
    let mut setup = Setup::new(broker);
    setup.target = setup.target.clone().set("queue.buffering.max.messages", "100");
    let mut writer = setup.writer();
    writer.recover(&claim("l")).unwrap();
    let rows: Vec<String> = (0..20_000).map(|n| format!("{n:05}")).collect();
    let texts: Vec<&str> = rows.iter().map(String::as_str).collect();
    writer.write(&lines(&texts)).unwrap();
    assert_eq!(writer.commit(&progress(20_000)).unwrap(), Commit::Done);
    // The marker of a commit comes to each partition by itself, and a busy broker takes its time.
    for _ in 0..100 {
        if setup.rows().len() >= rows.len() {
            break;
        }
        std::thread::sleep(millis(100));
    }
    assert!(setup.rows() == rows, "{} rows instead of {}", setup.rows().len(), rows.len());
}

#[test]
fn f08_a_record_that_only_the_broker_finds_too_large_is_named_and_nothing_is_committed() {
    let Some(broker) = broker("f08") else { return };
    let setup = Setup::new(broker);
    let mut writer = setup.writer();
    writer.recover(&claim("l")).unwrap();
    // Noise, so that compression does not help: within the client's bound, and not the topic's.
    let mut state = 1u64;
    let noise: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + ((state >> 33) % 95) as u8)
    })
    .take(3_000_000)
    .collect();
    let written = writer.write(&lines(&["small", &noise]));
    let error = written.and_then(|()| writer.commit(&progress(2)).map(|_| ())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User, "{error}");
    let bytes = (noise.len() + 1).to_string();
    for part in [setup.output.as_str(), bytes.as_str(), "max.message.bytes", "2065536"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert!(!error.to_string().contains(&noise[..20]));
    assert_eq!(writer.recover(&claim("l")).unwrap(), None);
    assert!(setup.rows().is_empty());
}

/// A topic that was told to take timestamps of the future has outputs that take them, too; one that
/// was made by somebody else may not, and then the error says what to set.
#[test]
fn timestamps_that_the_input_takes_are_taken_by_its_outputs() {
    let Some(broker) = broker("timestamps") else { return };
    let far = Timestamp::from_millis(4_102_444_800_000).unwrap();
    let row = || Batch::new(vec!["2100".to_owned()], vec![far]);
    let mut setup = Setup::new(broker);
    let settings = [("message.timestamp.after.max.ms", "9223372036854775807")];
    let input = create(&setup.broker, "future", 1, &settings);
    setup.target = KafkaTarget::new(&setup.broker, unique("group")).topics_like(&input);
    let mut writer = setup.writer();
    writer.recover(&claim("l")).unwrap();
    writer.write(&row()).unwrap();
    assert_eq!(writer.commit(&progress(1)).unwrap(), Commit::Done);
    assert_eq!(setup.rows(), ["2100"]);

    setup.output = create(&setup.broker, "strict", 1, &[]);
    let mut writer = setup.writer();
    let _ = writer.recover(&claim("l")).unwrap();
    let written = writer.write(&row());
    let error = written.and_then(|()| writer.commit(&progress(2)).map(|_| ())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User, "{error}");
    for part in [setup.output.as_str(), "message.timestamp.after.max.ms"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[test]
fn f43_a_new_partition_is_read_from_its_first_record_beside_the_others() {
    let Some(broker) = broker("f43") else { return };
    let topic = create(&broker, "f43", 1, &[]);
    send(&producer(&broker, None), &topic, 0, &["old"]);
    let source = KafkaSource::new(&broker, topic.as_str()).start_at(Start::Latest);
    let known = source.splits(&[]).unwrap();
    let start = source.start(&known[0]).unwrap();
    assert_eq!(start, 1);
    let mut first = Reading::open(&source, 0, start);
    first.caught_up();
    let more = NewPartitions::new(&topic, 3);
    wait(admin(&broker).create_partitions([&more], &AdminOptions::new())).unwrap();
    let clock = SystemClock::new();
    let splits = loop {
        // As the runtime does: again and again, with what is known.
        let splits = source.splits(&known).unwrap();
        if splits.len() == 3 {
            break splits;
        }
        assert!(clock.elapsed() < seconds(20));
        std::thread::sleep(millis(50));
    };
    // Another one: the first does not know of the partition yet.
    let producer = producer(&broker, None);
    send(&producer, &topic, 2, &["early"]);
    let start = source.start(&splits[2]).unwrap();
    assert_eq!(start, 0, "what came before the job noticed the partition is not skipped");
    let mut new = Reading::open(&source, 2, start);
    let mut empty = Reading::open(&source, 1, source.start(&splits[1]).unwrap());
    new.caught_up();
    empty.caught_up();
    send(&producer, &topic, 0, &["a"]);
    send(&producer, &topic, 1, &["b"]);
    send(&producer, &topic, 2, &["c"]);
    for (reading, values) in [(&mut first, "a"), (&mut empty, "b"), (&mut new, "early,c")] {
        reading.until(values, |reading, _| reading.values().join(",") == values);
    }
}

#[test]
fn f41_a_known_topic_that_is_gone_is_not_told_to_be_created() {
    let Some(broker) = broker("f41") else { return };
    let topic = create(&broker, "f41", 1, &[]);
    let source = KafkaSource::new(&broker, topic.as_str());
    let known = source.splits(&[]).unwrap();
    wait(admin(&broker).delete_topics(&[&topic], &AdminOptions::new())).unwrap();
    let clock = SystemClock::new();
    let error = loop {
        if let Err(error) = source.splits(&known) {
            break error;
        }
        assert!(clock.elapsed() < seconds(20), "the topic is still listed");
    };
    assert_eq!(error.kind(), ErrorKind::User);
    for part in [topic.as_str(), "is gone", "anew"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[test]
fn f49_a_transaction_that_hangs_keeps_nobody_from_what_is_before_it() {
    let Some(broker) = broker("f49") else { return };
    let topic = create(&broker, "f49", 2, &[]);
    let hanging = producer(&broker, Some(&unique("f49.tx")));
    hanging.begin_transaction().unwrap();
    let plain = producer(&broker, None);
    send(&plain, &topic, 0, &["a"]);
    send(&hanging, &topic, 0, &["in doubt"]);
    send(&plain, &topic, 0, &["behind"]);
    send(&plain, &topic, 1, &["b"]);
    let source = KafkaSource::new(&broker, topic.as_str());
    let mut held = Reading::open(&source, 0, 0);
    let mut free = Reading::open(&source, 1, 0);
    free.caught_up();
    held.until("what is before it", |reading, _| reading.next == 1);
    assert_eq!((held.values().join(","), held.reader.lag()), ("a".to_owned(), Some(2)));
    hanging.abort_transaction(seconds(10)).unwrap();
    held.caught_up();
    assert_eq!(held.values(), ["a", "behind"]);
    // The next reader sees the same, from the middle of it as well.
    let split = source.splits(&[]).unwrap().remove(0);
    let end = source.end(&split).unwrap();
    assert!(source.open(&split, end, Wake::new(|| ())).is_ok());
    let mut middle = Reading::open(&source, 0, 1);
    middle.caught_up();
    assert_eq!((middle.values().join(","), middle.next), ("behind".to_owned(), end));
}

/// More than one answer holds (`fetch.max.bytes`, 16 MB), among small ones.
#[test]
fn f06_a_record_larger_than_a_fetch_is_read() {
    let Some(broker) = broker("f06") else { return };
    let topic = create(&broker, "f06", 1, &[("max.message.bytes", "20000000")]);
    let producer: BaseProducer =
        config(&broker).set("message.max.bytes", "20000000").create().unwrap();
    // No two of its bytes are the same as the two before, lest somebody packs them.
    let large: Vec<u8> =
        (0..18_000_000u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    for value in [&b"before"[..], &large, b"after"] {
        let record = BaseRecord::<[u8], [u8]>::to(&topic).partition(0).payload(value);
        producer.send(record).map_err(|(e, _)| e).unwrap();
    }
    producer.flush(seconds(30)).unwrap();
    let mut reading = Reading::open(&KafkaSource::new(&broker, topic.as_str()), 0, 0);
    reading.caught_up();
    let found: Vec<_> = reading.records.iter().map(|r| r.value.as_deref().unwrap()).collect();
    assert!(found == [&b"before"[..], &large, b"after"]);
}

/// Batches of kilobytes that become 20 and 80 megabytes: each is unpacked as a whole, so there is a limit.
#[test]
fn f07_a_batch_that_expands_hugely_is_read_or_names_the_limit() {
    let Some(broker) = broker("f07") else { return };
    let topic = create(&broker, "f07", 2, &[]);
    let producer: BaseProducer = config(&broker)
        .set("message.max.bytes", "200000000")
        .set("batch.size", "200000000")
        .set("linger.ms", "5000")
        .set("compression.type", "zstd")
        .create()
        .unwrap();
    let zeros = vec![0; 2_000_000];
    for (partition, records) in [(0, 10), (1, 40)] {
        for _ in 0..records {
            let record = BaseRecord::<[u8], [u8]>::to(&topic).partition(partition).payload(&zeros);
            producer.send(record).map_err(|(e, _)| e).unwrap();
        }
    }
    // The topic takes a megabyte at a time: packed, that is what they are.
    producer.flush(seconds(30)).unwrap();
    let read = |source: &KafkaSource, partition, expected: usize| {
        let mut reading = Reading::open(source, partition, 0);
        reading.caught_up();
        let sizes = reading.records.iter().map(|r| r.value.as_ref().unwrap().len());
        assert_eq!(sizes.collect::<Vec<_>>(), vec![2_000_000; expected]);
    };
    let source = KafkaSource::new(&broker, topic.as_str());
    read(&source, 0, 10);
    let error = Reading::open(&source, 1, 0).failure().to_string();
    assert!(
        error.contains("from offset 0") && error.contains("receive.message.max.bytes"),
        "{error}"
    );
    let roomy = KafkaSource::new(&broker, topic.as_str());
    read(&roomy.set("receive.message.max.bytes", "400000000"), 1, 40);
}
