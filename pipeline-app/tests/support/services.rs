//! Real Kafka and PostgreSQL: where they are, a database of a test, and what the job has left there.

use std::path::Path;

use super::{check_enriched, kafka, lake, unique};
use crate::oracle::compare::{assert_same_rows, assert_same_table};
use crate::oracle::{Expected, time};

/// The services' addresses, or `None` where the tests cannot run.
pub fn services() -> Option<(String, String)> {
    let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (get("KAFKA_BOOTSTRAP_SERVERS"), get("DATABASE_URL")) {
        (Some(kafka), Some(database)) => Some((kafka, database)),
        (None, None) => {
            println!("skipped: KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL are not set");
            None
        }
        _ => panic!("set both KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL, or neither"),
    }
}

/// A database of its own for a test.
pub struct Database {
    admin: String,
    name: String,
}

impl Database {
    /// Makes it, in place of an older one.
    pub async fn create(admin: &str, name: &str) -> Self {
        let client = connect(admin).await;
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {name}")).await.unwrap();
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        Self { admin: admin.to_owned(), name: name.to_owned() }
    }

    /// Its address.
    pub fn url(&self) -> String {
        let (server, _) = self.admin.rsplit_once('/').unwrap();
        format!("{server}/{}", self.name)
    }

    /// Deletes it.
    pub async fn drop(self) {
        let client = connect(&self.admin).await;
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        client.batch_execute(&sql).await.unwrap();
    }
}

/// A connection.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Every output of the job that reads the topic `input`, as the outside sees it, against the oracle.
pub async fn check(
    expected: &Expected,
    kafka: &str,
    input: &str,
    database: &str,
    lake_path: &Path,
) {
    check_tables(expected, database).await;
    let rows = lake::rows(lake_path);
    let wanted: Vec<_> = expected
        .accepted_rows
        .iter()
        .map(|r| {
            let at = (r.partition, r.offset);
            (
                at,
                r.event_time,
                r.user_id.clone(),
                r.page_url.clone(),
                r.event_type.clone(),
                r.event_date.clone(),
            )
        })
        .collect();
    assert_same_rows("lake", &wanted, &rows);

    let enriched = kafka::read_all(kafka, &format!("{input}-out")).await;
    assert_eq!(enriched.len(), expected.accepted_rows.len(), "enriched records");
    let texts = enriched.iter().map(|record| {
        let text = str::from_utf8(record.value.as_deref().unwrap()).unwrap();
        (Some(record.key.clone()), text)
    });
    check_enriched(expected, texts);
    let late: Vec<_> = kafka::read_all(kafka, &format!("{input}.late"))
        .await
        .iter()
        .map(|r| {
            (
                r.header("late.aggregate"),
                r.header("late.partition"),
                r.header("late.offset"),
                r.header("late.watermark"),
            )
        })
        .collect();
    let wanted: Vec<_> = expected
        .late
        .iter()
        .map(|l| {
            let watermark = time::show(l.watermark);
            (l.aggregate.clone(), l.partition.to_string(), l.offset.to_string(), watermark)
        })
        .collect();
    assert_same_rows("late", &wanted, &late);
    let dead: Vec<_> = kafka::read_all(kafka, &format!("{input}.dlq"))
        .await
        .iter()
        .map(|r| {
            assert_eq!(r.header("dlq.topic"), input);
            assert_eq!(r.header("dlq.app"), "pipeline-app");
            (r.header("dlq.partition"), r.header("dlq.offset"), r.header("dlq.reason"))
        })
        .collect();
    let wanted: Vec<_> = expected
        .dead
        .iter()
        .map(|d| (d.partition.to_string(), d.offset.to_string(), d.reason.clone()))
        .collect();
    assert_same_rows("dead letters", &wanted, &dead);
}

async fn check_tables(expected: &Expected, url: &str) {
    let client = connect(url).await;
    let micros = |row: &tokio_postgres::Row, i: usize| {
        row.get::<_, chrono::DateTime<chrono::Utc>>(i).timestamp_micros()
    };
    let rows = client
        .query("SELECT window_start, page_url, window_end, view_count FROM page_view_counts", &[])
        .await
        .unwrap();
    let counts = unique(rows.iter().map(|r| {
        ((micros(r, 0), r.get::<_, String>(1)), (micros(r, 2), r.get::<_, i64>(3) as u64))
    }));
    assert_same_table("page_view_counts", &expected.page_view_counts, &counts);
    let rows = client
        .query("SELECT window_start, window_end, active_user_count FROM active_users", &[])
        .await
        .unwrap();
    let users =
        unique(rows.iter().map(|r| (micros(r, 0), (micros(r, 1), r.get::<_, i64>(2) as u64))));
    assert_same_table("active_users", &expected.active_users, &users);
    let rows = client
        .query(
            "SELECT user_id, session_start_time, session_end_time, session_duration_seconds FROM user_sessions",
            &[],
        )
        .await
        .unwrap();
    let sessions = unique(
        rows.iter()
            .map(|r| ((r.get::<_, String>(0), micros(r, 1)), (micros(r, 2), r.get::<_, f64>(3)))),
    );
    assert_same_table("user_sessions", &expected.user_sessions, &sessions);
}
