//! Splits that appear while a job runs, as new partitions of a topic do (rule T9, fault F43).

mod model;

use model::{Event, Everything, Role, at, check_conservation, marks, strategy};
use streamkit::prelude::*;
use streamkit::testing::{Fault, Gate, Running, Script, ScriptedSource, run};

fn events(times: &[i64], first_id: u64) -> Vec<Event> {
    let event = |(id, &time)| Event { time, user: format!("u{}", time % 3), role: Role::Other, id };
    (first_id..).zip(times).map(event).collect()
}

/// The job's watermark is at 100 when the second split is found: what is older there is late, in
/// this run and in every replay, however it ended.
#[test]
fn t9_a_split_that_appears_while_the_job_runs_gets_a_floor_and_keeps_it() {
    let (first, second) = (events(&[5, 15, 110], 0), events(&[16, 99, 100, 97, 130, 119], 10));
    for (crash, workers) in [(false, 1), (true, 1), (false, 3), (true, 3)] {
        let (there, end, fail) = (Gate::new(), Gate::new(), Gate::new());
        let (mut outputs, checkpoints) = (Everything::new(), Checkpoints::shared());
        let build = |outputs: &Everything| {
            let known = Script::new().emit(first.clone()).until(&end);
            let new = Script::new().emit(second.clone()).until(&end);
            let source = ScriptedSource::new([known]).later(&there, [new]);
            let job = Job::new("discovery");
            outputs.build(&job.source("events", source, strategy()));
            job
        };
        if crash {
            outputs.faults =
                vec![("raw", Fault::SlowUntil(fail.clone())), ("raw", Fault::Panic(1))];
        }
        let config = || RunConfig::new().workers(workers).checkpoints(checkpoints.clone());
        let config_now = config().discover_every(Some(millis(1))).checkpoint_interval(hours(1));
        let running = Running::start(build(&outputs), config_now);
        running.until("the watermark", |p| p.watermark == Some(at(100)));
        assert_eq!(running.progress().splits.len(), 1);
        there.open();
        running.until("the new split to be read", |p| {
            p.splits.get(1).is_some_and(|split| split.position.next == 6)
        });
        assert_eq!(running.progress().splits[1].position.floor, Some(at(100)));
        if crash {
            fail.open();
            assert!(running.wait().is_err());
            outputs.faults.clear();
        } else {
            running.stop().unwrap();
        }
        end.open();
        let progress = run(build(&outputs), config()).unwrap();
        check_conservation(&progress);
        let mut all = marks(&first, &[]);
        all.extend(marks(&second, &[(0, 100)]));
        outputs.check(&all);
        assert_eq!(outputs.tumbling_late.rows().len(), 4, "16, 99 and 97 by the floor, 119 by 130");
    }
}
