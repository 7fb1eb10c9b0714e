//! P2: a step that may be done once is done at most once, and what is reported as done was done. A machine that was copied while
//! it had work is two machines; each of them is held to the promise.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, JobEnd, Observation, Promise, Seat};

#[derive(Default)]
pub(super) struct OnceOnly {
    /// Executions of each job by the machine that did them, and by step.
    done: BTreeMap<u64, BTreeMap<usize, BTreeMap<u8, u32>>>,
    steps: BTreeMap<u64, u8>,
    once: BTreeMap<u64, bool>,
}

impl Checker for OnceOnly {
    fn promise(&self) -> Promise {
        Promise::P2
    }

    fn name(&self) -> &'static str {
        "once-only"
    }

    fn see(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        match seen {
            Observation::Executed { seat, node, job, once, step, steps } => {
                self.once.insert(*job, *once);
                self.steps.insert(*job, *steps);
                let count = self.done.entry(*job).or_default().entry(*node).or_default().entry(*step).or_default();
                *count += 1;
                if *once && *count > 1 {
                    let step = step + 1;
                    return Err(format!(
                        "step {step} of job {job} may be done once, and {} did it {count} times",
                        Seat(*seat)
                    ));
                }
                Ok(())
            }
            Observation::Ended { job, end, cloned, .. } => {
                let machines = self.done.get(job).map_or(0, BTreeMap::len);
                let once = self.once.get(job).copied().unwrap_or_default();
                if once && machines > 1 && !cloned {
                    return Err(format!("job {job} may be done once, and {machines} installations did it"));
                }
                let done = self.done.get(job).into_iter().flat_map(BTreeMap::values).flat_map(BTreeMap::keys);
                let left = usize::from(self.steps.get(job).copied().unwrap_or(0)) - done.collect::<BTreeSet<_>>().len();
                match end {
                    JobEnd::Done if left > 0 => {
                        Err(format!("job {job} is said to be done, and {left} steps never were"))
                    }
                    JobEnd::Done if machines == 0 => Err(format!("job {job} is said to be done and never was")),
                    JobEnd::Refused if machines > 0 => Err(format!("job {job} was refused and done all the same")),
                    JobEnd::Done | JobEnd::Refused | JobEnd::Unknown | JobEnd::Open => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
