//! The generator's options, from the table `[generator]` or flags.

use anyhow::{Result, anyhow};
use chrono::{DateTime, Utc};
use streamkit::time::Timestamp;

use super::duration;
use super::layers::Layers;
use super::settings::by_key;
use super::validate::{Values, number};
use crate::generate::GeneratorOptions;

/// The options that the layers give; `start` is the start time if they give none.
///
/// # Errors
/// An option that cannot be used.
pub fn generator_options(
    layers: &Layers,
    now: Timestamp,
    start: Timestamp,
) -> Result<GeneratorOptions> {
    let values = Values(layers);
    let defaults = GeneratorOptions::default();
    let start = values.parse("generator.start_time", |text| time(text, now))?.unwrap_or(start);
    let options = GeneratorOptions {
        seed: values.needed("generator.seed", number)?,
        splits: values.needed("generator.splits", number)?,
        users: values.needed("generator.users", number)?,
        pages: values.needed("generator.pages", number)?,
        events_per_second: values.needed("generator.rate", number)?,
        out_of_order: values.needed("generator.out_of_order", number)?,
        max_disorder: values.needed("generator.max_disorder", duration::parse)?,
        late: values.needed("generator.late", number)?,
        malformed: values.needed("generator.malformed", number)?,
        extra_fields: values.needed("generator.extra_fields", number)?,
        // Whole seconds are easier to say again.
        start_time_micros: start.floor_to(std::time::Duration::from_secs(1)).as_micros(),
        ..defaults
    };
    options.validate().map_err(|e| {
        let key = match e.option() {
            "events_per_second" => "rate",
            "start_time_micros" => "start_time",
            option => option,
        };
        match by_key(&format!("generator.{key}")) {
            Some(setting) => anyhow!("{}: {e}", setting.flag()),
            None => anyhow!(e),
        }
    })?;
    Ok(options)
}

/// A point in time: RFC 3339, `now`, or `now-2h`.
fn time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Some(rest) = text.trim().strip_prefix("now") {
        return match rest.trim().strip_prefix('-') {
            Some(back) => duration::parse(back).map(|back| now.saturating_sub(back)),
            None if rest.trim().is_empty() => Ok(now),
            None => Err("after now there can be a duration: now-2h".to_owned()),
        };
    }
    DateTime::parse_from_rfc3339(text)
        .map(|time| Timestamp::from_micros(time.with_timezone(&Utc).timestamp_micros()))
        .map_err(|_| "write 2026-01-31T12:00:00Z, now, or now-2h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_780_000_000_000_000);

    fn options(flags: &[(&'static str, &str)]) -> Result<GeneratorOptions> {
        let mut layers = Layers::default();
        layers.add_flags(flags.iter().map(|(key, text)| (*key, (*text).to_owned())));
        generator_options(&layers, NOW, NOW)
    }

    #[test]
    fn the_defaults_are_the_generators_own() {
        let expected =
            GeneratorOptions { start_time_micros: NOW.as_micros(), ..GeneratorOptions::default() };
        assert_eq!(options(&[]).unwrap(), expected);
    }

    #[test]
    fn every_option_can_be_set() {
        let set = options(&[
            ("generator.seed", "7"),
            ("generator.rate", "1_000_000"),
            ("generator.late", "0"),
            ("generator.max_disorder", "30s"),
            ("generator.start_time", "2026-01-01T01:00:00.5+01:00"),
        ])
        .unwrap();
        assert_eq!((set.seed, set.events_per_second, set.late), (7, 1_000_000, 0.0));
        assert_eq!(set.start_time_micros, 1_767_225_600_000_000);
        let hour_ago = options(&[("generator.start_time", "now - 1h")]).unwrap();
        assert_eq!(hour_ago.start_time_micros, NOW.as_micros() - 3_600_000_000);
    }

    #[test]
    fn what_is_wrong_is_named_as_the_user_knows_it() {
        for (key, text, expected) in [
            ("generator.rate", "0", "--rate: generator option"),
            ("generator.rate", "fast", "--rate (command line) is \"fast\""),
            ("generator.users", "1", "--users: generator option"),
            ("generator.start_time", "yesterday", "now-2h"),
            ("generator.start_time", "1999-01-01T00:00:00Z", "--start-time: "),
        ] {
            let error = options(&[(key, text)]).expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
