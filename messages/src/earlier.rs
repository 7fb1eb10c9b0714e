//! What earlier runs did of a job at an agent, for a run that goes on from them: self-contained like the run itself. It says what is
//! known and what is not; what follows from that is decided by whoever does the run.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::limits::{EARLIER_RUNS_MAX, OUTPUT_BYTES_MAX, OUTPUTS_MAX};
use crate::run::is_output_name;
use crate::{RunId, StepId};

/// What earlier runs did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// The runs that it goes on from, the latest first: 1 to [`EARLIER_RUNS_MAX`].
    pub runs: Vec<RunId>,
    /// Steps that are not run: they were done, or were not wanted then.
    pub done: BTreeSet<StepId>,
    /// What those handed on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<StepId, BTreeMap<String, String>>,
    /// Steps of which nobody knows whether they took effect, with the evidence: their declared effect decides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown: BTreeMap<StepId, String>,
    /// Whether it goes on in the working folder of those runs, and cannot without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub folder: bool,
}

impl Earlier {
    /// Checks what the types cannot say.
    pub(crate) fn check(&self, steps: &BTreeSet<&StepId>) -> Result<(), &'static str> {
        if self.runs.is_empty() || self.runs.len() > EARLIER_RUNS_MAX {
            return Err("a run goes on from 1 to 16 earlier ones");
        }
        if !self.done.iter().chain(self.unknown.keys()).all(|step| steps.contains(step)) {
            return Err("what earlier runs did is about steps of the run");
        }
        if !self.outputs.keys().all(|step| self.done.contains(step)) {
            return Err("only steps that are done have handed something on");
        }
        let outputs = || self.outputs.values().flatten();
        let bytes: usize = outputs().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > OUTPUT_BYTES_MAX || self.outputs.values().any(|outputs| outputs.len() > OUTPUTS_MAX) {
            return Err("the outputs of a run have at most 32 KiB together, and those of a step are at most 64");
        }
        if !outputs().all(|(name, value)| is_output_name(name) && !value.contains('\0')) {
            return Err("an output is not what a step can hand on");
        }
        Ok(())
    }
}
