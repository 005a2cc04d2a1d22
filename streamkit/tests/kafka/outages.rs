//! A broker that is stopped, killed or frozen, and answers that come late, damaged or not at all.
//! What runs here is the real thing: a broker for each test, and a proxy in front of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rdkafka::admin::AdminOptions;
use rdkafka::producer::{BaseRecord, Producer};
use streamkit::connector::kafka::{KafkaSink, KafkaSource, KafkaTarget};
use streamkit::connector::{Commit, Progress, RawRecord, ReadStatus, SinkWriter, Source};
use streamkit::time::{Clock, SystemClock, Timestamp, WatermarkStrategy, millis, seconds};
use streamkit::{Checkpoints, ErrorKind, Job, JobHandle, JobState, RunConfig};

use super::faults::recreate;
use super::own_broker::OwnBroker;
use super::proxy::{END_TXN, FETCH};
use super::sink::{Setup, claim, lines, progress};
use super::support::{Reading, admin, config, create, producer, read_topic, send, unique, wait};

type Writer = Box<dyn SinkWriter<String>>;

/// Writes and commits a row as the runtime does: after an error that may pass, and after an unknown
/// outcome, it recovers and writes again what is not there.
fn deliver(writer: &mut Writer, row: &str, had: Option<&Progress>, next: &Progress) {
    let clock = SystemClock::new();
    let mut write = writer.write(&lines(&[row]));
    loop {
        let commit = write.and_then(|()| writer.commit(next));
        match commit {
            Ok(Commit::Done) => return,
            Ok(Commit::Unknown) => {}
            Err(error) => assert!(error.is_retriable(), "{error}"),
        }
        let found = loop {
            assert!(clock.elapsed() < seconds(180), "the sink does not get on");
            match writer.recover(&claim("l")) {
                Ok(found) => break found,
                Err(error) => assert!(error.is_retriable(), "{error}"),
            }
            thread::sleep(millis(200));
        };
        if found.as_ref() == Some(next) {
            return;
        }
        assert_eq!(found.as_ref(), had, "progress that was never committed");
        write = writer.write(&lines(&[row]));
    }
}

fn copy(broker: &str, input: &str, output: &str, group: &str, log: &Checkpoints) -> JobHandle {
    let source = KafkaSource::new(broker, input).group(group);
    let sink = KafkaSink::new(
        KafkaTarget::new(broker, group).topics_like(input),
        output,
        |record: &RawRecord, time, out| {
            out.set_value(record.value.as_deref().unwrap_or_default());
            out.set_timestamp(time);
        },
    );
    let watermarks = WatermarkStrategy::monotonous(|record: &RawRecord| {
        record.timestamp.unwrap_or(Timestamp::MIN)
    });
    let job = Job::new("copy");
    job.source("in", source, watermarks).sink("out", sink);
    let config =
        RunConfig::new().workers(1).checkpoints(log.clone()).checkpoint_interval(millis(500));
    job.start(config).unwrap()
}

/// Waits until the sink has written so many rows; the job must live.
fn wait_for_rows(job: &JobHandle, rows: u64, because: &str) {
    let clock = SystemClock::new();
    loop {
        let progress = job.progress();
        assert_ne!(progress.state, JobState::Failed, "{because}: the job has failed");
        if progress.sinks.iter().all(|sink| sink.rows >= rows) && !progress.sinks.is_empty() {
            return;
        }
        assert!(clock.elapsed() < seconds(180), "{because}: {progress:?}");
        thread::sleep(millis(20));
    }
}

