"""The three aggregates in Quix Streams, one application after the other, into CSV files.

It never ends by itself: an application stops when nothing has come for IDLE_SECONDS.
"""

import csv
import os
from datetime import datetime, timedelta

from quixstreams import Application
from quixstreams.dataframe.windows import Collect, Count, Max, Min

FOLDER, RUN = os.environ["BENCH_FOLDER"], os.environ["BENCH_RUN"]
MINUTE = timedelta(minutes=1)
GRACE = 2 * MINUTE
IDLE_SECONDS = 5


def milliseconds(event, *_record):
    return int(datetime.fromisoformat(event["event_time"]).timestamp() * 1000)


def late(*_arguments, **_more):
    return False  # Do not log each.


def run(table, columns, windows, row):
    application = Application(
        broker_address=os.environ["BENCH_BOOTSTRAP"],
        consumer_group=f"{RUN}-{table}",
        auto_offset_reset="earliest",
        state_dir=f"{FOLDER}/state-{table}",
        use_changelog_topics=False,
        loglevel="WARNING",
        consumer_extra_config={"fetch.queue.backoff.ms": 5},
    )
    topic = application.topic(os.environ["BENCH_TOPIC"], value_deserializer="json", timestamp_extractor=milliseconds)
    with open(f"{FOLDER}/{table}.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        windows(application.dataframe(topic)).final(closing_strategy="partition").update(
            lambda value, key, *_record: rows.writerow(row(key.decode() if isinstance(key, bytes) else key, value)),
            metadata=True,
        )
        application.run(timeout=IDLE_SECONDS)


run(
    "page_view_counts",
    ["window_start", "page_url", "view_count"],
    lambda events: events.filter(lambda event: event["event_type"] == "page_view")
    .group_by("page_url")
    .tumbling_window(MINUTE, grace_ms=GRACE, on_late=late)
    .agg(n=Count()),
    lambda key, window: (window["start"], key, window["n"]),
)
run(
    "active_users",
    ["window_start", "active_user_count"],
    lambda events: events.group_by(lambda _event: "all", name="all")
    .hopping_window(5 * MINUTE, MINUTE, grace_ms=GRACE, on_late=late)
    .agg(users=Collect("user_id")),
    lambda _key, window: (window["start"], len(set(window["users"]))),
)
run(
    "user_sessions",
    ["user_id", "session_start", "session_end"],
    lambda events: events.apply(lambda event: {"time": milliseconds(event)})
    .session_window(30 * MINUTE, grace_ms=GRACE, on_late=late)
    .agg(first=Min("time"), last=Max("time")),
    lambda key, window: (key, window["first"], window["last"]),
)
