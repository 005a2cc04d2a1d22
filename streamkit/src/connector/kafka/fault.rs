//! What an error of the client means: whose fault it is, and whether to try again.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaConfRes;

use crate::error::Error;

/// Whose fault an error code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another process has taken over.
    Fenced,
    /// The broker does not let this client in: a person must do something.
    Access,
    /// Settings, rights or records: a person must do something.
    Settings,
    /// There is no connection, or no answer: it may come back by itself.
    Network,
    /// Anything else. Worth another try with a new client.
    Other,
}

pub(super) fn fault(code: Code) -> Fault {
    match code {
        Code::Fenced
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::FencedInstanceId
        | Code::TransactionCoordinatorFenced => Fault::Fenced,

        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SSL => Fault::Access,

        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::InvalidTransactionTimeout
        | Code::InvalidConfig
        | Code::InvalidTopic
        | Code::PolicyViolation
        | Code::UnsupportedFeature
        | Code::UnsupportedVersion
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId
        | Code::InvalidMessageSize
        | Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidTimestamp
        | Code::InvalidRecord => Fault::Settings,

        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::TimedOutQueue
        | Code::MessageTimedOut
        | Code::NetworkException
        | Code::BrokerNotAvailable
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::CoordinatorNotAvailable
        | Code::WaitingForCoordinator => Fault::Network,

        _ => Fault::Other,
    }
}

/// What to add to the text of an error: the right that is missing, if one is.
pub(super) fn lacks(error: &KafkaError, right: impl std::fmt::Display) -> String {
    match error.rdkafka_error_code() {
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed,
        ) => format!("; the user that Kafka takes this program for needs the right (ACL): {right}"),
        _ => String::new(),
    }
}

/// The error for a failed call; `what` says what was attempted, on which name.
pub(super) fn fail(what: impl Into<String>, error: KafkaError) -> Error {
    if let KafkaError::ClientConfig(result, words, name, _) = &error {
        return bad_property(what, *result, words, name);
    }
    // Settings that are each right, but not together; or a file of them.
    let together = matches!(error, KafkaError::ClientCreation(_));
    let mut what = what.into();
    // OpenSSL does not say so.
    if together && error.to_string().contains(".location failed") {
        what.push_str(": is the file there, readable, and PEM?");
    }
    match error.rdkafka_error_code().map_or(Fault::Other, fault) {
        _ if together => Error::user(what),
        Fault::Fenced => Error::fenced(what),
        Fault::Access | Fault::Settings => Error::user(what),
        Fault::Network | Fault::Other => Error::external(what).retriable(),
    }
    // As text: the client's error repeats its cause in its own words.
    .because(error.to_string())
}

/// What to look at when a cluster does not answer; `trouble` is what the client has said, if anything.
pub(super) fn what_to_look_at(trouble: &str) -> &'static str {
    // The client blames the authority alone, whatever is wrong.
    match trouble.contains("certificate verify failed") {
        true => {
            "is the broker's certificate from that authority, still valid, and for that host name? \
             (openssl s_client -connect HOST:PORT shows it)"
        }
        false => "is it running, is that its address, and are the security properties right?",
    }
}

