//! What a job file may say and its author probably did not mean. Never a reason to refuse it.

use messages::{Effect, When};

use super::JobFile;
use super::problem::{Problem, Problems};
use super::step::StepTemplate;
use super::target::{Pick, Who};

/// The warnings about a file that has no problems.
pub(super) fn of(file: &JobFile) -> Vec<Problem> {
    let mut found = Problems::default();
    target(file, &mut found);
    for (name, span) in file.params.iter().filter_map(|(name, spec)| Some((name, spec.literal.clone()?))) {
        let what = format!("the default of `{name}` is taken as it is written, `${{{{` and all");
        found.at(span, what, "placeholders expand in `name`, `group`, `env` and `dir` only");
    }
    let mut could_fail = false;
    for (nth, step) in file.steps.iter().enumerate() {
        if step.when == When::Failure && !could_fail {
            found.at(
                step.places.when.clone(),
                format!("step `{}` runs after a failure, and no step before it could fail", step.id),
                "it runs only when the run is cancelled before it begins; put it after the steps that it is for",
            );
        }
        could_fail |= step.when != When::Failure;
        rules(file, step, &mut found);
        if !step.outputs.is_empty() && nth + 1 == file.steps.len() {
            found.at(
                step.places.outputs.clone(),
                format!("step `{}` is the last, so no step gets its outputs", step.id),
                "they are reported all the same; leave them out if nobody looks",
            );
        }
    }
    if found.is_empty() { Vec::new() } else { found.into_sorted() }
}

fn target(file: &JobFile, found: &mut Problems) {
    let (target, span) = (&file.target, file.target_span.clone());
    let one_named = matches!(&target.who, Who::Agents(agents) if agents.len() == 1);
    let one = target.pick == Pick::One || one_named;
    if one && (target.max_parallel.is_some() || target.max_failed.is_some()) {
        let what = "`max_parallel` and `max_failed` have no use when one agent runs the job";
        found.at(span.clone(), what, "leave them out");
    } else if target.max_failed.is_some() && target.max_parallel.is_none() {
        let what = "`max_failed` stops little without `max_parallel`: all agents begin at once";
        found.at(span.clone(), what, "add for example max_parallel = \"25%\"");
    }
    if target.sticky && target.pick == Pick::All {
        let what = "`sticky` has no use with pick = \"all\": every agent has a run of its own";
        found.at(span, what, "leave it out");
    }
}

fn rules(file: &JobFile, step: &StepTemplate, found: &mut Problems) {
    if step.retry.is_some() && step.effect == Effect::Once {
        let what = format!("step `{}` must not run twice, and `retry` runs it again after a failure", step.id);
        let hint = "right when a failed attempt changed nothing; after an unknown outcome a person is still asked";
        found.at(step.places.retry.clone(), what, hint);
    }
    if matches!(step.effect, Effect::Guarded(_)) && !step.outputs.is_empty() {
        let what =
            format!("when its check finds step `{}` done, its outputs may be missing, and it fails for that", step.id);
        let hint = "let a read-only step after it find them out";
        found.at(step.places.outputs.clone(), what, hint);
    }
    if let (Some(own), Some(whole)) = (step.timeout_ms, file.timeout_ms)
        && own > whole
    {
        let what = format!("step `{}` may take longer than the whole job", step.id);
        found.at(
            step.places.timeout.clone(),
            what,
            "the job's `timeout` ends it first: shorten one or lengthen the other",
        );
    }
    if let (Some(retry), Some(whole)) = (&step.retry, file.timeout_ms)
        && retry.first_ms > whole
    {
        let what = format!("step `{}` would be tried again only after the job's time limit", step.id);
        found.at(step.places.retry.clone(), what, "shorten `backoff`, or lengthen the job's `timeout`");
    }
}
