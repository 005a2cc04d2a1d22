//! Which splits a topic has, and whether it is the topic that the job has read so far.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::record::{Split, SplitId};

/// A partition's name as a split (rule D14).
fn id_of(topic: &str, partition: i32) -> SplitId {
    SplitId::new(format!("{topic}/{partition}"))
}

/// The partition that a split of the topic is.
pub(super) fn partition_of(topic: &str, id: &SplitId) -> Option<i32> {
    id.as_str().strip_prefix(topic)?.strip_prefix('/')?.parse().ok()
}

/// Those of the job's splits that are partitions of the topic: a job may have other sources.
pub(super) fn of_topic(topic: &str, known: &[Split]) -> Vec<Split> {
    let ours = |split: &&Split| *split.topic == *topic && partition_of(topic, &split.id).is_some();
    known.iter().filter(ours).cloned().collect()
}

/// The topic's splits, as they are to be reported.
///
/// What a split remembers is the topic's id, since a topic that is deleted and created again has
/// the same name, and offsets that look as if they were the old ones. Where the cluster does not
/// tell the id, it is empty, and only partitions that are gone give the new topic away.
pub(super) fn decide(
    topic: &Arc<str>,
    bootstrap: &str,
    partitions: &BTreeSet<i32>,
    id: &str,
    known: &[Split],
) -> Result<Vec<Split>> {
    let other = known.iter().find(|s| *s.memo != *id && !s.memo.is_empty() && !id.is_empty());
    if let Some(other) = other {
        return Err(Error::user(format!(
            "topic {topic} at {bootstrap} is not the one that the job has read so far (its id is \
             {id}, and was {}): it was deleted and created again, or this is another cluster. If \
             its records are what is to be read, start the job anew, under another name or with \
             its state removed",
            other.memo
        )));
    }
    let gone = known.iter().find(|known| {
        partition_of(topic, &known.id).is_none_or(|partition| !partitions.contains(&partition))
    });
    if let Some(gone) = gone {
        return Err(Error::user(format!(
            "topic {topic} at {bootstrap} has {} partitions, and {} is none of them, though the \
             job has read it: the topic was deleted and created again, or this is another cluster",
            partitions.len(),
            gone.id
        )));
    }
    let split = |partition: &i32| {
        let name = id_of(topic, *partition);
        known.iter().find(|split| split.id == name).cloned().unwrap_or_else(|| Split {
            id: name,
            topic: Arc::clone(topic),
            partition: *partition,
            memo: id.to_owned(),
        })
    };
    Ok(partitions.iter().map(split).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(topic: &str, partition: i32, memo: &str) -> Split {
        let id = id_of(topic, partition);
        Split { id, topic: topic.into(), partition, memo: memo.to_owned() }
    }

    fn decided(partitions: &[i32], id: &str, known: &[Split]) -> Result<Vec<Split>> {
        let partitions = partitions.iter().copied().collect();
        decide(&"a".into(), "kafka:9092", &partitions, id, &of_topic("a", known))
    }

    #[test]
    fn f43_new_partitions_come_after_the_known_ones() {
        let known = decided(&[0, 1], "x", &[]).unwrap();
        assert_eq!(known, [split("a", 0, "x"), split("a", 1, "x")]);
        assert_eq!(decided(&[0, 1, 2], "x", &known).unwrap()[..2], known);
        assert_eq!(decided(&[0, 1, 2], "x", &known).unwrap()[2], split("a", 2, "x"));
    }

    #[test]
    fn f42_another_topic_of_the_same_name_is_refused() {
        let error = decided(&[0], "new", &[split("a", 0, "old")]).unwrap_err();
        for part in ["topic a", "kafka:9092", "is new, and was old", "created again", "anew"] {
            assert!(error.message().contains(part), "{part}: {error}");
        }
        let error = decided(&[0], "", &[split("a", 1, "")]).unwrap_err();
        assert!(error.message().contains("a/1 is none of them"), "{error}");
        // Without ids nothing is known, and what was remembered stays.
        assert_eq!(decided(&[0], "", &[split("a", 0, "old")]).unwrap()[0].memo, "old");
        assert_eq!(decided(&[0], "new", &[split("a", 0, "")]).unwrap()[0].memo, "");
    }

    #[test]
    fn f42_splits_of_another_source_of_the_job_say_nothing_about_this_topic() {
        let known = [split("a", 0, "x"), split("b", 0, "y"), split("a/b", 7, "z")];
        assert_eq!(decided(&[0], "x", &known).unwrap(), [split("a", 0, "x")]);
    }
}
