//! The panes of an operator, by their start.

use std::collections::VecDeque;

/// Panes in the order of their start. There are a few dozen at most times, and nearly every record
/// belongs to the one that was used last: that one is found by a single comparison.
#[derive(Debug)]
pub(crate) struct PaneList<P> {
    panes: VecDeque<(i64, P)>,
    /// Where the pane that was used last is.
    last: usize,
}

impl<P> Default for PaneList<P> {
    fn default() -> Self {
        Self { panes: VecDeque::new(), last: 0 }
    }
}

impl<P: Default> PaneList<P> {
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
        self.panes.front().map(|(start, pane)| (*start, pane))
    }

    /// Removes the first pane.
    pub(crate) fn pop_first(&mut self) -> Option<P> {
        self.last = self.last.saturating_sub(1);
        self.panes.pop_front().map(|(_, pane)| pane)
    }

    /// Panes that start in `[from, to)`, in order.
    pub(crate) fn range(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, &P)> {
        let first = self.panes.partition_point(|(start, _)| *start < from);
        let rest = self.panes.range(first..).map(|(start, pane)| (*start, pane));
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
