//! The splits of a job, by index.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Split, SplitId};

/// The splits that a running job knows. It grows when a new one is found; an index stays what it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct SplitList(Arc<RwLock<Vec<Arc<Split>>>>);

impl SplitList {
    /// Adds a split; its index is the next one.
    pub(crate) fn add(&self, split: Split) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(split));
    }

    pub(crate) fn get(&self, index: u32) -> Option<Arc<Split>> {
        let splits = self.0.read().unwrap_or_else(PoisonError::into_inner);
        splits.get(index as usize).map(Arc::clone)
    }

    /// The names, by index.
    pub(crate) fn ids(&self) -> Vec<SplitId> {
        let splits = self.0.read().unwrap_or_else(PoisonError::into_inner);
        splits.iter().map(|split| split.id.clone()).collect()
    }
}
