//! The panes of an operator, by their start.

use crate::window::pane_start;

/// Panes in the order of their start. There are a few dozen at most times, and nearly every record
/// belongs to the one that was used last: that one is found by a single comparison.
#[derive(Debug)]
pub(crate) struct PaneList<P> {
    panes: Vec<(i64, P)>,
    /// Where the pane that was used last is.
    last: usize,
}

impl<P> Default for PaneList<P> {
    fn default() -> Self {
        Self { panes: vec![], last: 0 }
    }
}

impl<P: Default> PaneList<P> {
    /// The pane that `time` is in, an empty one if there is none, and its start. All panes have this
    /// length.
    #[inline]
    pub(crate) fn around(&mut self, time: i64, length: i64) -> (i64, &mut P) {
        let is_in = |start: i64| (0..length).contains(&time.wrapping_sub(start));
        // A division is the most expensive thing that could be done here.
        if self.panes.get(self.last).is_none_or(|(start, _)| !is_in(*start)) {
            self.last = self.find_near(pane_start(time, length), length);
        }
        let (start, pane) = &mut self.panes[self.last];
        (*start, pane)
    }

    /// Where the pane is that starts at `start`: mostly as many panes from the last one as there would
    /// be if none were missing between them.
    fn find_near(&mut self, start: i64, length: i64) -> usize {
        if let Some((last, _)) = self.panes.get(self.last) {
            let away = start.saturating_sub(*last) / length;
            let at = (self.last as i64).saturating_add(away);
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            if self.panes.get(at).is_some_and(|(found, _)| *found == start) {
                return at;
            }
        }
        self.find_or_make(start)
    }

    /// The pane that starts at `start`, an empty one if there is none.
    #[inline]
    pub(crate) fn at(&mut self, start: i64) -> &mut P {
        if self.panes.get(self.last).is_none_or(|(at, _)| *at != start) {
            self.last = self.find_or_make(start);
        }
        &mut self.panes[self.last].1
    }

    fn find_or_make(&mut self, start: i64) -> usize {
        let at = self.panes.partition_point(|(at, _)| *at < start);
        if self.panes.get(at).is_none_or(|(found, _)| *found != start) {
            self.panes.insert(at, (start, P::default()));
        }
        at
    }
}

impl<P> PaneList<P> {
    /// The first pane and its start.
    pub(crate) fn first(&self) -> Option<(i64, &P)> {
        self.panes.first().map(|(start, pane)| (*start, pane))
    }

    /// Removes the first pane.
    pub(crate) fn pop_first(&mut self) -> Option<P> {
        self.last = self.last.saturating_sub(1);
        // They are few, and it is done once for each.
        (!self.panes.is_empty()).then(|| self.panes.remove(0).1)
    }

    /// Panes that start in `[from, to)`, in order.
    pub(crate) fn range(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, &P)> {
        let first = self.panes.partition_point(|(start, _)| *start < from);
        let rest = self.panes[first..].iter().map(|(start, pane)| (*start, pane));
        rest.take_while(move |(start, _)| *start < to)
    }

    /// All panes, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &P)> {
        self.panes.iter().map(|(start, pane)| (*start, pane))
    }

    /// All panes, in order, to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (i64, &mut P)> {
        self.panes.iter_mut().map(|(start, pane)| (*start, pane))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_map(steps in prop::collection::vec((0i64..20, any::<bool>()), 0..100)) {
            let (mut list, mut map) = (PaneList::<u32>::default(), BTreeMap::<i64, u32>::new());
            for (n, (start, pop)) in (0u32..).zip(steps) {
                if pop {
                    list.pop_first();
                    map.pop_first();
                } else {
                    *list.at(start) += n;
                    *map.entry(start).or_default() += n;
                }
                let pairs: Vec<_> = list.iter().map(|(start, n)| (start, *n)).collect();
                prop_assert_eq!(&pairs, &map.clone().into_iter().collect::<Vec<_>>());
                let some: Vec<_> = list.range(start, start + 5).map(|(start, _)| start).collect();
                let expected: Vec<_> = map.range(start..start + 5).map(|(start, _)| *start).collect();
                prop_assert_eq!(some, expected);
                prop_assert_eq!(list.first().map(|(start, _)| start), map.keys().next().copied());
            }
        }
    }
}
