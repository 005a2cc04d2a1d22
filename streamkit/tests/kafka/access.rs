//! Missing rights (F48): what is missing is named, on what. The broker of `dev/services` has an
//! authorizer; each test limits what everybody may do with a name of its own.

use std::path::Path;
use std::process::Command;

use streamkit::ErrorKind;
use streamkit::connector::Source;
use streamkit::connector::kafka::KafkaSource;

use super::sink::{Setup, claim, lines, progress};
use super::support::{Reading, broker, create, producer, send};

/// Leaves everybody these rights on a name, and no others: it is the only rule for it. False, and
/// a line that says so, if the broker knows no rights.
fn allow_only(broker: &str, operations: &[&str], kind: &str, name: &str) -> bool {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/kafka");
    let operations = operations.iter().flat_map(|operation| ["--operation", operation]);
    let output = Command::new(script)
        .args([
            "acls",
            "--bootstrap-server",
            broker,
            "--add",
            "--allow-principal",
            "User:ANONYMOUS",
        ])
        .args(operations)
        .args([kind, name])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if text.contains("No Authorizer") || text.contains("no jars yet") {
        println!("skipped: the broker is none of dev/services: {text}");
        return false;
    }
    assert!(output.status.success() && text.contains("ALLOW"), "{text}");
    true
}

#[test]
fn f48_no_right_to_read_or_to_see_a_topic() {
    let Some(broker) = broker("f48 source") else { return };
    let topic = create(&broker, "f48", 1, &[]);
    send(&producer(&broker, None), &topic, 0, &["a"]);
    let other = create(&broker, "f48", 1, &[]);
    if !allow_only(&broker, &["Describe", "DescribeConfigs"], "--topic", &topic) {
        return;
    }
    let source = KafkaSource::new(&broker, topic.as_str());
    let error = Reading::open(&source, 0, 0).failure();
    assert_eq!(error.kind(), ErrorKind::User, "{error}");
    let right = format!("(ACL): Read on topic {topic}");
    assert!(error.to_string().contains(&right), "{error}");

    allow_only(&broker, &["Create"], "--topic", &other);
    let topic = other;
    let error = KafkaSource::new(&broker, topic.as_str()).splits(&[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User, "{error}");
    let right = format!("Describe and Read on topic {topic}");
    assert!(error.to_string().contains(&right), "{error}");
}

#[test]
fn f48_no_right_to_write_to_a_topic() {
    let Some(broker) = broker("f48 sink") else { return };
    let setup = Setup::new(broker);
    setup.target.ensure_topics(&[&setup.output]).unwrap();
    if !allow_only(&setup.broker, &["Read"], "--topic", &setup.output) {
        return;
    }
    let mut writer = setup.writer();
    writer.recover(&claim("l")).unwrap();
    let written = writer.write(&lines(&["a1"]));
    let error = written.and_then(|()| writer.commit(&progress(1)).map(|_| ())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User, "{error}");
    // The client gives up all of the transaction, and tells of the first topic in it.
    let right = format!(
        "(ACL): Write on every topic of the transaction ({}, {})",
        setup.output,
        setup.target.progress_topic()
    );
    assert!(error.to_string().contains(&right), "{error}");
}

#[test]
fn f48_no_right_to_a_transactional_id() {
    let Some(broker) = broker("f48 id") else { return };
    let setup = Setup::new(broker);
    setup.target.ensure_topics(&[&setup.output]).unwrap();
    let id = format!("{}.0.lines.0", setup.target.progress_topic().trim_end_matches(".progress"));
    if !allow_only(&setup.broker, &["Describe"], "--transactional-id", &id) {
        return;
    }
    let error = setup.writer().recover(&claim("l")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User, "{error}");
    let right = format!("Write on transactional id {id}");
    assert!(error.to_string().contains(&right), "{error}");
}
