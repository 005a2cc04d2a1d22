//! What an operator does and sees, with the program itself: checkpoints, dead letters of files, a second
//! process, wrong settings, secrets.
//!
//! Parts need `KAFKA_BOOTSTRAP_SERVERS` and `DATABASE_URL`; they are skipped without them.

mod oracle;
mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use oracle::InputRecord;
use support::kafka::{self, Topic};
use support::program::{program, text};
use support::services::services;

fn run(folder: &Path, args: &[&str]) -> (bool, String) {
    let output = program(folder, args, &[]).output().unwrap();
    (output.status.success(), text(&output))
}

/// A hundred minutes of events, with some lines that are none.
fn write_input(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for n in 0..600 {
        let time = format!("2026-01-01T{:02}:{:02}:{:02}Z", n / 360, n / 6 % 60, n % 6 * 10);
        writeln!(
            file,
            r#"{{"user_id":"u{}","page_url":"/p","event_type":"page_view","event_time":"{time}"}}"#,
            n % 7
        )
        .unwrap();
        if n % 100 == 50 {
            file.write_all(b"{\"broken\x1b[2J\n").unwrap();
        }
        if n % 200 == 50 {
            let empty =
                r#"{"user_id":"","event_type":"page_view","event_time":"2026-01-01T00:00:00Z"}"#;
            writeln!(file, "{empty}").unwrap();
        }
    }
}

const JOB: [&str; 5] = ["--input", "in.jsonl", "--keep-open", "--ui-bind", "off"];

#[test]
fn checkpoints_are_listed_shown_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_input(&folder.join("in.jsonl"));
    let (good, said) = run(folder, &["checkpoint", "ls"]);
    assert!(!good && said.contains("there are no checkpoints in data/checkpoints"), "{said}");
    let (good, said) = run(folder, &JOB);
    assert!(good, "{said}");
    let (good, said) = run(folder, &["checkpoint", "ls"]);
    assert!(good && said.contains("609") && said.contains("watermark"), "{said}");
    let (good, said) = run(folder, &["checkpoint", "show"]);
    for part in
        ["user_sessions: ", "dead letters bad_json: 6", "page_view_counts: 60s", "end_reached"]
    {
        assert!(good && said.contains(part), "{part}: {said}");
    }
    let (good, said) = run(folder, &["checkpoint", "show", "77"]);
    assert!(!good && said.contains("there is no checkpoint 77"), "{said}");
    let (_, json) = run(folder, &["checkpoint", "show", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["manifest"]["splits"][0]["position"]["read"], 609);
    assert_eq!(json["manifest"]["counted"]["user_sessions"], 600);
    assert!(json["floors"].is_object() && json["facts"].is_array(), "{json}");
    let (good, said) = run(folder, &["checkpoint", "verify"]);
    assert!(good && said.contains("2 checkpoints can be restored (0 to 1)"), "{said}");
    let path = folder.join("data/checkpoints/user-activity/checkpoint-0000000001");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (good, said) = run(folder, &["checkpoint", "verify"]);
    assert!(!good && said.contains("checkpoint-0000000001: "), "{said}");
    assert!(said.contains("damaged") || said.contains("checksum"), "{said}");
    // The way out: everything anew, while the outputs keep what they have.
    let end = ["--input", "in.jsonl", "--until-end", "--ui-bind", "off"];
    let (good, said) = run(folder, &end);
    assert!(!good && said.contains("checkpoint-0000000001"), "{said}");
    let (good, said) = run(folder, &[&end[..], &["--rebuild"]].concat());
    assert!(good && said.contains("conserved"), "{said}");
    let (_, said) = run(folder, &["show", "page_view_counts", "-n", "500"]);
    assert!(said.contains("(100 rows"), "{said}");
}

