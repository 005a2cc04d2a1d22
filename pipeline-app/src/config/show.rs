//! `pipeline-app config show`: every setting, its value, and where that comes from.

use std::fmt::Write as _;

use super::layers::{Layers, Origin};
use super::secret::REDACTED;
use super::settings::{PROPERTIES, SETTINGS};
use super::{Config, Input};
use crate::text::pad;

/// The settings as a table. Values of secrets, and of all properties of the Kafka client, are not
/// shown.
pub fn show(config: &Config, layers: &Layers) -> String {
    let mut rows: Vec<[String; 4]> = Vec::new();
    for setting in SETTINGS {
        if setting.key.starts_with("generator.") && !matches!(config.input, Input::Generator(_)) {
            continue;
        }
        let (value, origin) = match layers.get(setting.key) {
            Some(_) if setting.secret => (REDACTED.to_owned(), layers.get(setting.key)),
            Some(given) => (given.text.clone(), Some(given)),
            None => (effective(setting.key, setting.default, config), None),
        };
        let origin = origin.map_or_else(|| Origin::Default.to_string(), |g| g.origin.to_string());
        let name = setting.env.map_or_else(|| setting.flag(), str::to_owned);
        rows.push([setting.key.to_owned(), name, value, origin]);
    }
    for (name, given) in layers.properties() {
        let key = format!("{PROPERTIES}{name}");
        rows.push([key, String::new(), REDACTED.to_owned(), given.origin.to_string()]);
    }
    let head = ["setting", "variable or flag", "value", "from"].map(str::to_owned);
    let mut text = format!("{}\n\n", config.mode.why);
    let width =
        |i: usize| rows.iter().chain([&head]).map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for row in std::iter::once(&head).chain(&rows) {
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(text, "{}  ", pad(cell, width));
        }
        let _ = writeln!(text, "{}", row[3]);
    }
    text
}

/// The value of a setting that nobody has set.
fn effective(key: &str, default: Option<&str>, config: &Config) -> String {
    match (key, default) {
        (_, Some(default)) => default.to_owned(),
        ("lake_path", _) => config.lake_path.display().to_string(),
        ("checkpoint_path", _) => config.checkpoint_path.display().to_string(),
        ("kafka.dlq_topic", _) => config.topics.dlq.clone(),
        ("kafka.late_topic", _) => config.topics.late.clone(),
        ("workers", _) => config.workers.to_string(),
        ("generator.start_time", _) => "now-2h".to_owned(),
        _ => "-".to_owned(),
    }
}
