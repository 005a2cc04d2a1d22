//! Where the cluster is, and the client's properties.
//!
//! What a person sets is passed on to the client as it is, with three exceptions. Properties that
//! the connector's promises rest on cannot be set. Names of the Java client are translated, since
//! people paste them from the job that they replace. And a value is never printed: it may be a
//! password.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::error::{Error, Result};

/// The bootstrap servers, and what a person has set for the client.
#[derive(Clone)]
pub(super) struct Properties {
    pub(super) bootstrap: String,
    set: BTreeMap<String, String>,
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names only: a value may be a password.
        f.debug_struct("Properties")
            .field("bootstrap", &self.bootstrap)
            .field("set", &self.set.keys())
            .finish()
    }
}

/// Properties that are not to be set from outside, and why.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is an argument of its own"),
    ("metadata.broker.list", "the bootstrap servers are an argument of their own"),
    ("group.id", "the builder has a method for the group"),
    ("transactional.id", "it is made of group, instance and sink"),
    ("enable.auto.commit", "the job's own positions decide, the group's offsets are a copy"),
    ("enable.auto.offset.store", "the job's own positions decide"),
    ("auto.offset.reset", "a position that is gone must stop the job"),
    ("enable.partition.eof", "idleness and bounded runs rest on it"),
    ("isolation.level", "the builder has a method for it"),
    ("allow.auto.create.topics", "a missing topic must be seen"),
    ("enable.idempotence", "exactly-once rests on it"),
    ("acks", "exactly-once rests on it"),
    ("request.required.acks", "exactly-once rests on it"),
    ("max.in.flight", "the order of records rests on it"),
    ("max.in.flight.requests.per.connection", "the order of records rests on it"),
    ("delivery.report.only.error", "the connector counts on it"),
];

/// Names of the Java client, and what the same thing is called here.
const JAVA: &[(&str, &str)] = &[
    ("ssl.truststore.location", "ssl.ca.location"),
    ("fetch.max.wait.ms", "fetch.wait.max.ms"),
    // Two names of one property would make it a matter of chance which value counts.
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("compression.codec", "compression.type"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("delivery.timeout.ms", "message.timeout.ms"),
];

/// Names of the Java client that have no counterpart, and none is needed.
const NEEDLESS: &[&str] = &[
    "key.deserializer",
    "value.deserializer",
    "key.serializer",
    "value.serializer",
    "partition.assignment.strategy",
    "max.poll.records",
    "buffer.memory",
    "ssl.truststore.password",
    "ssl.truststore.type",
];

impl Properties {
    pub(super) fn new(bootstrap: impl Into<String>) -> Self {
        Self { bootstrap: bootstrap.into(), set: BTreeMap::new() }
    }

    pub(super) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.set.insert(name.into(), value.into());
    }

    /// A client's configuration: `base`, overridden by what was set.
    pub(super) fn config(&self, base: &[(&str, &str)]) -> Result<ClientConfig> {
        if self.bootstrap.trim().is_empty() {
            return Err(Error::user(
                "no Kafka bootstrap servers are given; name at least one as host:port",
            ));
        }
        let mut config = ClientConfig::new();
        for (name, value) in COMMON.iter().chain(base) {
            config.set(*name, *value);
        }
        config.set("bootstrap.servers", self.bootstrap.trim());
        config.set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in &self.set {
            for (name, value) in translate(name, value)? {
                config.set(name, value);
            }
        }
        Ok(config)
    }
}

/// For every client. A broker that hangs is noticed before a split counts as idle (30 s), so the
/// time for an answer is 15 s, not 60.
const COMMON: &[(&str, &str)] = &[
    ("client.id", "streamkit"),
    ("allow.auto.create.topics", "false"),
    ("socket.keepalive.enable", "true"),
    ("socket.timeout.ms", "15000"),
    ("reconnect.backoff.max.ms", "2000"),
];