/// The client's own message repeats the value, and that may be a password.
fn bad_property(what: impl Into<String>, result: RDKafkaConfRes, words: &str, name: &str) -> Error {
    let why = match result {
        _ if words.contains("OpenSSL") && words.contains("not available at build time") => {
            "this program was built without TLS, which this property needs. Build it with the \
             feature ssl of the crate rdkafka: add rdkafka = { version = \"0.39\", features = \
             [\"ssl\"] } to the program's Cargo.toml, where OpenSSL's development files are installed"
        }
        _ if words.contains("not available at build time") => {
            "this program was built without the library that this property needs"
        }
        RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN => {
            "the client (librdkafka) has no property of this name"
        }
        _ => "the value is not one of those that the client (librdkafka) accepts",
    };
    Error::user(format!("{}: Kafka property {name}: {why}", what.into()))
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::consumer::BaseConsumer;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_wrong_property_is_named_and_its_value_is_not_printed() {
        let create = |name: &str, value: &str| {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", "127.0.0.1:1").set(name, value);
            match config.create::<BaseConsumer>() {
                Ok(_) => panic!("{name} was accepted"),
                Err(error) => fail("cannot read topic a", error),
            }
        };
        let error = create("sasl.mechanisms", "canary with blanks");
        assert_eq!(error.kind(), ErrorKind::User, "{error}");
        let error = create("fetch.wait.max.ms", "canary");
        assert_eq!(error.kind(), ErrorKind::User);
        assert!(error.to_string().contains("fetch.wait.max.ms"), "{error}");
        assert!(!error.to_string().contains("canary"), "{error}");
        assert!(create("no.such.property", "x").to_string().contains("no property of this name"));
    }

    #[test]
    fn f50_tls_in_a_build_without_it_names_the_feature() {
        for (name, value) in [
            ("security.protocol", "SSL"),
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", "canary.pem"),
            ("ssl.key.password", "canary"),
        ] {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", "127.0.0.1:1").set(name, value);
            let error = match config.create::<BaseConsumer>() {
                Ok(_) => panic!("{name} was accepted"),
                Err(error) => fail("cannot read topic a", error),
            };
            assert_eq!(error.kind(), ErrorKind::User, "{error}");
            let text = error.to_string();
            assert!(text.contains("feature ssl") && text.contains(name), "{text}");
            assert!(!text.contains("canary"), "{text}");
        }
    }

    #[test]
    fn f50_a_certificate_that_is_refused_is_not_always_the_authoritys_fault() {
        let trouble = "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: \
                       broker certificate could not be verified, verify that ssl.ca.location is";
        let look = what_to_look_at(trouble);
        assert!(look.contains("still valid") && look.contains("host name"), "{look}");
        for trouble in ["", "Connect to ipv4#127.0.0.1:1 failed: Connection refused"] {
            assert!(what_to_look_at(trouble).contains("is it running"));
        }
    }

    #[test]
    fn f50_a_certificate_file_that_is_missing_is_asked_for() {
        let words = "ssl.ca.location failed: error:05880002:x509 certificate routines::system lib";
        let error = fail("cannot connect to Kafka", KafkaError::ClientCreation(words.to_owned()));
        assert_eq!(error.kind(), ErrorKind::User);
        assert!(error.to_string().contains("is the file there"), "{error}");
        let error = fail("cannot connect to Kafka", KafkaError::ClientCreation("other".to_owned()));
        assert!(!error.to_string().contains("file"), "{error}");
    }

    #[test]
    fn f48_a_missing_right_is_named_and_is_for_a_person_to_give() {
        for code in [
            Code::TopicAuthorizationFailed,
            Code::GroupAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::TransactionalIdAuthorizationFailed,
        ] {
            let error = KafkaError::MetadataFetch(code);
            let text = format!("cannot write{}", lacks(&error, "Write on topic a"));
            assert!(text.ends_with("(ACL): Write on topic a"), "{text}");
            let error = fail(text, error);
            assert_eq!((error.kind(), error.is_retriable()), (ErrorKind::User, false));
        }
        let passes = KafkaError::MetadataFetch(Code::BrokerTransportFailure);
        assert_eq!(lacks(&passes, "Write on topic a"), "");
    }

    #[test]
    fn fencing_is_told_from_trouble_that_passes() {
        let error = |code| fail("x", KafkaError::MessageProduction(code));
        assert_eq!(error(Code::Fenced).kind(), ErrorKind::Fenced);
        assert!(!error(Code::Fenced).is_retriable());
        assert!(error(Code::BrokerTransportFailure).is_retriable());
        assert_eq!(error(Code::MessageSizeTooLarge).kind(), ErrorKind::User);
    }
}
