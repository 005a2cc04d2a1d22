//! Errors of the Kafka client, without what they should not say.

use anyhow::{Error, anyhow};
use rdkafka::error::KafkaError;

/// Why a client cannot be made. The client's own message repeats the value of a property, and that
/// may be a password.
pub(crate) fn no_client(error: KafkaError) -> Error {
    let text = "the Kafka client cannot be made: look at KAFKA_PROP_*";
    match error {
        KafkaError::ClientConfig(_, problem, name, _) => {
            // `No such configuration property: "x"`, and for a value that is refused it is quoted.
            match problem.starts_with("No such") {
                true => anyhow!("{text}: it has no property {name}"),
                false => anyhow!("{text}: the value of {name} is not one that it accepts"),
            }
        }
        error => Error::new(error).context(text),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::consumer::BaseConsumer;

    use super::*;

    #[test]
    fn f90_a_wrong_property_is_named_and_its_value_is_not_printed() {
        for (name, value) in [("sasl.passwrd", "canary"), ("security.protocol", "canary")] {
            let made = ClientConfig::new().set(name, value).create::<BaseConsumer>();
            let text = crate::commands::explain(&no_client(made.err().unwrap()));
            assert!(text.contains(name) && !text.contains("canary"), "{text}");
        }
    }
}
