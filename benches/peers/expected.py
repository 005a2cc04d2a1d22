"""The job as a batch computation in SQL, on the file that the topic was filled from.

    python expected.py EVENTS.jsonl FOLDER

Writes page_view_counts, active_users, user_sessions and events as Parquet files. Times are
milliseconds. It is the reference, and run with its start it is what a batch costs.
"""

import sys

import duckdb

QUERIES = {
    "page_view_counts": """
        SELECT time // 60000 * 60000 AS window_start, page_url, count(*) AS view_count
        FROM events WHERE event_type = 'page_view' GROUP BY ALL""",
    "active_users": """
        SELECT (time // 60000 - back) * 60000 AS window_start, count(DISTINCT user_id) AS active_user_count
        FROM events, range(5) AS windows(back) GROUP BY ALL""",
    # is_open: nothing in the topic says that the session is over, so that an engine which does not
    # close its windows at the end of the input has no row for it.
    "user_sessions": """
        WITH marked AS (
            SELECT user_id, time, coalesce(time - lag(time) OVER own >= 1800000, true) AS opens
            FROM events WINDOW own AS (PARTITION BY user_id ORDER BY time)),
        numbered AS (
            SELECT user_id, time, sum(opens::INT) OVER (
                PARTITION BY user_id ORDER BY time ROWS UNBOUNDED PRECEDING) AS number
            FROM marked)
        SELECT user_id, min(time) AS session_start, max(time) AS session_end,
            max(time) + 1800000 > (SELECT max(time) - 120000 - 70000 FROM events) AS is_open
        FROM numbered GROUP BY user_id, number""",
    "events": "SELECT time, user_id, page_url, event_type FROM events",
}


def compute(source, folder, names):
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(
        """CREATE TABLE events AS
        SELECT epoch_ms(event_time) AS time, user_id, page_url, event_type
        FROM read_json(?, format = 'newline_delimited', columns = {
            event_time: 'TIMESTAMPTZ', user_id: 'VARCHAR', page_url: 'VARCHAR', event_type: 'VARCHAR'})""",
        [source],
    )
    for name in names:
        connection.execute(f"COPY ({QUERIES[name]}) TO '{folder}/{name}.parquet'")


if __name__ == "__main__":
    compute(sys.argv[1], sys.argv[2], ["page_view_counts", "active_users", "user_sessions"])
