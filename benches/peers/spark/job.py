"""The job in Spark Structured Streaming: a query per output, each drains the topic and ends."""

import glob
import os

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

ENV = os.environ
FOLDER = ENV["BENCH_FOLDER"]
URL, USER, PASSWORD = ENV["BENCH_JDBC_URL"], ENV["BENCH_JDBC_USER"], ENV["BENCH_JDBC_PASSWORD"]

# Spark brings these itself, in versions that must not be there twice.
OWN = ("hadoop-client", "scala-", "slf4j", "snappy", "lz4", "spark-tags", "jsr305", "checker")
jars = [jar for jar in glob.glob(ENV["BENCH_LIBS"] + "/*.jar") if not any(name in jar for name in OWN)]

spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.ui.enabled", "false")
    .config("spark.ui.showConsoleProgress", "false")
    .config("spark.driver.memory", "6g")
    .config("spark.driver.extraJavaOptions", "-XX:+UseParallelGC -Duser.timezone=UTC")
    .config("spark.jars", ",".join(jars))
    .config("spark.sql.shuffle.partitions", "4")
    .config("spark.sql.adaptive.enabled", "false")
    .config("spark.sql.session.timeZone", "UTC")
    # The queries run side by side, not one after the other.
    .config("spark.scheduler.mode", "FAIR")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")


def events():
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", ENV["BENCH_BOOTSTRAP"])
        .option("subscribe", ENV["BENCH_TOPIC"])
        .option("startingOffsets", "earliest")
        .option("kafka.max.partition.fetch.bytes", "4194304")
        .option("kafka.max.poll.records", "5000")
        .load()
    )
    fields = "event_time TIMESTAMP, user_id STRING, page_url STRING, event_type STRING"
    event = F.from_json(F.col("value").cast("string"), fields).alias("event")
    return records.select("key", "partition", "offset", event).select("key", "partition", "offset", "event.*")


def upsert(table, keys, columns):
    """A batch into a table of its own, and from there with ON CONFLICT, which Spark cannot say."""
    staged, names = f"staged_{table}", ", ".join(columns)
    values = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in keys)
    statement = (
        f"INSERT INTO {table} ({names}) SELECT {names} FROM {staged} ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {values}"
    )

    def write(batch, _number):
        (
            batch.select(*columns).write.format("jdbc").option("driver", "org.postgresql.Driver")
            .option("url", URL).option("user", USER).option("password", PASSWORD)
            .option("dbtable", staged).option("batchsize", "5000").option("truncate", "true")
            .mode("overwrite").save()
        )
        connection = spark._jvm.java.sql.DriverManager.getConnection(URL, USER, PASSWORD)
        try:
            connection.createStatement().executeUpdate(statement)
        finally:
            connection.close()

    return write


def start(writer, name):
    return writer.option("checkpointLocation", f"{FOLDER}/checkpoints/{name}").trigger(availableNow=True).start()


def window(name):
    return F.col(f"window.{name}").alias(f"window_{name}")


timed = lambda: events().withWatermark("event_time", "2 minutes")  # noqa: E731

views = (
    timed().where("event_type = 'page_view'").groupBy(F.window("event_time", "1 minute"), "page_url").count()
    .select(window("start"), window("end"), "page_url", F.col("count").alias("view_count"))
)
# An exact distinct count is refused on a stream.
active = (
    timed().groupBy(F.window("event_time", "5 minutes", "1 minute"))
    .agg(F.approx_count_distinct("user_id").alias("active_user_count"))
    .select(window("start"), window("end"), "active_user_count")
)
duration = (F.unix_millis("session_end_time") - F.unix_millis("session_start_time")) / 1000
sessions = (
    timed().groupBy(F.session_window("event_time", "30 minutes"), "user_id")
    .agg(F.min("event_time").alias("session_start_time"), F.max("event_time").alias("session_end_time"))
    .withColumn("session_duration_seconds", duration)
)
queries = [
    start(
        stream.writeStream.outputMode(mode).foreachBatch(upsert(table, keys, columns)), table
    )
    for table, stream, mode, keys, columns in [
        ("page_view_counts", views, "update", ["window_start", "page_url"], views.columns),
        ("active_users", active, "update", ["window_start"], active.columns),
        ("user_sessions", sessions, "append", ["user_id", "session_start_time"],
         ["user_id", "session_start_time", "session_end_time", "session_duration_seconds"]),
    ]
]
if ENV["BENCH_TIER"] == "full":
    stamped = events().withColumn("processing_time", F.current_timestamp()).withColumn("event_date", F.to_date("event_time"))
    category = F.split("page_url", "/")[1].alias("page_category")
    enriched = stamped.select(
        "key",
        F.to_json(
            F.struct("event_time", "user_id", "page_url", "event_type", "processing_time", "event_date", category)
        ).alias("value"),
    )
    queries.append(
        start(
            enriched.writeStream.format("kafka").option("kafka.bootstrap.servers", ENV["BENCH_BOOTSTRAP"])
            .option("topic", ENV["BENCH_ENRICHED"]).option("kafka.linger.ms", "20").option("kafka.batch.size", "262144"),
            "enriched",
        )
    )
    lake = stamped.withColumnRenamed("partition", "source_partition").withColumnRenamed("offset", "source_offset")
    queries.append(
        start(
            lake.drop("key").writeStream.format("parquet").option("path", ENV["BENCH_LAKE"])
            .option("compression", "zstd").partitionBy("event_date"),
            "lake",
        )
    )
for query in queries:
    query.awaitTermination()
spark.stop()
