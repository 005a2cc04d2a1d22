//! The cluster that sinks write to: its topics, and how new ones are made.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::close::Closing;
use super::config::Properties;
use super::fault::{fail, lacks};
use super::observer::Observer;
use super::{native, query};
use crate::error::{Error, Result};
use crate::time::{Clock, SystemClock, millis, seconds};

/// The largest record batch that a topic takes if nothing else is configured.
const DEFAULT_MAX_BYTES: usize = 1_048_588;
/// The setting of a topic that bounds how far ahead timestamps may be; since Kafka 3.6.
pub(super) const TIMESTAMP_AHEAD: &str = "message.timestamp.after.max.ms";
/// By how much an output record may be larger than the input record that it was made of.
const ENVELOPE: usize = 64 << 10;

/// The cluster that sinks write to, and the group in whose name they do.
///
/// ```no_run
/// use streamkit::connector::kafka::{KafkaSink, KafkaTarget};
///
/// let target = KafkaTarget::new("localhost:9092", "user-activity").topics_like("user_activity");
/// let lines = KafkaSink::new(target, "lines", |line: &String, _, record| {
///     record.set_value(line.as_bytes());
/// });
/// ```
#[derive(Debug, Clone)]
pub struct KafkaTarget {
    pub(super) properties: Properties,
    pub(super) group: String,
    like: Option<String>,
}

/// What a topic is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// How many partitions it has.
    pub partitions: usize,
    /// The largest record batch that it takes, in bytes (`max.message.bytes`).
    pub max_message_bytes: usize,
    /// How far ahead of the broker's clock a record's timestamp may be, in milliseconds
    /// (`message.timestamp.after.max.ms`); `None` if the broker is too old to have such a limit.
    pub max_timestamp_ahead_ms: Option<u64>,
    /// Whether old records of a key are removed (`cleanup.policy` has `compact`).
    pub compacted: bool,
}

impl KafkaTarget {
    /// The cluster with these bootstrap servers (`host:port`, separated by commas), written to in
    /// the name of `group`: the job's consumer group. Two jobs must not have the same.
    pub fn new(bootstrap: impl Into<String>, group: impl Into<String>) -> Self {
        Self { properties: Properties::new(bootstrap), group: group.into(), like: None }
    }

    /// Output topics that do not exist are created with as many partitions as this topic has, with
    /// room for its largest record and 64 KiB, and with its limit for timestamps. Default: a missing topic is an error.
    #[must_use]
    pub fn topics_like(mut self, topic: impl Into<String>) -> Self {
        self.like = Some(topic.into());
        self
    }

    /// A property of the client, as for [`KafkaSource::set`](super::KafkaSource::set).
    #[must_use]
    pub fn set(mut self, property: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.set(property, value);
        self
    }

    /// The topic that holds how far each sink has got.
    pub fn progress_topic(&self) -> String {
        format!("{}.progress", self.group)
    }

    /// Creates what is missing of the progress topic and of `topics`. Blocks; do not call it on a
    /// thread of an async runtime.
    ///
    /// # Errors
    /// If the cluster cannot be reached, a topic cannot be created, or a topic is missing and
    /// [`topics_like`](Self::topics_like) was not said; if the progress topic is there but is not
    /// compacted.
    pub fn ensure_topics(&self, topics: &[&str]) -> Result<()> {
        let admin = self.admin()?;
        for topic in topics {
            self.ensure(&admin, topic)?;
        }
        self.ensure_progress(&admin)
    }

    /// What a sink needs before it starts: its topics, and the largest batch that `topic` takes.
    pub(super) fn prepare(&self, topic: &str) -> Result<usize> {
        let admin = self.admin()?;
        self.ensure(&admin, topic)?;
        self.ensure_progress(&admin)?;
        Ok(self.settings(&admin, topic)?.max_message_bytes)
    }

    /// What a topic is like. Blocks, as [`ensure_topics`](Self::ensure_topics) does.
    ///
    /// # Errors
    /// If there is no such topic, or the cluster cannot be reached.
    pub fn topic_settings(&self, topic: &str) -> Result<TopicSettings> {
        let admin = self.admin()?;
        self.settings(&admin, topic)
    }

    /// The id that a topic got when it was created: another one of the same name has another id. Empty
    /// where the cluster has no ids. Blocks, as [`ensure_topics`](Self::ensure_topics) does.
    ///
    /// # Errors
    /// If there is no such topic, or the cluster cannot be reached.
    pub fn topic_id(&self, topic: &str) -> Result<String> {
        let admin = self.admin()?;
        if !self.exists(&admin, topic)? {
            return Err(query::no_such_topic(&self.properties.bootstrap, topic));
        }
        query::topic_id(admin.inner(), topic, true, query::PATIENCE)
    }

    fn admin(&self) -> Result<Closing<AdminClient<Observer>>> {
        let admin: AdminClient<Observer> = self
            .properties
            .config(&[])?
            .create_with_context(Observer::default())
            .map_err(|e| fail("cannot connect to Kafka", e))?;
        Ok(Closing::unawaited(admin))
    }

