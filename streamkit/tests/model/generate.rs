//! Random inputs.
#![allow(dead_code, reason = "each test uses a part of it")]

use proptest::prelude::*;

use super::model::{Event, Role};

/// One record before it has an id: (step forwards, disorder, user, role).
type Raw = (i64, i64, u8, u8);

fn raw() -> impl Strategy<Value = Raw> {
    let disorder = prop_oneof![4 => Just(0i64), 3 => 0i64..15, 2 => 15i64..80];
    let step = prop_oneof![6 => 0i64..6, 2 => 6i64..40, 1 => 40i64..120];
    (step, disorder, 0u8..4, 0u8..10)
}

/// Up to `splits` splits of up to `records` records with disorder, some of it beyond the bound.
pub fn splits(splits: usize, records: usize) -> impl Strategy<Value = Vec<Vec<Event>>> {
    let split = proptest::collection::vec(raw(), 0..records);
    proptest::collection::vec(split, 1..=splits).prop_map(|splits| {
        let mut id = 0;
        let mut event = |now: &mut i64, (step, disorder, user, role): Raw| {
            *now += step;
            id += 1;
            let role = match role {
                0 => Role::Start,
                1 => Role::End,
                _ => Role::Other,
            };
            Event { time: 100 + *now - disorder, user: format!("user {user}"), role, id }
        };
        let split = |raws: Vec<Raw>| -> Vec<Event> {
            let mut now = 0;
            raws.into_iter().map(|raw| event(&mut now, raw)).collect()
        };
        splits.into_iter().map(split).collect()
    })
}
