//! Label expressions: which agents are meant, said by what they are. Bounded in length and in depth, so that no text is dear to
//! read or to ask. Never asks an agent anything: it is given the labels.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use messages::is_label;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::problem::shown;
use super::selector_text::{Token, Tokens};

/// Bytes of the expressions of one target, together. A person has to understand them.
pub const SELECTOR_BYTES_MAX: usize = 2048;
/// Parentheses and negations within one another.
const DEPTH_MAX: usize = 16;
/// Our own writing of an expression puts in spaces and parentheses that its author left out.
const OWN_FACTOR: usize = 4;

/// A condition on labels. The default holds for every agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector(Expression);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    /// The label is there, whatever its value.
    Has(String),
    /// The label has that value.
    Is(String, String),
    /// The label has another value, or is not there.
    IsNot(String, String),
    /// The label has one of these values.
    In(String, BTreeSet<String>),
    Not(Box<Self>),
    /// All of them hold; of none, that is always so.
    All(Vec<Self>),
    /// At least one of them holds.
    Any(Vec<Self>),
}

/// Why a text is not a label expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct SelectorError {
    /// Which text of a list, from 0.
    pub item: usize,
    /// Which bytes of that text, always on character borders.
    pub at: Range<usize>,
    /// What is wrong there, in one line.
    pub what: String,
    /// What to write instead; may be empty.
    pub hint: &'static str,
}

impl Default for Selector {
    fn default() -> Self {
        Self(Expression::All(Vec::new()))
    }
}

impl Selector {
    /// Reads one expression: `env=prod`, `os!=windows`, `gpu`, `zone in (a, b)`, joined by `&&`, `||`, `!` and parentheses.
    ///
    /// # Errors
    /// What is wrong, and where in the text.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Self::all_of([text])
    }

    /// Reads expressions that must all hold.
    ///
    /// # Errors
    /// What is wrong with the first that is wrong, and where in it.
    pub fn all_of<'a>(list: impl IntoIterator<Item = &'a str>) -> Result<Self, SelectorError> {
        Self::read(list, 1)
    }

    fn read<'a>(list: impl IntoIterator<Item = &'a str>, factor: usize) -> Result<Self, SelectorError> {
        let mut parts = Vec::new();
        let mut bytes: usize = 0;
        for (item, text) in list.into_iter().enumerate() {
            bytes = bytes.saturating_add(text.len());
            let read = if bytes > SELECTOR_BYTES_MAX * factor {
                Err(Fault::new(
                    0..text.len(),
                    "the labels are too long: at most 2048 bytes",
                    "give agents a label for it",
                ))
            } else {
                Parser { tokens: Tokens::new(text), depth_max: DEPTH_MAX * factor }.whole()
            };
            match read {
                Ok(expression) => parts.push(expression),
                Err(Fault { at, what, hint }) => return Err(SelectorError { item, at, what, hint }),
            }
        }
        Ok(Self(joined(parts, Expression::All, |part| match part {
            Expression::All(parts) => Ok(parts),
            other => Err(other),
        })))
    }

    /// Whether it holds for an agent with these labels.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.holds(labels)
    }

    /// Whether it holds for every agent.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

impl Expression {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Has(label) => labels.contains_key(label),
            Self::Is(label, value) => labels.get(label) == Some(value),
            Self::IsNot(label, value) => labels.get(label) != Some(value),
            Self::In(label, values) => labels.get(label).is_some_and(|value| values.contains(value)),
            Self::Not(inner) => !inner.holds(labels),
            Self::All(parts) => parts.iter().all(|part| part.holds(labels)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(labels)),
        }
    }
}

/// One part stands for itself; a part of the same kind is taken apart, so that equal meaning by structure is equal.
fn joined(
    parts: Vec<Expression>,
    join: impl FnOnce(Vec<Expression>) -> Expression,
    apart: impl Fn(Expression) -> Result<Vec<Expression>, Expression>,
) -> Expression {
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        match apart(part) {
            Ok(inner) => flat.extend(inner),
            Err(part) => flat.push(part),
        }
    }
    match flat.len() {
        1 => flat.remove(0),
        _ => join(flat),
    }
}

/// What is wrong in one text.
struct Fault {
    at: Range<usize>,
    what: String,
    hint: &'static str,
}

impl Fault {
    fn new(at: Range<usize>, what: impl Into<String>, hint: &'static str) -> Self {
        Self { at, what: what.into(), hint }
    }
}

const TERM: &str = "write a label: `gpu`, `env=prod`, `os!=windows` or `zone in (a, b)`";

/// Reads tokens by recursive descent; every level counts against the depth.
struct Parser<'t> {
    tokens: Tokens<'t>,
    depth_max: usize,
}

