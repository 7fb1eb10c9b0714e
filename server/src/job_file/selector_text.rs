//! The words and signs of a label expression, with their places. Knows nothing of what they mean together.

use std::ops::Range;

/// A word or a sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    And,
    Or,
    Not,
    Is,
    IsNot,
    Open,
    Close,
    Comma,
    /// A character that no expression holds.
    Unknown(String),
    End,
}

/// Longest first, so that `!=` is not taken for `!`.
const SIGNS: [(&str, Token); 9] = [
    ("&&", Token::And),
    ("||", Token::Or),
    ("!=", Token::IsNot),
    ("==", Token::Is),
    ("=", Token::Is),
    ("!", Token::Not),
    ("(", Token::Open),
    (")", Token::Close),
    (",", Token::Comma),
];

/// The tokens of a text, one after the other.
pub(super) struct Tokens<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Tokens<'t> {
    /// Those of that text.
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// The next token with its place; at the end always [`Token::End`].
    pub(super) fn next(&mut self) -> (Token, Range<usize>) {
        let (token, place) = self.peek();
        self.at = place.end;
        (token, place)
    }

    /// The next token, which stays the next.
    pub(super) fn peek(&self) -> (Token, Range<usize>) {
        let rest = self.text[self.at..].trim_start();
        let start = self.text.len() - rest.len();
        let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        if word > 0 {
            return (Token::Word(rest[..word].to_owned()), start..start + word);
        }
        for (sign, token) in &SIGNS {
            if rest.starts_with(sign) {
                return (token.clone(), start..start + sign.len());
            }
        }
        match rest.chars().next() {
            Some(c) => (Token::Unknown(c.to_string()), start..start + c.len_utf8()),
            None => (Token::End, start..start),
        }
    }

    /// Goes past the next token.
    pub(super) fn advance(&mut self) {
        self.at = self.peek().1.end;
    }

    /// Goes past the next token if it is that one, and says whether it was.
    pub(super) fn take(&mut self, token: &Token) -> bool {
        let (next, place) = self.peek();
        if next == *token {
            self.at = place.end;
        }
        next == *token
    }
}

/// What a label may be made of.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')
}
