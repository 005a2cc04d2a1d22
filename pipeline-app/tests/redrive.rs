//! `dlq redrive` of the program itself, on topics of a real broker.
//!
//! Needs `KAFKA_BOOTSTRAP_SERVERS` and `DATABASE_URL`; skipped without them.

mod oracle;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use oracle::InputRecord;
use support::kafka::{self, Topic};
use support::program::{program, text};
use support::services::services;

/// The command is killed again and again, and every dead letter is sent back once.
#[tokio::test]
async fn they_are_sent_back_once_whatever_is_killed() {
    let Some((bootstrap, _)) = services() else { return };
    let name = format!("redrive-{}", std::process::id());
    let topic = Topic::create(&bootstrap, &name, 2).await;
    for partition in 0..2 {
        let record = |n: u64| InputRecord {
            key: (!n.is_multiple_of(3)).then(|| format!("k{n}").into_bytes()),
            value: (!n.is_multiple_of(50))
                .then(|| format!("broken {partition} {n} \u{0}").into_bytes()),
            timestamp_micros: Some(1_767_225_600_000_000 + n as i64 * 1_000),
            ..InputRecord::default()
        };
        topic.produce(partition, &(0..1_500).map(record).collect::<Vec<_>>()).await;
    }
    let before = kafka::read_all(&bootstrap, &name).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let (server, topic_name) = (bootstrap.clone(), name.clone());
    tokio::task::spawn_blocking(move || {
        let (group, output) = (format!("{topic_name}-group"), format!("{topic_name}-out"));
        let variables = [
            ("KAFKA_BOOTSTRAP_SERVERS", &*server),
            ("KAFKA_INPUT_TOPIC", &*topic_name),
            ("KAFKA_OUTPUT_TOPIC", &*output),
            ("KAFKA_GROUP_ID", &*group),
        ];
        let command = |args: &[&str]| program(&path, args, &variables);
        let job = ["--keep-open", "--outputs", "enriched", "--ui-bind", "off"];
        let ended = command(&job).output().unwrap();
        assert!(ended.status.success(), "{}", text(&ended));
        let redrive = ["dlq", "redrive", "--yes"];
        // Later and later, from before the first transaction to after the last.
        let mut killed = 0;
        for n in 0..30 {
            let mut child = command(&redrive).stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(100 + n * 90));
            if child.try_wait().unwrap().is_some_and(|status| status.success()) {
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
        }
        assert!(killed > 1, "it was killed {killed} times");
        println!("killed {killed} times");
        let ended = command(&redrive).output().unwrap();
        assert!(ended.status.success(), "{}", text(&ended));
        let again = text(&command(&redrive).output().unwrap());
        assert!(!again.contains("to be sent") && again.contains("sent before"), "{again}");
    })
    .await
    .unwrap();
    let all = kafka::read_all(&bootstrap, &name).await;
    let back: Vec<_> = all.iter().filter(|r| !r.header("redriven.from").is_empty()).collect();
    let froms: std::collections::BTreeSet<String> =
        back.iter().map(|record| record.header("redriven.from")).collect();
    assert_eq!((back.len(), froms.len()), (3_000, 3_000), "each once");
    let count = |records: &mut dyn Iterator<Item = &kafka::Record>| {
        let mut counts = BTreeMap::new();
        for record in records {
            *counts.entry((record.key.clone(), record.value.clone())).or_insert(0) += 1;
        }
        counts
    };
    assert_eq!(
        count(&mut back.into_iter()),
        count(&mut before.iter()),
        "key and bytes as they were"
    );
    kafka::delete(&bootstrap, &name).await;
}

/// The program with these arguments, on a topic and in the name of a group; what it says.
fn says(folder: &Path, bootstrap: &str, topic: &str, group: &str, args: &[&str]) -> String {
    let output = format!("{topic}-out");
    let variables = [
        ("KAFKA_BOOTSTRAP_SERVERS", bootstrap),
        ("KAFKA_INPUT_TOPIC", topic),
        ("KAFKA_OUTPUT_TOPIC", &output),
        ("KAFKA_GROUP_ID", group),
    ];
    let ended = program(folder, args, &variables).output().unwrap();
    assert!(ended.status.success(), "{}", text(&ended));
    text(&ended)
}

