//! Every key of a job file, once: the reader refuses what is not here, `job schema` publishes what is here, and tests compare the
//! reference with it. Says what a value looks like; what it means is the reader's business.

use messages::limits::{OUTPUTS_MAX, RETRIES_MAX, STEPS_MAX};
use messages::{Keep, OutputType, When};

use super::head::{AGENTS_MAX, LABELS_MAX};
use super::params::PARAMS_MAX;
use super::reader::Later;
use super::step::{ARGUMENTS_MAX, ENV_MAX};
use super::target::{OnConflict, Pick};

/// A key of a table.
pub(super) struct Key {
    /// Its name.
    pub(super) name: &'static str,
    /// What its value looks like.
    pub(super) shape: Shape,
    /// Whether a table cannot be without it.
    pub(super) needed: bool,
    /// What it means, in one line.
    pub(super) about: &'static str,
}

/// What a value looks like.
pub(super) enum Shape {
    Text,
    Boolean,
    /// One of these words.
    Words(&'static [&'static str]),
    /// A span of time: `1h30m`.
    Span,
    /// One span of time, or the first and the longest: `2s..30s`.
    Spans,
    /// An amount of bytes: `256M`.
    Bytes,
    /// A part of a hundred: `25%`.
    Percent,
    /// A whole number within limits.
    Integer(i64, i64),
    /// At least one and at most so many of a kind.
    List(&'static Self, usize),
    /// Names that the author chooses, at most so many.
    Map(&'static Self, usize),
    /// These keys and no others.
    Table(&'static [Key]),
    /// One of these.
    Either(&'static [Self]),
}

const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, needed: false, about }
}

const fn needed(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, needed: true, about }
}

