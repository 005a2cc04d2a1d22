//! Why the watermark stands still: the question everybody asks of a streaming job whose results
//! do not come.

use std::time::Duration;

use streamkit::JobState;

use crate::config::duration::written;
use crate::snapshot::{Snapshot, Split};
use crate::text::{about, hour_and_minute};

/// A pause that is not worth a word: records come in bursts.
const BRIEF: Duration = Duration::from_secs(2);

/// The reason why no result comes, if none is to be expected for a while; `delay` is the watermark
/// delay, `timeout` the idle timeout.
pub fn standstill(now: &Snapshot, delay: Duration, timeout: Option<Duration>) -> Option<String> {
    if now.state != JobState::Running {
        return None;
    }
    if let Some(sink) = now.sinks.iter().find(|sink| sink.trouble.is_some())
        && now.back_pressured > 0
    {
        return Some(format!("reading waits for {}, which does not get on", sink.name));
    }
    if now.splits.is_empty() {
        return Some("no partition to read yet".to_owned());
    }
    let open: Vec<&Split> = now.splits.iter().filter(|split| !split.ended).collect();
    if open.is_empty() {
        return None;
    }
    let is_quiet = |split: &Split| split.idle || split.quiet_for.is_some_and(|time| time > BRIEF);
    if open.iter().all(|split| is_quiet(split)) {
        return Some(quiet(now, &open, delay));
    }
    // Some bring records; the watermark is where the one that is furthest behind is.
    let holding = open.iter().filter(|split| !split.idle).min_by_key(|split| split.watermark)?;
    if !is_quiet(holding) {
        let waits = holding.watermark.is_none() && now.watermark.is_none();
        return waits.then(|| format!("no watermark yet: no event from {} so far", holding.split));
    }
    let since = about(holding.quiet_for.unwrap_or_default());
    let ends = match timeout {
        Some(timeout) => format!("after {} it no longer will (IDLE_TIMEOUT)", written(timeout)),
        None => "IDLE_TIMEOUT is off, so it always will".to_owned(),
    };
    Some(format!("{} quiet for {since}, and holds the watermark: {ends}", holding.split))
}

/// All is read, and nothing more comes.
fn quiet(now: &Snapshot, open: &[&Split], delay: Duration) -> String {
    let waiting = what_waits(now);
    let next = now.operators.iter().filter_map(|operator| operator.next_fire).min();
    match (waiting, next) {
        (Some((what, several)), Some(next)) => {
            let wait = if several { "wait" } else { "waits" };
            // The watermark stays behind the events by the delay.
            let at = hour_and_minute(next.0.saturating_add(delay));
            format!("input quiet: {what} {wait} for an event after {at}")
        }
        _ if now.read == 0 => "input quiet: no record so far".to_owned(),
        _ => {
            let since = open.iter().filter_map(|split| split.quiet_for).min().unwrap_or_default();
            format!("input quiet for {}: nothing is open", about(since))
        }
    }
}

/// What is open, in words; and whether it is more than one thing.
fn what_waits(now: &Snapshot) -> Option<(String, bool)> {
    let (mut windows, mut sessions) = (0, 0);
    for operator in &now.operators {
        match operator.name.as_str() {
            "user_sessions" => sessions += operator.open,
            _ => windows += operator.open,
        }
    }
    let some = |n: u64, one: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {one}s")),
    };
    let parts: Vec<_> =
        [some(windows, "window"), some(sessions, "session")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| (parts.join(" and "), windows + sessions > 1))
}

#[cfg(test)]
mod tests {
    use streamkit::time::{Timestamp, minutes, seconds};

    use super::*;
    use crate::snapshot::{Operator, Sink, Time};

    fn at(minute: i64) -> Option<Time> {
        Time::known(Timestamp::from_micros(minute * 60_000_000))
    }

    fn split(name: &str, watermark: Option<Time>, quiet: Option<u64>) -> Split {
        let quiet_for = quiet.map(seconds);
        Split { split: name.into(), watermark, quiet_for, ..Split::default() }
    }

    fn running(splits: Vec<Split>) -> Snapshot {
        let operator =
            |name: &str, open, next_fire| Operator { name: name.into(), open, next_fire };
        Snapshot {
            state: JobState::Running,
            read: 10,
            watermark: at(604),
            splits,
            operators: vec![
                operator("page_view_counts", 1, at(605)),
                operator("active_users", 1, at(606)),
            ],
            ..Snapshot::default()
        }
    }

    fn why(now: &Snapshot) -> String {
        standstill(now, minutes(2), Some(seconds(30))).unwrap_or_default()
    }

    #[test]
    fn quiet_input_says_what_waits_for_what() {
        let mut now = running(vec![split("t/0", at(604), Some(9)), split("t/1", at(605), Some(9))]);
        assert_eq!(why(&now), "input quiet: 2 windows wait for an event after 10:07");
        now.splits[0].idle = true;
        now.operators[1].open = 0;
        assert_eq!(why(&now), "input quiet: 1 window waits for an event after 10:07");
        let sessions = Operator { name: "user_sessions".into(), open: 40, next_fire: at(620) };
        now.operators.push(sessions);
        let expected = "input quiet: 1 window and 40 sessions wait for an event after 10:07";
        assert_eq!(why(&now), expected);
        now.operators.clear();
        assert_eq!(why(&now), "input quiet for 9.0 s: nothing is open");
        now.read = 0;
        assert_eq!(why(&now), "input quiet: no record so far");
    }

    #[test]
    fn one_quiet_split_among_busy_ones_is_named() {
        let now = running(vec![split("t/0", at(604), Some(12)), split("t/1", at(700), None)]);
        let expected = "t/0 quiet for 12 s, and holds the watermark: \
                        after 30s it no longer will (IDLE_TIMEOUT)";
        assert_eq!(why(&now), expected);
        let off = standstill(&now, minutes(2), None).unwrap();
        assert!(off.ends_with("IDLE_TIMEOUT is off, so it always will"), "{off}");
        let mut now = now;
        now.splits[0].idle = true;
        assert_eq!(why(&now), "", "an idle one holds nothing");
    }

    #[test]
    fn other_reasons() {
        assert_eq!(why(&Snapshot::default()), "", "starting");
        assert_eq!(why(&running(vec![])), "no partition to read yet");
        let mut now = running(vec![split("t/0", None, None), split("t/1", at(604), None)]);
        now.watermark = None;
        assert_eq!(why(&now), "no watermark yet: no event from t/0 so far");
        let mut now = running(vec![split("t/0", at(604), None)]);
        assert_eq!(why(&now), "", "all is well");
        now.sinks.push(Sink {
            name: "lake".into(),
            trouble: Some("disk full".into()),
            ..Sink::default()
        });
        assert_eq!(why(&now), "", "it does not hold up reading yet");
        now.back_pressured = 2;
        assert_eq!(why(&now), "reading waits for lake, which does not get on");
        now.back_pressured = 0;
        now.splits[0].ended = true;
        assert_eq!(why(&now), "", "nothing more is expected");
    }
}