#[test]
#[ignore = "starts a broker of its own"]
fn f28_f29_f31_a_job_outlives_its_broker_and_stays_exact() {
    let broker = OwnBroker::start();
    let input = create(&broker.servers, "in", 3, &[]);
    let (output, group) = (unique("out"), unique("group"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let _entered = runtime.enter();
    let log = Checkpoints::shared();
    let job = copy(&broker.servers, &input, &output, &group, &log);
    let over = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        // Goes on through all of it: the client's own retries and its idempotence see to that.
        let feed = scope.spawn(|| {
            let mut settings = config(&broker.servers);
            settings.set("enable.idempotence", "true").set("message.timeout.ms", "300000");
            let producer: rdkafka::producer::BaseProducer = settings.create().unwrap();
            let mut sent = 0u64;
            while !over.load(Ordering::SeqCst) {
                let value = sent.to_string();
                let record =
                    BaseRecord::<str, str>::to(&input).partition((sent % 3) as i32).payload(&value);
                match producer.send(record) {
                    Ok(()) => sent += 1,
                    Err((error, _)) => println!("the test's producer waits: {error}"),
                }
                producer.poll(millis(2));
            }
            producer.flush(seconds(120)).unwrap();
            sent
        });
        let rows = || job.progress().sinks.first().map_or(0, |sink| sink.rows);
        wait_for_rows(&job, 500, "at first");
        broker.down();
        thread::sleep(seconds(20));
        broker.up();
        wait_for_rows(&job, rows() + 500, "after an orderly restart");
        for round in 0..2 {
            broker.signal("KILL");
            broker.up();
            wait_for_rows(&job, rows() + 500, &format!("after kill {round}"));
        }
        // A minute, and so longer than a transaction may stay open.
        broker.signal("STOP");
        thread::sleep(seconds(70));
        broker.signal("CONT");
        wait_for_rows(&job, rows() + 500, "after a minute's silence");
        over.store(true, Ordering::SeqCst);
        feed.join().unwrap()
    });
    wait_for_rows(&job, sent, "at last");
    job.stop();
    runtime.block_on(job.wait()).unwrap();
    let mut rows: Vec<u64> = read_topic(&broker.servers, &output, true)
        .iter()
        .map(|r| std::str::from_utf8(r.value.as_deref().unwrap()).unwrap().parse().unwrap())
        .collect();
    rows.sort_unstable();
    println!("{sent} records, through two orderly and two hard restarts and a frozen minute");
    assert!(rows.iter().copied().eq(0..sent), "{} rows for {sent} records", rows.len());
}

