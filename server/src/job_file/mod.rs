//! The job file: TOML in, checked steps out. Pure: it reads no file, asks no agent and starts nothing. Whatever the text holds,
//! the answer is a job or a list of problems with their places, never a panic.
//!
//! ```
//! use server::job_file::JobFile;
//!
//! let file = JobFile::parse(r#"
//! name = "deploy ${{ params.release }}"
//! target = { agents = ["web-01"] }
//! [params]
//! release = { required = true, pattern = '\d+\.\d+' }
//! [[step]]
//! id = "switch"
//! run = 'ln -sfn "/srv/$PARAM_RELEASE" /srv/current'
//! effect = "idempotent"
//! "#).map_err(|problems| format!("{problems:?}"))?;
//! let params = [("release".to_string(), "2.4".to_string())].into();
//! let plan = file.plan(&params).map_err(|problems| format!("{problems:?}"))?;
//! assert_eq!(plan.name, "deploy 2.4");
//! assert_eq!(plan.steps[0].env["PARAM_RELEASE"], "2.4");
//! # Ok::<(), String>(())
//! ```

mod amount;
mod duration;
mod head;
mod keys;
mod params;
mod plan;
mod problem;
mod reader;
mod schema;
mod selector;
mod selector_text;
mod step;
mod step_rules;
mod suggest;
mod target;
mod template;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use messages::limits::STEPS_MAX;
use messages::{Keep, Retry, StepId, When};
use toml::de::{DeTable, Error as TomlError};

use crate::outage::EffectKind;

pub use params::{PARAM_NAME_CHARS_MAX, PARAM_VALUE_BYTES_MAX, PARAMS_MAX, param_variable};
pub use plan::{DIR_BYTES_MAX, ENV_VALUE_BYTES_MAX, NAME_CHARS_MAX, Plan};
pub use problem::{PROBLEMS_MAX, Problem};
pub use schema::schema;
pub use selector::{SELECTOR_BYTES_MAX, Selector, SelectorError};
pub use step::SCRIPT_BYTES_MAX;
pub use suggest::nearest;
pub use target::{Concurrency, OnConflict, Pick, Share, Target, Who};

use head::ConcurrencyTemplate;
use params::ParamSpec;
use problem::Problems;
use reader::Fields;
use step::{StepReader, StepTemplate};
use step_rules::HandedOn;
use template::Template;

/// Bytes of a job file. Its steps travel in one envelope of 256 KiB; a file near that size could not be carried anyway.
pub const FILE_BYTES_MAX: usize = 192 * 1024;

/// A job file without a problem that its text alone could show.
#[derive(Debug, Clone)]
pub struct JobFile {
    name: Template,
    name_span: Range<usize>,
    target: Target,
    target_span: Range<usize>,
    concurrency: Option<ConcurrencyTemplate>,
    timeout_ms: Option<u64>,
    keep: Keep,
    params: BTreeMap<String, ParamSpec>,
    steps: Vec<StepTemplate>,
    warnings: Vec<Problem>,
}

/// What decides about a step after an outage.
#[derive(Debug, Clone, Copy)]
pub struct StepOutline<'a> {
    /// Its id.
    pub id: &'a StepId,
    /// What may happen when nobody knows whether it ran.
    pub effect: EffectKind,
    /// After what kind of steps it runs.
    pub when: When,
    /// Whether a known failure is tried again.
    pub retry: Option<&'a Retry>,
    /// Milliseconds that an attempt may take.
    pub timeout_ms: Option<u64>,
}

impl JobFile {
    /// Reads a job file.
    ///
    /// # Errors
    /// Every problem that could be found, in the order of the file, at most [`PROBLEMS_MAX`] and a note of how many more.
    /// A text that is not TOML has only the problems that say so.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        if text.len() > FILE_BYTES_MAX {
            let what = format!("the job file has {} bytes, at most {FILE_BYTES_MAX} are allowed", text.len());
            problems.anywhere(what, "move scripts into files on the agents, or split the job");
            return Err(problems.into_sorted());
        }
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            note_toml_error(text, error, &mut problems);
        }
        if !problems.is_empty() {
            return Err(problems.into_sorted());
        }
        let file = read(text, document.get_ref(), &mut problems);
        match file {
            Some(mut file) if problems.is_empty() => {
                file.warnings = warnings::of(&file);
                Ok(file)
            }
            Some(_) | None => Err(problems.into_sorted()),
        }
    }

    /// Who is to run it.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// What may run beside it. The group's name is as it is written: with its parameters it is in the [`Plan`].
    #[must_use]
    pub fn concurrency(&self) -> Option<&Concurrency> {
        self.concurrency.as_ref().map(|found| &found.written)
    }

    /// Milliseconds that the job may take on each agent.
    #[must_use]
    pub const fn timeout_ms(&self) -> Option<u64> {
        self.timeout_ms
    }

    /// What becomes of the working folders of its runs.
    #[must_use]
    pub const fn keep(&self) -> Keep {
        self.keep
    }

    /// What is allowed and yet probably not meant, in the order of the file.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The ids of its steps, in order.
    pub fn step_ids(&self) -> impl ExactSizeIterator<Item = &StepId> {
        self.steps.iter().map(|step| &step.id)
    }

    /// What decides about its steps after an outage, in order.
    pub fn outline(&self) -> impl ExactSizeIterator<Item = StepOutline<'_>> {
        self.steps.iter().map(|step| StepOutline {
            id: &step.id,
            effect: EffectKind::from(&step.effect),
            when: step.when,
            retry: step.retry.as_ref(),
            timeout_ms: step.timeout_ms,
        })
    }

    /// The names of its parameters.
    pub fn param_names(&self) -> impl Iterator<Item = &str> {
        self.params.keys().map(String::as_str)
    }
}

