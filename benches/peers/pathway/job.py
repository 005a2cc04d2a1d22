"""The three aggregates in Pathway, in batch mode, into CSV files."""

import csv
import datetime
import os

import pathway as pw

MINUTE = datetime.timedelta(minutes=1)
FOLDER = os.environ["BENCH_FOLDER"]


class Event(pw.Schema):
    event_time: str
    user_id: str
    page_url: str
    event_type: str


events = pw.io.kafka.read(
    {
        "bootstrap.servers": os.environ["BENCH_BOOTSTRAP"],
        "group.id": os.environ["BENCH_RUN"],
        "auto.offset.reset": "earliest",
        "enable.auto.commit": "false",
        "queued.min.messages": "1000000",
        "fetch.queue.backoff.ms": "5",
    },
    os.environ["BENCH_TOPIC"],
    schema=Event,
    format="json",
    mode="static",
)
events = events.select(
    pw.this.user_id, pw.this.page_url, pw.this.event_type, time=pw.this.event_time.dt.strptime("%Y-%m-%dT%H:%M:%S.%fZ")
)


def write(table, name):
    pw.io.csv.write(table, f"{FOLDER}/{name}.changes")


views = events.filter(pw.this.event_type == "page_view")
write(
    views.windowby(views.time, window=pw.temporal.tumbling(duration=MINUTE), instance=views.page_url).reduce(
        window_start=pw.this._pw_window_start.dt.timestamp(unit="ms"), page_url=pw.this._pw_instance, view_count=pw.reducers.count()
    ),
    "page_view_counts",
)
write(
    events.windowby(events.time, window=pw.temporal.sliding(hop=MINUTE, duration=5 * MINUTE)).reduce(
        window_start=pw.this._pw_window_start.dt.timestamp(unit="ms"), active_user_count=pw.reducers.count_distinct(pw.this.user_id)
    ),
    "active_users",
)
write(
    events.windowby(
        events.time, window=pw.temporal.session(max_gap=30 * MINUTE), instance=events.user_id
    ).reduce(
        user_id=pw.this._pw_instance,
        session_start=pw.reducers.min(pw.this.time).dt.timestamp(unit="ms"),
        session_end=pw.reducers.max(pw.this.time).dt.timestamp(unit="ms"),
    ),
    "user_sessions",
)
pw.run(monitoring_level=pw.MonitoringLevel.NONE)

# What is written is a list of changes, each with a time and whether a row comes or goes.
for name in ("page_view_counts", "active_users", "user_sessions"):
    rows = {}
    with open(f"{FOLDER}/{name}.changes", newline="") as file:
        changes = csv.reader(file)
        columns = next(changes)[:-2]
        for *row, _time, change in changes:
            rows[tuple(row)] = rows.get(tuple(row), 0) + int(change)
    with open(f"{FOLDER}/{name}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row, count in rows.items():
            # A time in milliseconds is a number with a point.
            writer.writerows([[part.removesuffix(".0") for part in row]] * count)