/// What a property that somebody set means to this client.
fn translate(name: &str, value: &str) -> Result<Vec<(String, String)>> {
    // Spark's spelling.
    let name = name.strip_prefix("kafka.").unwrap_or(name);
    if let Some((_, why)) = OWNED.iter().find(|(owned, _)| *owned == name) {
        return Err(Error::user(format!("Kafka property {name} cannot be set: {why}")));
    }
    if NEEDLESS.contains(&name) {
        tracing::debug!(property = name, "not needed by this client, left out");
        return Ok(vec![]);
    }
    let to = JAVA.iter().find(|(java, _)| *java == name).map_or(name, |(_, ours)| ours);
    if matches!(to, "ssl.ca.location" | "ssl.keystore.location") && value.ends_with(".jks") {
        return Err(Error::user(format!(
            "Kafka property {name}: a Java key store (.jks) cannot be read. Convert it: keytool \
             -importkeystore -srckeystore STORE.jks -destkeystore STORE.p12 -deststoretype PKCS12; \
             for the certificates also: openssl pkcs12 -in STORE.p12 -nokeys -out ca.pem"
        )));
    }
    if name == "ssl.endpoint.identification.algorithm" && value.is_empty() {
        return Ok(vec![(name.to_owned(), "none".to_owned())]);
    }
    if name == "sasl.jaas.config" {
        let option = |option| {
            jaas(value, option).ok_or_else(|| {
                Error::user(format!(
                    "Kafka property sasl.jaas.config has no {option}; set sasl.mechanism, \
                     sasl.username and sasl.password instead"
                ))
            })
        };
        return Ok(vec![
            ("sasl.username".to_owned(), option("username")?),
            ("sasl.password".to_owned(), option("password")?),
        ]);
    }
    Ok(vec![(to.to_owned(), value.to_owned())])
}

/// The value of an option in a Java login configuration: `username="x"`.
fn jaas(config: &str, option: &str) -> Option<String> {
    let rest = config.split_once(&format!("{option}="))?.1;
    let rest = rest.strip_prefix('"')?;
    Some(rest[..rest.find('"')?].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Result<ClientConfig> {
        let mut properties = Properties::new("localhost:9092");
        properties.set(name, value);
        properties.config(&[("fetch.wait.max.ms", "10")])
    }

    #[test]
    fn passes_properties_on_as_they_are() {
        for password in ["0755", "12345", "true", "\"quoted\"", " blank "] {
            let config = set("sasl.password", password).unwrap();
            assert_eq!(config.get("sasl.password"), Some(password));
        }
        assert_eq!(set("fetch.wait.max.ms", "7").unwrap().get("fetch.wait.max.ms"), Some("7"));
    }

    #[test]
    fn translates_what_people_paste() {
        let config = set("kafka.fetch.max.wait.ms", "9").unwrap();
        assert_eq!(config.get("fetch.wait.max.ms"), Some("9"));
        let jaas = r#"org.apache...PlainLoginModule required username="a" password="b c";"#;
        let config = set("sasl.jaas.config", jaas).unwrap();
        assert_eq!(config.get("sasl.username"), Some("a"));
        assert_eq!(config.get("sasl.password"), Some("b c"));
        let config = set("ssl.endpoint.identification.algorithm", "").unwrap();
        assert_eq!(config.get("ssl.endpoint.identification.algorithm"), Some("none"));
        assert!(set("value.deserializer", "x").unwrap().get("value.deserializer").is_none());
        assert!(set("ssl.truststore.location", "a.jks").unwrap_err().message().contains("keytool"));
    }

    #[test]
    fn refuses_what_its_promises_rest_on_and_never_prints_a_value() {
        let error = set("auto.offset.reset", "latest").unwrap_err();
        assert!(error.message().contains("auto.offset.reset cannot be set"), "{error}");
        let mut properties = Properties::new("localhost:9092");
        properties.set("sasl.password", "canary");
        assert!(!format!("{properties:?}").contains("canary"));
        assert!(Properties::new(" ").config(&[]).is_err());
    }
}