#[test]
fn dead_letters_of_files_are_listed_and_written_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_input(&folder.join("in.jsonl"));
    let (_, said) = run(folder, &["dlq", "list"]);
    assert!(said.contains("nothing has been written to it"), "{said}");
    assert!(run(folder, &JOB).0);
    let (good, said) = run(folder, &["dlq", "list", "-n", "4"]);
    assert!(good && said.contains("(4 rows"), "{said}");
    assert!(!said.contains('\u{1b}') && said.contains("\\u{1b}"), "escaped: {said}");
    let (_, said) = run(folder, &["dlq", "list", "--reason", "empty_field"]);
    assert!(said.contains("(3 rows") && !said.contains("bad_json"), "{said}");
    let (good, said) = run(folder, &["dlq", "list", "--reason", "typo"]);
    assert!(!good && said.contains("reasons are empty, bad_utf8, "), "{said}");
    let (good, said) = run(folder, &["dlq", "redrive", "--yes"]);
    assert!(!good && said.contains("--output FILE"), "{said}");
    let some = ["dlq", "redrive", "--reason", "bad_json", "--from", "1", "--output", "again.jsonl"];
    let (good, said) = run(folder, &some);
    assert!(good, "{said}");
    assert_eq!(fs::read(folder.join("again.jsonl")).unwrap(), b"{\"broken\x1b[2J\n".repeat(5));
    let (good, said) = run(folder, &some);
    assert!(!good && said.contains("again.jsonl cannot be written"), "never over a file: {said}");
}

/// Kills a child when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks again and again, for a minute at most.
fn until<R>(what: &str, mut look: impl FnMut() -> Option<R>) -> R {
    for _ in 0..3_000 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("waited in vain for {what}");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The lock in the checkpoint folder was once taken for an earlier run.
#[test]
fn a_first_run_says_how_much_it_has_read() {
    let folder = tempfile::tempdir().unwrap();
    let input = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/web_activity.jsonl.gz");
    let args = ["--input", input, "--until-end", "--ui-bind", "off"];
    let (good, said) = run(folder.path(), &args);
    assert!(good && said.contains(": 10,000 records read, "), "{said}");
    assert!(!said.contains("since the job began"), "{said}");
}

#[test]
fn f88_a_second_process_names_the_first_and_leaves_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let bind = format!("127.0.0.1:{port}");
    let mut first = program(folder.path(), &["--ui-bind", &bind], &[]);
    let first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = Running(first);
    // While it starts, the second one may find out by the log already.
    until("the first process", || get(port, "/readyz").filter(|answer| answer.contains("200")));
    for extra in [&[][..], &["--rebuild"]] {
        let (good, said) = run(folder.path(), &[&["--ui-bind", "off"], extra].concat());
        assert!(!good && said.contains("the job runs already with the checkpoints in"), "{said}");
        assert!(said.contains(&format!("process {}, since 20", first.0.id())), "{said}");
    }
    // Past the lock, the outputs keep the second one out, even a rebuild: nothing is written.
    let (good, said) = run(folder.path(), &["--ui-bind", "off", "--take-over", "--rebuild"]);
    assert!(!good && said.contains("another process writes to"), "{said}");
    let (_, said) = run(folder.path(), &["reset", "--yes"]);
    assert!(said.contains("a running job holds"), "{said}");
    // Looking is always possible.
    until("a checkpoint", || run(folder.path(), &["checkpoint", "ls"]).0.then_some(()));
    assert!(run(folder.path(), &["checkpoint", "verify"]).0);
    assert!(first.0.try_wait().unwrap().is_none(), "the first one goes on");
    assert!(get(port, "/healthz").unwrap().contains("200"), "and is well");
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    let mut next = program(folder.path(), &["--ui-bind", &bind], &[]);
    let next = next.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let _next = Running(next);
    until("the next process, after a kill", || get(port, "/healthz"));
}

/// Half of a request on each of 130 connections, with no more open files than the job needs and some. It
/// goes on, and answers again when its visitors have been shown out.
#[test]
fn f91_a_flood_of_connections_does_not_reach_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let command = format!(
        "ulimit -n 100 && exec '{}' --checkpoint-interval 100ms --ui-bind 127.0.0.1:{port}",
        env!("CARGO_BIN_EXE_pipeline-app")
    );
    let mut job = Command::new("sh");
    let job = job.args(["-c", &command]).current_dir(folder.path()).env_clear();
    let mut job = Running(job.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    until("the program", || get(port, "/healthz"));
    let flood: Vec<_> = (0..130)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: loc").unwrap();
            stream
        })
        .collect();
    let newest = || {
        let (_, said) = run(folder.path(), &["checkpoint", "ls"]);
        said.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok()).max()
    };
    let before = until("a checkpoint", newest);
    until("twenty more checkpoints", || newest().filter(|now| *now > before + 20));
    assert!(job.0.try_wait().unwrap().is_none(), "it goes on");
    until("an answer, with the flood still there", || get(port, "/healthz"));
    drop(flood);
}

