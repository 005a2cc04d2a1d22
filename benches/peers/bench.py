"""The comparison: see dev/peer-bench, which prepares what this needs and says what it takes."""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import check
import events
import expected
import measure
import psycopg
from confluent_kafka.admin import AdminClient, NewTopic

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benches/peers"
WORK = ROOT / "target/peer-bench"
DATABASE = "peer_bench"
SMALL = 200_000
JAVA = ["java", "-XX:+UseParallelGC", "-Duser.timezone=UTC"]
# Flink reads fields of java.* by reflection.
FLINK_JAVA = JAVA + ["-Xms6g", "-Xmx6g", "-XX:MaxDirectMemorySize=3g"] + [
    f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in ("lang", "util", "util.concurrent", "time")
]


@dataclass
class Engine:
    name: str
    label: str
    command: list
    tiers: tuple = ("aggregates", "full")
    small: bool = False
    # Where its results are: "tables" in PostgreSQL, "files" of the run's folder, or "none".
    results: str = "tables"
    # What it writes beyond the tables in tier full.
    outputs: tuple = ("enriched", "lake")
    note: str = ""


def class_path(peer):
    return f"{WORK}/{peer}/classes:{WORK}/{peer}/libs/*"


def engines(full):
    """All of them, in the order of a round. `full` is what streamkit and the floor are told."""
    python = [sys.executable]
    streamkit = [str(ROOT / "target/release/pipeline-app"), "--until-end"]
    if not full:
        streamkit += ["--outputs", "tables"]
    return [
        Engine("streamkit", "streamkit", streamkit, note="exactly once"),
        Engine(
            "floor",
            "written by hand on librdkafka",
            [f"{WORK}/floor-kafka/release/floor-kafka", "full" if full else "aggregates"],
            results="none",
            note="no tables: the yard-stick",
        ),
        Engine("flink-ds", "Flink 2.2.0 DataStream", FLINK_JAVA + ["-cp", class_path("flink"), "DataStreamJob"], ("aggregates",),
               note="written by hand"),
        Engine("flink-sql", "Flink 2.2.0 SQL", FLINK_JAVA + ["-cp", class_path("flink"), "SqlJob"],
               note="exactly once; tables by upsert"),
        Engine("spark", f"Spark {version('pyspark')}", python + [str(PEERS / "spark/job.py")],
               note="approximate distinct; enriched at least once"),
        Engine("kafka-streams", "Kafka Streams 4.3.1", JAVA + ["-Xms4g", "-Xmx4g", "-cp", class_path("kafka-streams"), "StreamsJob"],
               outputs=("enriched",), note="own session processor; full: exactly once, no lake"),
        Engine("duckdb", f"DuckDB {version('duckdb')}", python + [str(PEERS / "expected.py")], ("aggregates",),
               results="none", note="batch, from a file: the reference"),
        Engine("bytewax", f"Bytewax {version('bytewax')}", python + ["-m", "bytewax.run", str(PEERS / "bytewax/job.py")],
               ("aggregates",), True, "files"),
        Engine("pathway", f"Pathway {version('pathway')}", python + [str(PEERS / "pathway/job.py")],
               ("aggregates",), True, "files", note="batch mode"),
    ]


@dataclass
class Results:
    engine: Engine
    events: int
    costs: list = field(default_factory=list)
    differences: list | None = None
    failure: str | None = None

    def verdict(self):
        if self.failure:
            return "failed"
        if self.engine.results == "none":
            return "not compared"
        if not self.differences:
            return "exact"
        if all(difference.open_only for difference in self.differences):
            return "exact, but the last sessions stay open"
        return "wrong, see above"


