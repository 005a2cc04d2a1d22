//! What needs running rows, which only the crate itself can make: on the server that `DATABASE_URL`
//! names. All else is in `tests/postgres`.

use std::collections::BTreeMap;

use super::session::Session;
use super::{PostgresConfig, PostgresSink};
use crate::connector::{Claim, Commit, Point, Progress, Sink, SinkContext, Table};
use crate::record::{Batch, BatchBuilder, Kind};
use crate::time::Timestamp;

type Row = (String, i64);
type Batches = &'static [(Kind, &'static [(&'static str, i64)])];

fn batch(kind: Kind, rows: &[(&str, i64)]) -> Batch<Row> {
    let mut builder = BatchBuilder::with_capacity(rows.len());
    for (key, n) in rows {
        builder.push(((*key).to_owned(), *n), Timestamp::MIN, None);
    }
    builder.finish(None, kind)
}

#[test]
fn d3_a_final_row_replaces_running_ones_and_is_not_replaced_by_them() {
    let Ok(url) = std::env::var("DATABASE_URL") else {
        println!("skipped, since DATABASE_URL is not set");
        return;
    };
    let name = format!("running_{}", std::process::id());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let separator = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{separator}options=-csearch_path%3D{name}");
    let config = PostgresConfig::new(&url).unwrap();
    let admin = runtime.block_on(Session::open(&config, "test")).unwrap();
    let sql = |sql: String| runtime.block_on(admin.batch("test", &sql)).unwrap();
    sql(format!("CREATE SCHEMA {name}; CREATE TABLE t (k text PRIMARY KEY, n bigint NOT NULL)"));

    let table = Table::new("t").key(["k"]).text("k", |r: &Row| &r.0).bigint("n", |r| r.1);
    let mut sink = PostgresSink::with_table(&config, table);
    let context = SinkContext {
        job: "test".to_owned(),
        sink: "t".to_owned(),
        instance: "0".to_owned(),
        runtime: runtime.handle().clone(),
    };
    let mut writer = sink.open(&context).unwrap();
    let claim = Claim {
        job: "test".to_owned(),
        sink: "t".to_owned(),
        lineage: "l".to_owned(),
        take_over: false,
    };
    writer.recover(&claim).unwrap();
    let (w, noted) = (Timestamp::MIN, BTreeMap::new());
    let progress = Progress { point: Point::Watermark { groups: (0, 255), w, noted }, rows: 0 };
    let commits: [Batches; 2] = [
        &[(Kind::Running, &[("a", 1), ("b", 1)]), (Kind::Running, &[("a", 2)])],
        &[(Kind::Final, &[("a", 4)]), (Kind::Running, &[("a", 3), ("b", 2)])],
    ];
    let mut seen = vec![];
    for batches in commits {
        for (kind, rows) in batches {
            writer.write(&batch(*kind, rows)).unwrap();
        }
        assert_eq!(writer.commit(&progress).unwrap(), Commit::Done);
        let ask = "SELECT k, n FROM t ORDER BY k";
        let rows = runtime.block_on(admin.rows("test", ask, &[])).unwrap();
        seen.extend(rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, i64>(1))));
    }
    sql(format!("DROP SCHEMA {name} CASCADE"));
    let expected = [("a", 2), ("b", 1), ("a", 4), ("b", 2)];
    assert_eq!(seen, expected.map(|(key, n)| (key.to_owned(), n)));
}
