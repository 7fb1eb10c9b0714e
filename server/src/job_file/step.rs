//! One `[[step]]` of a job file, checked as far as it can be before the parameters have values.

use std::collections::BTreeMap;
use std::ops::Range;

use messages::{Effect, Limits, Program, Retry, StepId, When};
use toml::de::DeTable;

use super::keys::{self, EffectWord};
use super::params::{ParamSpec, param_variable};
use super::problem::{Problems, shown};
use super::reader::{self, Fields, Value};
use super::step_rules::{self, HandedOn, Output};
use super::template::{OPENING, Template, placeholder_span};

/// Bytes of a script or of one argument. Linux hands a program at most 128 KiB in one argument, its end included.
pub const SCRIPT_BYTES_MAX: usize = 120 * 1024;
/// Arguments of `exec`, the program included.
pub(super) const ARGUMENTS_MAX: usize = 1024;
/// Variables that one step adds to its environment.
pub(super) const ENV_MAX: usize = 256;
/// Characters of a variable's name.
const ENV_NAME_CHARS_MAX: usize = 128;

/// A step whose texts may still hold placeholders.
#[derive(Debug, Clone)]
pub(super) struct StepTemplate {
    pub(super) id: StepId,
    /// The place of the step's id, for what is found when the parameters have values.
    pub(super) span: Range<usize>,
    pub(super) program: Program,
    pub(super) env: BTreeMap<String, Template>,
    pub(super) effect: Effect,
    pub(super) timeout_ms: Option<u64>,
    pub(super) dir: Option<Template>,
    pub(super) when: When,
    pub(super) retry: Option<Retry>,
    pub(super) limits: Limits,
    pub(super) user: Option<String>,
    pub(super) outputs: BTreeMap<String, Output>,
    /// The places of its keys, for what is found when the whole file is known.
    pub(super) places: Places,
}

/// Where some keys of a step are.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    pub(super) when: Range<usize>,
    pub(super) retry: Range<usize>,
    pub(super) timeout: Range<usize>,
    pub(super) outputs: Range<usize>,
}

/// Reads steps; holds what all of them need to know.
pub(super) struct StepReader<'a> {
    pub(super) source: &'a str,
    pub(super) params: &'a BTreeMap<String, ParamSpec>,
    /// What the steps before hand on.
    pub(super) handed_on: HandedOn,
    pub(super) problems: &'a mut Problems,
}