/// What was sent from a topic says nothing about another one of the same name (F42), and what came from
/// a partition that is gone stays where it is.
#[tokio::test]
async fn f42_topics_that_were_created_again_are_other_topics() {
    let Some((bootstrap, _)) = services() else { return };
    let name = format!("redrive-anew-{}", std::process::id());
    let topic = Topic::create(&bootstrap, &name, 2).await;
    let broken = InputRecord { value: Some(b"{".to_vec()), ..InputRecord::default() };
    for partition in 0..2 {
        topic.produce(partition, &vec![broken.clone(); 10]).await;
    }
    let groups = ["group", "other-group"].map(|group| format!("{name}-{group}"));
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let command = async |n: usize, args: &'static [&'static str]| {
        let (bootstrap, name, group) = (bootstrap.clone(), name.clone(), groups[n].clone());
        let folder = folders[n].path().to_owned();
        tokio::task::spawn_blocking(move || says(&folder, &bootstrap, &name, &group, args))
            .await
            .unwrap()
    };
    let job = &["--keep-open", "--outputs", "enriched", "--ui-bind", "off"];
    let redrive = &["dlq", "redrive", "--yes"];
    command(0, job).await;
    assert!(command(0, redrive).await.contains("20 sent"));
    assert!(command(0, redrive).await.contains("20  bad_json: sent before"));

    // Another job fills a new topic of that name with twice as many.
    kafka::delete_topics(&bootstrap, &[&format!("{name}.dlq")]).await;
    command(1, job).await;
    let said = command(0, redrive).await;
    assert!(said.contains("40 sent") && said.contains("created again"), "{said}");
    assert!(command(0, redrive).await.contains("40  bad_json: sent before"));

    // The input comes back with one partition less.
    kafka::delete_topics(&bootstrap, &[&name]).await;
    Topic::make(&bootstrap, &name, 1).await;
    let said = command(1, redrive).await;
    assert!(said.contains("20 sent"), "{said}");
    let left = format!("20  bad_json: of a partition that {name} does not have");
    assert!(said.contains(&left), "{said}");
    assert_eq!(kafka::read_all(&bootstrap, &name).await.len(), 20);
    kafka::delete_topics(&bootstrap, &[&format!("{}.progress", groups[1])]).await;
    kafka::delete(&bootstrap, &name).await;
}

/// What only one step has given up is not sent back: the others would count it twice (F85).
#[tokio::test]
async fn f85_what_all_other_steps_have_counted_is_refused() {
    let Some((bootstrap, _)) = services() else { return };
    let name = format!("redrive-given-up-{}", std::process::id());
    let topic = Topic::create(&bootstrap, &name, 1).await;
    topic.produce(0, &[InputRecord { value: Some(b"{".to_vec()), ..InputRecord::default() }]).await;
    let group = format!("{name}-group");
    let (server, input) = (bootstrap.clone(), name.clone());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let command = async |args: &'static [&'static str]| {
        let (path, server, input, group) =
            (path.clone(), server.clone(), input.clone(), group.clone());
        tokio::task::spawn_blocking(move || says(&path, &server, &input, &group, args))
            .await
            .unwrap()
    };
    command(&["--keep-open", "--outputs", "enriched", "--ui-bind", "off"]).await;
    let headers = [
        ("dlq.reason", "processing_error"),
        ("dlq.error", "step active_users: boom"),
        ("dlq.operator", "active_users"),
        ("dlq.topic", &*name),
        ("dlq.partition", "0"),
        ("dlq.offset", "41"),
    ];
    kafka::send(&bootstrap, &format!("{name}.dlq"), &headers, b"given up").await;

    let listed = command(&["dlq", "list"]).await;
    assert!(listed.contains("given up by") && listed.contains("active_users"), "{listed}");
    let said = command(&["dlq", "redrive", "--yes"]).await;
    assert!(said.contains("1 sent"), "{said}");
    let refused = format!("{name}/0@41 is not sent: all steps but active_users");
    assert!(said.contains(&refused) && said.contains("1  processing_error: counted"), "{said}");
    let said = command(&["dlq", "redrive", "--output", "-"]).await;
    assert!(said.contains(&refused) && said.contains("1 written"), "{said}");
    assert!(!said.contains("given up\n"), "{said}");
    let back = kafka::read_all(&bootstrap, &name).await;
    assert_eq!(back.iter().filter(|r| !r.header("redriven.from").is_empty()).count(), 1);
    assert!(back.iter().all(|record| record.value.as_deref() != Some(b"given up")));
    kafka::delete(&bootstrap, &name).await;
}
