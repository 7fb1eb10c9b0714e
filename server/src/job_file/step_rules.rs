//! The rules of a step: when it runs, how often, with how much, and what it hands on. What it executes is read elsewhere.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use messages::limits::{LOG_BYTES_MAX, OUTPUTS_MAX, RETRIES_MAX};
use messages::{Limits, OutputType, Retry, StepId, is_output_name};

use super::keys;
use super::problem::{Problems, shown};
use super::reader::{self, Fields, Value};
use super::{amount, output_variable};

/// Milliseconds to wait between attempts when the author does not say.
const BACKOFF_MS: (u64, u64) = (1_000, 60_000);
/// Milliseconds to wait between attempts at most. Whoever waits longer wants another job.
const BACKOFF_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// The least memory: under it nothing starts, and the failure would puzzle.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// The least output that can be told from none.
const OUTPUT_BYTES_MIN: u64 = 1 << 10;
/// Percent of one core: a thousand cores.
const CPU_PERCENT_MAX: u32 = 100_000;
/// Characters of a user's name, as Linux takes them.
const USER_CHARS_MAX: usize = 32;

/// An output that a step hands on.
#[derive(Debug, Clone)]
pub(super) struct Output {
    pub(super) kind: OutputType,
    /// The place of its name.
    pub(super) span: Range<usize>,
}

/// Reads `retry`.
pub(super) fn retry(value: &Value<'_>, problems: &mut Problems) -> Option<Retry> {
    let table = reader::table("retry", value, problems)?;
    let fields = Fields::check(table, value.span(), keys::RETRY, &[], problems);
    let limit = match fields.get("limit") {
        Some(value) => reader::integer("limit", value, 1..=i64::from(RETRIES_MAX), problems),
        None => {
            problems.at(value.span(), "`retry` has no `limit`", "say how many further attempts: limit = 3");
            None
        }
    };
    let on_exit = match fields.get("on_exit") {
        Some(value) => exit_codes(value, problems),
        None => Some(Vec::new()),
    };
    let backoff = fields.get("backoff").map_or(Some(BACKOFF_MS), |value| backoff(value, problems));
    let (first_ms, max_ms) = backoff?;
    Some(Retry { limit: u32::try_from(limit?).ok()?, on_exit: on_exit?, first_ms, max_ms })
}

