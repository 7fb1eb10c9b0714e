//! What happened in a world, in order: a line each for people, and a fingerprint of what was said for comparing two runs.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};

/// Keeps lines when asked to; always keeps the fingerprint.
#[derive(Debug)]
pub(crate) struct Trace {
    lines: Option<Vec<String>>,
    said: DefaultHasher,
}

impl Trace {
    pub(crate) fn new(lines: bool) -> Self {
        Self { lines: lines.then(Vec::new), said: DefaultHasher::new() }
    }

    /// Notes an event of somebody. The words are made only when they are kept.
    pub(crate) fn line(&mut self, at: u64, who: &str, what: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>14}  {who:<8} {}", Clock(at).to_string(), what()));
        }
    }

    /// Takes bytes that an endpoint published into the fingerprint.
    pub(crate) fn said(&mut self, who: &str, bytes: &[u8]) {
        self.said.write(who.as_bytes());
        self.said.write(bytes);
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.said.finish()
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

/// A virtual time, for people.
pub(crate) struct Clock(pub(crate) u64);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, milliseconds) = (self.0 / 1_000, self.0 % 1_000);
        write!(f, "{}:{:02}:{:02}.{milliseconds:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_hours_minutes_seconds() {
        assert_eq!(Clock(3_661_042).to_string(), "1:01:01.042");
    }
}
