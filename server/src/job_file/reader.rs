//! Reading TOML values with their places. Knows types and keys; knows nothing of what a job means.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::problem::{Problems, shown};
use super::suggest::nearest;

/// A value with its place in the file.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// A key that means something in a later version.
pub(super) struct Later {
    /// The key.
    pub(super) key: &'static str,
    /// What to do until then.
    pub(super) instead: &'static str,
}

/// A table whose keys are all known beforehand.
pub(super) struct Fields<'a, 'i> {
    table: &'a DeTable<'i>,
    /// The table's place.
    pub(super) span: Range<usize>,
}

impl<'a, 'i> Fields<'a, 'i> {
    /// Looks at a table, and notes every key that is neither known nor supported yet.
    pub(super) fn check(
        table: &'a DeTable<'i>,
        span: Range<usize>,
        known: &[&'static str],
        later: &[Later],
        problems: &mut Problems,
    ) -> Self {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            if let Some(later) = later.iter().find(|later| later.key == name) {
                problems.at(key.span(), format!("`{name}` is not supported yet in this version"), later.instead);
                continue;
            }
            let hint = match nearest(name, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("the keys known here are {}", known.join(", ")),
            };
            problems.at(key.span(), format!("unknown key `{}`", shown(name)), hint);
        }
        Self { table, span }
    }

    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value<'i>> {
        self.table.get(key)
    }

    /// The place of a key, or of the whole table when the key is not there.
    pub(super) fn key_span(&self, key: &str) -> Range<usize> {
        self.table.get_key_value(key).map_or_else(|| self.span.clone(), |(key, _)| key.span())
    }
}

/// A text that holds no NUL, which no program could be given.
pub(super) fn text<'a>(key: &str, value: &'a Value<'_>, problems: &mut Problems) -> Option<&'a str> {
    let Some(text) = value.get_ref().as_str() else {
        wrong_type(key, "a text in quotes", value, problems);
        return None;
    };
    if text.contains('\0') {
        problems.at(
            value.span(),
            format!("`{key}` holds a NUL character"),
            "no program can be given one: leave it out",
        );
        return None;
    }
    Some(text)
}

/// `true` or `false`.
pub(super) fn boolean(key: &str, value: &Value<'_>, problems: &mut Problems) -> Option<bool> {
    let found = value.get_ref().as_bool();
    if found.is_none() {
        wrong_type(key, "true or false", value, problems);
    }
    found
}

/// A list.
pub(super) fn array<'a, 'i>(key: &str, value: &'a Value<'i>, problems: &mut Problems) -> Option<&'a DeArray<'i>> {
    let found = value.get_ref().as_array();
    if found.is_none() {
        wrong_type(key, "a list", value, problems);
    }
    found
}

/// A table.
pub(super) fn table<'a, 'i>(key: &str, value: &'a Value<'i>, problems: &mut Problems) -> Option<&'a DeTable<'i>> {
    let found = value.get_ref().as_table();
    if found.is_none() {
        wrong_type(key, "a table", value, problems);
    }
    found
}

fn wrong_type(key: &str, expected: &str, value: &Value<'_>, problems: &mut Problems) {
    let found = match value.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    problems.at(value.span(), format!("`{}` must be {expected}, this is {found}", shown(key)), "");
}