impl StepReader<'_> {
    /// Reads one step, or nothing when something that it cannot be without is missing or wrong.
    pub(super) fn read(&mut self, table: &DeTable<'_>, span: Range<usize>) -> Option<StepTemplate> {
        let fields = Fields::check(table, span, keys::STEP, keys::STEP_LATER, self.problems);
        let id = self.id(&fields);
        let program = self.program(&fields);
        let effect = self.effect(&fields);
        let env = fields.get("env").map(|value| self.env(value)).unwrap_or_default();
        let timeout_ms = fields.get("timeout").and_then(|value| reader::span("timeout", value, self.problems));
        let dir = fields.get("dir").and_then(|value| self.dir(value));
        let problems = &mut *self.problems;
        let when = fields.get("when").and_then(|value| reader::word("when", value, &keys::WHEN, problems));
        let retry = fields.get("retry").and_then(|value| step_rules::retry(value, problems));
        let limits = fields.get("limits").and_then(|value| step_rules::limits(value, problems));
        let user = fields.get("user").and_then(|value| step_rules::user(value, problems));
        let outputs = fields.get("outputs").map(|value| step_rules::outputs(value, problems)).unwrap_or_default();
        let places = Places {
            when: fields.key_span("when"),
            retry: fields.key_span("retry"),
            timeout: fields.key_span("timeout"),
            outputs: fields.key_span("outputs"),
        };
        let (id, span) = id?;
        self.handed_on.add(&id, &outputs, self.problems);
        Some(StepTemplate {
            id,
            span,
            program: program?,
            env,
            effect: effect?,
            timeout_ms,
            dir,
            when: when.unwrap_or_default(),
            retry,
            limits: limits.unwrap_or_default(),
            user,
            outputs,
            places,
        })
    }

    fn id(&mut self, fields: &Fields<'_, '_>) -> Option<(StepId, Range<usize>)> {
        let Some(value) = fields.get("id") else {
            self.problems.at(fields.span.clone(), "this step has no `id`", "give it one: id = \"build\"");
            return None;
        };
        match reader::text("id", value, self.problems)?.parse() {
            Ok(id) => Some((id, value.span())),
            Err(error) => {
                self.problems.at(value.span(), error.to_string(), "");
                None
            }
        }
    }

    fn program(&mut self, fields: &Fields<'_, '_>) -> Option<Program> {
        match (fields.get("run"), fields.get("exec")) {
            (Some(value), None) => self.script("run", value),
            (None, Some(value)) => self.arguments(value),
            (Some(_), Some(_)) => {
                let span = fields.key_span("exec");
                self.problems.at(span, "a step has `run` or `exec`, not both", "make it two steps");
                None
            }
            // What it would do is refused already, as not supported yet.
            (None, None) if fields.has_later(keys::STEP_LATER) => None,
            (None, None) => {
                let hint = "give it `run = \"a shell script\"` or `exec = [\"program\", \"argument\"]`";
                self.problems.at(fields.span.clone(), "this step has nothing to run", hint);
                None
            }
        }
    }

    fn script(&mut self, key: &str, value: &Value<'_>) -> Option<Program> {
        let text = reader::text(key, value, self.problems)?;
        if text.trim().is_empty() {
            self.problems.at(value.span(), format!("`{key}` is empty"), "");
            return None;
        }
        let plain = self.refuse_placeholders(key, text, value, "$");
        (self.fits(key, text, value) && plain).then(|| Program::Shell(text.to_owned()))
    }

    fn arguments(&mut self, value: &Value<'_>) -> Option<Program> {
        let list = reader::array("exec", value, self.problems)?;
        if list.len() > ARGUMENTS_MAX {
            let what = format!("`exec` has {} entries, at most {ARGUMENTS_MAX} are allowed", list.len());
            self.problems.at(value.span(), what, "");
            return None;
        }
        let mut arguments = Vec::with_capacity(list.len());
        for value in list {
            let text = reader::text("exec", value, self.problems)?;
            let plain = self.refuse_placeholders("exec", text, value, "");
            if !(self.fits("exec", text, value) && plain) {
                return None;
            }
            arguments.push(text.to_owned());
        }
        if arguments.first().is_none_or(String::is_empty) {
            let hint = "its first entry is the program: exec = [\"/usr/bin/true\"]";
            self.problems.at(value.span(), "`exec` names no program", hint);
            return None;
        }
        Some(Program::Exec(arguments))
    }

    fn fits(&mut self, key: &str, text: &str, value: &Value<'_>) -> bool {
        if text.len() > SCRIPT_BYTES_MAX {
            let what =
                format!("`{key}` has {} bytes, at most {SCRIPT_BYTES_MAX} can be given to a program", text.len());
            self.problems.at(value.span(), what, "put the script into a file on the agent and call it");
            return false;
        }
        true
    }

    /// A value put into a script would be read as script: whoever chooses the value could run anything.
    fn refuse_placeholders(&mut self, key: &str, text: &str, value: &Value<'_>, sigil: &str) -> bool {
        for (nth, (start, _)) in text.match_indices(OPENING).enumerate() {
            let inside = &text[start + OPENING.len()..];
            let name = inside.find("}}").and_then(|end| inside[..end].trim().strip_prefix("params."));
            let hint = match name.filter(|name| self.params.contains_key(*name)) {
                Some(name) if sigil.is_empty() => {
                    format!("the program finds it in its environment as {}", param_variable(name))
                }
                Some(name) => format!("use the environment variable instead: \"{sigil}{}\"", param_variable(name)),
                None => "every parameter is an environment variable: PARAM_ and its name in capitals".into(),
            };
            let span = placeholder_span(self.source, &value.span(), nth);
            self.problems.at(span, format!("placeholders are not expanded in `{key}`"), hint);
        }
        !text.contains(OPENING)
    }

    fn effect(&mut self, fields: &Fields<'_, '_>) -> Option<Effect> {
        let word = match fields.get("effect") {
            None => EffectWord::Once,
            Some(value) => reader::word("effect", value, &keys::EFFECT, self.problems)?,
        };
        let check = fields.get("check").map(|value| self.script("check", value));
        match (word, check) {
            (EffectWord::Guarded, Some(check)) => check.map(Effect::Guarded),
            (EffectWord::Guarded, None) => {
                let hint = "add check = \"…\": exit code 0 means that the step is done already";
                self.problems.at(fields.key_span("effect"), "a guarded step needs a `check`", hint);
                None
            }
            (EffectWord::ReadOnly | EffectWord::Idempotent | EffectWord::Once, Some(_)) => {
                let name = keys::EFFECT.iter().find(|(_, other)| *other == word).map_or("", |(name, _)| name);
                let what = format!("`check` has no use when the effect is {name}");
                let hint = "add effect = \"guarded\", or leave `check` out";
                self.problems.at(fields.key_span("check"), what, hint);
                None
            }
            (EffectWord::ReadOnly, None) => Some(Effect::ReadOnly),
            (EffectWord::Idempotent, None) => Some(Effect::Idempotent),
            (EffectWord::Once, None) => Some(Effect::Once),
        }
    }

    fn env(&mut self, value: &Value<'_>) -> BTreeMap<String, Template> {
        let mut env = BTreeMap::new();
        let Some(table) = reader::table("env", value, self.problems) else { return env };
        if table.len() > ENV_MAX {
            let what = format!("{} variables, at most {ENV_MAX} are allowed", table.len());
            self.problems.at(value.span(), what, "");
            return env;
        }
        for (key, value) in table {
            let name: &str = key.get_ref();
            let valid = (1..=ENV_NAME_CHARS_MAX).contains(&name.len())
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !valid {
                let hint = "letters, digits and _, not beginning with a digit";
                self.problems.at(key.span(), format!("`{}` cannot name an environment variable", shown(name)), hint);
            }
            if let Some(param) = self.params.keys().find(|param| param_variable(param) == name) {
                let what = format!("`{name}` already carries the parameter `{param}`");
                self.problems.at(key.span(), what, "give the variable another name");
            }
            self.handed_on.check_env(name, key.span(), self.problems);
            if let Some(text) = reader::text(name, value, self.problems) {
                let template = Template::parse(text, &value.span(), self.source, self.params, self.problems);
                env.insert(name.to_owned(), template);
            }
        }
        env
    }

    fn dir(&mut self, value: &Value<'_>) -> Option<Template> {
        let text = reader::text("dir", value, self.problems)?;
        if text.is_empty() {
            self.problems.at(value.span(), "`dir` is empty", "leave it out to run in the run's own folder");
            return None;
        }
        Some(Template::parse(text, &value.span(), self.source, self.params, self.problems))
    }
}
