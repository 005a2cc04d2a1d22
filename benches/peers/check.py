"""Compares what an engine has written with the batch computation, row for row."""

import glob
import os
from dataclasses import dataclass

import duckdb
import psycopg
from confluent_kafka import Consumer, TopicPartition

MILLISECONDS = "(extract(epoch FROM {}) * 1000)::bigint"


@dataclass
class Difference:
    text: str
    # Nothing is wrong, but what the end of the input leaves open has no row.
    open_only: bool = False

    def __str__(self):
        return self.text


# What is read from PostgreSQL, and the key and the values by which rows are compared.
TABLES = {
    "page_view_counts": (
        f"SELECT {MILLISECONDS.format('window_start')} AS window_start, page_url, view_count FROM page_view_counts",
        ["window_start", "page_url"],
        ["view_count"],
    ),
    "active_users": (
        f"SELECT {MILLISECONDS.format('window_start')} AS window_start, active_user_count FROM active_users",
        ["window_start"],
        ["active_user_count"],
    ),
    "user_sessions": (
        f"SELECT user_id, {MILLISECONDS.format('session_start_time')} AS session_start,"
        f" {MILLISECONDS.format('session_end_time')} AS session_end FROM user_sessions",
        ["user_id", "session_start"],
        ["session_end"],
    ),
}


def export_tables(database_url, folder):
    """Copies the tables into CSV files, as the engines without tables write them themselves."""
    with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
        for table, (query, _, _) in TABLES.items():
            with open(f"{folder}/{table}.csv", "wb") as file, cursor.copy(f"COPY ({query}) TO STDOUT CSV HEADER") as rows:
                for block in rows:
                    file.write(block)


def compare_tables(expected, got):
    """The differences of the three tables; none if all is as it should be."""
    differences = []
    for table, (_, keys, values) in TABLES.items():
        if not os.path.exists(f"{got}/{table}.csv"):
            differences.append(Difference(f"{table}: nothing written"))
            continue
        database = duckdb.connect()
        columns = "{" + ", ".join(
            f"'{name}': '{'VARCHAR' if name in ('user_id', 'page_url') else 'BIGINT'}'" for name in keys + values
        ) + "}"
        database.execute(f"CREATE TABLE want AS SELECT * FROM '{expected}/{table}.parquet'")
        database.execute(
            f"CREATE TABLE have AS SELECT * FROM read_csv('{got}/{table}.csv', header = true, columns = {columns})"
        )
        is_open = "want.is_open" if table == "user_sessions" else "false"
        differ = " OR ".join(f"want.{name} IS DISTINCT FROM have.{name}" for name in values)
        total, missing, still_open, wrong, extra, twice = database.execute(
            f"""SELECT count(want.{keys[0]}),
                count(*) FILTER (have.{keys[0]} IS NULL AND NOT {is_open}),
                count(*) FILTER (have.{keys[0]} IS NULL AND {is_open}),
                count(*) FILTER (want.{keys[0]} IS NOT NULL AND have.{keys[0]} IS NOT NULL AND ({differ})),
                count(*) FILTER (want.{keys[0]} IS NULL),
                (SELECT count(*) - count(DISTINCT ({", ".join(keys)})) FROM have)
            FROM want FULL JOIN have ON {" AND ".join(f"want.{key} = have.{key}" for key in keys)}"""
        ).fetchone()
        found = [
            f"{count:,} {what} ({share(count, total)})"
            for count, what in (
                (missing, "missing"),
                (still_open, "not closed at the end of the input"),
                (wrong, "wrong"),
                (extra, "that should not be there"),
                (twice, "there twice"),
            )
            if count
        ]
        if wrong and table == "active_users":
            worst = database.execute(
                "SELECT max(abs(have.active_user_count / want.active_user_count - 1)) FROM want JOIN have USING (window_start)"
            ).fetchone()[0]
            found.append(f"at worst by {100 * worst:.1f} %")
        if found:
            text = f"{table}: of {total:,} rows " + ", ".join(found)
            differences.append(Difference(text, open_only=not (missing or wrong or extra or twice)))
    return differences


def share(count, total):
    percent = 100 * count / max(total, 1)
    return f"{percent:.1f} %" if percent >= 0.05 else "< 0.1 %"


def compare_events(expected, source, what):
    """Compares the multiset of events in `source`, a table function of DuckDB, with all events."""
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    columns = "epoch_ms(event_time) AS time, user_id::VARCHAR AS user_id, page_url::VARCHAR AS page_url, event_type::VARCHAR AS event_type"
    database.execute(f"CREATE TABLE have AS SELECT time, user_id, page_url, event_type, count(*) AS n FROM (SELECT {columns} FROM {source}) GROUP BY ALL")
    database.execute(f"CREATE TABLE want AS SELECT time, user_id, page_url, event_type, count(*) AS n FROM '{expected}/events.parquet' GROUP BY ALL")
    total, missing, extra = database.execute(
        """SELECT sum(want.n), sum(greatest(coalesce(want.n, 0) - coalesce(have.n, 0), 0)),
            sum(greatest(coalesce(have.n, 0) - coalesce(want.n, 0), 0))
        FROM want FULL JOIN have USING (time, user_id, page_url, event_type)"""
    ).fetchone()
    found = [f"{int(n):,} {word} ({share(n, total)})" for n, word in ((missing, "missing"), (extra, "too many")) if n]
    return [Difference(f"{what}: of {int(total):,} events " + ", ".join(found))] if found else []


def compare_enriched(expected, bootstrap, topic, folder):
    lines = f"{folder}/enriched.jsonl"
    read_committed(bootstrap, topic, lines)
    columns = "{event_time: 'TIMESTAMPTZ', user_id: 'VARCHAR', page_url: 'VARCHAR', event_type: 'VARCHAR', event_date: 'VARCHAR', page_category: 'VARCHAR'}"
    source = f"read_json('{lines}', format = 'newline_delimited', columns = {columns})"
    differences = compare_events(expected, source, "enriched")
    bad = duckdb.connect().execute(
        f"SELECT count(*) FROM {source} WHERE page_category IS DISTINCT FROM 'products' OR event_date IS DISTINCT FROM '2026-01-01'"
    ).fetchone()[0]
    os.remove(lines)
    return differences + ([Difference(f"enriched: {bad:,} with a wrong date or category")] if bad else [])


def compare_lake(expected, lake):
    files = [
        path
        for path in glob.glob(f"{lake}/**/*", recursive=True)
        # Flink's files have no ending, and one that starts with a dot is not finished.
        if os.path.isfile(path) and "_spark_metadata" not in path and is_parquet(path)
    ]
    if not files:
        return [Difference("lake: no file")]
    return compare_events(expected, f"read_parquet({files}, hive_partitioning = false)", "lake")


def is_parquet(path):
    with open(path, "rb") as file:
        return not os.path.basename(path).startswith(".") and file.read(4) == b"PAR1"


def read_committed(bootstrap, topic, path):
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{topic}.check",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    open_partitions = len(partitions)
    with open(path, "wb") as file:
        while open_partitions:
            for message in consumer.consume(10_000, 1.0):
                if message.error() is None:
                    file.write(message.value() + b"\n")
                else:
                    open_partitions -= 1
    consumer.close()