class Bench:
    def __init__(self, options):
        self.options = options
        self.bootstrap = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap})
        self.server = os.environ["DATABASE_URL"]
        self.url = self.server.rpartition("/")[0] + f"/{DATABASE}?sslmode=disable"
        self.number = 0

    def input(self, count):
        """Events, topic and expected results for `count` events, made once and kept."""
        folder = WORK / f"events-{count}"
        topic = f"peer-bench-input-{count}"
        if not (folder / "expected").exists():
            say(f"making {count:,} events and what is expected of them")
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "new").mkdir(parents=True)
            events.generate(count, folder / "events.jsonl")
            expected.compute(str(folder / "events.jsonl"), folder / "new", expected.QUERIES)
            (folder / "new").rename(folder / "expected")
        self.delete_topics(topic)
        say(f"filling the topic {topic}")
        events.fill(self.bootstrap, topic, folder / "events.jsonl")
        return topic, folder

    def delete_topics(self, prefix):
        names = [name for name in self.admin.list_topics(timeout=10).topics if name.startswith(prefix)]
        if names:
            for deleted in self.admin.delete_topics(names).values():
                deleted.result()
            # Gone for clients only a moment after the answer.
            while any(name in self.admin.list_topics(timeout=10).topics for name in names):
                time.sleep(0.2)

    def fresh_database(self):
        with psycopg.connect(self.server, autocommit=True) as connection:
            for attempt in range(60):
                try:
                    connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
                    break
                except psycopg.errors.InsufficientPrivilege:
                    # The server itself is vacuuming it, and only a superuser may interrupt that.
                    if attempt == 59:
                        raise
                    time.sleep(0.5)
            connection.execute(f"CREATE DATABASE {DATABASE}")
        with psycopg.connect(self.url) as connection:
            connection.execute((ROOT / "init-db.sql").read_text())

    def run(self, engine, tier, topic, data, results):
        self.number += 1
        run = f"peer-bench-run-{os.getpid()}-{self.number}-{engine.name}"
        folder = WORK / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.fresh_database()
        enriched = f"{run}-enriched"
        self.admin.create_topics([NewTopic(enriched, events.PARTITIONS, 1)])[enriched].result()
        user, _, rest = self.url.removeprefix("postgres://").partition("@")
        name, _, password = user.partition(":")
        environment = dict(
            os.environ,
            TZ="UTC",
            BENCH_RUN=run,
            BENCH_TIER=tier,
            BENCH_BOOTSTRAP=self.bootstrap,
            BENCH_TOPIC=topic,
            BENCH_EVENTS=str(results.events),
            BENCH_ENRICHED=enriched,
            BENCH_FOLDER=str(folder),
            BENCH_LAKE=str(folder / "lake"),
            BENCH_LIBS=str(WORK / engine.name / "libs"),
            BENCH_JDBC_URL=f"jdbc:postgresql://{rest}&reWriteBatchedInserts=true",
            BENCH_JDBC_USER=name,
            BENCH_JDBC_PASSWORD=password,
            # pipeline-app's own names.
            DATABASE_URL=self.url,
            DATA_DIR=str(folder),
            KAFKA_GROUP_ID=run,
            KAFKA_INPUT_TOPIC=topic,
            KAFKA_OUTPUT_TOPIC=enriched,
            KAFKA_DLQ_TOPIC=f"{run}.dlq",
            KAFKA_LATE_TOPIC=f"{run}.late",
            UI_BIND="off",
            # As the others have it: it is what Kafka's own clients do unless they are told otherwise.
            KAFKA_PROP_COMPRESSION_TYPE="none",
        )
        command = engine.command
        if engine.name == "duckdb":
            command = command + [str(data / "events.jsonl"), str(folder)]
        log = WORK / "logs" / f"{tier}-{engine.name}.log"
        say(f"  {engine.name:<14}", end=" ")
        cost = measure.run(command, environment, log, self.options.limit)
        if cost.error:
            results.failure = f"{cost.error}, see {log.relative_to(ROOT)}"
            say(f"FAILED: {results.failure}")
        else:
            results.costs.append(cost)
            say(f"{cost.wall:7.1f} s {cost.cpu:7.1f} CPU-s {cost.peak_bytes / 1e6:7.0f} MB", end="  ")
            try:
                found = self.compare(engine, tier, data / "expected", folder, enriched)
                say("; ".join(map(str, found)) or ("exact" if engine.results != "none" else ""))
                # The worst round counts: a result that is right at times is not.
                if results.differences is None or len(found) > len(results.differences):
                    results.differences = found
            except Exception as error:
                results.failure = f"its results cannot be read: {error}"
                say(results.failure)
        if not self.options.keep:
            shutil.rmtree(folder, ignore_errors=True)
        self.delete_topics(run)

    def compare(self, engine, tier, want, folder, enriched):
        found = []
        if engine.results == "tables":
            check.export_tables(self.url, folder)
        if engine.results != "none":
            found += check.compare_tables(want, folder)
        if tier == "full":
            if "enriched" in engine.outputs:
                found += check.compare_enriched(want, self.bootstrap, enriched, folder)
            if "lake" in engine.outputs:
                found += check.compare_lake(want, folder / "lake")
        return found


def say(text, end="\n"):
    print(text, end=end, flush=True)