impl Parser<'_> {
    fn whole(mut self) -> Result<Expression, Fault> {
        if self.tokens.peek().0 == Token::End {
            return Err(Fault::new(self.tokens.peek().1, "the label expression is empty", TERM));
        }
        let expression = self.any(0)?;
        match self.tokens.peek() {
            (Token::End, _) => Ok(expression),
            (Token::Close, at) => Err(Fault::new(at, "this parenthesis was never opened", "leave it out")),
            (Token::Unknown(text), at) => Err(unknown(&text, at)),
            (_, at) => {
                Err(Fault::new(at, "two conditions need `&&` or `||` between them", "write `a && b` or `a || b`"))
            }
        }
    }

    fn any(&mut self, depth: usize) -> Result<Expression, Fault> {
        let mut parts = vec![self.all(depth)?];
        while self.tokens.take(&Token::Or) {
            parts.push(self.all(depth)?);
        }
        Ok(joined(parts, Expression::Any, |part| match part {
            Expression::Any(parts) => Ok(parts),
            other => Err(other),
        }))
    }

    fn all(&mut self, depth: usize) -> Result<Expression, Fault> {
        let mut parts = vec![self.unary(depth)?];
        while self.tokens.take(&Token::And) {
            parts.push(self.unary(depth)?);
        }
        Ok(joined(parts, Expression::All, |part| match part {
            Expression::All(parts) => Ok(parts),
            other => Err(other),
        }))
    }

    fn unary(&mut self, depth: usize) -> Result<Expression, Fault> {
        let (token, at) = self.tokens.next();
        if depth >= self.depth_max {
            return Err(Fault::new(
                at,
                "the label expression is nested too deeply: at most 16 levels",
                "make it flatter",
            ));
        }
        match token {
            Token::Not => Ok(Expression::Not(Box::new(self.unary(depth + 1)?))),
            Token::Open => {
                let inner = self.any(depth + 1)?;
                if self.tokens.take(&Token::Close) {
                    return Ok(inner);
                }
                Err(Fault::new(at, "this parenthesis is not closed", "close it with `)`"))
            }
            Token::Word(label) => self.term(label, &at),
            Token::Unknown(text) => Err(unknown(&text, at)),
            Token::And | Token::Or | Token::Close | Token::Is | Token::IsNot | Token::Comma | Token::End => {
                Err(Fault::new(at, "a label is missing here", TERM))
            }
        }
    }

    fn term(&mut self, label: String, at: &Range<usize>) -> Result<Expression, Fault> {
        let label = word(label, at)?;
        if self.tokens.take(&Token::Is) {
            return Ok(Expression::Is(label, self.value()?));
        }
        if self.tokens.take(&Token::IsNot) {
            return Ok(Expression::IsNot(label, self.value()?));
        }
        match self.tokens.peek() {
            (Token::Word(word), _) if word == "in" => self.tokens.advance(),
            (Token::Word(word), at) if word == "not" => {
                return Err(Fault::new(at, "`not` is not known here", "write `!(zone in (a, b))`"));
            }
            _ => return Ok(Expression::Has(label)),
        }
        let (token, open) = self.tokens.next();
        if token != Token::Open {
            return Err(Fault::new(open, "`in` needs values in parentheses", "write `zone in (a, b)`"));
        }
        let mut values = BTreeSet::from([self.value()?]);
        while self.tokens.take(&Token::Comma) {
            values.insert(self.value()?);
        }
        match self.tokens.take(&Token::Close) {
            true => Ok(Expression::In(label, values)),
            false => Err(Fault::new(open, "these values are not closed", "write `zone in (a, b)`")),
        }
    }

    fn value(&mut self) -> Result<String, Fault> {
        match self.tokens.next() {
            (Token::Word(value), at) => word(value, &at),
            (Token::Unknown(text), at) => Err(unknown(&text, at)),
            (_, at) => {
                Err(Fault::new(at, "a value is missing here", "write `env=prod`; `env` alone asks whether it is there"))
            }
        }
    }
}

fn unknown(text: &str, at: Range<usize>) -> Fault {
    let hint = match text {
        "$" | "{" | "}" => "placeholders are not expanded in labels",
        "&" => "write `&&`",
        "|" => "write `||`",
        "\"" | "'" => "values are written without quotes",
        _ => "labels are letters, digits and - _ . /",
    };
    Fault::new(at, format!("`{}` means nothing in a label expression", shown(text)), hint)
}

fn word(word: String, at: &Range<usize>) -> Result<String, Fault> {
    match is_label(&word) {
        true => Ok(word),
        false => Err(Fault::new(at.clone(), "a label and its value have at most 63 characters", "shorten it")),
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, parts: &[Self], between: &str| {
            for (nth, part) in parts.iter().enumerate() {
                f.write_str(if nth == 0 { "" } else { between })?;
                // `&&` binds stronger than `||`, so only this way round needs marks.
                match part {
                    Self::Any(_) => write!(f, "({part})")?,
                    _ => write!(f, "{part}")?,
                }
            }
            Ok(())
        };
        match self {
            Self::Has(label) => f.write_str(label),
            Self::Is(label, value) => write!(f, "{label}={value}"),
            Self::IsNot(label, value) => write!(f, "{label}!={value}"),
            Self::In(label, values) => {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                write!(f, "{label} in ({})", values.join(", "))
            }
            Self::Not(inner) => match **inner {
                Self::All(_) | Self::Any(_) => write!(f, "!({inner})"),
                _ => write!(f, "!{inner}"),
            },
            Self::All(parts) => list(f, parts, " && "),
            Self::Any(parts) => list(f, parts, " || "),
        }
    }
}

/// The expression as its author could have written it; empty when it holds for every agent.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::default());
        }
        Self::read([text.as_str()], OWN_FACTOR).map_err(serde::de::Error::custom)
    }
}
