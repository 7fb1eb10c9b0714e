//! Parameters: what a job file lets its user choose, and the checks on what was chosen.

use std::collections::BTreeMap;
use std::ops::Range;

use regex::{Regex, RegexBuilder};
use toml::de::DeTable;

use super::keys;
use super::problem::{Problems, shown};
use super::reader::{self, Fields, Value};
use super::suggest::nearest;
use super::template::OPENING;

/// Parameters of one job. Each is a variable in the environment of every step.
pub const PARAMS_MAX: usize = 64;
/// Bytes of a parameter's value. Larger data belongs in a file, not in every step's environment.
pub const PARAM_VALUE_BYTES_MAX: usize = 8 * 1024;
/// Characters of a parameter's name.
pub const PARAM_NAME_CHARS_MAX: usize = 64;
/// Bytes of a pattern's text.
const PATTERN_BYTES_MAX: usize = 1024;
/// Bytes that a compiled pattern may take: `\w{1000}{1000}` is short to write and long to compile.
const PATTERN_COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// A declared parameter.
#[derive(Debug, Clone)]
pub(super) struct ParamSpec {
    /// The place of its name in the file.
    span: Range<usize>,
    required: bool,
    default: Option<String>,
    /// The place of a default that looks as if its author expected more of it.
    pub(super) literal: Option<Range<usize>>,
    pattern: Option<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    whole: Regex,
}

/// The name of the environment variable that carries a parameter.
#[must_use]
pub fn param_variable(name: &str) -> String {
    format!("PARAM_{}", name.to_ascii_uppercase())
}

/// Reads the `[params]` table. A parameter with a problem is still declared, so that its uses are not reported as well.
pub(super) fn parse(value: &Value<'_>, problems: &mut Problems) -> BTreeMap<String, ParamSpec> {
    let mut params = BTreeMap::new();
    let Some(table) = reader::table("params", value, problems) else { return params };
    if table.len() > PARAMS_MAX {
        problems.at(value.span(), format!("{} parameters, at most {PARAMS_MAX} are allowed", table.len()), "");
        return params;
    }
    for (key, value) in table {
        let name: &str = key.get_ref();
        let valid = name.len() <= PARAM_NAME_CHARS_MAX
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if !valid {
            problems.at(
                key.span(),
                format!("`{}` cannot name a parameter", shown(name)),
                format!(
                    "1 to {PARAM_NAME_CHARS_MAX} of a-z, 0-9 and _, beginning with a letter: it becomes an environment variable"
                ),
            );
        }
        let empty = ParamSpec { span: key.span(), required: false, default: None, literal: None, pattern: None };
        let spec = match reader::table(name, value, problems) {
            Some(table) => parse_one(table, value.span(), empty, problems),
            None => empty,
        };
        params.insert(name.to_owned(), spec);
    }
    params
}

fn parse_one(table: &DeTable<'_>, span: Range<usize>, mut spec: ParamSpec, problems: &mut Problems) -> ParamSpec {
    let fields = Fields::check(table, span, keys::PARAM, &[], problems);
    if let Some(value) = fields.get("required") {
        spec.required = reader::boolean("required", value, problems).unwrap_or(false);
    }
    if let Some(value) = fields.get("pattern") {
        spec.pattern = parse_pattern(value, problems);
    }
    let Some(value) = fields.get("default") else { return spec };
    spec.default = reader::text("default", value, problems).map(str::to_owned);
    spec.literal = spec.default.as_ref().filter(|default| default.contains(OPENING)).map(|_| value.span());
    if spec.required {
        problems.at(
            value.span(),
            "a required parameter has no use for a default",
            "leave out `required`, or leave out `default`",
        );
    } else if let Some(what) = spec.default.as_deref().and_then(|default| spec.objection(default)) {
        problems.at(value.span(), format!("the default {what}"), "");
    }
    spec
}

fn parse_pattern(value: &Value<'_>, problems: &mut Problems) -> Option<Pattern> {
    let text = reader::text("pattern", value, problems)?;
    if text.len() > PATTERN_BYTES_MAX {
        let what = format!("a pattern of {} bytes, at most {PATTERN_BYTES_MAX} are allowed", text.len());
        problems.at(value.span(), what, "");
        return None;
    }
    // The whole value must match, whether or not the author thought of `^` and `$`: half a match lets anything through.
    let compiled = RegexBuilder::new(text).size_limit(PATTERN_COMPILED_BYTES_MAX).build().and_then(|_| {
        RegexBuilder::new(&format!(r"\A(?:{text})\z"))
            .size_limit(PATTERN_COMPILED_BYTES_MAX)
            .dfa_size_limit(PATTERN_COMPILED_BYTES_MAX)
            .build()
    });
    match compiled {
        Ok(whole) => Some(Pattern { text: text.to_owned(), whole }),
        Err(error) => {
            // The last line of a multi-line report says what is wrong; the lines before it draw where.
            let reason = error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            problems.at(
                value.span(),
                format!("not a valid pattern: {}", shown(&reason)),
                "patterns are regular expressions",
            );
            None
        }
    }
}

impl ParamSpec {
    /// What speaks against a value, in words that follow its name. The value itself is not repeated: it may be large.
    fn objection(&self, value: &str) -> Option<String> {
        if value.len() > PARAM_VALUE_BYTES_MAX {
            return Some(format!("has {} bytes, at most {PARAM_VALUE_BYTES_MAX} are allowed", value.len()));
        }
        if value.contains('\0') {
            return Some("holds a NUL character, which no program can be given".into());
        }
        let pattern = self.pattern.as_ref().filter(|pattern| !pattern.whole.is_match(value))?;
        Some(format!("`{}` does not match the pattern `{}`", shown(value), shown(&pattern.text)))
    }
}

/// The value of every declared parameter: given, else its default, else empty.
pub(super) fn resolve(
    specs: &BTreeMap<String, ParamSpec>,
    given: &BTreeMap<String, String>,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    for name in given.keys().filter(|name| !specs.contains_key(*name)) {
        let hint = match nearest(name, specs.keys().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if specs.is_empty() => "this job takes no parameters".into(),
            None => format!("it takes {}", specs.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
        };
        problems.anywhere(format!("the job has no parameter `{}`", shown(name)), hint);
    }
    let mut values = BTreeMap::new();
    for (name, spec) in specs {
        match given.get(name) {
            Some(value) => match spec.objection(value) {
                Some(what) => problems.at(spec.span.clone(), format!("the value of `{name}` {what}"), ""),
                None => drop(values.insert(name.clone(), value.clone())),
            },
            None if spec.required => problems.at(
                spec.span.clone(),
                format!("the parameter `{name}` needs a value"),
                format!("give it one: --param {name}=VALUE"),
            ),
            None => drop(values.insert(name.clone(), spec.default.clone().unwrap_or_default())),
        }
    }
    values
}