/// The words of a list of words and meanings.
const fn names<T: Copy, const N: usize>(words: [(&'static str, T); N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut nth = 0;
    while nth < N {
        names[nth] = words[nth].0;
        nth += 1;
    }
    names
}

/// An effect without what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EffectWord {
    ReadOnly,
    Idempotent,
    Guarded,
    Once,
}

pub(super) const PICK: [(&str, Pick); 2] = [("all", Pick::All), ("one", Pick::One)];
const PICK_NAMES: [&str; 2] = names(PICK);
pub(super) const ON_CONFLICT: [(&str, OnConflict); 3] =
    [("queue", OnConflict::Queue), ("reject", OnConflict::Reject), ("cancel-older", OnConflict::CancelOlder)];
const ON_CONFLICT_NAMES: [&str; 3] = names(ON_CONFLICT);
pub(super) const KEEP: [(&str, Keep); 3] =
    [("on-failure", Keep::OnFailure), ("always", Keep::Always), ("never", Keep::Never)];
const KEEP_NAMES: [&str; 3] = names(KEEP);
pub(super) const EFFECT: [(&str, EffectWord); 4] = [
    ("read-only", EffectWord::ReadOnly),
    ("idempotent", EffectWord::Idempotent),
    ("guarded", EffectWord::Guarded),
    ("once", EffectWord::Once),
];
const EFFECT_NAMES: [&str; 4] = names(EFFECT);
pub(super) const WHEN: [(&str, When); 3] =
    [("success", When::Success), ("failure", When::Failure), ("always", When::Always)];
const WHEN_NAMES: [&str; 3] = names(WHEN);
pub(super) const OUTPUT: [(&str, OutputType); 3] =
    [("text", OutputType::Text), ("integer", OutputType::Integer), ("boolean", OutputType::Boolean)];
const OUTPUT_NAMES: [&str; 3] = names(OUTPUT);

/// The file itself.
pub(super) const FILE: &[Key] = &[
    needed("name", Shape::Text, "The job's name, up to 100 characters. May hold ${{ params.NAME }}."),
    needed("target", Shape::Table(TARGET), "Who runs it: one of agents, all, or pool and labels."),
    key("concurrency", Shape::Table(CONCURRENCY), "What may not run beside it."),
    key("timeout", Shape::Span, "How long a run may take at its agent, from its first step on. Default: no limit."),
    key("keep", Shape::Words(&KEEP_NAMES), "When the run's folder stays on the agent. Default: on-failure."),
    key("params", Shape::Map(&Shape::Table(PARAM), PARAMS_MAX), "What the user of the job may choose."),
    needed("step", Shape::List(&Shape::Table(STEP), STEPS_MAX), "The steps, in order."),
];

/// `target`.
pub(super) const TARGET: &[Key] = &[
    key("agents", Shape::List(&Shape::Text, AGENTS_MAX), "These agents, by name."),
    key("all", Shape::Boolean, "true: every agent that the server knows."),
    key("pool", Shape::Text, "Agents of this pool."),
    key(
        "labels",
        Shape::Either(&[Shape::Text, Shape::List(&Shape::Text, LABELS_MAX)]),
        "Agents for which this holds, all of it when it is a list: env=prod, os!=windows, gpu, zone in (a, b), &&, ||, !.",
    ),
    key("pick", Shape::Words(&PICK_NAMES), "Whether all of them run it, or the least busy one. Default: all."),
    key(
        "max_parallel",
        Shape::Either(&[Shape::Integer(1, u32::MAX as i64), Shape::Percent]),
        "How many run it at once, at least 1. Default: all.",
    ),
    key(
        "max_failed",
        Shape::Integer(0, u32::MAX as i64),
        "How many may fail before no further one begins. Default: all.",
    ),
    key(
        "sticky",
        Shape::Boolean,
        "true: with pick = one, it goes to the agent that had the last one of its group or name. Default: false.",
    ),
    key(
        "skip_offline",
        Shape::Boolean,
        "true: agents out of reach are left out. Default: false, they run it when back.",
    ),
    key("expires", Shape::Span, "After this time, what no agent has begun is given up. Default: never."),
];

/// `concurrency`.
pub(super) const CONCURRENCY: &[Key] = &[
    needed("group", Shape::Text, "Jobs of one group run one after the other. May hold ${{ params.NAME }}."),
    key("on_conflict", Shape::Words(&ON_CONFLICT_NAMES), "What becomes of a job whose group has one. Default: queue."),
];

/// One of `params`.
pub(super) const PARAM: &[Key] = &[
    key("required", Shape::Boolean, "Whether it must be given. Default: false."),
    key("default", Shape::Text, "Its value when none is given. Default: empty."),
    key("pattern", Shape::Text, "A regular expression that the whole value must match."),
];

/// `[[step]]`.
pub(super) const STEP: &[Key] = &[
    needed("id", Shape::Text, "Its name, once in a job."),
    key("run", Shape::Text, "A script for /bin/sh -eu. A step has this or exec."),
    key("exec", Shape::List(&Shape::Text, ARGUMENTS_MAX), "A program with its arguments, without a shell."),
    key("env", Shape::Map(&Shape::Text, ENV_MAX), "Variables of the step. Values may hold ${{ params.NAME }}."),
    key("dir", Shape::Text, "Where to run, absolute or in the run's own folder. May hold ${{ params.NAME }}."),
    key("user", Shape::Text, "The user to run as. Default: the agent's own."),
    key("effect", Shape::Words(&EFFECT_NAMES), "What may happen when nobody knows whether it ran. Default: once."),
    key("check", Shape::Text, "With effect = guarded: a script whose exit code 0 means that the step is done."),
    key("when", Shape::Words(&WHEN_NAMES), "After what kind of steps it runs. Default: success."),
    key("retry", Shape::Table(RETRY), "That a known failure is tried again. Default: it is not."),
    key("timeout", Shape::Span, "How long one attempt may take. Default: no limit of its own."),
    key("limits", Shape::Table(LIMITS), "What it may use. Default: no limits of its own."),
    key(
        "outputs",
        Shape::Either(&[Shape::List(&Shape::Text, OUTPUTS_MAX), Shape::Map(&Shape::Words(&OUTPUT_NAMES), OUTPUTS_MAX)]),
        "What it hands on to later steps, as OUTPUT_STEP_NAME.",
    ),
];

/// `retry`.
pub(super) const RETRY: &[Key] = &[
    needed("limit", Shape::Integer(1, RETRIES_MAX as i64), "Further attempts after the first."),
    key("on_exit", Shape::List(&Shape::Integer(1, 255), 255), "Only after these exit codes. Default: any failure."),
    key("backoff", Shape::Spans, "The first wait, doubled each time, and the longest. Default: 1s..1m."),
];

/// `limits`.
pub(super) const LIMITS: &[Key] = &[
    key("memory", Shape::Bytes, "Memory of all its processes, such as 256M."),
    key("cpu", Shape::Percent, "Processor time; 100% is one core."),
    key(
        "output",
        Shape::Bytes,
        "Output that is kept, of each of stdout and stderr, such as 10MB. Default: 1G, at most 16G.",
    ),
];

const SECRETS: &str =
    "let the script read a file on the agent that only its user can read; never write a secret into a job file";

/// Of the file.
pub(super) const FILE_LATER: &[Later] = &[
    Later { key: "secrets", instead: SECRETS },
    Later { key: "artifacts", instead: "move files in `run`, from and to a place of your own" },
];

/// Of a step.
pub(super) const STEP_LATER: &[Later] = &[
    Later { key: "get", instead: "fetch the file in `run`, and check its digest there" },
    Later { key: "put", instead: "store the file in `run`; the run's folder stays with keep = \"always\"" },
    Later { key: "artifacts", instead: "move files in `run`, from and to a place of your own" },
    Later { key: "secrets", instead: SECRETS },
];

/// Keys that belong elsewhere, with their place: a hint better than the nearest word.
pub(super) const ELSEWHERE: &[(&str, &str)] = &[
    ("pool", "it belongs into the target: target = { pool = \"web\" }"),
    ("labels", "it belongs into the target: target = { labels = [\"env=prod\"] }"),
    ("agents", "it belongs into the target: target = { agents = [\"a1\"] }"),
    ("retry", "it belongs into a step: retry = { limit = 3 }"),
    ("limits", "it belongs into a step: limits = { memory = \"256M\" }"),
    ("when", "it belongs into a step: when = \"failure\""),
    ("effect", "it belongs into a step: effect = \"idempotent\""),
    ("outputs", "it belongs into a step: outputs = [\"version\"]"),
    ("run", "it belongs into a step: [[step]]"),
    ("concurrency", "it belongs to the whole job, before the first [[step]]"),
    ("target", "it belongs to the whole job, before the first [[step]]"),
    ("params", "it belongs to the whole job, before the first [[step]]"),
    ("keep", "it belongs to the whole job, before the first [[step]]"),
    ("memory", "it belongs into the limits of a step: limits = { memory = \"256M\" }"),
    ("backoff", "it belongs into a step's retry: retry = { limit = 3, backoff = \"2s..30s\" }"),
    ("on_exit", "it belongs into a step's retry: retry = { limit = 3, on_exit = [7] }"),
    ("max_parallel", "it belongs into the target: target = { all = true, max_parallel = 1 }"),
];
