//! Encrypted connections (F67), with the server's self-made certificate: the file that
//! `POSTGRES_CERTIFICATE` names (`dev/services env`).
#![cfg(feature = "postgres-tls")]

use streamkit::connector::postgres::{PostgresConfig, PostgresSink};
use streamkit::connector::{Commit, Sink};

use super::support::{Database, Proxy, Views, batch, progress};

/// The certificate's file and the database, or nothing, and a line that says so.
fn server(test: &str) -> Option<(String, Database)> {
    let path = std::env::var("POSTGRES_CERTIFICATE").unwrap_or_default();
    if !std::path::Path::new(&path).is_file() {
        println!("{test}: skipped, since POSTGRES_CERTIFICATE names no file");
        return None;
    }
    Some((path, Database::with_views(test)?))
}

fn encrypted(db: &Database) -> Vec<String> {
    db.ask(&format!(
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
          WHERE application_name = 'streamkit/{}'",
        db.job()
    ))
}

#[test]
fn f67_what_asks_for_encryption_gets_it() {
    let Some((certificate, db)) = server("tls") else { return };
    let root = format!("sslrootcert={}", certificate.replace('/', "%2F"));
    for (host, options, expected) in [
        ("127.0.0.1", "sslmode=prefer".to_owned(), "f"),
        ("127.0.0.1", "sslmode=require".to_owned(), "t"),
        ("127.0.0.1", format!("sslmode=require&{root}"), "t"),
        ("127.0.0.1", format!("sslmode=verify-ca&{root}"), "t"),
        // The certificate's name.
        ("localhost", format!("sslmode=verify-full&{root}"), "t"),
    ] {
        let config = db.config_tls(host, &options);
        let mut writer = PostgresSink::<Views>::new(&config).open(&db.context("views")).unwrap();
        let recovered = writer.recover(&db.claim()).unwrap();
        writer.write(&batch(&[(1, "/a", 1)])).unwrap();
        assert_eq!(writer.commit(&progress(1)).unwrap(), Commit::Done);
        assert_eq!(encrypted(&db), [expected], "{options}");
        assert!(recovered.is_none() || recovered == Some(progress(1)));
    }
}

#[test]
fn f67_a_server_that_is_not_the_right_one_is_refused_for_good() {
    let Some((certificate, db)) = server("tls_wrong") else { return };
    let root = format!("sslrootcert={}", certificate.replace('/', "%2F"));
    let refused = |config: &PostgresConfig, text: &str| {
        let opened = PostgresSink::<Views>::new(config).open(&db.context("views"));
        let error = opened.err().expect("it must not connect");
        assert!(!error.is_retriable(), "{error}");
        assert!(error.to_string().contains(text), "{text}: {error}");
    };
    refused(
        &db.config_tls("127.0.0.1", &format!("sslmode=verify-full&{root}")),
        "not valid for name",
    );
    // Another root: some certificate that is not the server's.
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.crt");
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other"])
        .arg("-keyout")
        .arg(folder.path().join("key"))
        .arg("-out")
        .arg(&other)
        .output();
    assert!(made.is_ok_and(|made| made.status.success()), "openssl makes no certificate");
    let other = format!("sslrootcert={}", other.to_str().unwrap().replace('/', "%2F"));
    for mode in ["require", "verify-ca", "verify-full"] {
        let config = db.config_tls("localhost", &format!("sslmode={mode}&{other}"));
        refused(&config, "invalid peer certificate");
    }
}

#[test]
fn f67_a_plain_server_is_never_spoken_to_in_plain_when_encryption_was_asked_for() {
    let Some((_, db)) = server("tls_plain") else { return };
    // Answers that there is no encryption, as somebody in between would.
    let proxy = Proxy::new(db.address());
    proxy.deny_encryption();
    let config = db.config_tls(&format!("127.0.0.1:{}", proxy.port), "sslmode=require");
    let opened = PostgresSink::<Views>::new(&config).open(&db.context("views"));
    let error = opened.err().expect("it must not connect");
    assert!(error.to_string().contains("does not support TLS"), "{error}");
    assert!(!error.is_retriable());
    assert_eq!(encrypted(&db), [""; 0], "no session was begun");
}
