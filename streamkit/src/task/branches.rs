//! Everything behind a source on one worker: a portion goes through on all branches, or on none.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::portion::Portion;
use crate::connector::DeadLetter;
use crate::data::Data;
use crate::error::{Error, ErrorKind, Result, panic_text};
use crate::flow::{Control, Cx, Link};

/// The branches of a source, and its dead letters, if anybody asks for them.
pub(crate) struct Branches<T> {
    pub(crate) next: Box<dyn Link<T>>,
    pub(crate) dead: Option<Box<dyn Link<DeadLetter>>>,
}

impl<T: Data> Branches<T> {
    /// Sends a portion. If any step fails on it, nothing has left the worker.
    ///
    /// What a step panics on, or says with [`Error::record`], is an error about a record.
    pub(crate) fn attempt(&mut self, portion: &Portion<T>, cx: &mut Cx) -> Result<()> {
        let Some(run) = portion.rows.run().copied() else {
            return Err(Error::internal("a portion without a run"));
        };
        let through = staged(cx, |cx| {
            self.next.batch(portion.rows.clone(), cx)?;
            let read = Control::Read(run);
            if let Some(dead) = &mut self.dead {
                dead.batch(portion.dead(), cx)?;
                dead.control(&read, cx)?;
            }
            self.next.control(&read, cx)
        });
        match through {
            Ok(()) => cx.release(),
            Err(error) => {
                cx.discard();
                Err(error)
            }
        }
    }

    /// The rows that no step can be asked to process again, each tried alone, and why. Nothing
    /// leaves. For a row that fails, this was the second try.
    pub(crate) fn culprits(
        &mut self,
        portion: &Portion<T>,
        cx: &mut Cx,
    ) -> Result<BTreeMap<u32, Error>> {
        let mut culprits = BTreeMap::new();
        for row in portion.rows.indices() {
            let alone = portion.rows.select(vec![row]);
            let tried = staged(cx, |cx| self.next.batch(alone, cx));
            cx.discard();
            match tried {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Record => {
                    culprits.insert(row, error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(culprits)
    }

    pub(crate) fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        if let Some(dead) = &mut self.dead {
            dead.control(control, cx)?;
        }
        self.next.control(control, cx)
    }
}

/// Runs steps so that what they send can be taken back.
fn staged(cx: &mut Cx, steps: impl FnOnce(&mut Cx) -> Result<()>) -> Result<()> {
    cx.stage();
    let caught = catch_unwind(AssertUnwindSafe(|| steps(cx)));
    let result = caught.unwrap_or_else(|panic| Err(Error::record(panic_text(panic.as_ref()))));
    result.map_err(|error| error.at_step(&cx.step))
}
