import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.BiFunction;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/** The job in Kafka Streams. It never ends by itself: this one stops when all its topics are read. */
public class StreamsJob {
    static final Map<String, String> ENV = System.getenv();
    static final boolean FULL = ENV.get("BENCH_TIER").equals("full");
    static final String RUN = ENV.get("BENCH_RUN");
    static final long MINUTE = 60_000, GAP = 30 * MINUTE, DELAY = 2 * MINUTE;
    static final JsonFactory JSON = new JsonFactory();
    static final AtomicLong read = new AtomicLong();
    static volatile long lastNanos = System.nanoTime();

    record Event(long time, String user, String page, String type, byte[] json) {}

    static final Serde<Event> EVENT = Serdes.serdeFrom((topic, event) -> event.json, (topic, bytes) -> parse(bytes));

    static final Serde<long[]> LONGS = Serdes.serdeFrom(
        (topic, values) -> {
            if (values == null) return null;
            ByteBuffer bytes = ByteBuffer.allocate(8 * values.length);
            bytes.asLongBuffer().put(values);
            return bytes.array();
        },
        (topic, bytes) -> {
            if (bytes == null) return null;
            long[] values = new long[bytes.length / 8];
            ByteBuffer.wrap(bytes).asLongBuffer().get(values);
            return values;
        });

    static Event parse(byte[] bytes) {
        if (bytes == null) return null;
        String time = null, user = null, page = null, type = null;
        try (JsonParser json = JSON.createParser(bytes)) {
            json.nextToken();
            while (json.nextToken() == JsonToken.FIELD_NAME) {
                String name = json.currentName();
                json.nextToken();
                switch (name) {
                    case "event_time" -> time = json.getText();
                    case "user_id" -> user = json.getText();
                    case "page_url" -> page = json.getText();
                    case "event_type" -> type = json.getText();
                    default -> json.skipChildren();
                }
            }
            return new Event(Instant.parse(time).toEpochMilli(), user, page, type, bytes);
        } catch (Exception unusable) {
            return null;
        }
    }

    public static class EventTime implements TimestampExtractor {
        @Override
        public long extract(ConsumerRecord<Object, Object> record, long partitionTime) {
            return record.value() instanceof Event event ? event.time : record.timestamp();
        }
    }

