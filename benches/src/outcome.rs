//! What a contender has computed, small enough to be compared after every run.

use xxhash_rust::xxh3::xxh3_64;

/// The number of rows, and a sum over the hashes of all of them: the order does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Result rows.
    pub rows: u64,
    /// Events that came too late, once for each aggregate.
    pub late: u64,
    /// Of what the rows count: views, users, events.
    pub sum: u64,
    digest: u64,
}

impl Outcome {
    /// A page's views in the minute that starts at `start`.
    #[inline]
    pub fn page_views(&mut self, start: i64, page: &[u8], views: u64) {
        self.sum += views;
        self.row([1, start as u64, xxh3_64(page), views]);
    }

    /// The users of the five minutes that start at `start`.
    #[inline]
    pub fn active_users(&mut self, start: i64, users: u64) {
        self.sum += users;
        self.row([2, start as u64, users, 0]);
    }

    /// A user's session.
    #[inline]
    pub fn session(&mut self, user: &[u8], start: i64, end: i64, events: u64) {
        self.sum += events;
        self.row([3 ^ (start as u64) << 2, end as u64, xxh3_64(user), events]);
    }

    /// Adds what somebody else has computed.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.late += other.late;
        self.sum += other.sum;
        self.digest = self.digest.wrapping_add(other.digest);
    }

    /// The fields of a decoded record. Only their lengths are looked at: it must cost nothing.
    #[inline]
    pub fn decoded(&mut self, user: &[u8], page: &[u8], kind: &[u8]) {
        self.rows += 1;
        let lengths = user.len() << 32 | page.len() << 16 | kind.len();
        self.digest = self.digest.wrapping_add(lengths as u64);
    }

    /// A row that is these numbers.
    #[inline]
    pub fn row(&mut self, words: [u64; 4]) {
        // Odd constants, as in any multiplicative hash.
        let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
        for word in words {
            hash = (hash ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
            hash ^= hash >> 32;
        }
        self.rows += 1;
        self.digest = self.digest.wrapping_add(hash);
    }
}
