//! As much of Rust's syntax as the rules need: what is code, what belongs to tests, and which paths are named. Works on text; it
//! does not expand macros and resolves no names beyond `use` lists.

/// Rust with its comments and the insides of its literals turned into blanks. Lines and columns stay.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match literal_end(&chars, at) {
            Some(end) => end,
            None if chars[at..].starts_with(&['/', '/']) => {
                chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n)
            }
            None if chars[at..].starts_with(&['/', '*']) => block_end(&chars, at),
            None => {
                // A whole word at once: the `r` at its end opens no raw string.
                let end = at + chars[at..].iter().take_while(|c| is_word(**c)).count().max(1);
                out.extend(&chars[at..end]);
                at = end;
                continue;
            }
        };
        out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0_u32, start);
    while at < chars.len() {
        if chars[at..].starts_with(&['/', '*']) {
            (depth, at) = (depth + 1, at + 2);
        } else if chars[at..].starts_with(&['*', '/']) {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// Where the string or character that begins here ends. Nothing when none begins here.
fn literal_end(chars: &[char], start: usize) -> Option<usize> {
    let mut at = start + chars[start..].iter().take(2).take_while(|c| "bcr".contains(**c)).count();
    let raw = chars[start..at].contains(&'r');
    let hashes = if raw { chars[at..].iter().take_while(|c| **c == '#').count() } else { 0 };
    at += hashes;
    match chars.get(at)? {
        '"' if raw => {
            let mut close = vec!['"'];
            close.resize(hashes + 1, '#');
            let inside = chars[at + 1..].windows(close.len()).position(|window| window == close);
            Some(inside.map_or(chars.len(), |n| at + 1 + n + close.len()))
        }
        '"' => Some(closing(chars, at, '"')),
        // 'a' and '\n' are characters, 'a alone is a lifetime.
        '\'' if !raw && (chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'')) => {
            Some(closing(chars, at, '\''))
        }
        _ => None,
    }
}

fn closing(chars: &[char], open: usize, quote: char) -> usize {
    let mut at = open + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    chars.len().min(at + 1)
}

/// One text in two of the same shape: production and tests, each blank where the other is not.
pub(crate) struct Split {
    pub(crate) production: String,
    pub(crate) tests: String,
    /// Modules in files of their own that exist only for tests.
    pub(crate) test_modules: Vec<String>,
}

const TEST_ONLY: &str = "#[cfg(test)]";

/// Parts what is only for tests from the rest. Takes the result of [`code_only`].
pub(crate) fn split_tests(code: &str) -> Split {
    let mut split = Split { production: String::new(), tests: String::new(), test_modules: Vec::new() };
    let mut rest = code;
    while let Some(found) = rest.find(TEST_ONLY) {
        let (before, item) = rest.split_at(found);
        let (item, after) = item.split_at(item_end(item));
        split.production.push_str(before);
        split.production.push_str(&blank(item));
        split.tests.push_str(&blank(before));
        split.tests.push_str(item);
        if let Some(name) = item.strip_suffix(';').and_then(|item| item.rsplit_once("mod ")) {
            split.test_modules.push(name.1.trim().to_owned());
        }
        rest = after;
    }
    split.production.push_str(rest);
    split.tests.push_str(&blank(rest));
    split
}

pub(crate) fn blank(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
}

/// Where an item that begins with attributes ends: after its `;` or its closing brace.
fn item_end(item: &str) -> usize {
    let (mut braces, mut brackets) = (0_u32, 0_u32);
    for (at, c) in item.char_indices() {
        match c {
            '[' | '(' => brackets += 1,
            ']' | ')' => brackets = brackets.saturating_sub(1),
            '{' => braces += 1,
            '}' if braces <= 1 => return at + 1,
            '}' => braces -= 1,
            ';' if braces == 0 && brackets == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// A path such as `std::fs::File`, and its line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

impl Named {
    /// Does the path begin with these segments, or go through this one word?
    pub(crate) fn is(&self, pattern: Pattern) -> bool {
        match pattern {
            Pattern::Crate(name) => self.segments.len() > 1 && self.segments[0] == name,
            Pattern::Path(path) => {
                let wanted: Vec<&str> = path.split("::").collect();
                self.segments.windows(wanted.len()).any(|window| window == wanted)
            }
            Pattern::Word(word) => self.segments.iter().any(|segment| segment == word),
        }
    }
}

/// What must not be named.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pattern {
    /// A crate, as the first part of a path.
    Crate(&'static str),
    /// Parts of a path that follow each other.
    Path(&'static str),
    /// A word on its own or within a path.
    Word(&'static str),
}

/// Every path in the code; lists in braces are taken apart. A lone `use x;` counts as the path `x::self`.
pub(crate) fn paths(code: &str) -> Vec<Named> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = path(&tokens, at, &[], &mut found).max(at + 1);
    }
    found
}

/// Words, `::` and single other characters, each with its line.
fn tokens(code: &str) -> Vec<(&str, usize)> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                _ if rest.starts_with("::") => 2,
                c => c.len_utf8(),
            };
            tokens.push((&rest[..length], number + 1));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Reads one path, with the prefix that it stands under, and returns where it ends.
fn path(tokens: &[(&str, usize)], start: usize, prefix: &[String], found: &mut Vec<Named>) -> usize {
    let word = |at: usize| tokens.get(at).filter(|(token, _)| token.starts_with(is_word));
    let is = |at: usize, wanted: &str| tokens.get(at).is_some_and(|(token, _)| *token == wanted);
    let mut segments = prefix.to_vec();
    let mut at = start;
    while let Some((segment, _)) = word(at) {
        segments.push((*segment).to_owned());
        at += 1;
        if !is(at, "::") {
            break;
        }
        at += 1;
    }
    if at == start {
        return at;
    }
    if is(at, "{") && is(at - 1, "::") {
        at += 1;
        while at < tokens.len() && !is(at, "}") {
            at = path(tokens, at, &segments, found).max(at + 1);
        }
        return at + 1;
    }
    if segments.len() == 1 && start > 0 && is(start - 1, "use") {
        segments.push("self".to_owned());
    }
    found.push(Named { segments, line: tokens[start].1 });
    at
}

mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = "a /* tokio /* x */ y */ b // sled\n\"lapin \\\" \" r#\"x\"tokio\"# 'x' '\\'' b\"q\" 'life c";
        let code = code_only(text);
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "b", "'life", "c"]);
        assert_eq!(code.chars().count(), text.chars().count());
        assert_eq!(code_only("for\"x\" var\"tokio\"").split_whitespace().collect::<Vec<_>>(), ["for", "var"]);
    }

    #[test]
    fn tests_are_told_from_production() {
        let split = split_tests(
            "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests { fn b() { {} } }\nfn c() {}\n#[cfg(test)]\nmod far;",
        );
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(&split.production), "fn a() {} fn c() {}");
        assert!(split.tests.contains("fn b") && !split.tests.contains("fn c"));
        assert_eq!(split.test_modules, ["far"]);
        assert_eq!(split.production.lines().count(), 7);
    }

    #[test]
    fn lists_of_names_are_taken_apart() {
        let code = "use std::{fs::{self, File}, time::Instant};\nuse lapin;\nlet server = server.x; tokio::spawn(y);";
        let named = paths(code);
        let has = |pattern| named.iter().any(|named| named.is(pattern));
        assert!(has(Pattern::Path("std::fs")) && has(Pattern::Path("std::time::Instant")));
        assert!(has(Pattern::Crate("lapin")) && has(Pattern::Crate("tokio")) && !has(Pattern::Crate("server")));
        assert!(has(Pattern::Word("Instant")) && !has(Pattern::Word("Inst")));
        assert_eq!(named.iter().find(|named| named.is(Pattern::Crate("tokio"))).unwrap().line, 3);
    }
}