    fn settings(&self, admin: &AdminClient<Observer>, topic: &str) -> Result<TopicSettings> {
        if !self.exists(admin, topic)? {
            return Err(query::no_such_topic(&self.properties.bootstrap, topic));
        }
        let partitions = query::partitions(
            admin.inner(),
            &self.properties.bootstrap,
            topic,
            false,
            query::PATIENCE,
        )?
        .len();
        let mut settings = TopicSettings {
            partitions,
            max_message_bytes: DEFAULT_MAX_BYTES,
            max_timestamp_ahead_ms: None,
            compacted: false,
        };
        let resource = [ResourceSpecifier::Topic(topic)];
        let answer = block_on(admin.describe_configs(&resource, &options()))
            .map(|mut answers| answers.pop().unwrap_or(Err(Code::Unknown)));
        match answer {
            Ok(Ok(config)) => {
                let value = |name| config.get(name).and_then(|entry| entry.value.as_deref());
                if let Some(bytes) = value("max.message.bytes").and_then(|v| v.parse().ok()) {
                    settings.max_message_bytes = bytes;
                }
                settings.max_timestamp_ahead_ms =
                    value(TIMESTAMP_AHEAD).and_then(|v| v.parse().ok());
                settings.compacted =
                    value("cleanup.policy").is_some_and(|policy| policy.contains("compact"));
            }
            Ok(Err(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed)) => {
                tracing::warn!("no right to see the configuration of topic {topic}; defaults used");
                settings.compacted = true;
            }
            Ok(Err(code)) => {
                let what = format!("cannot see the configuration of topic {topic}");
                return Err(fail(what, KafkaError::AdminOp(code)));
            }
            Err(error) => {
                return Err(fail(format!("cannot see the configuration of topic {topic}"), error));
            }
        }
        Ok(settings)
    }

    fn exists(&self, admin: &AdminClient<Observer>, topic: &str) -> Result<bool> {
        let observer = admin.inner().context();
        let bootstrap = &self.properties.bootstrap;
        let metadata = query::patiently(observer, bootstrap, query::PATIENCE, |wait| {
            let answer = admin.inner().fetch_metadata(Some(topic), wait);
            if answer.is_err() {
                native::tell_errors(admin.inner());
            }
            answer
        })?;
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        if let Some(code @ (Code::TopicAuthorizationFailed | Code::InvalidTopic)) =
            found.and_then(|t| t.error()).map(Code::from)
        {
            let error = KafkaError::MetadataFetch(code);
            let right = lacks(&error, format_args!("Describe and Write on topic {topic}"));
            return Err(fail(format!("topic {topic} cannot be used{right}"), error));
        }
        Ok(found.is_some_and(|t| t.error().is_none() && !t.partitions().is_empty()))
    }

    fn ensure(&self, admin: &AdminClient<Observer>, topic: &str) -> Result<()> {
        if self.exists(admin, topic)? {
            return Ok(());
        }
        let Some(like) = &self.like else {
            return Err(query::no_such_topic(&self.properties.bootstrap, topic));
        };
        let like = self.settings(admin, like)?;
        let bytes = (like.max_message_bytes + ENVELOPE).to_string();
        let mut settings = vec![("max.message.bytes", bytes.as_str())];
        // Output records carry the timestamps of input records: what one takes, the other must.
        let ahead = like.max_timestamp_ahead_ms.map(|ahead| ahead.to_string());
        settings.extend(ahead.as_deref().map(|ahead| (TIMESTAMP_AHEAD, ahead)));
        self.create(admin, topic, like.partitions, &settings)
    }

    /// Small segments and eager cleaning: the topic is read from its first record at every start,
    /// and only the closed segments of a compacted topic get smaller.
    fn ensure_progress(&self, admin: &AdminClient<Observer>) -> Result<()> {
        let topic = self.progress_topic();
        if !self.exists(admin, &topic)? {
            let settings = [
                ("cleanup.policy", "compact"),
                ("segment.bytes", "16777216"),
                ("min.cleanable.dirty.ratio", "0.1"),
            ];
            self.create(admin, &topic, 1, &settings)?;
        }
        if !self.settings(admin, &topic)?.compacted {
            return Err(Error::user(format!(
                "topic {topic} holds how far the job's sinks have got, but it is not compacted, so \
                 that this would be deleted some day; set it right with: kafka-configs.sh \
                 --bootstrap-server {} --alter --topic {topic} --add-config cleanup.policy=compact",
                self.properties.bootstrap
            )));
        }
        Ok(())
    }

    fn create(
        &self,
        admin: &AdminClient<Observer>,
        topic: &str,
        partitions: usize,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let count = i32::try_from(partitions).unwrap_or(i32::MAX);
        // −1: as many replicas as the cluster's own default says.
        let mut new = NewTopic::new(topic, count, TopicReplication::Fixed(-1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let created = block_on(admin.create_topics([&new], &options()));
        let what = || format!("cannot create topic {topic} with {partitions} partitions");
        match created.map_err(|e| fail(what(), e))?.pop() {
            // Somebody else was faster: as good.
            Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => {}
            Some(Err((_, code))) => {
                let error = KafkaError::AdminOp(code);
                let right = lacks(&error, format_args!("Create on topic {topic}"));
                return Err(fail(format!("{}{right}", what()), error));
            }
            None => return Err(Error::external(what())),
        }
        let clock = SystemClock::new();
        while !self.exists(admin, topic)? {
            if clock.elapsed() > seconds(30) {
                return Err(Error::external(format!("topic {topic} was created but is not there")));
            }
            std::thread::sleep(millis(50));
        }
        tracing::info!(topic, partitions, "created a topic");
        Ok(())
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(seconds(15))).operation_timeout(Some(seconds(15)))
}

/// Waits for an answer. The client has a thread of its own for it, so no runtime is needed.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
