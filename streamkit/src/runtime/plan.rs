//! Rule D12: what a changed plan does to the state and the sinks of a job. Pure functions.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::{Fact, Manifest, PlanStep};
use crate::connector::{Point, Progress};
use crate::error::Error;
use crate::time::Timestamp;

/// A step that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) name: String,
    /// What is different, for a person.
    text: String,
    effect: Effect,
}

/// What a difference does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// State goes: only if it is allowed.
    Dropped,
    /// An operator begins without state: it has results from a first whole window on.
    Begins,
    /// State goes, and the operator begins without it.
    DroppedAndBegins,
    /// It cannot begin in the middle.
    Impossible,
    /// A source or a sink: nothing is lost.
    Harmless,
}

/// Whether a step has state.
pub(crate) fn is_stateful(step: &PlanStep) -> bool {
    !matches!(step.kind.as_str(), "source" | "sink")
}

/// Whether the state of one step is that of another.
pub(crate) fn is_same(a: &PlanStep, b: &PlanStep) -> bool {
    (&a.name, &a.kind, &a.parameters) == (&b.name, &b.kind, &b.parameters)
}

/// Everything that is different between two plans. Parameters of sources and sinks are none: where
/// they read and write has checks of its own.
pub(crate) fn differences(stored: &[PlanStep], now: &[PlanStep]) -> Vec<Difference> {
    let mut all = vec![];
    let mut note = |step: &PlanStep, effect, text: String| {
        all.push(Difference { name: step.name.clone(), text, effect });
    };
    for old in stored {
        let what = shown(old);
        match now.iter().find(|new| new.name == old.name) {
            Some(new) if is_same(old, new) => {}
            Some(new) if !is_stateful(old) && old.kind == new.kind => {}
            Some(new) => {
                let effect = match (is_stateful(old), is_stateful(new)) {
                    (_, true) if !can_begin(new) => Effect::Impossible,
                    (true, true) => Effect::DroppedAndBegins,
                    (true, false) => Effect::Dropped,
                    (false, true) => Effect::Begins,
                    (false, false) => Effect::Harmless,
                };
                note(old, effect, format!("{what} is {} now", shown(new)));
            }
            None if is_stateful(old) => note(old, Effect::Dropped, format!("{what} is gone")),
            None => {
                let text = format!("{what} is gone: nothing is written to it or read any more");
                note(old, Effect::Harmless, text);
            }
        }
    }
    for new in now.iter().filter(|new| !stored.iter().any(|old| old.name == new.name)) {
        let what = shown(new);
        match is_stateful(new) {
            true if can_begin(new) => note(new, Effect::Begins, format!("{what} is new")),
            true => note(new, Effect::Impossible, format!("{what} is new")),
            false => {
                let text = format!("{what} is new: it begins where the checkpoint is");
                note(new, Effect::Harmless, text);
            }
        }
    }
    all
}

/// Whether an operator that has not seen all records can say which of its results are whole: windows
/// can. A session may be the rest of one, and `process` may do anything.
fn can_begin(step: &PlanStep) -> bool {
    matches!(step.kind.as_str(), "aggregate" | "distinct keys" | "sum")
}

fn shown(step: &PlanStep) -> String {
    match step.parameters.is_empty() {
        true => format!("{} {}", step.kind, step.name),
        false => format!("{} {} ({})", step.kind, step.name, step.parameters),
    }
}

