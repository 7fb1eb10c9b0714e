//! Texts with placeholders: `${{ params.release }}`. A placeholder is replaced by a value as it is; the value is never read again
//! for placeholders, and none is ever put into a script.

use std::collections::BTreeMap;
use std::ops::Range;

use super::params::ParamSpec;
use super::problem::{Problems, shown};
use super::suggest::nearest;

/// What begins a placeholder.
pub(super) const OPENING: &str = "${{";
const CLOSING: &str = "}}";

/// A text whose placeholders all name declared parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Param(String),
}

impl Template {
    /// Reads a text that stands at that place of the source.
    pub(super) fn parse(
        text: &str,
        span: &Range<usize>,
        source: &str,
        params: &BTreeMap<String, ParamSpec>,
        problems: &mut Problems,
    ) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut nth = 0;
        while let Some(start) = rest.find(OPENING) {
            let place = placeholder_span(source, span, nth);
            nth += 1;
            parts.push(Part::Text(rest[..start].to_owned()));
            let inside = &rest[start + OPENING.len()..];
            let Some(end) = inside.find(CLOSING) else {
                problems.at(place, "this placeholder has no end", "close it with `}}`");
                return Self { parts };
            };
            let expression = inside[..end].trim();
            rest = &inside[end + CLOSING.len()..];
            match expression.strip_prefix("params.") {
                Some(name) if params.contains_key(name) => parts.push(Part::Param(name.to_owned())),
                Some(name) => {
                    let hint = nearest(name, params.keys().map(String::as_str)).map_or_else(
                        || "declare it under [params]".to_owned(),
                        |meant| format!("did you mean `params.{meant}`?"),
                    );
                    problems.at(place, format!("there is no parameter `{}`", shown(name)), hint);
                }
                None => problems.at(
                    place,
                    format!("`{}` is not something a placeholder can hold", shown(expression)),
                    "only parameters expand: `${{ params.NAME }}`",
                ),
            }
        }
        parts.push(Part::Text(rest.to_owned()));
        Self { parts }
    }

    /// Bytes of the text with these values, without making it. Never overflows: the bytes saturate.
    pub(super) fn expanded_bytes(&self, values: &BTreeMap<String, String>) -> usize {
        self.parts.iter().map(|part| part.value(values).len()).fold(0, usize::saturating_add)
    }

    /// The text with these values.
    pub(super) fn expand(&self, values: &BTreeMap<String, String>) -> String {
        self.parts.iter().map(|part| part.value(values)).collect()
    }
}

impl Part {
    fn value<'a>(&'a self, values: &'a BTreeMap<String, String>) -> &'a str {
        match self {
            Self::Text(text) => text,
            Self::Param(name) => values.get(name).map_or("", String::as_str),
        }
    }
}

/// The place of the placeholder with that number within a text's place: the raw text may hold escapes, so the placeholder is
/// looked for there, and the whole text stands in when it cannot be found.
pub(super) fn placeholder_span(source: &str, span: &Range<usize>, nth: usize) -> Range<usize> {
    let Some(raw) = source.get(span.clone()) else { return span.clone() };
    let Some((start, _)) = raw.match_indices(OPENING).nth(nth) else { return span.clone() };
    let length = raw[start..].find(CLOSING).map_or(OPENING.len(), |end| end + CLOSING.len());
    span.start + start..span.start + start + length
}
