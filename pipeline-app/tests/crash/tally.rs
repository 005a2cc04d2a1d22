//! Counts what has happened.

use std::collections::BTreeMap;

/// Of all jobs so far.
#[derive(Debug, Default)]
pub struct Tally {
    pub jobs: u64,
    pub runs: u64,
    /// Runs that `kill -9` has ended.
    pub kills: u64,
    /// Runs that have stopped when they were asked to.
    pub stops: u64,
    /// What befell the runs, by a name for people.
    pub fates: BTreeMap<&'static str, u64>,
    /// By failpoint: how often it was tried, and how often it was reached.
    pub failpoints: BTreeMap<&'static str, (u64, u64)>,
    /// Floors that splits got which were back from idleness.
    pub floors: u64,
    /// Records of the input.
    pub records: u64,
    /// Rows of tables, lake and topics that were compared with the oracle.
    pub compared: u64,
    /// How often the tables were read meanwhile.
    pub looks: u64,
}

impl Tally {
    /// Something befell a run.
    pub fn fate(&mut self, name: &'static str, times: u64) {
        *self.fates.entry(name).or_default() += times;
    }

    /// A run has ended that was to end at this step.
    pub fn aimed_at(&mut self, failpoint: &'static str, reached: bool) {
        let count = self.failpoints.entry(failpoint).or_default();
        count.0 += 1;
        count.1 += u64::from(reached);
    }

    /// How often this step was reached.
    pub fn reached(&self, failpoint: &str) -> u64 {
        self.failpoints.get(failpoint).map_or(0, |(_, reached)| *reached)
    }

    /// Processes that ended by a kill or at a failpoint.
    pub fn deaths(&self) -> u64 {
        self.kills + self.at_failpoints()
    }

    fn at_failpoints(&self) -> u64 {
        self.failpoints.values().map(|(_, reached)| reached).sum()
    }

    /// A line for people.
    pub fn line(&self) -> String {
        let different = self.failpoints.values().filter(|(_, reached)| *reached > 0).count();
        format!(
            "{} jobs, {} runs: {} killed ({} at {different} different failpoints), {} stopped; {} \
             records, {} rows compared, {} floors, tables read {} times meanwhile",
            self.jobs,
            self.runs,
            self.deaths(),
            self.at_failpoints(),
            self.stops,
            self.records,
            self.compared,
            self.floors,
            self.looks
        )
    }

    /// What befell the runs, and how often.
    pub fn fates(&self) -> String {
        let fates = self.fates.iter().map(|(name, n)| format!("{name} {n}"));
        fates.collect::<Vec<_>>().join(", ")
    }

    /// How often each step was reached, of how often it was aimed at.
    pub fn steps(&self) -> String {
        let steps = self.failpoints.iter();
        let steps = steps.map(|(name, (tried, reached))| format!("{name} {reached}/{tried}"));
        steps.collect::<Vec<_>>().join(", ")
    }
}
