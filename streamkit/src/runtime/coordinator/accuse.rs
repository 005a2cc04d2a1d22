//! A job that ends because an operator behind an exchange has failed on some record: what is known of
//! it becomes a fact, so that the next start does better (rule D1, fault F85).

use std::sync::PoisonError;

use super::Coordinator;
use crate::checkpoint::Fact;
use crate::error::{Error, ErrorKind, Result};
use crate::record::SplitId;
use crate::runtime::recovery::Facts;
use crate::runtime::suspects::letter_at;
use crate::task::Accusation;

impl Coordinator {
    /// The error that the job ends with, when what the workers have said against records is durable.
    /// To be called when all of them have ended: nothing is sent to any sink after that.
    pub(super) fn accuse(&mut self, mut failure: Error) -> Error {
        let take = |worker: &super::RunningWorker| {
            worker.shared.accusation.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        let accusations: Vec<Accusation> = self.workers.iter().filter_map(take).collect();
        for accusation in accusations {
            let Some(split) = self.split_list.get(accusation.run.split) else { continue };
            let (first, next) = (accusation.run.first(), accusation.run.next());
            let records = match accusation.run.only() {
                Some(at) => format!("{}@{at}", split.id),
                None => format!("{}@{first}..{next}", split.id),
            };
            let outlook = match self.decide(&accusation, &split.id, &records) {
                Ok(outlook) => outlook,
                Err(error) if error.kind() == ErrorKind::Fenced => return error,
                Err(error) => {
                    tracing::error!(%records, %error, "what an operator has failed on cannot be written down");
                    None
                }
            };
            if let Some(outlook) = &outlook {
                tracing::error!(error = %accusation.error, "{outlook}");
            }
            // Of two workers that have failed, the job ends with one's error.
            if failure.to_string() == accusation.error {
                failure = failure.on_record(records);
                if let Some(outlook) = outlook {
                    failure = failure.with_outlook(&outlook);
                }
            }
        }
        failure
    }

    /// Makes a fact of it, and says what follows; nothing, where nobody takes the dead letter: giving
    /// the record up would be a loss that nobody sees.
    fn decide(
        &mut self,
        accusation: &Accusation,
        split: &SplitId,
        records: &str,
    ) -> Result<Option<String>> {
        let (operator, run) = (&accusation.operator, &accusation.run);
        let Some(at) = run.only() else {
            let (first, next) = (run.first(), run.next());
            self.last_fact(Fact::Suspect { split: split.clone(), first, next })?;
            return Ok(Some(format!(
                "one of the records {records} is to blame: the next start looks at them one by one"
            )));
        };
        let source = self.source_of.get(run.split as usize);
        if !source.is_some_and(|source| self.sources[*source].has_dead_letters()) {
            return Ok(None);
        }
        self.last_fact(Fact::GivenUp {
            split: split.clone(),
            at,
            reason: accusation.error.clone(),
            operator: Some(operator.to_string()),
            letter_at: Some(self.letter_at(run.split, split)),
        })?;
        Ok(Some(format!(
            "record {records} is given up for {operator} from the next start on, and becomes a dead letter"
        )))
    }

    /// The job is ending, so it is tried once: without it the next start fails in the same way, and says
    /// this again.
    fn last_fact(&mut self, fact: Fact) -> Result<()> {
        self.log.append_fact(&fact)?;
        self.facts.push(fact);
        Ok(())
    }

    fn letter_at(&self, index: u32, split: &SplitId) -> u64 {
        let read = self.tracker.position(index).map(|(_, next)| next);
        let sent = self.sinks.iter().filter(|sink| !sink.fired);
        let sent = sent.filter_map(|sink| Some(sink.shared.reach.position(index)?.next));
        let facts = Facts::of(&self.facts);
        letter_at(read, sent, facts.given_up_by.get(split).map_or(&[], Vec::as_slice))
    }
}
