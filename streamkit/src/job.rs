//! A job under construction, and its start.

use std::panic::Location;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::connector::Source;
use crate::error::{Error, Result};
use crate::flow::Signal;
use crate::graph::{PlanFormat, PlanRef};
use crate::progress::JobProgress;
use crate::runtime::{Coordinator, JobHandle, Outside, RunConfig, SourceNode};
use crate::stream::{Step, Stream};
use crate::time::WatermarkStrategy;

/// A job under construction: a name, and the steps that are added to it.
///
/// State and progress are stored under the job's name and the names of its steps: renaming either is
/// a new job, or a new step.
#[derive(Debug)]
pub struct Job {
    name: String,
    plan: PlanRef,
}

impl Job {
    /// An empty job.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), plan: PlanRef::default() }
    }

    /// Adds a source, and says what time means for it.
    #[track_caller]
    pub fn source<S: Source>(
        &self,
        name: &str,
        source: S,
        watermarks: WatermarkStrategy<S::Item>,
    ) -> Stream<S::Item> {
        let step = Step {
            name: Some(name.into()),
            kind: "source",
            parameters: source.describe(),
            location: Location::caller(),
        };
        let mut stream = Stream::new(&self.plan, step, vec![], false);
        let dead = crate::graph::Consumers::default();
        stream.dead = Some((stream.node, Arc::clone(&dead)));
        let mut plan = self.plan.lock();
        let step = plan.nodes[stream.node].step();
        plan.sources.push(Box::new(SourceNode {
            step,
            source: Arc::new(source),
            strategy: watermarks,
            consumers: Arc::clone(&stream.consumers),
            dead,
        }));
        drop(plan);
        stream
    }

    /// The job's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The plan: every step with its inputs, its parameters and its place in the source code.
    pub fn describe(&self, format: PlanFormat) -> String {
        self.plan.lock().describe(&self.name, format)
    }

    /// Starts the job. It runs on threads of its own; the runtime that this is called in serves
    /// connectors that are async.
    ///
    /// # Errors
    /// If the plan or the configuration is wrong, or there is no tokio runtime. What goes wrong
    /// later (a sink that cannot be opened, a record that cannot be written) comes from
    /// [`JobHandle::wait`].
    pub fn start(self, config: RunConfig) -> Result<JobHandle> {
        let runtime = Handle::try_current()
            .map_err(|e| Error::user("a job must be started within a tokio runtime").because(e))?;
        let plan = std::mem::take(&mut *self.plan.lock());
        plan.validate()?;
        let progress = JobProgress { job: self.name.clone(), ..JobProgress::default() };
        let outside = Arc::new(Outside {
            stop: AtomicBool::new(false),
            bell: Signal::new(),
            progress: Mutex::new(progress),
        });
        let (done_sender, done) = watch::channel(None);
        let handle = JobHandle { outside: Arc::clone(&outside), done };
        let name = self.name;
        std::thread::Builder::new()
            .name(format!("job {name}"))
            .spawn(move || {
                let result = run(plan, name, config, outside, &runtime);
                let _ = done_sender.send(Some(result.map_err(Arc::new)));
            })
            .map_err(|e| Error::external("a thread cannot be started").because(e))?;
        Ok(handle)
    }

    /// Starts the job and waits until it has ended.
    ///
    /// # Errors
    /// See [`start`](Self::start) and [`JobHandle::wait`].
    pub async fn run(self, config: RunConfig) -> Result<(), Arc<Error>> {
        self.start(config).map_err(Arc::new)?.wait().await
    }
}

fn run(
    plan: crate::graph::Plan,
    name: String,
    config: RunConfig,
    outside: Arc<Outside>,
    runtime: &Handle,
) -> Result<()> {
    let coordinator = Coordinator::start(plan, name, config, Arc::clone(&outside), runtime);
    let result = match coordinator {
        Ok(Some(coordinator)) => coordinator.run(),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    outside.finish(result.is_ok());
    result
}
