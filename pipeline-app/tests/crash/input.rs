//! The input of a job: a function of the seed.

use crate::oracle::generate::{
    Random, fits_a_line, heavy_disorder, key_by_user, random_split, small_world, stamp,
};
use crate::oracle::malformed::malformed_lines;
use crate::oracle::{InputRecord, InputSplit};
use crate::support::web_activity;

use super::fate::Mode;

/// Records of two kinds by turns (a real web log; few users who meet the rules' edges all the
/// time), in heavy disorder, with every kind of malformed record among them.
pub fn splits(mode: Mode, count: usize, seed: u64) -> Vec<InputSplit> {
    let mut random = Random::new(seed);
    let valid = if seed.is_multiple_of(2) {
        small_world(count, seed)
    } else {
        let log = web_activity();
        let from = random.below((log.len() - count.min(log.len())) as i64 + 1) as usize;
        log[from..(from + count).min(log.len())].to_vec()
    };
    let mut records = heavy_disorder(&valid, seed);
    stamp(&mut records);
    for mut bad in malformed_lines(seed).into_iter().filter(|record| usable(mode, record)) {
        let at = random.below(records.len() as i64) as usize;
        bad.timestamp_micros = bad.timestamp_micros.or(records[at].timestamp_micros);
        records.insert(at, bad);
    }
    for record in &mut records {
        // Kafka keeps milliseconds.
        record.timestamp_micros = record.timestamp_micros.map(|t| t - t.rem_euclid(1_000));
    }
    key_by_user(&mut records);
    random_split(&records, 4, seed)
}

/// A line of a file has no timestamp of its own, and a broker refuses one of the future. One huge
/// record says as much as a dozen.
fn usable(mode: Mode, record: &InputRecord) -> bool {
    const YEAR_2026: i64 = 1_767_225_600_000_000;
    let small = record.value.as_ref().is_none_or(|value| value.len() < 100_000);
    small
        && match mode {
            Mode::Embedded => fits_a_line(record) && record.timestamp_micros.is_none(),
            Mode::Services => record.timestamp_micros.is_none_or(|at| at < YEAR_2026),
        }
}