def headline(tiers):
    """The first line of the comparison: who computes the right results from a backlog."""
    compared = [one for results in tiers.values() for one in results if one.engine.results != "none"]
    ours = [one for one in compared if one.engine.name == "streamkit"]
    sentences = []
    if ours:
        right = all(one.verdict() == "exact" for one in ours)
        sentences.append("streamkit: every row as the batch computation has it." if right else "STREAMKIT DIFFERS.")
    verdicts = {}
    for one in compared:
        if one.engine.name != "streamkit":
            names = verdicts.setdefault(one.verdict(), [])
            names += [one.engine.label] if one.engine.label not in names else []
    return " ".join(sentences + [f"{verdict.capitalize()}: {', '.join(names)}." for verdict, names in sorted(verdicts.items())])


def table(results):
    ours = next((one for one in results if one.engine.name == "streamkit" and one.costs), None)
    per_cpu = {one.engine.name: one.events / median(one, "cpu") for one in results if one.costs}
    lines = [
        "| engine | events | wall s | CPU-s | events/s | events per CPU-s | streamkit is | peak MB | result |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        name = f"{one.engine.label} ({one.engine.note})" if one.engine.note else one.engine.label
        if not one.costs:
            lines.append(f"| {name} | {one.events:,} | | | | | | | failed |")
            continue
        wall, cpu = median(one, "wall"), median(one, "cpu")
        times = f"{per_cpu['streamkit'] / per_cpu[one.engine.name]:.1f} ×" if ours and one is not ours else ""
        result = f"**{one.verdict()}**" if one.verdict() == "exact" else one.verdict()
        lines.append(
            f"| {name} | {one.events:,} | {wall:.1f} | {cpu:.1f} | {one.events / wall:,.0f} | "
            f"{one.events / cpu:,.0f} | {times} | {median(one, 'peak_bytes') / 1e6:,.0f} | {result} |"
        )
    return lines


def median(results, name):
    return statistics.median(getattr(cost, name) for cost in results.costs)


def machine():
    with open("/proc/cpuinfo") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({model or platform.machine()}), {memory:.0f} GiB"


def ask_version(command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def main():
    parser = argparse.ArgumentParser(prog="dev/peer-bench")
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tier", choices=["aggregates", "full", "both"], default="both")
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    if unknown := only - {engine.name for engine in engines(True)}:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(e.name for e in engines(True))}")

    measure.become_subreaper()
    bench = Bench(options)
    shutil.rmtree(WORK / "logs", ignore_errors=True)
    (WORK / "logs").mkdir()
    tiers = {}
    for tier in ("aggregates", "full") if options.tier == "both" else (options.tier,):
        tiers[tier] = [
            Results(engine, min(SMALL, options.events) if engine.small else options.events)
            for engine in engines(tier == "full")
            if tier in engine.tiers and (not only or engine.name in only)
        ]
    inputs = {count: bench.input(count) for count in sorted({one.events for r in tiers.values() for one in r})}

    for number in range(options.rounds):
        for tier, results in tiers.items():
            say(f"round {number + 1} of {options.rounds}, {tier} (load {os.getloadavg()[0]:.1f})")
            for one in results:
                # The slow ones once: they are not close enough for a second run to tell anything.
                if one.failure is None and (number == 0 or not one.engine.small):
                    bench.run(one.engine, tier, *inputs[one.events], one)

    with psycopg.connect(bench.server) as connection:
        postgres = connection.execute("SHOW server_version").fetchone()[0]
    say("\n" + headline(tiers))
    for tier, results in tiers.items():
        for one in results:
            if one.failure or one.differences:
                say(f"- {one.engine.label}, {tier}: " + (one.failure or "; ".join(map(str, one.differences))))
    say(f"\n{machine()}, with broker and database on them; PostgreSQL {postgres}, {ask_version(['java', '--version'])}, "
        f"Python {platform.python_version()}; {options.rounds} round(s), load at the end {os.getloadavg()[0]:.1f}.")
    for tier, results in tiers.items():
        title = "Three aggregates" if tier == "aggregates" else "Full job: and the enriched topic and the lake"
        say(f"\n### {title}\n\n" + "\n".join(table(results)))
    bench.delete_topics("peer-bench-run-")
    if not options.keep:
        bench.delete_topics("peer-bench-input-")
    mine = [one for r in tiers.values() for one in r if one.engine.name == "streamkit"]
    sys.exit(any(one.failure or one.differences for one in mine))


main()
