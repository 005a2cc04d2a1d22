//! The plan: what the job is made of. Typed edges live in closures; what is here is untyped, for
//! validation, for printing, and for building the workers.

mod cells;
mod deploy;
mod describe;

use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use cells::{FindSplits, SinkCell, SinkParts, SinkShared, SourceCell, SourceParts};
pub(crate) use deploy::{Consumers, Deploy, link};
pub use describe::PlanFormat;

use crate::checkpoint::PlanStep;
use crate::error::{Error, Result, place};
use crate::task::Input;

/// One step of the plan.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) kind: &'static str,
    pub(crate) parameters: String,
    pub(crate) inputs: Vec<usize>,
    pub(crate) location: &'static Location<'static>,
    /// Whether rows here are results of windows, sessions or timers, and not of stateless steps.
    pub(crate) fired: bool,
}

impl Node {
    /// `aggregate page_view_counts (src/job.rs:12)`
    pub(crate) fn step(&self) -> Arc<str> {
        match &self.name {
            Some(name) => format!("{} {} ({})", self.kind, name, place(self.location)).into(),
            None => format!("{} ({})", self.kind, place(self.location)).into(),
        }
    }
}

/// Builds one worker's input of a keyed stream.
pub(crate) type InputFactory = Box<dyn FnMut(&mut Deploy) -> Result<Box<dyn Input>> + Send>;

/// A job under construction.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) nodes: Vec<Node>,
    pub(crate) sources: Vec<Box<dyn SourceCell>>,
    /// In the order in which records meet them.
    pub(crate) keyed: Vec<InputFactory>,
    pub(crate) sinks: Vec<Box<dyn SinkCell>>,
    /// The operators that count records.
    pub(crate) aggregates: Vec<Arc<str>>,
    /// Mistakes found while the plan was made; reported when the job starts.
    pub(crate) mistakes: Vec<String>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

/// The plan, as handles share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlanRef(Arc<Mutex<Plan>>);

impl PlanRef {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a step; returns its number.
    pub(crate) fn add(&self, node: Node) -> usize {
        let mut plan = self.lock();
        plan.nodes.push(node);
        plan.nodes.len() - 1
    }
}

impl Plan {
    /// What a checkpoint remembers of the plan (rule D12).
    pub(crate) fn fingerprint(&self) -> Vec<PlanStep> {
        let named = self.nodes.iter().filter_map(|node| Some((node.name.as_ref()?, node)));
        named
            .map(|(name, node)| PlanStep {
                name: name.to_string(),
                kind: node.kind.to_owned(),
                parameters: node.parameters.clone(),
            })
            .collect()
    }

    /// Checks everything that can be checked without starting anything.
    pub(crate) fn validate(&self) -> Result<()> {
        if let Some(mistake) = self.mistakes.first() {
            return Err(Error::user(mistake.clone()));
        }
        if self.sources.is_empty() {
            return Err(Error::user("the job has no source: add one with job.source(..)"));
        }
        let mut names = BTreeSet::new();
        for node in &self.nodes {
            let Some(name) = &node.name else { continue };
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ' ' | '.');
            if name.is_empty() || name.len() > 100 || !name.chars().all(plain) {
                return Err(Error::user(format!(
                    "{}: the name {name:?} must be 1 to 100 letters, digits, spaces, '-', '_' or '.'",
                    node.step()
                )));
            }
            if !names.insert(name) {
                return Err(Error::user(format!(
                    "{}: the name {name:?} is used twice; names are what state is stored under",
                    node.step()
                )));
            }
        }
        Ok(())
    }
}
