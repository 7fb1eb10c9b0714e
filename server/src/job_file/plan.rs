//! From a job file and values for its parameters to the steps that travel. Everything is measured before it is made: a short
//! file with long values can ask for very long texts.

use std::collections::BTreeMap;

use messages::limits::BODY_BYTES_MAX;
use messages::{Body, JobId, Keep, RunId, RunStart, StepSpec};

use super::problem::{Problem, Problems};
use super::step::StepTemplate;
use super::{Concurrency, JobFile, param_variable, params};

/// Characters of a job's name, its parameters put in. It stands in one column of a list.
pub const NAME_CHARS_MAX: usize = 100;
/// Bytes of an environment variable's value, its parameters put in. Well under the 128 KiB that Linux takes for one.
pub const ENV_VALUE_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a step's folder, its parameters put in: the longest path that Linux takes, without its end.
pub const DIR_BYTES_MAX: usize = 4095;

/// What every agent of a job is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The job's name.
    pub name: String,
    /// The steps, in order.
    pub steps: Vec<StepSpec>,
    /// Milliseconds that a run may take at its agent; nothing means no limit of its own.
    pub timeout_ms: Option<u64>,
    /// What becomes of the working folders.
    pub keep: Keep,
    /// What may run beside the job, the parameters put in.
    pub concurrency: Option<Concurrency>,
}

impl Plan {
    /// The message that starts it on one agent. It fits one envelope, whatever the ids: [`JobFile::plan`] measured it.
    #[must_use]
    pub fn run_start(&self, run: RunId, job: JobId) -> RunStart {
        RunStart {
            run,
            job,
            name: self.name.clone(),
            steps: self.steps.clone(),
            timeout_ms: self.timeout_ms,
            keep: self.keep,
            earlier: None,
        }
    }
}

impl JobFile {
    /// Puts values in for the parameters.
    ///
    /// # Errors
    /// Every problem with the values (unknown, missing, not matching, too large) and with what comes of them. The spans point
    /// into the text that this file was parsed from.
    pub fn plan(&self, given: &BTreeMap<String, String>) -> Result<Plan, Vec<Problem>> {
        let mut problems = Problems::default();
        let values = params::resolve(&self.params, given, &mut problems);
        if !problems.is_empty() {
            return Err(problems.into_sorted());
        }
        self.measure(&values, &mut problems);
        if !problems.is_empty() {
            return Err(problems.into_sorted());
        }
        let name = self.name.expand(&values);
        if name.trim().is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
            let what = format!("a job's name has 1 to {NAME_CHARS_MAX} characters in one line");
            problems.at(self.name_span.clone(), what, "shorten it");
        }
        let plan = Plan {
            name,
            steps: self.steps.iter().map(|step| step.expand(&values)).collect(),
            timeout_ms: self.timeout_ms,
            keep: self.keep,
            concurrency: self.group(&values, &mut problems),
        };
        // Ids have the same size whatever their value, so the measure holds for every run of the job.
        let body = Body::RunStart(plan.run_start(RunId::from_u128(u128::MAX), JobId::from_u128(u128::MAX)));
        match body.encode() {
            Ok((_, bytes)) if bytes.len() > BODY_BYTES_MAX => too_large(bytes.len(), "", &mut problems),
            Ok(_) => {}
            Err(error) => problems.anywhere(format!("the run cannot be written as a message: {error}"), ""),
        }
        if problems.is_empty() { Ok(plan) } else { Err(problems.into_sorted()) }
    }

    fn group(&self, values: &BTreeMap<String, String>, problems: &mut Problems) -> Option<Concurrency> {
        let found = self.concurrency.as_ref()?;
        let group = found.group.expand(values);
        if group.trim().is_empty() || group.chars().count() > NAME_CHARS_MAX || group.chars().any(char::is_control) {
            let what = format!("a group's name has 1 to {NAME_CHARS_MAX} characters in one line");
            problems.at(found.span.clone(), what, "shorten it");
        }
        Some(Concurrency { group, on_conflict: found.written.on_conflict })
    }

    /// Checks the sizes of the texts without making them.
    fn measure(&self, values: &BTreeMap<String, String>, problems: &mut Problems) {
        let params_bytes: usize = values.iter().map(|(name, value)| param_variable(name).len() + value.len()).sum();
        let group = self.concurrency.as_ref().map_or(0, |found| found.group.expanded_bytes(values));
        let mut total = self.name.expanded_bytes(values).saturating_add(group);
        for step in &self.steps {
            total = total.saturating_add(params_bytes);
            for (name, value) in &step.env {
                let bytes = value.expanded_bytes(values);
                total = total.saturating_add(bytes);
                if bytes > ENV_VALUE_BYTES_MAX {
                    let what = format!(
                        "`{name}` of step `{}` becomes {bytes} bytes, at most {ENV_VALUE_BYTES_MAX} are allowed",
                        step.id
                    );
                    problems.at(step.span.clone(), what, "give large data to the step in a file");
                }
            }
            let bytes = step.dir.as_ref().map(|dir| dir.expanded_bytes(values));
            total = total.saturating_add(bytes.unwrap_or(0));
            if bytes.is_some_and(|bytes| !(1..=DIR_BYTES_MAX).contains(&bytes)) {
                let what = format!("`dir` of step `{}` must become 1 to {DIR_BYTES_MAX} bytes", step.id);
                problems.at(step.span.clone(), what, "");
            }
        }
        if total > BODY_BYTES_MAX {
            too_large(total, "at least ", problems);
        }
    }
}

fn too_large(bytes: usize, at_least: &str, problems: &mut Problems) {
    let over = bytes - BODY_BYTES_MAX;
    problems.anywhere(
        format!(
            "the run has {at_least}{bytes} bytes, {at_least}{over} over the {BODY_BYTES_MAX} that fit in one message"
        ),
        "move scripts into files on the agents, shorten the parameters (every step carries them), or split the job",
    );
}

impl StepTemplate {
    fn expand(&self, values: &BTreeMap<String, String>) -> StepSpec {
        let own = self.env.iter().map(|(name, value)| (name.clone(), value.expand(values)));
        let params = values.iter().map(|(name, value)| (param_variable(name), value.clone()));
        StepSpec {
            env: own.chain(params).collect(),
            effect: self.effect.clone(),
            timeout_ms: self.timeout_ms,
            dir: self.dir.as_ref().map(|dir| dir.expand(values)),
            id: self.id.clone(),
            program: self.program.clone(),
            when: self.when,
            retry: self.retry.clone(),
            limits: self.limits,
            user: self.user.clone(),
            outputs: self.outputs.iter().map(|(name, output)| (name.clone(), output.kind)).collect(),
        }
    }
}
