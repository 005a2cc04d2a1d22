//! What a checkpoint holds of sessions.
//!
//! ```text
//! open session   O  key                       start, last, accumulator
//! event          E  stretch  number  key      time after the stretch's start, role, accumulator
//! settled        S                            every event before this has been applied
//! ```
//!
//! An event is written once, however many checkpoints it waits for the watermark: with a disorder of
//! minutes most of the state are events, and writing all of a key whenever one comes would write each of
//! them dozens of times. It is deleted with its stretch; of a stretch that the watermark is in, a restart
//! leaves out what had been applied.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::unsettled::{Event, Role, Unsettled};
use super::window::{ordered, unordered};
use crate::data::State;
use crate::error::Result;
use crate::state::{BitSet, KeyGroup, KeyTable, Since, StateWriter, decode};
use crate::time::Timestamp;

/// A session whose events so far are settled. There is room for one for every key, open or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Open<S> {
    start: Start,
    pub(crate) last: Timestamp,
    pub(crate) accumulator: S,
}

/// A timestamp that is never zero inside, so that whether there is a session takes no room of its own.
/// The first microsecond that a timestamp can name becomes the one after it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(from = "Timestamp", into = "Timestamp")]
struct Start(NonZeroU64);

/// The timestamps in order, from zero on.
const ZERO: u64 = 1 << 63;

impl From<Timestamp> for Start {
    #[inline]
    fn from(time: Timestamp) -> Self {
        Self(NonZeroU64::new(time.as_micros() as u64 ^ ZERO).unwrap_or(NonZeroU64::MIN))
    }
}

impl From<Start> for Timestamp {
    #[inline]
    fn from(start: Start) -> Self {
        Self::from_micros((start.0.get() ^ ZERO) as i64)
    }
}

impl<S> Open<S> {
    #[inline]
    pub(crate) fn new(start: Timestamp, last: Timestamp, accumulator: S) -> Self {
        Self { start: start.into(), last, accumulator }
    }

    #[inline]
    pub(crate) fn start(&self) -> Timestamp {
        self.start.into()
    }

    /// When the session closes if no event follows, under a rule of (gap, maximum length).
    #[inline]
    pub(crate) fn close_time(&self, (gap, max): (i64, i64)) -> Timestamp {
        let (start, last) = (self.start().as_micros(), self.last.as_micros());
        Timestamp::from_micros(last.saturating_add(gap).min(start.saturating_add(max)))
    }
}

const OPEN: u8 = b'O';
const EVENT: u8 = b'E';
const SETTLED: u8 = b'S';
/// All of a key in one entry, as checkpoints had it before events had their own.
const KEY: u8 = b'K';

#[derive(Deserialize)]
struct OldKey<S> {
    open: Option<Open<S>>,
    unsettled: Vec<OldEvent<S>>,
}

#[derive(Deserialize)]
struct OldEvent<S> {
    time: Timestamp,
    role: Role,
    accumulator: S,
}

/// What has been written of sessions, and is to be.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// The checkpoint that is being written.
    out: Option<StateWriter>,
    /// Open sessions that are yet to be written, all of them from `next` on.
    sessions: BitSet,
    next: u32,
    /// The starts of the stretches that have events in checkpoints.
    stretches: BTreeSet<i64>,
    /// How many events have been written.
    events: u64,
    /// Entries that are in checkpoints, and that nothing is left of.
    gone: Vec<(KeyGroup, Vec<u8>)>,
    /// Whether checkpoints have keys in the old form.
    has_old_keys: bool,
}

impl Stored {
    /// Whether checkpoints have keys in the old form: everything is to be written anew.
    pub(crate) fn has_old_keys(&self) -> bool {
        self.has_old_keys
    }

