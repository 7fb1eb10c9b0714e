//! What is wrong with a job file: where, what, and what to write instead. Collected, so that one look at a file shows everything
//! that needs mending. Never holds the value of a parameter or more than a printable piece of the file.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Problems that one look at a file reports. A file with more is not a job file with mistakes, it is something else.
pub const PROBLEMS_MAX: usize = 50;

/// One thing that is wrong, in the file or in the values given for its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Which bytes of the file, or nothing when it is not about a place in it. Always on character borders.
    pub span: Option<Range<usize>>,
    /// What is wrong, in one line.
    pub what: String,
    /// What to do instead, when something can be said.
    pub hint: Option<String>,
}

impl Problem {
    /// The line and column, both from 1 and the column in characters, at which the problem begins in that text.
    #[must_use]
    pub fn position(&self, text: &str) -> Option<(usize, usize)> {
        let before = text.get(..self.span.as_ref()?.start)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Some((before.matches('\n').count() + 1, before[line_start..].chars().count() + 1))
    }
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    left_out: usize,
}

impl Problems {
    /// Notes a problem at a place.
    pub(super) fn at(&mut self, span: Range<usize>, what: impl Into<String>, hint: impl Into<String>) {
        self.push(Some(span), what.into(), hint.into());
    }

    /// Notes a problem that no place in the file shows.
    pub(super) fn anywhere(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.push(None, what.into(), hint.into());
    }

    /// An empty hint means none.
    fn push(&mut self, span: Option<Range<usize>>, what: String, hint: String) {
        if self.list.len() >= PROBLEMS_MAX {
            self.left_out += 1;
            return;
        }
        self.list.push(Problem { span, what, hint: Some(hint).filter(|hint| !hint.is_empty()) });
    }

    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them in the order of the file, those without a place first.
    pub(super) fn into_sorted(mut self) -> Vec<Problem> {
        self.list.sort_by_key(|problem| problem.span.as_ref().map(|span| (span.start, span.end)));
        if self.left_out > 0 {
            let what = format!("{} more problems are not shown", self.left_out);
            self.list.push(Problem { span: None, what, hint: Some("mend these first".into()) });
        }
        self.list
    }
}

/// A piece of text from outside, cut and cleaned so that it can be shown in one line.
pub(super) fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut shown: String = text.chars().take(CHARS_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}