/// A name covers the operators that are parts of it: `users` covers `users.sum`.
fn is_allowed(name: &str, allowed: &BTreeSet<String>) -> bool {
    allowed.iter().any(|allowed| {
        name.strip_prefix(allowed.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// The error that lists every difference, what it does and what it takes; `None` if all is allowed.
pub(crate) fn refusal(
    job: &str,
    checkpoint: u64,
    differences: &[Difference],
    stored: &[PlanStep],
    allowed: &BTreeSet<String>,
) -> Option<Error> {
    let is_refused = |difference: &&Difference| match difference.effect {
        Effect::Impossible => true,
        Effect::Dropped | Effect::DroppedAndBegins => !is_allowed(&difference.name, allowed),
        Effect::Begins | Effect::Harmless => false,
    };
    differences.iter().find(is_refused)?;
    let mut text = format!("the job {job} is not what it was at checkpoint {checkpoint}:");
    for difference in differences {
        let Difference { name, text: what, effect } = difference;
        let does = match effect {
            Effect::Harmless => String::new(),
            Effect::Begins => "; it begins with its first whole window".to_owned(),
            Effect::Impossible => {
                "; it cannot begin in the middle, since what it sees first may be the rest of something: rebuild the job, or give it another name".to_owned()
            }
            Effect::Dropped if is_allowed(name, allowed) => "; its state is dropped".to_owned(),
            Effect::Dropped => {
                format!("; its state would be dropped: allow that for {name}, or bring it back")
            }
            Effect::DroppedAndBegins if is_allowed(name, allowed) => {
                "; its state is dropped, and it begins with its first whole window".to_owned()
            }
            Effect::DroppedAndBegins => format!(
                "; its state would be dropped, and it would begin with its first whole window: allow that for {name}, or run it as it was"
            ),
        };
        text.push_str(&format!("\n  - {what}{does}"));
    }
    let changed = |name: &str| differences.iter().any(|difference| difference.name == name);
    let kept: Vec<&str> = stored
        .iter()
        .filter(|step| is_stateful(step) && !changed(&step.name))
        .map(|step| step.name.as_str())
        .collect();
    if !kept.is_empty() {
        text.push_str(&format!("\n  - kept as they are: {}", kept.join(", ")));
    }
    text.push_str(
        "\nState that is dropped takes along windows that are open and results that are not \
         written yet, so stop the job cleanly before. To allow it: --allow-dropped-state NAME \
         (RunConfig::allow_dropped_state). To compute everything anew: --rebuild \
         (RunConfig::rebuild)",
    );
    Some(Error::user(text))
}

/// A line for the log.
pub(crate) fn summary(differences: &[Difference]) -> String {
    let texts: Vec<&str> = differences.iter().map(|difference| difference.text.as_str()).collect();
    texts.join("; ")
}

/// The first instant at which a window may start whose records the operator sees all of, and whose
/// results no sink believes to have: after every record that was read before the checkpoint or went
/// to a position sink, and after every W.
pub(crate) fn first_whole_start(chosen: &Manifest, progress: &[Option<Progress>]) -> Timestamp {
    let mut passed = chosen.splits.iter().filter_map(|entry| entry.position.high).max();
    for progress in progress.iter().flatten() {
        passed = passed.max(match &progress.point {
            Point::Watermark { w, .. } => Some(*w),
            Point::Positions(positions) => positions.values().filter_map(|at| at.high).max(),
        });
    }
    passed
        .map_or(Timestamp::MIN, |passed| passed.saturating_add(std::time::Duration::from_micros(1)))
}

/// From when on each operator of a plan has results, where it began in the middle: what was decided
/// last, as long as its parameters are the same.
pub(crate) fn begins(facts: &[Fact], plan: &[PlanStep]) -> BTreeMap<String, Timestamp> {
    let mut all = BTreeMap::new();
    for fact in facts {
        let Fact::Begins { operator, parameters, from } = fact else { continue };
        let same = |step: &&PlanStep| step.name == *operator && step.parameters == *parameters;
        if plan.iter().find(same).is_some() {
            all.insert(operator.clone(), *from);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(kind: &str, name: &str, parameters: &str) -> PlanStep {
        PlanStep { name: name.into(), kind: kind.into(), parameters: parameters.into() }
    }

    fn refused(stored: &[PlanStep], now: &[PlanStep], allowed: &[&str]) -> Option<String> {
        let allowed = allowed.iter().map(|name| (*name).to_owned()).collect();
        refusal("j", 7, &differences(stored, now), stored, &allowed).map(|e| e.to_string())
    }

    #[test]
    fn d12_every_difference_is_listed_with_what_it_does() {
        let stored = [
            step("source", "in", "topic a"),
            step("aggregate", "views", "60s"),
            step("distinct keys", "users", "300s"),
            step("sum", "users.sum", "300s"),
            step("aggregate", "same", ""),
            step("sink", "table", "t"),
        ];
        let now = [
            step("source", "in", "topic b"),
            step("aggregate", "views", "300s"),
            step("aggregate", "same", ""),
            step("aggregate", "added", "10s"),
            step("sink", "lake", "l"),
        ];
        let text = refused(&stored, &now, &[]).unwrap();
        for part in [
            "at checkpoint 7",
            "aggregate views (60s) is aggregate views (300s) now; its state would be dropped, and",
            "distinct keys users (300s) is gone; its state would be dropped: allow that for users,",
            "sum users.sum (300s) is gone",
            "sink table (t) is gone: nothing is written",
            "aggregate added (10s) is new; it begins with its first whole window",
            "sink lake (l) is new: it begins where the checkpoint is",
            "kept as they are: same",
            "--allow-dropped-state NAME",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("topic"), "where a source reads has checks of its own: {text}");
        let text = refused(&stored, &now, &["views"]).unwrap();
        assert!(text.contains("now; its state is dropped, and it begins with"), "{text}");
        assert_eq!(refused(&stored, &now, &["users", "views"]), None, "users covers users.sum");
        assert!(refused(&stored, &now, &["user", "views"]).is_some(), "a name, not its start");
        assert_eq!(refused(&stored, &stored, &[]), None);
    }

    #[test]
    fn d12_sessions_cannot_begin_in_the_middle() {
        let (old, new) = (step("sessions", "s", "gap 30m"), step("sessions", "s", "gap 20m"));
        assert!(refused(std::slice::from_ref(&old), &[new], &["s"]).unwrap().contains("rebuild"));
        assert!(refused(&[], std::slice::from_ref(&old), &["s"]).unwrap().contains("middle"));
        assert_eq!(refused(&[old], &[], &["s"]), None, "they can go");
    }

    #[test]
    fn d12_an_operator_begins_by_the_last_decision_about_its_parameters() {
        let at = Timestamp::from_micros;
        let fact = |parameters: &str, from| Fact::Begins {
            operator: "a".into(),
            parameters: parameters.into(),
            from: at(from),
        };
        let facts = [fact("60s", 1), fact("300s", 2), fact("60s", 3)];
        let of = |parameters| begins(&facts, &[step("aggregate", "a", parameters)]);
        assert_eq!(of("60s"), BTreeMap::from([("a".into(), at(3))]));
        assert_eq!(of("300s"), BTreeMap::from([("a".into(), at(2))]));
        assert_eq!(of("10s"), BTreeMap::new());
    }
}