    /// Whether a checkpoint is being written.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.out.is_some()
    }

    /// Begins a checkpoint of the sessions of these slots, and of what is unsettled. Every event before
    /// `settled` has been applied.
    pub(crate) fn freeze<S: State>(
        &mut self,
        since: Since,
        (sessions, unsettled): (&mut BitSet, &mut Unsettled<S>),
        settled: Timestamp,
        keys: &KeyTable,
        mut out: StateWriter,
    ) {
        // Deletions first: what follows is to stay.
        if std::mem::take(&mut self.has_old_keys) {
            out.delete_prefix(&[KEY]);
        }
        self.gone.drain(..).for_each(|(group, key)| out.delete(group, &[&key]));
        self.stretches.retain(|start| {
            let is_needed = unsettled.end_of(*start) > settled;
            if !is_needed {
                out.delete_prefix(&[&[EVENT][..], &ordered(*start)].concat());
            }
            is_needed
        });
        out.put_in_every_group(&[SETTLED], &settled);
        // All of the last time have been written, so that this leaves none.
        std::mem::swap(&mut self.sessions, sessions);
        self.next = 0;
        self.stretches.extend(unsettled.stretches());
        let number = &mut self.events;
        unsettled.freeze(since, |stretch, event| {
            write_event(&mut out, number, stretch, event, keys);
        });
        self.out = Some(out);
    }

    /// Writes about so many bytes more. Hands the writer back with the last of it.
    pub(crate) fn write<S: State>(
        &mut self,
        bytes: usize,
        (open, unsettled): (&[Option<Open<S>>], &mut Unsettled<S>),
        keys: &KeyTable,
    ) -> Option<StateWriter> {
        let until = self.written().saturating_add(bytes);
        if !self.write_events(i64::MAX, until, unsettled, keys) {
            return None;
        }
        while let Some(slot) = self.sessions.next(self.next) {
            if self.written() >= until {
                return None;
            }
            self.next = slot;
            self.write_session(slot, open, keys);
        }
        self.out.take()
    }

    /// Writes what is frozen of events that may be applied now: those before this time.
    pub(crate) fn write_before<S: State>(
        &mut self,
        time: Timestamp,
        unsettled: &mut Unsettled<S>,
        keys: &KeyTable,
    ) {
        if self.is_open() {
            self.write_events(time.as_micros(), usize::MAX, unsettled, keys);
        }
    }

    /// Writes the session of a key that is about to change, if it is to be.
    #[inline]
    pub(crate) fn write_session<S: State>(
        &mut self,
        slot: u32,
        open: &[Option<Open<S>>],
        keys: &KeyTable,
    ) {
        if let Some(out) = &mut self.out
            && self.sessions.contains(slot)
        {
            self.sessions.remove(slot);
            let (group, key) = (keys.group(slot), [&[OPEN][..], keys.key(slot)]);
            match open.get(slot as usize) {
                Some(Some(open)) => out.put(group, &key, open),
                _ => out.delete(group, &key),
            }
        }
    }

    fn write_events<S: State>(
        &mut self,
        before: i64,
        until: usize,
        unsettled: &mut Unsettled<S>,
        keys: &KeyTable,
    ) -> bool {
        let Some(out) = &mut self.out else { return true };
        unsettled.write_frozen(before, |stretch, event| {
            write_event(out, &mut self.events, stretch, event, keys);
            out.written() < until
        })
    }

    fn written(&self) -> usize {
        self.out.as_ref().map_or(0, StateWriter::written)
    }
}

/// Writes an event, whose number this is, and counts the number up.
fn write_event<S: State>(
    out: &mut StateWriter,
    number: &mut u64,
    stretch: i64,
    event: &Event<S>,
    keys: &KeyTable,
) {
    let after = event.time.as_micros().saturating_sub(stretch);
    let key = [&[EVENT][..], &ordered(stretch), &number.to_be_bytes(), keys.key(event.slot)];
    out.put(keys.group(event.slot), &key, &(after, event.role, &event.accumulator));
    *number += 1;
}

