import java.util.Map;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.StatementSet;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;

/** The job in SQL, with window table functions. Bounded by the end of the topic: the end closes all windows. */
public class SqlJob {
    static final Map<String, String> ENV = System.getenv();
    static final String RUN = ENV.get("BENCH_RUN");

    public static void main(String[] arguments) throws Exception {
        Configuration settings = Settings.common();
        settings.setString("execution.runtime-mode", "STREAMING");
        settings.setString("taskmanager.memory.managed.size", "1024m");
        settings.setString("table.local-time-zone", "UTC");
        settings.setString("table.exec.mini-batch.enabled", "true");
        settings.setString("table.exec.mini-batch.allow-latency", "200 ms");
        settings.setString("table.exec.mini-batch.size", "20000");
        StreamTableEnvironment tables = StreamTableEnvironment.create(
            StreamExecutionEnvironment.createLocalEnvironment(Settings.CORES, settings));

        tables.executeSql("""
            CREATE TABLE events (
              event_time TIMESTAMP_LTZ(3), user_id STRING, page_url STRING, event_type STRING, record_key BYTES,
              source_partition INT METADATA FROM 'partition' VIRTUAL,
              source_offset BIGINT METADATA FROM 'offset' VIRTUAL,
              WATERMARK FOR event_time AS event_time - INTERVAL '2' MINUTE
            ) WITH (
              'connector' = 'kafka', 'topic' = '%s', 'properties.bootstrap.servers' = '%s',
              'properties.group.id' = '%s', 'scan.startup.mode' = 'earliest-offset',
              'scan.bounded.mode' = 'latest-offset', 'properties.max.partition.fetch.bytes' = '4194304',
              'properties.max.poll.records' = '5000', 'key.format' = 'raw', 'key.fields' = 'record_key',
              'value.format' = 'json', 'value.fields-include' = 'EXCEPT_KEY',
              'value.json.timestamp-format.standard' = 'ISO-8601', 'value.json.ignore-parse-errors' = 'true')
            """.formatted(ENV.get("BENCH_TOPIC"), ENV.get("BENCH_BOOTSTRAP"), RUN));
        // The JDBC connector knows no TIMESTAMP_LTZ; the zone of this program is UTC.
        jdbcTable(tables, "page_view_counts",
            "window_start TIMESTAMP(3), window_end TIMESTAMP(3), page_url STRING, view_count BIGINT",
            "window_start, page_url");
        jdbcTable(tables, "active_users",
            "window_start TIMESTAMP(3), window_end TIMESTAMP(3), active_user_count BIGINT", "window_start");
        jdbcTable(tables, "user_sessions",
            "user_id STRING, session_start_time TIMESTAMP(3), session_end_time TIMESTAMP(3), session_duration_seconds DOUBLE",
            "user_id, session_start_time");

        StatementSet job = tables.createStatementSet();
        job.addInsertSql("""
            INSERT INTO page_view_counts SELECT window_start, window_end, page_url, COUNT(*)
            FROM TUMBLE(TABLE events, DESCRIPTOR(event_time), INTERVAL '1' MINUTE)
            WHERE event_type = 'page_view' GROUP BY window_start, window_end, page_url""");
        job.addInsertSql("""
            INSERT INTO active_users SELECT window_start, window_end, COUNT(DISTINCT user_id)
            FROM HOP(TABLE events, DESCRIPTOR(event_time), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)
            GROUP BY window_start, window_end""");
        job.addInsertSql("""
            INSERT INTO user_sessions SELECT user_id, CAST(MIN(event_time) AS TIMESTAMP(3)),
              CAST(MAX(event_time) AS TIMESTAMP(3)),
              CAST(TIMESTAMPDIFF(SECOND, MIN(event_time), MAX(event_time)) AS DOUBLE)
            FROM SESSION(TABLE events PARTITION BY user_id, DESCRIPTOR(event_time), INTERVAL '30' MINUTE)
            GROUP BY user_id, window_start, window_end""");
        if (ENV.get("BENCH_TIER").equals("full")) {
            addFull(tables, job);
        }
        job.execute().await();
        System.exit(0);
    }

    static void jdbcTable(StreamTableEnvironment tables, String name, String columns, String key) {
        tables.executeSql("""
            CREATE TABLE %s (%s, PRIMARY KEY (%s) NOT ENFORCED) WITH (
              'connector' = 'jdbc', 'url' = '%s', 'username' = '%s', 'password' = '%s', 'table-name' = '%s',
              'sink.buffer-flush.max-rows' = '5000', 'sink.buffer-flush.interval' = '1s')
            """.formatted(name, columns, key, ENV.get("BENCH_JDBC_URL"), ENV.get("BENCH_JDBC_USER"),
                ENV.get("BENCH_JDBC_PASSWORD"), name));
    }

    static void addFull(StreamTableEnvironment tables, StatementSet job) {
        // The default of the transaction timeout, 1 h, is more than a broker allows by default.
        tables.executeSql("""
            CREATE TABLE enriched (
              record_key BYTES, event_time TIMESTAMP_LTZ(3), user_id STRING, page_url STRING, event_type STRING,
              processing_time TIMESTAMP_LTZ(3), event_date STRING, page_category STRING
            ) WITH (
              'connector' = 'kafka', 'topic' = '%s', 'properties.bootstrap.servers' = '%s', 'key.format' = 'raw',
              'key.fields' = 'record_key', 'value.format' = 'json', 'value.fields-include' = 'EXCEPT_KEY',
              'value.json.timestamp-format.standard' = 'ISO-8601', 'sink.delivery-guarantee' = 'exactly-once',
              'sink.transactional-id-prefix' = '%s', 'properties.transaction.timeout.ms' = '900000',
              'properties.linger.ms' = '20', 'properties.batch.size' = '262144')
            """.formatted(ENV.get("BENCH_ENRICHED"), ENV.get("BENCH_BOOTSTRAP"), RUN));
        job.addInsertSql("""
            INSERT INTO enriched SELECT record_key, event_time, user_id, page_url, event_type,
              CAST(PROCTIME() AS TIMESTAMP_LTZ(3)), DATE_FORMAT(event_time, 'yyyy-MM-dd'),
              SPLIT_INDEX(page_url, '/', 1) FROM events""");
        tables.executeSql("""
            CREATE TABLE lake (
              event_time TIMESTAMP_LTZ(3), user_id STRING, page_url STRING, event_type STRING,
              processing_time TIMESTAMP_LTZ(3), source_partition INT, source_offset BIGINT, event_date STRING
            ) PARTITIONED BY (event_date) WITH (
              'connector' = 'filesystem', 'path' = 'file://%s', 'format' = 'parquet',
              'parquet.compression' = 'ZSTD', 'parquet.utc-timezone' = 'true',
              'sink.rolling-policy.file-size' = '256MB', 'sink.rolling-policy.rollover-interval' = '10 min')
            """.formatted(ENV.get("BENCH_LAKE")));
        job.addInsertSql("""
            INSERT INTO lake SELECT event_time, user_id, page_url, event_type,
              CAST(PROCTIME() AS TIMESTAMP_LTZ(3)), source_partition, source_offset,
              DATE_FORMAT(event_time, 'yyyy-MM-dd') FROM events""");
    }
}
