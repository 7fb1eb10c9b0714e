//! Who is to run a job, and what may run beside it: plain data between the job file and whoever hands out work. Decides nothing
//! about agents.

use std::collections::BTreeSet;
use std::fmt;

use messages::AgentId;
use serde::{Deserialize, Serialize};

use super::selector::Selector;

/// Who is to run a job, and how the runs are spread over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Which agents are meant.
    pub who: Who,
    /// Whether all of them or one.
    pub pick: Pick,
    /// How many of them at once; nothing means all that have a slot.
    pub max_parallel: Option<Share>,
    /// How many runs may fail before no further one is begun; nothing means that every one is begun.
    pub max_failed: Option<u32>,
    /// Whether the next job of its group, or else of its name, goes to the agent that had the last one, if that can take it.
    pub sticky: bool,
    /// Whether agents that are out of reach when the job is taken are left out of it.
    pub skip_offline: bool,
    /// Milliseconds after which a run that no agent has begun is given up; nothing means never.
    pub expires_ms: Option<u64>,
}

/// Which agents are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// These, at least one.
    Agents(BTreeSet<AgentId>),
    /// Every agent that the server knows when the job is submitted.
    All,
    /// Those of a pool, those with such labels, or both.
    Matching {
        /// The pool that they are in.
        pool: Option<String>,
        /// What holds of their labels.
        labels: Selector,
    },
}

/// How many of the agents that are meant run the job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// Every one of them.
    #[default]
    All,
    /// One, the least busy.
    One,
}

/// A part of the agents of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Share {
    /// So many.
    Count(u32),
    /// So many of a hundred, rounded down.
    Percent(u8),
}

/// Jobs of one group run one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// The group's name.
    pub group: String,
    /// What becomes of a job whose group has one already.
    pub on_conflict: OnConflict,
}

/// What becomes of a job whose group has one already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    /// It waits until its turn comes.
    #[default]
    Queue,
    /// It is not taken.
    Reject,
    /// The older ones are cancelled, and it runs when they have ended.
    CancelOlder,
}

impl Target {
    /// All of those agents, side by side, however long it takes.
    #[must_use]
    pub const fn of(who: Who) -> Self {
        Self {
            who,
            pick: Pick::All,
            max_parallel: None,
            max_failed: None,
            sticky: false,
            skip_offline: false,
            expires_ms: None,
        }
    }
}

impl Share {
    /// So many of `total`, at least 1: a rolling change that may touch nobody would never end.
    #[must_use]
    pub fn of(self, total: usize) -> usize {
        let part = match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            // First by 100, then the rest: no product that could overflow.
            Self::Percent(percent) => {
                let percent = usize::from(percent.min(100));
                total / 100 * percent + total % 100 * percent / 100
            }
        };
        part.max(1)
    }
}

/// The agents in words that follow "on".
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agents(agents) => f.write_str(&agents.iter().map(AgentId::as_str).collect::<Vec<_>>().join(", ")),
            Self::All => f.write_str("all agents"),
            Self::Matching { pool: Some(pool), labels } if labels.is_everything() => {
                write!(f, "agents of pool {pool}")
            }
            Self::Matching { pool: Some(pool), labels } => write!(f, "agents of pool {pool} with {labels}"),
            Self::Matching { pool: None, labels } => write!(f, "agents with {labels}"),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl OnConflict {
    /// The word in a job file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Reject => "reject",
            Self::CancelOlder => "cancel-older",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_down_and_never_nobody() {
        for (share, total, part) in [
            (Share::Count(3), 10, 3),
            (Share::Count(0), 10, 1),
            (Share::Percent(25), 10, 2),
            (Share::Percent(25), 3, 1),
            (Share::Percent(100), 7, 7),
            (Share::Percent(1), 0, 1),
            (Share::Percent(50), 199, 99),
        ] {
            assert_eq!(share.of(total), part, "{share:?} of {total}");
        }
        assert_eq!(Share::Percent(100).of(usize::MAX), usize::MAX);
    }

    #[test]
    fn a_target_comes_back_from_its_bytes() {
        let labels = Selector::all_of(["env=prod", "a || b"]).unwrap();
        let target = Target {
            max_parallel: Some(Share::Percent(25)),
            max_failed: Some(1),
            expires_ms: Some(5),
            ..Target::of(Who::Matching { pool: Some("web".into()), labels })
        };
        let bytes = rmp_serde::to_vec_named(&target).unwrap();
        assert_eq!(rmp_serde::from_slice::<Target>(&bytes).unwrap(), target);
        let text = serde_json::to_string(&target).unwrap();
        assert!(text.contains(r#""labels":"env=prod && (a || b)""#), "{text}");
        assert_eq!(serde_json::from_str::<Target>(&text).unwrap(), target);
        assert_eq!(target.who.to_string(), "agents of pool web with env=prod && (a || b)");
    }

    #[test]
    fn what_becomes_of_a_conflict_is_written_as_in_a_job_file() {
        for word in [OnConflict::Queue, OnConflict::Reject, OnConflict::CancelOlder] {
            assert_eq!(serde_json::to_value(word).unwrap(), word.as_str());
        }
    }
}