/// What a restart finds of sessions.
pub(crate) struct Found<S> {
    pub(crate) open: Vec<(u32, Open<S>)>,
    /// With the stretch and the number of each.
    events: Vec<(i64, u64, Event<S>)>,
    /// By group: each may come from another worker.
    settled: BTreeMap<KeyGroup, Timestamp>,
    /// In the old form.
    old: Vec<Event<S>>,
    has_old_keys: bool,
}

impl<S> Default for Found<S> {
    fn default() -> Self {
        let (open, events, settled, old) = (vec![], vec![], BTreeMap::new(), vec![]);
        Self { open, events, settled, old, has_old_keys: false }
    }
}

impl<S: State> Found<S> {
    /// Takes an entry.
    pub(crate) fn entry(
        &mut self,
        group: KeyGroup,
        key: &[u8],
        value: &[u8],
        keys: &mut KeyTable,
    ) -> Result<()> {
        match key {
            [OPEN, key @ ..] => self.open.push((keys.restore(key), decode(value)?)),
            [EVENT, rest @ ..] if rest.len() >= 16 => {
                let (stretch, slot) = (unordered(rest), keys.restore(&rest[16..]));
                let (after, role, accumulator): (i64, Role, S) = decode(value)?;
                let time = Timestamp::from_micros(stretch.saturating_add(after));
                let event = Event::new(time, slot, role, accumulator);
                self.events.push((stretch, number(&rest[8..]), event));
            }
            [SETTLED] => _ = self.settled.insert(group, decode(value)?),
            [KEY, key @ ..] => {
                let (slot, old): (u32, OldKey<S>) = (keys.restore(key), decode(value)?);
                self.has_old_keys = true;
                self.open.extend(old.open.map(|open| (slot, open)));
                let events = old.unsettled.into_iter();
                self.old.extend(events.map(|e| Event::new(e.time, slot, e.role, e.accumulator)));
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts events that have not been applied where they belong. Returns the open sessions, what is
    /// stored, and the time before which every event has been applied.
    pub(crate) fn finish(
        self,
        unsettled: &mut Unsettled<S>,
        keys: &KeyTable,
    ) -> (Vec<(u32, Open<S>)>, Stored, Timestamp) {
        let mut stored = Stored { has_old_keys: self.has_old_keys, ..Stored::default() };
        for (stretch, n, event) in self.events {
            stored.events = stored.events.max(n + 1);
            stored.stretches.insert(stretch);
            let group = keys.group(event.slot);
            if self.settled.get(&group).is_some_and(|settled| event.time < *settled) {
                let key = [&[EVENT][..], &ordered(stretch), &n.to_be_bytes(), keys.key(event.slot)];
                stored.gone.push((group, key.concat()));
            } else {
                unsettled.add(event);
            }
        }
        unsettled.all_are_stored();
        self.old.into_iter().for_each(|event| unsettled.add(event));
        let settled = self.settled.into_values().min().unwrap_or(Timestamp::MIN);
        (self.open, stored, settled)
    }
}

/// The number that the bytes begin with.
fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::{Changes, Entries, key_hash};
    use crate::time::seconds;

    const GROUPS: (KeyGroup, KeyGroup) = (KeyGroup::MIN, KeyGroup::MAX);

    /// Sessions as an operator has them, and what a checkpoint that is being made has to hold.
    struct World {
        keys: KeyTable,
        open: Vec<Option<Open<u64>>>,
        live: BitSet,
        dirty: BitSet,
        unsettled: Unsettled<u64>,
        settled: i64,
        stored: Stored,
        expected: Held,
    }

    /// Open sessions and events by key, in order.
    type Held = (Vec<(Vec<u8>, i64, u64)>, Vec<(Vec<u8>, i64, u64)>);

    impl World {
        fn new() -> Self {
            Self {
                keys: KeyTable::new(),
                open: vec![],
                live: BitSet::default(),
                dirty: BitSet::default(),
                unsettled: Unsettled::new(seconds(1)),
                settled: 0,
                stored: Stored::default(),
                expected: Held::default(),
            }
        }

        fn add(&mut self, key: u8, time: i64, n: u64) {
            let slot = self.keys.restore(&[key]);
            self.open.resize(self.keys.slots(), None);
            let time = Timestamp::from_micros(time.max(self.settled));
            self.unsettled.add(Event::new(time, slot, Role::Other, n));
        }

        /// An event replaces the session of its key, or closes it.
        fn settle(&mut self, until: i64) {
            self.settled = self.settled.max(until);
            let until = Timestamp::from_micros(self.settled);
            self.stored.write_before(until, &mut self.unsettled, &self.keys);
            while let Some(Event { time, slot, accumulator, .. }) = self.unsettled.pop(until) {
                self.stored.write_session(slot, &self.open, &self.keys);
                self.dirty.insert(slot);
                self.live.remove(slot);
                let open = Open::new(time, time, accumulator);
                self.open[slot as usize] = (accumulator % 3 > 0).then_some(open);
                if accumulator % 3 > 0 {
                    self.live.insert(slot);
                }
            }
        }

        fn held(&self) -> Held {
            let (keys, open) = (&self.keys, &self.open);
            let open = (0u32..).zip(open).filter_map(|(slot, open)| {
                let open = open.as_ref()?;
                Some((keys.key(slot).to_vec(), open.last.as_micros(), open.accumulator))
            });
            let events = self.unsettled.iter().map(|event| {
                (keys.key(event.slot).to_vec(), event.time.as_micros(), event.accumulator)
            });
            let (mut open, mut events): Held = (open.collect(), events.collect());
            open.sort_unstable();
            events.sort_unstable();
            (open, events)
        }

        fn freeze(&mut self, since: Since) {
            self.expected = self.held();
            if since == Since::Beginning {
                self.dirty.clone_from(&self.live);
            }
            let settled = Timestamp::from_micros(self.settled);
            let (what, out) = ((&mut self.dirty, &mut self.unsettled), StateWriter::new(GROUPS));
            self.stored.freeze(since, what, settled, &self.keys, out);
        }

        fn write(&mut self, bytes: usize) -> Option<Changes> {
            let state = (&self.open[..], &mut self.unsettled);
            Some(self.stored.write(bytes, state, &self.keys)?.into_changes().unwrap())
        }

        fn restored(entries: &Entries) -> Self {
            let (mut world, mut found) = (Self::new(), Found::default());
            for (group, key, value) in entries.reader(GROUPS).iter() {
                found.entry(group, key, value, &mut world.keys).unwrap();
            }
            let (open, stored, settled) = found.finish(&mut world.unsettled, &world.keys);
            (world.stored, world.settled) = (stored, settled.as_micros().max(0));
            world.open.resize(world.keys.slots(), None);
            for (slot, open) in open {
                world.live.insert(slot);
                world.open[slot as usize] = Some(open);
            }
            world
        }
    }

    proptest! {
        /// A restart finds what was there when the checkpoint began, whatever happened until it was
        /// written; and goes on from there.
        #[test]
        fn a_checkpoint_holds_what_was_there_when_it_began(
            steps in prop::collection::vec((0u8..12, 0u8..5, 0i64..9_000), 0..120),
            portion in 1usize..100,
        ) {
            let (mut world, mut entries) = (World::new(), Entries::default());
            let mut since = None;
            let mut has_base = false;
            for (n, (what, key, time)) in (0u64..).zip(steps) {
                match what {
                    0 | 1 => world.settle(time),
                    2 if since.is_none() => {
                        let from = if time % 5 == 0 { Since::Beginning } else { Since::Last };
                        since = Some(if has_base { from } else { Since::Beginning });
                        world.freeze(since.unwrap());
                    }
                    3..7 if since.is_some() => {
                        let Some(changes) = world.write(portion) else { continue };
                        if since.take() == Some(Since::Beginning) {
                            entries = Entries::default();
                            entries.add_base(changes);
                            has_base = true;
                        } else {
                            entries.add_later(changes);
                        }
                        let restored = World::restored(&entries);
                        prop_assert_eq!(restored.held(), world.expected.clone());
                        if time % 4 == 0 {
                            world = restored;
                        }
                    }
                    _ => world.add(key, time, n),
                }
            }
        }
    }

    #[test]
    fn a_key_without_a_session_takes_no_more_room_than_one_with_a_session() {
        assert_eq!(size_of::<Option<Open<u64>>>(), size_of::<(Timestamp, Timestamp, u64)>());
        for time in [Timestamp::MAX, Timestamp::from_micros(0), Timestamp::from_micros(-1)] {
            assert_eq!(Open::new(time, time, ()).start(), time);
        }
        let first = Open::new(Timestamp::MIN, Timestamp::MIN, ()).start();
        assert_eq!(first, Timestamp::MIN.next());
    }

    #[test]
    fn an_event_that_waits_for_long_is_not_written_again() {
        let mut world = World::new();
        let mut bytes = vec![];
        for n in 0..50 {
            (0..20).for_each(|key| world.add(key, 5_000, n));
            world.freeze(if n == 0 { Since::Beginning } else { Since::Last });
            let changes = world.write(usize::MAX).unwrap();
            bytes.push(changes.chunks().iter().map(|chunk| chunk.len()).sum::<usize>());
        }
        assert_eq!(world.held().1.len(), 1_000);
        assert!(bytes[49] <= bytes[1] + 100, "{bytes:?}");
    }

    /// Two workers were not equally far, and one goes on with the keys of both.
    #[test]
    fn an_event_that_one_of_two_workers_had_applied_does_not_come_back() {
        let mut worlds = [World::new(), World::new()];
        let mut entries = Entries::default();
        for (world, (key, settled)) in worlds.iter_mut().zip([(1, 7), (2, 5)]) {
            world.add(key, 6, 1);
            world.add(key, 9, 2);
            world.freeze(Since::Beginning);
            entries.add_base(world.write(usize::MAX).unwrap());
            let group = crate::state::group_of(key_hash(&[key]));
            let mut out = StateWriter::new((group, group));
            out.put_in_every_group(&[SETTLED], &Timestamp::from_micros(settled));
            entries.add_later(out.into_changes().unwrap());
        }
        let held: Vec<_> =
            [(1, 9, 2), (2, 6, 1), (2, 9, 2)].map(|(k, t, n)| (vec![k], t, n)).into();
        let mut world = World::restored(&entries);
        assert_eq!(world.held().1, held);
        world.freeze(Since::Last);
        entries.add_later(world.write(usize::MAX).unwrap());
        assert_eq!(World::restored(&entries).held().1, held);
    }

    #[test]
    fn keys_in_the_old_form_are_read_and_replaced() {
        #[derive(Serialize)]
        struct Old(Option<Open<u64>>, Vec<(Timestamp, Role, u64)>);
        let at = Timestamp::from_micros;
        let open = Open::new(at(1), at(2), 7);
        let mut out = StateWriter::new(GROUPS);
        let group = crate::state::group_of(key_hash(b"k"));
        out.put(group, &[&[KEY], b"k"], &Old(Some(open), vec![(at(9), Role::End, 8)]));
        let mut entries = Entries::default();
        entries.add_base(out.into_changes().unwrap());
        let mut world = World::restored(&entries);
        let held = (vec![(b"k".to_vec(), 2, 7)], vec![(b"k".to_vec(), 9, 8)]);
        assert_eq!(world.held(), held);
        assert!(world.stored.has_old_keys());
        world.dirty.clone_from(&world.live);
        world.freeze(Since::Last);
        entries.add_later(world.write(usize::MAX).unwrap());
        assert!(entries.reader(GROUPS).iter().all(|(_, key, _)| key[0] != KEY));
        assert_eq!(World::restored(&entries).held(), held);
    }
}
