//! The settings: what each is called in a file, in the environment and as a flag.

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its name in `pipeline.toml`: `kafka.group_id` is `group_id` in the table `[kafka]`.
    pub key: &'static str,
    /// Its name in the environment and in `.env`, if it can be set there.
    pub env: Option<&'static str>,
    /// Its value if nobody sets it; `None` if that depends on other settings.
    pub default: Option<&'static str>,
    /// Whether its value is never shown.
    pub secret: bool,
}

impl Setting {
    /// Its name as a flag.
    pub fn flag(&self) -> String {
        let name = match self.key {
            key if self.env.is_some() => key.replacen("kafka.", "kafka_", 1),
            key => key.rsplit('.').next().unwrap_or(key).to_owned(),
        };
        format!("--{}", name.replace('_', "-"))
    }
}

const fn env(key: &'static str, env: &'static str, default: Option<&'static str>) -> Setting {
    Setting { key, env: Some(env), default, secret: false }
}

const fn plain(key: &'static str, default: Option<&'static str>) -> Setting {
    Setting { key, env: None, default, secret: false }
}

/// What `[kafka.properties]` begins with.
pub(super) const PROPERTIES: &str = "kafka.properties.";
/// What a property of the Kafka client begins with in the environment.
pub(super) const PROPERTY_ENV: &str = "KAFKA_PROP_";

/// Every setting, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    env("kafka.bootstrap_servers", "KAFKA_BOOTSTRAP_SERVERS", None),
    Setting { key: "database_url", env: Some("DATABASE_URL"), default: None, secret: true },
    env("data_dir", "DATA_DIR", Some("data")),
    env("lake_path", "LAKE_PATH", None),
    env("checkpoint_path", "CHECKPOINT_PATH", None),
    env("kafka.input_topic", "KAFKA_INPUT_TOPIC", Some("user_activity")),
    env("kafka.output_topic", "KAFKA_OUTPUT_TOPIC", Some("enriched_activity")),
    env("kafka.dlq_topic", "KAFKA_DLQ_TOPIC", None),
    env("kafka.late_topic", "KAFKA_LATE_TOPIC", None),
    env("kafka.group_id", "KAFKA_GROUP_ID", Some("user-activity")),
    env("instance", "INSTANCE", Some("0")),
    env("workers", "WORKERS", None),
    env("watermark_delay", "WATERMARK_DELAY", Some("2m")),
    env("session_gap", "SESSION_GAP", Some("30m")),
    env("session_max", "SESSION_MAX", Some("24h")),
    env("max_future", "MAX_FUTURE", Some("1h")),
    env("idle_timeout", "IDLE_TIMEOUT", Some("30s")),
    env("max_dead_letters", "MAX_DEAD_LETTERS", Some("off")),
    env("on_reject", "ON_REJECT", Some("reject")),
    env("max_rejects", "MAX_REJECTS", Some("off")),
    env("running_values", "RUNNING_VALUES", Some("2s")),
    env("checkpoint_interval", "CHECKPOINT_INTERVAL", Some("10s")),
    env("detach_after", "DETACH_AFTER", Some("10s")),
    env("ui_bind", "UI_BIND", Some("127.0.0.1:8088")),
    plain("catch_up_beyond", Some("100000")),
    plain("outputs", Some("tables,lake,enriched")),
    plain("generator.seed", Some("1")),
    plain("generator.splits", Some("4")),
    plain("generator.rate", Some("500")),
    plain("generator.users", Some("20000")),
    plain("generator.pages", Some("200")),
    plain("generator.out_of_order", Some("0.2")),
    plain("generator.max_disorder", Some("60s")),
    plain("generator.late", Some("0.001")),
    plain("generator.malformed", Some("0.001")),
    plain("generator.extra_fields", Some("0.3")),
    plain("generator.start_time", None),
];

/// The setting with this name in a file.
pub(super) fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The one of `candidates` that `name` looks like.
pub(super) fn did_you_mean<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let limit = (name.len() / 3).max(1);
    candidates
        .map(|candidate| (distance(&name, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, removed or replaced to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_has_one_name_in_each_place() {
        for (i, setting) in SETTINGS.iter().enumerate() {
            for other in &SETTINGS[i + 1..] {
                assert_ne!(setting.key, other.key);
                assert_ne!(setting.flag(), other.flag());
                assert!(setting.env.is_none() || setting.env != other.env, "{}", setting.key);
            }
        }
        let flag = |key| by_key(key).map(Setting::flag).unwrap_or_default();
        assert_eq!(flag("kafka.input_topic"), "--kafka-input-topic");
        assert_eq!(flag("generator.rate"), "--rate");
        assert_eq!(flag("data_dir"), "--data-dir");
    }

    #[test]
    fn typing_errors_are_recognised() {
        let keys = || SETTINGS.iter().map(|setting| setting.key);
        assert_eq!(did_you_mean("watermark_dealy", keys()), Some("watermark_delay"));
        assert_eq!(did_you_mean("kafka.bootstrap_server", keys()), Some("kafka.bootstrap_servers"));
        assert_eq!(did_you_mean("Workers", keys()), Some("workers"));
        assert_eq!(did_you_mean("colour", keys()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
