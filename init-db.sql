-- The tables of pipeline-app's results, for PostgreSQL 12 or newer.
--
-- Who runs this file: the database container on its first start, dev/services,
-- and the app itself at start if a table is missing. So it is plain SQL without
-- psql commands, needs only an ordinary user that may create tables in the
-- database's schema, and can be run any number of times. It creates no role and
-- no database.
--
-- There is no BEGIN or COMMIT in it, so that the caller decides. Whoever may run
-- it at the same moment as somebody else should run it in one transaction that
-- begins with
--     SELECT pg_advisory_xact_lock(7236269021);
-- because two concurrent CREATE ... IF NOT EXISTS can both find nothing and one
-- of them then fails. Look first whether the tables are there: CREATE INDEX waits
-- for open writes to the table even when the index exists.
--
-- All times are points in time (timestamptz), whatever zone a client shows them in.
-- Windows are half-open: [window_start, window_end).

-- page_view events per page and minute. While a window is open the row holds its
-- value so far, which only grows.
CREATE TABLE IF NOT EXISTS page_view_counts (
    window_start timestamptz NOT NULL,
    window_end   timestamptz NOT NULL,
    page_url     text        NOT NULL,
    view_count   bigint      NOT NULL,
    PRIMARY KEY (window_start, page_url)
);

-- The history of one page, newest first. The primary key serves "all pages of a
-- window" but not this.
CREATE INDEX IF NOT EXISTS page_view_counts_page_url_window_start_idx
    ON page_view_counts (page_url, window_start DESC);

-- Exact number of distinct users in the 5 minutes that end at window_end, one row
-- per minute. A window without events has no row. Running values as above.
CREATE TABLE IF NOT EXISTS active_users (
    window_start      timestamptz NOT NULL,
    window_end        timestamptz NOT NULL,
    active_user_count bigint      NOT NULL,
    PRIMARY KEY (window_start)
);

-- Finished sessions only; a session's row never changes. The times are those of
-- its first and last event, so two sessions of a user never share a start.
CREATE TABLE IF NOT EXISTS user_sessions (
    user_id                  text             NOT NULL,
    session_start_time       timestamptz      NOT NULL,
    session_end_time         timestamptz      NOT NULL,
    session_duration_seconds double precision NOT NULL,
    PRIMARY KEY (user_id, session_start_time)
);

-- The sessions that ended last, over all users.
CREATE INDEX IF NOT EXISTS user_sessions_session_end_time_idx
    ON user_sessions (session_end_time DESC);

-- How far each sink of each job has got, moved in the same transaction as its rows. The rows that
-- it counts (progress ->> 'rows') are those written and those rejected.
CREATE TABLE IF NOT EXISTS streamkit_progress (
    job        text        NOT NULL,
    sink       text        NOT NULL,
    lineage    text        NOT NULL,
    owner      text        NOT NULL,
    version    bigint      NOT NULL,
    progress   json,
    rejected   bigint      NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job, sink)
);

-- Rows that the database would not take into their table (a constraint, a value out of range), as
-- JSON text and with the reason. Once somebody has seen to them they can be deleted.
CREATE TABLE IF NOT EXISTS streamkit_rejects (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job         text        NOT NULL,
    sink        text        NOT NULL,
    lineage     text        NOT NULL,
    target      text        NOT NULL,
    refused_row text        NOT NULL,
    error       text        NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT now()
);