/// The name of the environment variable that carries an output to later steps.
#[must_use]
pub fn output_variable(step: &StepId, output: &str) -> String {
    format!("OUTPUT_{step}_{output}").replace(['-', '.'], "_").to_ascii_uppercase()
}

fn note_toml_error(text: &str, error: &TomlError, problems: &mut Problems) {
    // The parser's marks are trusted to be near the place, not to be within the text or on character borders.
    let span = error.span().map(|span| {
        let start = (0..=span.start.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let end = (span.end..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        start..end.max(start)
    });
    let what = format!("not valid TOML: {}", problem::shown(error.message()));
    match span {
        Some(span) => problems.at(span, what, ""),
        None => problems.anywhere(what, ""),
    }
}

fn read(text: &str, document: &DeTable<'_>, problems: &mut Problems) -> Option<JobFile> {
    let fields = Fields::check(document, 0..0, keys::FILE, keys::FILE_LATER, problems);
    let params = fields.get("params").map(|value| params::parse(value, problems)).unwrap_or_default();
    let name = match fields.get("name") {
        Some(value) => reader::text("name", value, problems)
            .map(|name| (Template::parse(name, &value.span(), text, &params, problems), value.span())),
        None => {
            problems.anywhere("the job has no `name`", "begin the file with: name = \"my-job\"");
            None
        }
    };
    let target = match fields.get("target") {
        Some(value) => head::target(value, text, problems),
        None => {
            let hint = "add: target = { pool = \"web\" }, { agents = [\"a1\"] } or { all = true }";
            problems.anywhere("the job has no `target`", hint);
            None
        }
    };
    let concurrency = fields.get("concurrency").and_then(|value| head::concurrency(value, text, &params, problems));
    let timeout_ms = fields.get("timeout").and_then(|value| reader::span("timeout", value, problems));
    let keep = fields.get("keep").and_then(|value| head::keep(value, problems)).unwrap_or_default();
    let steps = read_steps(text, &fields, &params, problems);
    let (name, name_span) = name?;
    Some(JobFile {
        name,
        name_span,
        target: target?,
        target_span: fields.key_span("target"),
        concurrency,
        timeout_ms,
        keep,
        params,
        steps,
        warnings: Vec::new(),
    })
}

fn read_steps(
    source: &str,
    fields: &Fields<'_, '_>,
    params: &BTreeMap<String, ParamSpec>,
    problems: &mut Problems,
) -> Vec<StepTemplate> {
    let Some(value) = fields.get("step") else {
        problems.anywhere("the job has no steps", "add one: [[step]] with `id` and `run`");
        return Vec::new();
    };
    let Some(list) = value.get_ref().as_array() else {
        problems.at(fields.key_span("step"), "`step` must be a list of steps", "write [[step]], with two brackets");
        return Vec::new();
    };
    if list.is_empty() {
        problems.at(value.span(), "the job has no steps", "add one: [[step]] with `id` and `run`");
    }
    if list.len() > STEPS_MAX {
        let what = format!("{} steps, at most {STEPS_MAX} are allowed", list.len());
        problems.at(fields.key_span("step"), what, "split the job, or put more into one script");
        return Vec::new();
    }
    let mut reader = StepReader { source, params, handed_on: HandedOn::default(), problems };
    let mut steps: Vec<StepTemplate> = Vec::with_capacity(list.len());
    let mut seen = BTreeSet::new();
    for value in list {
        let Some(table) = reader::table("step", value, reader.problems) else { continue };
        // Also of a step that is otherwise wrong: all problems of a file are shown at once.
        if let Some(id) = table.get("id")
            && let Some(text) = id.get_ref().as_str()
            && !seen.insert(text.to_owned())
        {
            let what = format!("the step id `{}` is used twice", problem::shown(text));
            reader.problems.at(id.span(), what, "give every step an id of its own");
        }
        steps.extend(reader.read(table, value.span()));
    }
    steps
}
