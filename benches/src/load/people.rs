//! Files of events in which every user comes back every 20 minutes: so many sessions stay open, with the
//! usual gap of 30 minutes, as there are users, and state neither grows nor shrinks.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use streamkit::time::Timestamp;

/// The splits of the input.
pub const FILES: u64 = 4;
/// Between two events of a user, in microseconds.
const ROUND: i64 = 20 * 60 * 1_000_000;
/// 2026-01-01T00:00:00Z
const START: i64 = 1_767_225_600_000_000;
const PAGES: u64 = 1_000;
/// A prime: users come in an order that no cache can guess, and each once a round.
const STRIDE: u64 = 2_654_435_761;

/// Input files that grow.
#[derive(Debug)]
pub struct People {
    folder: PathBuf,
    users: u64,
    /// How many events have been written.
    pub events: u64,
    /// How many of them are page views: seven of ten.
    pub views: u64,
}

impl People {
    /// Empty files in a folder that is there.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn new(folder: &Path, users: u64) -> Result<Self> {
        let people = Self { folder: folder.to_owned(), users, events: 0, views: 0 };
        for file in 0..FILES {
            File::create(people.path(file))?;
        }
        Ok(people)
    }

    fn path(&self, file: u64) -> PathBuf {
        self.folder.join(format!("events-{file}.jsonl"))
    }

    /// What the program is told.
    ///
    /// # Errors
    /// If the folder has no name that it could be told by.
    pub fn flags(&self) -> Result<Vec<String>> {
        let mut flags = vec![];
        for file in 0..FILES {
            let path = self.path(file).canonicalize()?;
            flags.extend(["--input".to_owned(), path.to_str().context("no UTF-8")?.to_owned()]);
        }
        Ok(flags)
    }

    /// Appends so many events.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn append(&mut self, events: u64) -> Result<()> {
        let open = |file| -> Result<_> {
            let file = File::options().append(true).open(self.path(file))?;
            Ok(BufWriter::with_capacity(1 << 18, file))
        };
        let mut files = (0..FILES).map(open).collect::<Result<Vec<_>>>()?;
        for number in self.events..self.events + events {
            let user = (number % self.users).wrapping_mul(STRIDE) % self.users;
            let since = i128::from(number) * i128::from(ROUND) / i128::from(self.users);
            let time = Timestamp::from_micros(START + i64::try_from(since)?);
            let (page, is_view) = (number % PAGES, number % 10 < 7);
            let kind = if is_view { "page_view" } else { "click" };
            self.views += u64::from(is_view);
            let file = &mut files[(number % FILES) as usize];
            writeln!(
                file,
                r#"{{"event_time":"{time}","user_id":"user_{user:08}","page_url":"/products/{page}","event_type":"{kind}"}}"#
            )?;
        }
        self.events += events;
        files.iter_mut().try_for_each(|file| Ok(file.flush()?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_user_comes_once_a_round() {
        let folder = std::env::temp_dir().join(format!("people-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut people = People::new(&folder, 1_000).unwrap();
        people.append(1_500).unwrap();
        people.append(1_500).unwrap();
        let mut times: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for file in 0..FILES {
            for line in std::fs::read_to_string(people.path(file)).unwrap().lines() {
                let value = bytes::Bytes::copy_from_slice(line.as_bytes());
                let origin = pipeline_app::model::Origin::default();
                let event = pipeline_app::model::decode(Some(&value), origin).unwrap();
                times.entry(event.user_id().to_owned()).or_default().push(event.event_time());
            }
        }
        assert_eq!((times.len(), people.events, people.views), (1_000, 3_000, 2_100));
        for times in times.values() {
            assert_eq!((times[1] - times[0], times[2] - times[1]), (ROUND, ROUND));
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