#[test]
fn f89_a_wrong_setting_is_named_with_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = busy.local_addr().unwrap().to_string();
    fs::write(folder.join("typo.toml"), "watermark_dealy = \"2m\"\n").unwrap();
    fs::write(folder.join("unit.toml"), "session_gap = \"2 parsecs\"\n").unwrap();
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        (&["--config", "typo.toml"], &[], &["typo.toml sets watermark_dealy", "watermark_delay?"]),
        (&["--config", "unit.toml"], &[], &["session_gap (unit.toml)", "2 parsecs", "5m"]),
        (&["--config", "none.toml"], &[], &["none.toml cannot be read"]),
        (&[], &[("IDLE_TIMEOUT", "soon")], &["IDLE_TIMEOUT (environment)", "soon", "or off"]),
        (&["--workers", "0"], &[], &["--workers", "from 1 to 256"]),
        (&["--outputs", "tabels"], &[], &["tabels", "did you mean tables?", "enriched"]),
        (&["--watermark-dela", "2m"], &[], &["--watermark-delay"]),
        (&["--ui-bind", &busy], &[], &[&busy, "--ui-bind off"]),
        (&[], &[("KAFKA_BOOTSTRAP_SERVERS", "h:1")], &["DATABASE_URL is not", "--outputs"]),
        (&["--accept-gap", "lakes", "--ui-bind", "off"], &[], &["\"lakes\"", "\"lake\""]),
        (&["dlq", "list", "--reason", "x"], &[], &["--reason \"x\"", "bad_json"]),
    ];
    for (args, variables, parts) in cases {
        let output = program(folder, args, variables).output().unwrap();
        let said = text(&output);
        assert!(!output.status.success(), "{args:?}: {said}");
        for part in *parts {
            assert!(said.contains(part), "{args:?} must say {part}: {said}");
        }
    }
}

const CANARY: &str = "canary-7f3a91";