#[test]
#[ignore = "starts a broker of its own"]
fn f29_a_job_can_be_stopped_while_its_broker_is_gone() {
    let broker = OwnBroker::start();
    let input = create(&broker.servers, "in", 1, &[]);
    let (output, group) = (unique("out"), unique("group"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let log = Checkpoints::shared();
    let producer = producer(&broker.servers, None);
    let values: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let job = copy(&broker.servers, &input, &output, &group, &log);
    send(&producer, &input, 0, &values[..500]);
    wait_for_rows(&job, 500, "at first");
    broker.signal("STOP");
    job.stop();
    let ended = runtime.block_on(async { tokio::time::timeout(seconds(150), job.wait()).await });
    println!("stopped without a broker: {ended:?}");
    assert!(ended.is_ok(), "the job cannot be stopped");
    broker.signal("CONT");
    let job = copy(&broker.servers, &input, &output, &group, &log);
    send(&producer, &input, 0, &values[500..]);
    wait_for_rows(&job, 1_000, "after the next start");
    job.stop();
    runtime.block_on(job.wait()).unwrap();
    let rows = read_topic(&broker.servers, &output, true);
    let rows: Vec<_> = rows.iter().map(|r| r.value.clone().unwrap()).collect();
    assert!(rows.iter().map(|r| &r[..]).eq(values.iter().map(|v| v.as_bytes())), "{}", rows.len());
}

#[test]
#[ignore = "starts a broker of its own"]
fn f27_a_frozen_broker_is_no_end_of_a_partition() {
    let broker = OwnBroker::start();
    let topic = create(&broker.servers, "frozen", 1, &[]);
    let producer = producer(&broker.servers, None);
    send(&producer, &topic, 0, &["a"]);
    let source = KafkaSource::new(&broker.servers, topic.as_str());
    let known = source.splits(&[]).unwrap();
    let mut reading = Reading::open(&source, 0, 0);
    reading.caught_up();
    broker.signal("STOP");
    reading.until("doubt", |_, status| status == ReadStatus::Waiting);
    let clock = SystemClock::new();
    while clock.elapsed() < seconds(20) {
        reading.until("doubt", |_, status| {
            assert_ne!(status, ReadStatus::CaughtUp, "{:?}", clock.elapsed());
            true
        });
        thread::sleep(millis(50));
    }
    // Whoever asks for new partitions meanwhile gets an answer that is no verdict.
    let error = source.splits(&known).unwrap_err();
    assert!(error.is_retriable(), "{error}");
    broker.signal("CONT");
    reading.caught_up();
    send(&producer, &topic, 0, &["b"]);
    reading.until("the new one", |reading, _| reading.values() == ["a", "b"]);
    assert_eq!(source.splits(&known).unwrap(), known);
}

#[test]
#[ignore = "starts a broker of its own"]
fn f42_a_topic_that_is_recreated_and_filled_between_two_fetches() {
    let broker = OwnBroker::start();
    let topic = create(&broker.servers, "f42", 1, &[]);
    send(&producer(&broker.servers, None), &topic, 0, &["a", "b", "c"]);
    let source = KafkaSource::new(&broker.proxied, topic.as_str());
    let known = source.splits(&[]).unwrap();
    let mut reading = Reading::open(&source, 0, 0);
    reading.caught_up();
    broker.proxy.hold(FETCH);
    broker.proxy.wait_held(1);
    let options = AdminOptions::new();
    wait(admin(&broker.servers).delete_topics(&[&topic], &options)).unwrap();
    recreate(&broker.servers, &topic);
    let new: Vec<String> = (0..50).map(|n| format!("new {n}")).collect();
    let new: Vec<&str> = new.iter().map(String::as_str).collect();
    send(&producer(&broker.servers, None), &topic, 0, &new);
    broker.proxy.release();
    // The client asks for an offset of a name, and gets what is there: only the topic's id tells.
    reading.until("records of another topic", |reading, _| reading.records.len() > 3);
    let text = source.splits(&known).unwrap_err().to_string();
    assert!(text.contains(known[0].memo.as_str()) && text.contains("created again"), "{text}");
}

#[test]
#[ignore = "starts a broker of its own"]
fn f32_the_answer_to_a_commit_gets_lost() {
    let broker = OwnBroker::start();
    let setup = Setup::new(broker.proxied.clone());
    let mut writer = setup.writer();
    writer.recover(&claim("l")).unwrap();
    deliver(&mut writer, "a1", None, &progress(1));
    broker.proxy.lose(END_TXN);
    deliver(&mut writer, "b1", Some(&progress(1)), &progress(2));
    assert_eq!(broker.proxy.done().0, 1, "no answer was lost");
    deliver(&mut writer, "c1", Some(&progress(2)), &progress(3));
    assert_eq!(setup.rows(), ["a1", "b1", "c1"]);
}

#[test]
#[ignore = "starts a broker of its own"]
fn f33_a_commit_that_arrives_late_ends_no_later_transaction() {
    let broker = OwnBroker::start();
    let setup = Setup::new(broker.proxied.clone());
    let mut writer = setup.writer();
    writer.recover(&claim("l")).unwrap();
    deliver(&mut writer, "a1", None, &progress(1));
    broker.proxy.hold(END_TXN);
    writer.write(&lines(&["b1"])).unwrap();
    let commit = thread::scope(|scope| {
        let commit = scope.spawn(|| writer.commit(&progress(2)));
        // The first one, and the client's second attempt, on another connection: only that one is
        // let through, and the first arrives when the next transaction is open.
        broker.proxy.wait_held(2);
        broker.proxy.release_all_but_the_first();
        commit.join().unwrap()
    });
    assert_eq!(commit.unwrap(), Commit::Unknown, "a commit that was sent twice");
    assert_eq!(writer.recover(&claim("l")).unwrap(), Some(progress(2)));
    writer.write(&lines(&["c1"])).unwrap();
    broker.proxy.release();
    thread::sleep(seconds(2));
    assert_eq!(setup.rows(), ["a1", "b1"], "the late commit has ended the open transaction");
    assert_eq!(writer.commit(&progress(3)).unwrap(), Commit::Done);
    assert_eq!(setup.rows(), ["a1", "b1", "c1"]);
}

#[test]
#[ignore = "starts a broker of its own"]
fn f30_the_coordinator_dies_in_the_middle_of_a_commit() {
    let broker = OwnBroker::start();
    let setup = Setup::new(broker.proxied.clone());
    let mut writer = setup.writer();
    writer.recover(&claim("l")).unwrap();
    deliver(&mut writer, "a1", None, &progress(1));
    for (n, reaches_it) in [(1, false), (2, true)] {
        match reaches_it {
            true => broker.proxy.lose(END_TXN),
            false => broker.proxy.hold(END_TXN),
        }
        let row = format!("b{n}");
        let (had, next) = (progress(n), progress(n + 1));
        thread::scope(|scope| {
            let commit = scope.spawn(|| deliver(&mut writer, &row, Some(&had), &next));
            match reaches_it {
                true => {
                    while broker.proxy.done().0 == 0 {
                        thread::sleep(millis(1));
                    }
                }
                false => broker.proxy.wait_held(1),
            }
            broker.signal("KILL");
            broker.proxy.release();
            broker.up();
            commit.join().unwrap();
        });
    }
    deliver(&mut writer, "c1", Some(&progress(3)), &progress(4));
    assert_eq!(setup.rows(), ["a1", "b1", "b2", "c1"]);
}

#[test]
#[ignore = "starts a broker of its own"]
fn f52_a_damaged_record_stops_the_reader_and_is_not_left_out() {
    let broker = OwnBroker::start();
    let topic = create(&broker.servers, "damaged", 1, &[]);
    let producer = producer(&broker.servers, None);
    for value in ["first", "damaged on the way", "last"] {
        // A batch of its own for each.
        send(&producer, &topic, 0, &[value]);
    }
    broker.proxy.damage(b"damaged on the way");
    let source = KafkaSource::new(&broker.proxied, topic.as_str());
    let mut reading = Reading::open(&source, 0, 0);
    let error = reading.failure();
    assert_eq!(broker.proxy.done().1, 1);
    for part in [topic.as_str(), "partition 0", "damaged"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert!(!error.to_string().contains("on the way\""), "{error}");
    assert!(reading.records.len() <= 1, "{:?}", reading.values());
    // The next start reads it, since it is whole on the broker.
    let next = reading.next;
    drop(reading);
    let mut reading = Reading::open(&source, 0, next);
    reading.caught_up();
    assert_eq!(reading.next, 3);
    assert!(reading.values().contains(&"damaged on the way".to_owned()));
}

#[test]
#[ignore = "starts a broker of its own"]
fn f50_wrong_passwords_and_mechanisms_are_said_at_start() {
    let broker = OwnBroker::start();
    let topic = create(&broker.servers, "sasl", 1, &[]);
    let source = |mechanism: &str, password: &str| {
        KafkaSource::new(&broker.sasl, topic.as_str())
            .set("security.protocol", "SASL_PLAINTEXT")
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", "alice")
            .set("sasl.password", password)
    };
    assert_eq!(source("PLAIN", "alice-secret").splits(&[]).unwrap().len(), 1);
    let wrong = source("PLAIN", "canary");
    let error = wrong.splits(&[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User, "{error}");
    assert!(error.to_string().contains("uthentication"), "{error}");
    assert!(!format!("{error} {wrong:?}").contains("canary"), "{error}");
    let target = KafkaTarget::new(&broker.sasl, "group")
        .set("security.protocol", "SASL_PLAINTEXT")
        .set("sasl.mechanism", "PLAIN")
        .set("sasl.username", "alice")
        .set("sasl.password", "canary");
    let error = target.ensure_topics(&[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User, "{error}");
    assert!(!format!("{error} {target:?}").contains("canary"), "{error}");
    // One that asks for a password, spoken to without.
    let error = KafkaSource::new(&broker.sasl, topic.as_str()).splits(&[]).unwrap_err();
    assert!(error.to_string().contains("security properties"), "{error}");
}

#[test]
#[ignore = "starts a broker of its own"]
fn f27_answers_that_stay_away_are_no_end_of_a_partition() {
    let broker = OwnBroker::start();
    let topic = create(&broker.servers, "silent", 1, &[]);
    let producer = producer(&broker.servers, None);
    send(&producer, &topic, 0, &["a"]);
    let source = KafkaSource::new(&broker.proxied, topic.as_str());
    let mut reading = Reading::open(&source, 0, 0);
    reading.caught_up();
    // Metadata is still answered: only records do not come.
    broker.proxy.hold(FETCH);
    broker.proxy.wait_held(1);
    send(&producer, &topic, 0, &["b"]);
    reading.until("doubt", |_, status| status == ReadStatus::Waiting);
    assert_eq!(reading.values(), ["a"]);
    broker.proxy.release();
    reading.until("the new one", |reading, _| reading.values() == ["a", "b"]);
    reading.caught_up();
}
