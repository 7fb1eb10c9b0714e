//! P1: what a client was told is taken is executed or declared in the end, and nothing is acknowledged to the broker before it
//! is on disk here.

use std::collections::BTreeSet;

use super::{Checker, JobEnd, Observation, Promise};

#[derive(Default)]
pub(super) struct NothingLost {
    acknowledged: BTreeSet<u64>,
}

impl Checker for NothingLost {
    fn promise(&self) -> Promise {
        Promise::P1
    }

    fn name(&self) -> &'static str {
        "nothing-lost"
    }

    fn see(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        match seen {
            Observation::Acknowledged { job } => {
                self.acknowledged.insert(*job);
                Ok(())
            }
            Observation::Settled { stream, seq, durable: false, turned_away: false, .. } => {
                Err(format!("message {seq} of {stream} was acknowledged to the broker before it was on disk"))
            }
            Observation::Ended { job, end: JobEnd::Open, excused: false, .. } if self.acknowledged.contains(job) => {
                Err(format!("job {job} was acknowledged to its client, and nothing became of it"))
            }
            _ => Ok(()),
        }
    }
}