/// Runs for ten seconds at most: what it has said by then is enough.
fn says(mut command: Command) -> String {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut looks = 0;
    while child.try_wait().unwrap().is_none() {
        looks += 1;
        if looks > 200 {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    text(&child.wait_with_output().unwrap())
}

#[test]
fn f90_no_output_has_a_password_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_input(&folder.join("in.jsonl"));
    let unreachable = format!("postgres://user:{CANARY}@127.0.0.1:1/x");
    let (bad, other) = (format!("postgres:/user:{CANARY}@h"), format!("mysql://user:{CANARY}@h/x"));
    let database = |url: &str| vec![("DATABASE_URL".to_owned(), url.to_owned())];
    let kafka = |property: &str| -> Vec<(String, String)> {
        let pairs = [
            ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1"),
            ("KAFKA_PROP_SECURITY_PROTOCOL", "sasl_plaintext"),
            ("KAFKA_PROP_SASL_MECHANISM", "PLAIN"),
            ("KAFKA_PROP_SASL_USERNAME", "user"),
            (property, CANARY),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let password = kafka("KAFKA_PROP_SASL_PASSWORD");
    let typo = kafka("KAFKA_PROP_SASL_PASSWRD");
    let both = [password.clone(), database(&unreachable)].concat();
    let files = ["--input", "in.jsonl", "--until-end", "--ui-bind", "off"];
    let real = ["--outputs", "enriched", "--ui-bind", "off"];
    let toml = |name: &str, text: String| {
        fs::write(folder.join(name), text).unwrap();
    };
    toml("open.toml", format!("database_url = \"postgres://u:{CANARY}@h/x\n"));
    toml("bare.toml", format!("[kafka.properties]\n\"sasl.password\" = {CANARY}\n"));
    toml("key.toml", format!("database_urll = \"postgres://u:{CANARY}@h/x\"\n"));
    toml("good.toml", format!("database_url = \"postgres://u:{CANARY}@127.0.0.1:1/x\"\n"));
    let none = vec![];
    type Case<'a> = (Vec<&'a str>, &'a Vec<(String, String)>);
    let cases: Vec<Case<'_>> = vec![
        (vec!["config", "show"], &both),
        (files.to_vec(), &both),
        (vec!["--ui-bind", "off"], &both),
        (real.to_vec(), &password),
        (real.to_vec(), &typo),
        (vec!["dlq", "list"], &typo),
        (vec!["dlq", "list"], &password),
        (vec!["dlq", "redrive", "--yes"], &typo),
        (vec!["show", "dlq"], &typo),
        (vec!["show", "enriched"], &password),
        (vec!["show", "active_users"], &both),
        (vec!["generate", "--count", "3"], &typo),
        (vec!["generate", "--count", "3"], &password),
        (vec!["checkpoint", "ls"], &both),
        (vec!["health"], &both),
        (vec!["reset", "--yes"], &both),
        (vec!["--config", "open.toml", "config", "show"], &none),
        (vec!["--config", "bare.toml", "config", "show"], &none),
        (vec!["--config", "key.toml", "config", "show"], &none),
        (vec!["--config", "good.toml", "--input", "in.jsonl", "--ui-bind", "off"], &none),
    ];
    let wrong: Vec<_> = [bad, other].iter().map(|url| database(url)).collect();
    let wrong = wrong.iter().map(|variables| (files.to_vec(), variables));
    let cases: Vec<_> = cases.into_iter().chain(wrong).collect();
    std::thread::scope(|scope| {
        for (args, variables) in &cases {
            scope.spawn(move || {
                let mut all: Vec<(&str, &str)> =
                    variables.iter().map(|(name, value)| (&**name, &**value)).collect();
                all.push(("RUST_LOG", "trace"));
                let said = says(program(folder, args, &all));
                assert!(!said.is_empty(), "{args:?} says something");
                let at = said.lines().find(|line| line.contains(CANARY));
                assert_eq!(at, None, "{args:?}");
            });
        }
    });
    fs::write(folder.join(".env"), format!("DATABASE_URL=postgres://u:{CANARY}@h x\n")).unwrap();
    let said = says(program(folder, &["config", "show"], &[]));
    assert!(said.contains(".env") && !said.contains(CANARY), "{said}");
}

/// A job that writes to Kafka and PostgreSQL with passwords shows them nowhere while it runs.
#[tokio::test]
async fn f90_a_running_job_serves_no_password() {
    let Some((bootstrap, database)) = services() else { return };
    let name = format!("canary_{}", std::process::id());
    let (client, connection) =
        tokio_postgres::connect(&database, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let (server, _) = database.rsplit_once('/').unwrap();
    let url = format!("{server}/{name}");
    let (user, _) = server.rsplit_once('@').unwrap();
    let (_, password) = user.rsplit_once(':').unwrap();
    let in_url = format!(":{password}@");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let input = Topic::create(&bootstrap, &name, 1).await;
    let value = r#"{"user_id":"u","event_type":"click","event_time":"2026-01-01T00:00:00Z"}"#;
    input.produce(0, &[InputRecord { value: Some(value.into()), ..InputRecord::default() }]).await;
    let (port, topic) = (free_port(), name.clone());
    let brokers = bootstrap.clone();
    let served = tokio::task::spawn_blocking(move || {
        let bind = format!("127.0.0.1:{port}");
        let (group, output) = (format!("{topic}-group"), format!("{topic}-out"));
        let variables = [
            ("DATABASE_URL", &*url),
            ("KAFKA_BOOTSTRAP_SERVERS", &*brokers),
            ("KAFKA_INPUT_TOPIC", &*topic),
            ("KAFKA_OUTPUT_TOPIC", &*output),
            ("KAFKA_GROUP_ID", &*group),
            // Of no use without SASL, and kept all the same.
            ("KAFKA_PROP_SASL_PASSWORD", CANARY),
            ("RUST_LOG", "trace"),
        ];
        let log = fs::File::create(path.join("log")).unwrap();
        let mut job = program(&path, &["--ui-bind", &bind], &variables);
        let job = job.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let job = Running(job);
        until("the job", || get(port, "/api/v1/progress").filter(|p| p.contains("postgres table")));
        let paths = ["/", "/healthz", "/readyz", "/metrics", "/api/v1/progress", "/config"];
        let mut served: String = paths.iter().filter_map(|path| get(port, path)).collect();
        drop(job);
        served.push_str(&fs::read_to_string(path.join("log")).unwrap());
        served
    })
    .await
    .unwrap();
    client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    kafka::delete(&bootstrap, &name).await;
    assert!(served.contains("\"read\""), "{served}");
    let shown = |line: &&str| line.contains(CANARY) || line.contains(&in_url);
    assert_eq!(served.lines().find(shown), None);
}
