//! What the server wants of an agent besides runs, and what an agent says of itself. Each is complete in itself and may be told
//! again without harm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::{LABEL_CHARS_MAX, LABELS_MAX};
use crate::{RunId, StepId};

/// End a run with all its processes. The answer is the end of the run. Means nothing for a run that is over or unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCancel {
    /// The run.
    pub run: RunId,
    /// Why, for people.
    pub reason: String,
}

/// What a person decided about an attempt of which nobody knows whether it took effect. Means nothing for any other attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDecide {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The attempt that was seen when this was decided, so that no later one is meant by accident.
    pub attempt: u32,
    /// What was decided.
    pub decision: Decision,
    /// Why, in the person's words.
    pub note: String,
}

/// What can be decided about an attempt of which nobody knows whether it took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// It took effect: the run goes on after it.
    Done,
    /// It did not: it is run again.
    Retry,
    /// It is given up: the run fails.
    Fail,
}

/// Take no new runs, or take them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentDrain {
    /// Whether new runs are refused from now on.
    pub draining: bool,
    /// Why, for people.
    pub note: String,
}

/// What an agent is, told whenever it changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFacts {
    /// The pool that it belongs to.
    pub pool: Option<String>,
    /// Its labels: those of its configuration, and what it found out (`os`, `arch`, `host`). At most [`LABELS_MAX`].
    pub labels: BTreeMap<String, String>,
    /// Runs that it does at once, at most.
    pub slots: u16,
    /// Whether it does one run and then ends.
    pub once: bool,
    /// The version of its program.
    pub version: String,
}

impl AgentFacts {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// Which limit is broken, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.labels.len() > LABELS_MAX {
            return Err("an agent has at most 64 labels");
        }
        let valid = |text: &String| is_label(text);
        if !self.labels.keys().all(valid) || !self.labels.values().all(valid) || !self.pool.iter().all(valid) {
            return Err("a label or pool is 1 to 63 letters, digits and -_./ without spaces");
        }
        Ok(())
    }
}

/// Whether that can be the name or the value of a label, or the name of a pool.
#[must_use]
pub fn is_label(text: &str) -> bool {
    (1..=LABEL_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
}

/// Why an agent takes no work now, in a word that the server acts on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCode {
    /// The message itself cannot be acted on: sending it again is of no use.
    #[default]
    Message,
    /// The agent is draining.
    Draining,
    /// The agent has as many runs as it takes.
    Full,
    /// The agent's disk is too full for new work.
    Disk,
    /// The agent does one run only, and has it.
    OneRunOnly,
}

impl RefusalCode {
    /// Whether the same work may be taken later, or by another agent.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        match self {
            Self::Message => false,
            Self::Draining | Self::Full | Self::Disk | Self::OneRunOnly => true,
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it with a reference
    pub(crate) fn is_message(&self) -> bool {
        *self == Self::Message
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn labels_hold_nothing_that_an_expression_could_read_as_syntax() {
        for good in ["prod", "5.4.0-x86_64", "a/b"] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "a b", "a=b", "a,b", "!a", "a)", "ä", &"x".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
        let mut facts = AgentFacts { labels: [("env".to_owned(), "prod".to_owned())].into(), ..AgentFacts::default() };
        facts.check().unwrap();
        facts.pool = Some("a b".into());
        assert!(facts.check().is_err());
    }
}
