import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.sql.Timestamp;
import java.time.Duration;
import java.time.LocalDate;
import java.util.Arrays;
import java.util.Map;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.connector.jdbc.JdbcConnectionOptions;
import org.apache.flink.connector.jdbc.JdbcExecutionOptions;
import org.apache.flink.connector.jdbc.JdbcStatementBuilder;
import org.apache.flink.connector.jdbc.core.datastream.sink.JdbcSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** The three aggregates, written for this job by hand: a parser of its own, one state per user for two of them. */
public class DataStreamJob {
    static final Map<String, String> ENV = System.getenv();
    static final long MINUTE = 60_000, GAP = 30 * MINUTE;
    /** A user who was not seen in this window before: its start, and 1. */
    static final OutputTag<Tuple2<Long, Integer>> FIRST_SEEN = new OutputTag<>("first seen") {};

    public static class Event {
        public long time;
        public String user;
        public String page;
        public boolean view;
    }

    public static class Parser implements KafkaRecordDeserializationSchema<Event> {
        transient JsonFactory factory;

        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Event> out) {
            if (factory == null) factory = new JsonFactory();
            Event event = new Event();
            try (JsonParser json = factory.createParser(record.value())) {
                json.nextToken();
                while (json.nextToken() == JsonToken.FIELD_NAME) {
                    String name = json.currentName();
                    json.nextToken();
                    switch (name) {
                        case "event_time" -> event.time = milliseconds(json.getText());
                        case "user_id" -> event.user = json.getText();
                        case "page_url" -> event.page = json.getText();
                        case "event_type" -> event.view = json.getText().equals("page_view");
                        default -> json.skipChildren();
                    }
                }
            } catch (IOException unusable) {
                return;
            }
            if (event.user != null && event.page != null) out.collect(event);
        }

        /** {@code YYYY-MM-DDTHH:MM:SS.mmmZ}; {@code Instant.parse} takes ten times as long. */
        static long milliseconds(String text) {
            long days = LocalDate.of(number(text, 0, 4), number(text, 5, 7), number(text, 8, 10)).toEpochDay();
            long minutes = (days * 24 + number(text, 11, 13)) * 60 + number(text, 14, 16);
            return minutes * MINUTE + number(text, 17, 19) * 1000 + number(text, 20, 23);
        }

        static int number(String text, int start, int end) {
            return Integer.parseInt(text, start, end, 10);
        }