fn exit_codes(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<i32>> {
    let list = reader::array("on_exit", value, problems)?;
    if list.is_empty() {
        problems.at(value.span(), "`on_exit` names no exit code", "leave it out to try again after any failure");
        return None;
    }
    let mut codes = Vec::new();
    for value in list {
        let code = reader::integer("on_exit", value, 0..=255, problems)?;
        let code = i32::try_from(code).ok()?;
        if code == 0 {
            problems.at(value.span(), "exit code 0 is success, which is not tried again", "leave it out");
            return None;
        }
        if codes.contains(&code) {
            problems.at(value.span(), format!("the exit code {code} is named twice"), "leave one of them out");
            return None;
        }
        codes.push(code);
    }
    Some(codes)
}

fn backoff(value: &Value<'_>, problems: &mut Problems) -> Option<(u64, u64)> {
    let text = reader::text("backoff", value, problems)?;
    let read = amount::spans(text).and_then(|(first, longest)| match longest > BACKOFF_MS_MAX {
        true => Err("waits longer than a day"),
        false => Ok((first, longest)),
    });
    read.map_err(|what| {
        let hint = "write the first wait and the longest, \"2s..30s\", or one wait, \"5s\"";
        problems.at(value.span(), format!("`{}` {what}", shown(text)), hint);
    })
    .ok()
}

/// Reads `limits`.
pub(super) fn limits(value: &Value<'_>, problems: &mut Problems) -> Option<Limits> {
    let table = reader::table("limits", value, problems)?;
    let fields = Fields::check(table, value.span(), keys::LIMITS, &[], problems);
    let memory = MEMORY_BYTES_MIN..=u64::MAX;
    let memory_bytes = fields.get("memory").map(|value| bytes("memory", value, memory, problems));
    let output = OUTPUT_BYTES_MIN..=LOG_BYTES_MAX;
    let output_bytes = fields.get("output").map(|value| bytes("output", value, output, problems));
    let cpu_percent = fields.get("cpu").map(|value| cpu(value, problems));
    if table.is_empty() {
        problems.at(value.span(), "`limits` limits nothing", "write for example limits = { memory = \"256M\" }");
        return None;
    }
    let limits = Limits {
        memory_bytes: memory_bytes.flatten(),
        cpu_percent: cpu_percent.flatten(),
        output_bytes: output_bytes.flatten(),
    };
    Some(limits)
}

fn bytes(key: &str, value: &Value<'_>, limits: RangeInclusive<u64>, problems: &mut Problems) -> Option<u64> {
    let text = reader::text(key, value, problems)?;
    let read = amount::bytes(text).and_then(|bytes| match (bytes < *limits.start(), bytes > *limits.end()) {
        (true, _) => Err("is too little for anything to run"),
        (false, true) => Err("is more than the 16G that are kept of an output; let the step write a file instead"),
        (false, false) => Ok(bytes),
    });
    read.map_err(|what| {
        let hint = "write for example \"256M\" (powers of 1024) or \"10MB\" (powers of 1000)";
        problems.at(value.span(), format!("`{}` {what}", shown(text)), hint);
    })
    .ok()
}

fn cpu(value: &Value<'_>, problems: &mut Problems) -> Option<u32> {
    let text = reader::text("cpu", value, problems)?;
    let read = amount::percent(text).and_then(|percent| match (1..=CPU_PERCENT_MAX).contains(&percent) {
        true => Ok(percent),
        false => Err("is not between 1% and 100000%"),
    });
    read.map_err(|what| {
        problems.at(value.span(), format!("`{}` {what}", shown(text)), "\"50%\" is half a core, \"200%\" are two");
    })
    .ok()
}

/// Reads `user`.
pub(super) fn user(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let name = reader::text("user", value, problems)?;
    let valid = (1..=USER_CHARS_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !valid {
        let hint = "a user's name, not a number: up to 32 letters, digits and - _ ., beginning with a letter";
        problems.at(value.span(), format!("`{}` cannot be the name of a user", shown(name)), hint);
        return None;
    }
    Some(name.to_owned())
}

/// Reads `outputs`: a list of names, which are texts, or a table of names and kinds.
pub(super) fn outputs(value: &Value<'_>, problems: &mut Problems) -> BTreeMap<String, Output> {
    let mut outputs = BTreeMap::new();
    let mut add = |name: &str, span: Range<usize>, kind: OutputType, problems: &mut Problems| {
        if !is_output_name(name) {
            let hint = "1 to 64 letters, digits and _, not beginning with a digit";
            problems.at(span, format!("`{}` cannot name an output", shown(name)), hint);
        } else if outputs.insert(name.to_owned(), Output { kind, span: span.clone() }).is_some() {
            problems.at(span, format!("the output `{name}` is named twice"), "leave one of them out");
        }
    };
    let count = if let Some(list) = value.get_ref().as_array() {
        for value in list.iter().take(OUTPUTS_MAX) {
            if let Some(name) = reader::text("outputs", value, problems) {
                add(name, value.span(), OutputType::Text, problems);
            }
        }
        list.len()
    } else if let Some(table) = value.get_ref().as_table() {
        for (key, value) in table.iter().take(OUTPUTS_MAX) {
            let kind = reader::word(key.get_ref(), value, &keys::OUTPUT, problems);
            add(key.get_ref(), key.span(), kind.unwrap_or(OutputType::Text), problems);
        }
        table.len()
    } else {
        let hint = "write outputs = [\"version\"] or outputs = { count = \"integer\", ok = \"boolean\" }";
        problems.at(value.span(), "`outputs` must be a list or a table", hint);
        return outputs;
    };
    if !(1..=OUTPUTS_MAX).contains(&count) {
        problems.at(value.span(), format!("{count} outputs, 1 to {OUTPUTS_MAX} are allowed"), "");
    }
    outputs
}

/// Variables that earlier steps hand on, each with its step and output.
#[derive(Debug, Default)]
pub(super) struct HandedOn(BTreeMap<String, (StepId, String)>);

impl HandedOn {
    /// Notes a variable of a step's own that one of these would hide.
    pub(super) fn check_env(&self, name: &str, span: Range<usize>, problems: &mut Problems) {
        if let Some((step, output)) = self.0.get(name) {
            let what = format!("`{name}` already carries the output `{output}` of step `{step}`");
            problems.at(span, what, "give the variable another name");
        }
    }

    /// Takes in what a step hands on, and notes names that become the same variable.
    pub(super) fn add(&mut self, step: &StepId, outputs: &BTreeMap<String, Output>, problems: &mut Problems) {
        for (name, output) in outputs {
            let variable = output_variable(step, name);
            match self.0.get(&variable) {
                Some((other, taken)) => {
                    let what = format!("`{variable}` already carries the output `{taken}` of step `{other}`");
                    problems.at(output.span.clone(), what, "give the output another name");
                }
                None => drop(self.0.insert(variable, (step.clone(), name.clone()))),
            }
        }
    }
}
