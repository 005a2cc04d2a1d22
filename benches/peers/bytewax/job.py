"""The three aggregates in Bytewax, into CSV files."""

import csv
import os
from datetime import datetime, timedelta, timezone

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)


def milliseconds(time):
    return (time - EPOCH) // timedelta(milliseconds=1)


class CsvFile(StatelessSinkPartition):
    def __init__(self, table, columns):
        self.file = open(f"{os.environ['BENCH_FOLDER']}/{table}.csv", "w", newline="")
        self.rows = csv.writer(self.file)
        self.rows.writerow(columns)

    def write_batch(self, items):
        self.rows.writerows(items)

    def close(self):
        self.file.close()


class Csv(DynamicSink):
    def __init__(self, table, columns):
        self.table, self.columns = table, columns

    def build(self, _step, _worker, _workers):
        return CsvFile(self.table, self.columns)


def event(message):
    fields = orjson.loads(message.value)
    return datetime.fromisoformat(fields["event_time"]), fields["user_id"], fields["page_url"], fields["event_type"]


def clock(time_of):
    # By default each key's clock goes on with the wall clock, and wakes for it: on old events that
    # takes five times the CPU.
    return win.EventClock(time_of, wait_for_system_duration=2 * MINUTE, to_system_utc=lambda _time: None)


flow = Dataflow("peer")
source = KafkaSource(
    [os.environ["BENCH_BOOTSTRAP"]], [os.environ["BENCH_TOPIC"]], tail=False, batch_size=1000,
    add_config={"fetch.queue.backoff.ms": "5"},
)
events = op.flat_map_batch("parse", op.input("in", flow, source), lambda batch: map(event, batch))

views = op.flat_map_batch("views", events, lambda batch: [(e[2], e[0]) for e in batch if e[3] == "page_view"])
counts = win.fold_window(
    "count", views, clock(lambda time: time), win.TumblingWindower(length=MINUTE, align_to=EPOCH),
    lambda: 0, lambda count, _time: count + 1, lambda a, b: a + b,
)
rows = op.map("view rows", counts.down, lambda row: (row[1][0] * 60_000, row[0], row[1][1]))
op.output("page_view_counts", rows, Csv("page_view_counts", ["window_start", "page_url", "view_count"]))


def add(users, item):
    users.add(item[1])
    return users


everyone = op.map("everyone", events, lambda e: ("all", (e[0], e[1])))
active = win.fold_window(
    "active", everyone, clock(lambda item: item[0]),
    win.SlidingWindower(length=5 * MINUTE, offset=MINUTE, align_to=EPOCH), set, add, lambda a, b: a | b,
)
rows = op.map("active rows", active.down, lambda row: (row[1][0] * 60_000, len(row[1][1])))
op.output("active_users", rows, Csv("active_users", ["window_start", "active_user_count"]))


def extend(session, time):
    return (time, time) if session is None else (min(session[0], time), max(session[1], time))


def join(a, b):
    return a or b if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))


by_user = op.map("by user", events, lambda e: (e[1], e[0]))
sessions = win.fold_window(
    "sessions", by_user, clock(lambda time: time), win.SessionWindower(gap=30 * MINUTE), lambda: None, extend, join
)
rows = op.map("session rows", sessions.down, lambda row: (row[0], *map(milliseconds, row[1][1])))
op.output("user_sessions", rows, Csv("user_sessions", ["user_id", "session_start", "session_end"]))