        @Override
        public TypeInformation<Event> getProducedType() {
            return TypeInformation.of(Event.class);
        }
    }

    public static class Count implements AggregateFunction<Event, long[], Long> {
        @Override
        public long[] createAccumulator() {
            return new long[1];
        }

        @Override
        public long[] add(Event event, long[] count) {
            count[0]++;
            return count;
        }

        @Override
        public Long getResult(long[] count) {
            return count[0];
        }

        @Override
        public long[] merge(long[] a, long[] b) {
            a[0] += b[0];
            return a;
        }
    }

    public static class WithWindow extends ProcessWindowFunction<Long, Tuple3<Long, String, Long>, String, TimeWindow> {
        @Override
        public void process(String page, Context context, Iterable<Long> count, Collector<Tuple3<Long, String, Long>> out) {
            out.collect(Tuple3.of(context.window().getStart(), page, count.iterator().next()));
        }
    }

    /** State of a user: a minute, a bit for each of the 64 minutes from it on, then (start, end) of open sessions. */
    public static class User extends KeyedProcessFunction<String, Event, Tuple3<String, Long, Long>> {
        transient ValueState<long[]> state;

        @Override
        public void open(OpenContext context) {
            state = getRuntimeContext().getState(new ValueStateDescriptor<>("user", long[].class));
        }

        @Override
        public void processElement(Event event, Context context, Collector<Tuple3<String, Long, Long>> out) throws Exception {
            long minute = Math.floorDiv(event.time, MINUTE);
            long[] user = state.value();
            if (user == null) user = new long[] {minute - 20, 0};
            see(user, minute, context);
            state.update(extend(user, event.time, context));
        }

        void see(long[] user, long minute, Context context) {
            if (minute - user[0] >= 60) {
                long shift = minute - user[0] - 40;
                user[1] = shift >= 64 ? 0 : user[1] >>> shift;
                user[0] += shift;
            }
            int bit = (int) (minute - user[0]);
            if (bit < 0 || (user[1] >>> bit & 1) != 0) return;
            for (int back = 0; back < 5; back++) {
                int first = bit - back;
                long window = first >= 0 ? 31L << first : 31L >>> -first;
                if ((user[1] & window) == 0 && (minute - back + 5) * MINUTE > context.timerService().currentWatermark()) {
                    context.output(FIRST_SEEN, Tuple2.of((minute - back) * MINUTE, 1));
                }
            }
            user[1] |= 1L << bit;
        }

        long[] extend(long[] user, long time, Context context) {
            long[] after = new long[user.length + 2];
            after[0] = user[0];
            after[1] = user[1];
            long start = time, end = time;
            int count = 2;
            for (int i = 2; i < user.length; i += 2) {
                if (time - user[i + 1] < GAP && user[i] - time < GAP) {
                    start = Math.min(start, user[i]);
                    end = Math.max(end, user[i + 1]);
                } else {
                    after[count++] = user[i];
                    after[count++] = user[i + 1];
                }
            }
            after[count++] = start;
            after[count++] = end;
            // One timer per session: that of an extended one is set again when it goes off.
            if (count > user.length) context.timerService().registerEventTimeTimer(end + GAP - 1);
            return Arrays.copyOf(after, count);
        }

        @Override
        public void onTimer(long time, OnTimerContext context, Collector<Tuple3<String, Long, Long>> out) throws Exception {
            long[] user = state.value();
            if (user == null) return;
            long[] after = user.clone();
            int count = 2;
            for (int i = 2; i < user.length; i += 2) {
                if (user[i + 1] + GAP - 1 <= time) {
                    out.collect(Tuple3.of(context.getCurrentKey(), user[i], user[i + 1]));
                } else {
                    after[count++] = user[i];
                    after[count++] = user[i + 1];
                    context.timerService().registerEventTimeTimer(user[i + 1] + GAP - 1);
                }
            }
            if (count == 2) state.clear();
            else state.update(Arrays.copyOf(after, count));
        }
    }

    public static class Sum extends KeyedProcessFunction<Long, Tuple2<Long, Integer>, Tuple2<Long, Long>> {
        transient ValueState<Long> state;

        @Override
        public void open(OpenContext context) {
            state = getRuntimeContext().getState(new ValueStateDescriptor<>("users", Long.class));
        }

        @Override
        public void processElement(Tuple2<Long, Integer> user, Context context, Collector<Tuple2<Long, Long>> out)
                throws Exception {
            Long before = state.value();
            if (before == null) context.timerService().registerEventTimeTimer(user.f0 + 5 * MINUTE - 1);
            state.update((before == null ? 0 : before) + user.f1);
        }

        @Override
        public void onTimer(long time, OnTimerContext context, Collector<Tuple2<Long, Long>> out) throws Exception {
            out.collect(Tuple2.of(context.getCurrentKey(), state.value()));
            state.clear();
        }
    }

    static <T> void upsert(DataStream<T> rows, String sql, JdbcStatementBuilder<T> values) {
        rows.sinkTo(JdbcSink.<T>builder()
            .withQueryStatement(sql, values)
            .withExecutionOptions(JdbcExecutionOptions.builder().withBatchSize(5000).withBatchIntervalMs(1000).build())
            .buildAtLeastOnce(new JdbcConnectionOptions.JdbcConnectionOptionsBuilder()
                .withUrl(ENV.get("BENCH_JDBC_URL"))
                .withUsername(ENV.get("BENCH_JDBC_USER"))
                .withPassword(ENV.get("BENCH_JDBC_PASSWORD"))
                .build()));
    }

    public static void main(String[] arguments) throws Exception {
        StreamExecutionEnvironment job =
            StreamExecutionEnvironment.createLocalEnvironment(Settings.CORES, Settings.common());
        KafkaSource<Event> source = KafkaSource.<Event>builder()
            .setBootstrapServers(ENV.get("BENCH_BOOTSTRAP"))
            .setTopics(ENV.get("BENCH_TOPIC"))
            .setGroupId(ENV.get("BENCH_RUN"))
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setBounded(OffsetsInitializer.latest())
            .setDeserializer(new Parser())
            .setProperty("max.poll.records", "5000")
            .setProperty("max.partition.fetch.bytes", "4194304")
            .build();
        // With a watermark per partition, inside the source.
        DataStream<Event> events = job.fromSource(source,
            WatermarkStrategy.<Event>forBoundedOutOfOrderness(Duration.ofMinutes(2))
                .withTimestampAssigner((event, recordTime) -> event.time), "events");

        upsert(
            events.filter(event -> event.view).keyBy(event -> event.page)
                .window(TumblingEventTimeWindows.of(Duration.ofMinutes(1))).aggregate(new Count(), new WithWindow()),
            "INSERT INTO page_view_counts (window_start, window_end, page_url, view_count) VALUES (?, ?, ?, ?)"
                + " ON CONFLICT (window_start, page_url) DO UPDATE SET view_count = excluded.view_count",
            (row, value) -> {
                row.setTimestamp(1, new Timestamp(value.f0));
                row.setTimestamp(2, new Timestamp(value.f0 + MINUTE));
                row.setString(3, value.f1);
                row.setLong(4, value.f2);
            });
        SingleOutputStreamOperator<Tuple3<String, Long, Long>> sessions =
            events.keyBy(event -> event.user).process(new User());
        upsert(sessions,
            "INSERT INTO user_sessions (user_id, session_start_time, session_end_time, session_duration_seconds)"
                + " VALUES (?, ?, ?, ?) ON CONFLICT (user_id, session_start_time)"
                + " DO UPDATE SET session_end_time = excluded.session_end_time",
            (row, session) -> {
                row.setString(1, session.f0);
                row.setTimestamp(2, new Timestamp(session.f1));
                row.setTimestamp(3, new Timestamp(session.f2));
                row.setDouble(4, (session.f2 - session.f1) / 1000.0);
            });
        upsert(sessions.getSideOutput(FIRST_SEEN).keyBy(user -> user.f0).process(new Sum()),
            "INSERT INTO active_users (window_start, window_end, active_user_count) VALUES (?, ?, ?)"
                + " ON CONFLICT (window_start) DO UPDATE SET active_user_count = excluded.active_user_count",
            (row, value) -> {
                row.setTimestamp(1, new Timestamp(value.f0));
                row.setTimestamp(2, new Timestamp(value.f0 + 5 * MINUTE));
                row.setLong(3, value.f1);
            });
        job.execute();
        System.exit(0);
    }
}