    public static void main(String[] arguments) throws Exception {
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, Event> events = builder
            .stream(ENV.get("BENCH_TOPIC"), Consumed.with(Serdes.String(), EVENT))
            .filter((key, event) -> {
                read.incrementAndGet();
                lastNanos = System.nanoTime();
                return event != null;
            });
        countViews(events);
        countUsers(builder, events);
        findSessions(builder, events);
        if (FULL) {
            events.mapValues(StreamsJob::enrich)
                .to(ENV.get("BENCH_ENRICHED"), Produced.with(Serdes.String(), Serdes.String()));
        }
        Properties settings = settings();
        KafkaStreams streams = new KafkaStreams(builder.build(settings), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        boolean drained = waitUntilDrained(streams);
        streams.close(Duration.ofSeconds(30));
        System.exit(drained ? 0 : 1);
    }

    static Properties settings() {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, RUN);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, ENV.get("BENCH_BOOTSTRAP"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, ENV.get("BENCH_FOLDER") + "/state");
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, "2");
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
            FULL ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, "10000");
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, String.valueOf(256L << 20));
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, "1");
        settings.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, StreamsConfig.OPTIMIZE);
        settings.put(StreamsConfig.DEFAULT_TIMESTAMP_EXTRACTOR_CLASS_CONFIG, EventTime.class.getName());
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        settings.put(StreamsConfig.consumerPrefix("max.poll.records"), "5000");
        settings.put(StreamsConfig.consumerPrefix("max.partition.fetch.bytes"), "4194304");
        settings.put(StreamsConfig.producerPrefix("linger.ms"), "50");
        settings.put(StreamsConfig.producerPrefix("batch.size"), "262144");
        settings.put(StreamsConfig.producerPrefix("buffer.memory"), "134217728");
        settings.put(StreamsConfig.producerPrefix("compression.type"), "none");
        settings.put(StreamsConfig.producerPrefix("transaction.timeout.ms"), "120000");
        return settings;
    }

    /**
     * With two minutes of grace, tasks behind the repartition topic drop half of a backlog: one poll of one
     * partition is minutes of event time here. A day of grace, and running values, drop nothing.
     */
    static void countViews(KStream<String, Event> events) {
        Duration grace = Duration.ofDays(1), size = Duration.ofMinutes(1);
        events.filter((key, event) -> event.type.equals("page_view"))
            .map((key, event) -> KeyValue.pair(event.page, ""))
            .groupByKey(Grouped.with("views", Serdes.String(), Serdes.String()))
            .windowedBy(TimeWindows.ofSizeAndGrace(size, grace))
            .count(Materialized
                .<String, Long>as(Stores.inMemoryWindowStore("views", grace.plus(size).plus(size), size, false))
                .withKeySerde(Serdes.String()).withValueSerde(Serdes.Long()).withCachingEnabled())
            .toStream()
            .process(() -> new Table<>("page_view_counts", "window_start, page_url", "window_end, view_count",
                (key, count) -> new Object[] {time(key.window().start()), key.key(), time(key.window().end()), count}));
    }

    /** Each user's windows of late; what is new in them goes on, to be counted per window. */
    static void countUsers(StreamsBuilder builder, KStream<String, Event> events) {
        builder.addStateStore(Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("seen"), Serdes.String(), LONGS));
        events.process(() -> new ContextualProcessor<String, Event, Long, Long>() {
            KeyValueStore<String, long[]> seen;

            @Override
            public void init(ProcessorContext<Long, Long> context) {
                super.init(context);
                seen = context.getStateStore("seen");
            }

            @Override
            public void process(Record<String, Event> record) {
                Event event = record.value();
                long minute = Math.floorDiv(event.time, MINUTE) * MINUTE;
                long watermark = context().currentStreamTimeMs() - DELAY;
                long[] before = seen.get(event.user);
                if (before == null) before = new long[0];
                long[] now = new long[before.length + 5];
                int count = 0;
                for (long window : before) {
                    if (window + 5 * MINUTE > watermark) now[count++] = window;
                }
                int kept = count;
                for (long window = minute - 4 * MINUTE; window <= minute; window += MINUTE) {
                    if (window + 5 * MINUTE > watermark && !contains(before, window)) now[count++] = window;
                }
                if (count == kept) return;
                seen.put(event.user, Arrays.copyOf(now, count));
                for (int i = kept; i < count; i++) context().forward(new Record<>(now[i], 1L, record.timestamp()));
            }
        }, "seen")
            .groupByKey(Grouped.with("users", Serdes.Long(), Serdes.Long()))
            .count(Materialized.<Long, Long>as(Stores.inMemoryKeyValueStore("users"))
                .withKeySerde(Serdes.Long()).withValueSerde(Serdes.Long()).withCachingEnabled())
            .toStream()
            .process(() -> new Table<>("active_users", "window_start", "window_end, active_user_count",
                (start, count) -> new Object[] {time(start), time(start + 5 * MINUTE), count}));
    }

    static boolean contains(long[] values, long value) {
        for (long one : values) {
            if (one == value) return true;
        }
        return false;
    }

    /**
     * A user's open sessions as (start, end)*; a punctuator of each minute of event time closes those that are
     * over. Kafka Streams' own session windows take three times the CPU for the same.
     */
    static void findSessions(StreamsBuilder builder, KStream<String, Event> events) {
        builder.addStateStore(Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("open"), Serdes.String(), LONGS));
        events.process(() -> new ContextualProcessor<String, Event, String, long[]>() {
            KeyValueStore<String, long[]> open;

            @Override
            public void init(ProcessorContext<String, long[]> context) {
                super.init(context);
                open = context.getStateStore("open");
                context.schedule(Duration.ofMinutes(1), PunctuationType.STREAM_TIME, now -> closeSessions());
            }

            @Override
            public void process(Record<String, Event> record) {
                Event event = record.value();
                long[] before = open.get(event.user);
                if (before == null) before = new long[0];
                long[] after = new long[before.length + 2];
                long start = event.time, end = event.time;
                int count = 0;
                for (int i = 0; i < before.length; i += 2) {
                    if (event.time - before[i + 1] < GAP && before[i] - event.time < GAP) {
                        start = Math.min(start, before[i]);
                        end = Math.max(end, before[i + 1]);
                    } else {
                        after[count++] = before[i];
                        after[count++] = before[i + 1];
                    }
                }
                after[count++] = start;
                after[count++] = end;
                open.put(event.user, Arrays.copyOf(after, count));
            }

            void closeSessions() {
                long watermark = context().currentStreamTimeMs() - DELAY;
                List<KeyValue<String, long[]>> over = new ArrayList<>();
                try (KeyValueIterator<String, long[]> all = open.all()) {
                    while (all.hasNext()) {
                        KeyValue<String, long[]> user = all.next();
                        for (int i = 1; i < user.value.length; i += 2) {
                            if (user.value[i] + GAP <= watermark) {
                                over.add(user);
                                break;
                            }
                        }
                    }
                }
                for (KeyValue<String, long[]> user : over) {
                    long[] left = new long[user.value.length];
                    int count = 0;
                    for (int i = 0; i < user.value.length; i += 2) {
                        long start = user.value[i], end = user.value[i + 1];
                        if (end + GAP <= watermark) {
                            context().forward(new Record<>(user.key, new long[] {start, end}, end));
                        } else {
                            left[count++] = start;
                            left[count++] = end;
                        }
                    }
                    if (count == 0) open.delete(user.key);
                    else open.put(user.key, Arrays.copyOf(left, count));
                }
            }
        }, "open").process(() -> new Table<>("user_sessions", "user_id, session_start_time",
            "session_end_time, session_duration_seconds",
            (user, session) -> new Object[] {user, time(session[0]), time(session[1]), (session[1] - session[0]) / 1000.0}));
    }

    static String enrich(Event event) {
        String json = new String(event.json, StandardCharsets.UTF_8);
        String[] path = event.page.split("/", 3);
        return json.substring(0, json.lastIndexOf('}')) + ",\"processing_time\":\"" + Instant.now()
            + "\",\"event_date\":\"" + LocalDate.ofEpochDay(Math.floorDiv(event.time, 24 * 60 * MINUTE))
            + "\",\"page_category\":\"" + path[1] + "\"}";
    }

    static OffsetDateTime time(long milliseconds) {
        return OffsetDateTime.ofInstant(Instant.ofEpochMilli(milliseconds), ZoneOffset.UTC);
    }

    /** Upserts into PostgreSQL, 5,000 rows or a second at a time. */
    static class Table<K, V> implements Processor<K, V, Void, Void> {
        final String sql;
        final int keys;
        final BiFunction<K, V, Object[]> row;
        final Map<List<Object>, Object[]> rows = new LinkedHashMap<>();
        Connection connection;

        Table(String name, String key, String values, BiFunction<K, V, Object[]> row) {
            this.row = row;
            keys = key.split(", ").length;
            String marks = (key + ", " + values).replaceAll("\\w+", "?");
            String set = Arrays.stream(values.split(", ")).map(v -> v + " = excluded." + v).collect(Collectors.joining(", "));
            sql = "INSERT INTO %s (%s, %s) VALUES (%s) ON CONFLICT (%s) DO UPDATE SET %s"
                .formatted(name, key, values, marks, key, set);
        }

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            try {
                connection = DriverManager.getConnection(
                    ENV.get("BENCH_JDBC_URL"), ENV.get("BENCH_JDBC_USER"), ENV.get("BENCH_JDBC_PASSWORD"));
                connection.setAutoCommit(false);
            } catch (SQLException error) {
                throw new IllegalStateException(error);
            }
            context.schedule(Duration.ofSeconds(1), PunctuationType.WALL_CLOCK_TIME, now -> flush());
        }

        @Override
        public void process(Record<K, V> record) {
            lastNanos = System.nanoTime();
            Object[] values = row.apply(record.key(), record.value());
            // A statement must not have the same key twice.
            rows.put(List.of(Arrays.copyOf(values, keys)), values);
            if (rows.size() >= 5000) flush();
        }

        void flush() {
            if (rows.isEmpty()) return;
            try (PreparedStatement statement = connection.prepareStatement(sql)) {
                for (Object[] values : rows.values()) {
                    for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
                    statement.addBatch();
                }
                statement.executeBatch();
                connection.commit();
            } catch (SQLException error) {
                throw new IllegalStateException(error);
            }
            rows.clear();
        }

        @Override
        public void close() {
            flush();
            try {
                connection.close();
            } catch (SQLException error) {
                throw new IllegalStateException(error);
            }
        }
    }

    /** All read, nothing done for three seconds, and all of it committed, repartition topics too. */
    static boolean waitUntilDrained(KafkaStreams streams) throws Exception {
        long all = Long.parseLong(ENV.get("BENCH_EVENTS"));
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", ENV.get("BENCH_BOOTSTRAP")))) {
            while (streams.state() != KafkaStreams.State.ERROR && streams.state() != KafkaStreams.State.NOT_RUNNING) {
                Thread.sleep(500);
                if (read.get() < all || System.nanoTime() - lastNanos < 3_000_000_000L) continue;
                var committed = admin.listConsumerGroupOffsets(RUN).partitionsToOffsetAndMetadata().get();
                var ends = admin.listOffsets(committed.keySet().stream()
                    .collect(Collectors.toMap(partition -> partition, partition -> OffsetSpec.latest()))).all().get();
                // Markers of transactions are behind the last record.
                long slack = FULL ? 8 : 0;
                boolean drained = committed.size() >= 4 && committed.entrySet().stream()
                    .allMatch(entry -> ends.get(entry.getKey()).offset() - entry.getValue().offset() <= slack);
                if (drained) return true;
            }
        }
        return false;
    }
}
