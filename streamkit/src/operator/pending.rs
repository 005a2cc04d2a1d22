//! Short sorted lists of many keys in one vector: no allocation for a key, and none that stays
//! behind.

use crate::state::prefetch;

/// No list: that of a key that has nothing.
pub(crate) const NONE: u32 = u32::MAX;

/// The elements of all lists. A list is a ring, known by its last element, since that is where
/// nearly everything is added; what follows the last is the first.
#[derive(Debug)]
pub(crate) struct Pending<E> {
    nodes: Vec<Node<E>>,
    free: u32,
}

#[derive(Debug)]
struct Node<E> {
    next: u32,
    /// `None`: the node is free.
    element: Option<E>,
}

/// Where in a list an element is missing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The node before it; at the front, the last one.
    before: u32,
    front: bool,
    back: bool,
}

impl Place {
    /// Whether it is at the front of the list.
    pub(crate) fn is_first(self) -> bool {
        self.front
    }
}

impl<E> Default for Pending<E> {
    fn default() -> Self {
        Self { nodes: vec![], free: NONE }
    }
}

impl<E> Pending<E> {
    #[inline]
    fn get(&self, at: u32) -> Option<&E> {
        self.nodes.get(at as usize)?.element.as_ref()
    }

    /// Where a list begins.
    #[inline]
    fn front(&self, list: u32) -> u32 {
        self.nodes.get(list as usize).map_or(NONE, |last| last.next)
    }

    /// Asks for the end of a list.
    #[inline]
    pub(crate) fn prefetch(&self, list: u32) {
        prefetch(&self.nodes, list as usize);
    }

    /// The first element of a list.
    #[inline]
    pub(crate) fn first(&self, list: u32) -> Option<&E> {
        self.get(self.front(list))
    }

    /// The elements of a list, in order.
    pub(crate) fn iter(&self, list: u32) -> impl Iterator<Item = &E> {
        let mut at = self.front(list);
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = if at == list { NONE } else { node.next };
            node.element.as_ref()
        })
    }

    /// Removes the first element if `take` says so.
    #[inline]
    pub(crate) fn pop_if(&mut self, list: &mut u32, take: impl FnOnce(&E) -> bool) -> Option<E> {
        let at = self.front(*list);
        let node = self.nodes.get_mut(at as usize)?;
        if !node.element.as_ref().is_some_and(take) {
            return None;
        }
        let element = node.element.take();
        let next = std::mem::replace(&mut node.next, self.free);
        self.free = at;
        if at == *list {
            *list = NONE;
        } else {
            self.nodes[*list as usize].next = next;
        }
        element
    }

    /// The element that is `same`, or the place for it behind all that are `less`.
    #[inline]
    pub(crate) fn find(
        &mut self,
        list: u32,
        less: impl Fn(&E) -> bool,
        same: impl Fn(&E) -> bool,
    ) -> Result<&mut E, Place> {
        let Some(last) = self.get(list) else {
            return Err(Place { before: NONE, front: true, back: true });
        };
        if less(last) {
            return Err(Place { before: list, front: false, back: true });
        }
        // It is not behind the last, so this ends there at the latest.
        let (mut before, mut at) = (list, self.front(list));
        while self.get(at).is_some_and(&less) {
            (before, at) = (at, self.nodes[at as usize].next);
        }
        let found = self.nodes.get_mut(at as usize).and_then(|node| node.element.as_mut());
        found.filter(|element| same(element)).ok_or(Place {
            before,
            front: before == list,
            back: false,
        })
    }

    /// Adds an element at its place.
    #[inline]
    pub(crate) fn insert(&mut self, list: &mut u32, place: Place, element: E) {
        let next = self.front(place.before);
        let node = Node { next, element: Some(element) };
        let at = match self.nodes.get_mut(self.free as usize) {
            Some(free) => {
                let at = std::mem::replace(&mut self.free, free.next);
                *free = node;
                at
            }
            None => {
                self.nodes.push(node);
                // Four billion unsettled events are more than one worker has memory for.
                u32::try_from(self.nodes.len() - 1).unwrap_or(NONE)
            }
        };
        match self.nodes.get_mut(place.before as usize) {
            Some(before) => before.next = at,
            None => self.nodes[at as usize].next = at,
        }
        if place.back {
            *list = at;
        }
    }

    /// A list of these elements, which must be in order.
    pub(crate) fn list(&mut self, elements: Vec<E>) -> u32 {
        let mut list = NONE;
        for element in elements {
            let place = Place { before: list, front: list == NONE, back: true };
            self.insert(&mut list, place, element);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lists_are_sorted_sets_and_what_they_leave_is_used_again(
            steps in prop::collection::vec((0usize..3, 0u32..20, any::<bool>()), 0..200),
        ) {
            let mut pending = Pending::default();
            let mut lists = [NONE; 3];
            let mut expected: [Vec<u32>; 3] = Default::default();
            let mut most = 0;
            for (list, n, pop) in steps {
                let (list, sorted) = (&mut lists[list], &mut expected[list]);
                if pop {
                    let popped = pending.pop_if(list, |element| *element < n);
                    let all = sorted.first().filter(|element| **element < n).copied();
                    prop_assert_eq!(popped, all);
                    if popped.is_some() {
                        sorted.remove(0);
                    }
                } else {
                    match (pending.find(*list, |e| *e < n, |e| *e == n), sorted.binary_search(&n)) {
                        (Ok(found), Ok(_)) => prop_assert_eq!(*found, n),
                        (Err(place), Err(at)) => {
                            prop_assert_eq!(place.is_first(), at == 0);
                            pending.insert(list, place, n);
                            sorted.insert(at, n);
                        }
                        (found, _) => prop_assert!(false, "{found:?}"),
                    }
                }
                for (list, sorted) in lists.iter().zip(&expected) {
                    let elements: Vec<u32> = pending.iter(*list).copied().collect();
                    prop_assert_eq!(&elements, sorted);
                    prop_assert_eq!(pending.first(*list), sorted.first());
                }
                most = most.max(expected.iter().map(Vec::len).sum());
                prop_assert!(pending.nodes.len() <= most);
            }
            let copy = pending.list(vec![1, 5, 9]);
            prop_assert_eq!(pending.iter(copy).copied().collect::<Vec<_>>(), [1, 5, 9]);
        }
    }
}
