"""Makes the events of the comparison, and puts them into a topic. The same for the same number.

They hold no session_start and no session_end, whose rules no peer can do, and within a partition
none is older than the newest before it by more than 70 s: with two minutes of allowance none is
late, so that the batch computation knows the one right answer.
"""

import numpy
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 4
PAGES = 5_000
EVENTS_PER_USER = 10
EVENTS_PER_SESSION = 6.7
SPAN_MS = 4 * 3_600_000
FIRST_MS = 1_767_254_400_000  # 2026-01-01T08:00:00Z
MOST_DELAY_MS = 70_000
TYPES = ["page_view", "click", "search"]


def generate(count, path):
    """Writes `count` events to `path`, a JSON object a line, in the order of arrival."""
    random = numpy.random.default_rng(20260101)
    users = max(1, count // EVENTS_PER_USER)

    # Each user has a session, and six in ten have another one; more than enough for `count`.
    sessions = int(users * 1.6) + 100
    user_of = numpy.concatenate([random.permutation(users), random.integers(0, users, sessions - users)])
    lengths = random.geometric(1 / EVENTS_PER_SESSION, sessions)
    session = numpy.repeat(numpy.arange(sessions), lengths)[:count]
    if len(session) < count:
        raise ValueError("too few sessions were made for that many events")
    first = (numpy.cumsum(lengths) - lengths)[session]

    pause = numpy.minimum(random.exponential(40_000, count), 1_200_000)
    pause[first == numpy.arange(count)] = 0
    since_start = numpy.cumsum(pause)
    since_start -= since_start[first]
    # What would run past the end begins at the front again: the rate is constant.
    time = (random.random(sessions)[session] * SPAN_MS + since_start) % SPAN_MS
    time = FIRST_MS + time.astype("int64")

    popularity = 1 / numpy.arange(1, PAGES + 1)
    page = random.choice(PAGES, count, p=popularity / popularity.sum())
    kind = random.choice(len(TYPES), count, p=[0.7, 0.2, 0.1])
    delay = numpy.minimum(random.exponential(5_000, count), MOST_DELAY_MS)
    order = numpy.argsort(time + delay, kind="stable")

    text = numpy.datetime_as_string(time.astype("datetime64[ms]"), unit="ms")
    with open(path, "w", encoding="ascii") as file:
        for i in order:
            file.write(
                f'{{"event_time":"{text[i]}Z","user_id":"user_{user_of[session[i]]}",'
                f'"page_url":"/products/{page[i]}","event_type":"{TYPES[kind[i]]}"}}\n'
            )


def fill(bootstrap, topic, path):
    """Creates `topic` and sends the lines of `path` to it, with the user as key."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for made in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
        made.result()
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 50})
    failed = []

    def delivered(error, _message):
        if error is not None:
            failed.append(error)

    with open(path, "rb") as file:
        for line in file:
            key = line.split(b'"', 8)[7]
            while True:
                try:
                    producer.produce(topic, line[:-1], key, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
    producer.flush()
    if failed:
        raise RuntimeError(f"{len(failed)} events could not be sent to {topic}: {failed[0]}")
