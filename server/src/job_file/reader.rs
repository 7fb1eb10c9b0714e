//! Reading TOML values with their places. Knows types and keys; knows nothing of what a job means.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::duration;
use super::keys::{self, Key};
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
    known: &'static [Key],
    /// The table's place.
    pub(super) span: Range<usize>,
}

impl<'a, 'i> Fields<'a, 'i> {
    /// Looks at a table, and notes every key that is neither known nor supported yet.
    pub(super) fn check(
        table: &'a DeTable<'i>,
        span: Range<usize>,
        known: &'static [Key],
        later: &[Later],
        problems: &mut Problems,
    ) -> Self {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if known.iter().any(|key| key.name == name) {
                continue;
            }
            if let Some(later) = later.iter().find(|later| later.key == name) {
                problems.at(key.span(), format!("`{name}` is not supported yet in this version"), later.instead);
                continue;
            }
            let names = || known.iter().map(|key| key.name);
            let elsewhere = keys::ELSEWHERE.iter().find(|(key, _)| *key == name).map(|(_, place)| *place);
            let hint = match (elsewhere, nearest(name, names())) {
                (Some(place), _) => place.to_owned(),
                (None, Some(meant)) => format!("did you mean `{meant}`?"),
                (None, None) => format!("the keys known here are {}", names().collect::<Vec<_>>().join(", ")),
            };
            problems.at(key.span(), format!("unknown key `{}`", shown(name)), hint);
        }
        Self { table, known, span }
    }

    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value<'i>> {
        debug_assert!(self.known.iter().any(|known| known.name == key), "`{key}` is not in the list of keys");
        self.table.get(key)
    }

    /// Whether one of those keys is there.
    pub(super) fn has_later(&self, later: &[Later]) -> bool {
        later.iter().any(|later| self.table.get(later.key).is_some())
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

/// One of a few words.
pub(super) fn word<T: Copy>(key: &str, value: &Value<'_>, words: &[(&str, T)], problems: &mut Problems) -> Option<T> {
    let found = text(key, value, problems)?;
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == found) {
        return Some(*meaning);
    }
    let names = || words.iter().map(|(word, _)| *word);
    let hint = match nearest(found, names()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("one of {}", names().collect::<Vec<_>>().join(", ")),
    };
    problems.at(value.span(), format!("`{}` is nothing that `{key}` can be", shown(found)), hint);
    None
}

/// A whole number within limits.
pub(super) fn integer(
    key: &str,
    value: &Value<'_>,
    limits: RangeInclusive<i64>,
    problems: &mut Problems,
) -> Option<i64> {
    let Some(number) = value.get_ref().as_integer() else {
        wrong_type(key, "a whole number", value, problems);
        return None;
    };
    // Larger than any number here can be is as wrong as too large.
    let read = i64::from_str_radix(number.as_str(), number.radix()).ok();
    let found = read.filter(|number| limits.contains(number));
    if found.is_none() {
        let (from, to) = (limits.start(), limits.end());
        problems.at(value.span(), format!("`{key}` must be {from} to {to}"), "");
    }
    found
}

/// A span of time in milliseconds.
pub(super) fn span(key: &str, value: &Value<'_>, problems: &mut Problems) -> Option<u64> {
    let text = text(key, value, problems)?;
    match duration::parse(text) {
        Ok(ms) => Some(ms),
        Err(what) => {
            let hint = "write for example \"90s\", \"2m\" or \"1h30m\"";
            problems.at(value.span(), format!("`{}` {what}", shown(text)), hint);
            None
        }
    }
}

/// The place of a piece of a text within the source, or of the whole text when it is written with escapes.
pub(super) fn within(source: &str, span: &Range<usize>, text: &str, piece: &Range<usize>) -> Range<usize> {
    let found = source.get(span.clone()).and_then(|raw| raw.find(text));
    found.map_or_else(|| span.clone(), |at| span.start + at + piece.start..span.start + at + piece.end)
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
