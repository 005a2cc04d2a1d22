//! A source in the plan, its item type erased.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::connector::{DeadLetter, Source, Wake};
use crate::data::Data;
use crate::error::Result;
use crate::graph::{Consumers, Deploy, FindSplits, SourceCell, SourceParts, link};
use crate::record::{Split, SplitId};
use crate::task::{Branches, Gauges, Input, SourceInput, StampRule};
use crate::time::WatermarkStrategy;

/// A source with its time and its consumers.
pub(crate) struct SourceNode<T> {
    pub(crate) step: Arc<str>,
    pub(crate) source: Arc<dyn Source<Item = T>>,
    pub(crate) strategy: WatermarkStrategy<T>,
    pub(crate) consumers: Consumers<T>,
    pub(crate) dead: Consumers<DeadLetter>,
}

impl<T: Data> SourceCell for SourceNode<T> {
    fn step(&self) -> &Arc<str> {
        &self.step
    }

    fn idle_after(&self) -> Option<Duration> {
        self.strategy.idle_after
    }

    fn splits(&self, known: &[Split]) -> Result<Vec<Split>> {
        self.source.splits(known).map_err(|e| e.at_step(&self.step))
    }

    fn start(&self, split: &Split) -> Result<u64> {
        self.source.start(split).map_err(|e| e.at_step(&self.step))
    }

    fn end(&self, split: &Split) -> Result<u64> {
        self.source.end(split).map_err(|e| e.at_step(&self.step))
    }

    fn finder(&self) -> FindSplits {
        let source = Arc::clone(&self.source);
        Box::new(move |known| {
            let is_new = |split: &Split| known.iter().all(|known| known.id != split.id);
            let new = source.splits(known)?.into_iter().filter(is_new);
            new.map(|split| source.start(&split).map(|start| (split, start))).collect()
        })
    }

    fn has_dead_letters(&self) -> bool {
        !self.dead.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn committed(&self, positions: &[(SplitId, u64)]) {
        self.source.committed(positions);
    }

    fn input(&mut self, deploy: &mut Deploy, parts: SourceParts) -> Result<Box<dyn Input>> {
        let SourceParts { tracker, clock, aggregates, given_ups, plans } = parts;
        deploy.gauges = Gauges::default();
        let next = link(&self.consumers, deploy)?;
        let dead = if self.has_dead_letters() { Some(link(&self.dead, deploy)?) } else { None };
        let gauges = std::mem::take(&mut deploy.gauges);
        let signal = Arc::clone(&deploy.signals[deploy.worker]);
        let wake = Wake::new(move || signal.ring());
        let strategy = self.strategy.clone();
        let rule = StampRule { strategy, aggregates, clock, step: Arc::clone(&self.step) };
        let source = Arc::clone(&self.source);
        let branches = Branches { next, dead };
        let passage = Arc::clone(&deploy.passage);
        Ok(Box::new(SourceInput::new(
            source, rule, tracker, wake, plans, branches, given_ups, gauges, passage,
        )))
    }
}
