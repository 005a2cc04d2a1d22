//! What the benches share: events, the four workloads, the job of the engine and the loop by hand.
//!
//! ```text
//! events ──┬─> engine   the job as a user of the library writes it
//!          └─> floor    one loop, everything known at compile time
//! both ──> outcome      compared before any time counts
//! ```

pub mod engine;
pub mod events;
pub mod floor;
pub mod load;
pub mod nexmark;
pub mod outcome;
pub mod records;
pub mod rounds;
pub mod sink;

/// What is computed, in event time; the names are those of the project's issues and papers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Page views per page and minute.
    A1Tumbling,
    /// Users of each five minutes, every minute.
    A2Sliding,
    /// Sessions of each user.
    A3Sessions,
    /// All three.
    A4All,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::A1Tumbling, Self::A2Sliding, Self::A3Sessions, Self::A4All];

    /// The name that the figures are printed with.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::A1Tumbling => "A1 tumbling count",
            Self::A2Sliding => "A2 sliding distinct",
            Self::A3Sessions => "A3 sessions",
            Self::A4All => "A4 all three",
        }
    }

    /// Whether page views are counted.
    #[must_use]
    pub fn tumbling(self) -> bool {
        matches!(self, Self::A1Tumbling | Self::A4All)
    }

    /// Whether users are counted.
    #[must_use]
    pub fn sliding(self) -> bool {
        matches!(self, Self::A2Sliding | Self::A4All)
    }

    /// Whether sessions are made.
    #[must_use]
    pub fn sessions(self) -> bool {
        matches!(self, Self::A3Sessions | Self::A4All)
    }
}
