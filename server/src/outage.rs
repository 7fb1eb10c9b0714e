//! What an outage does to a step: the one table of effect, phase and what was lost. Says what the agent does; does nothing itself.
//! `longshore job explain -o json` prints it for tests that may not name this crate.

use std::fmt;

use messages::Effect;
use serde::{Deserialize, Serialize};

/// A declared effect without its check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EffectKind {
    /// It changes nothing.
    ReadOnly,
    /// Twice is as good as once.
    Idempotent,
    /// A check can tell whether it is done.
    Guarded,
    /// It must not run twice.
    Once,
}

/// How far a step has come when the outage begins. Each is told from the one before by a mark on the agent's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The agent has the run, and there is no mark that the step was started.
    BeforeStarted,
    /// That mark is on the disk; whether the program executes yet is not.
    Started,
    /// The program executes.
    Running,
    /// The program has ended, and how is not on the disk yet.
    Exiting,
    /// How it ended is on the disk, and not reported.
    Exited,
    /// The report is in the agent's journal, and the server has not said that it has it.
    Reported,
}

/// What is lost in the outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lost {
    /// The way between agent and server: the network, the broker, or the server itself.
    Link,
    /// The agent's own processes. What it started lives on.
    Agent,
    /// The process over the step as well: the machine restarts or loses its power, or that process is killed.
    Machine,
}

/// What becomes of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It goes on as if nothing were.
    GoesOn,
    /// Nothing of it has happened: it begins when the agent is back.
    Begins,
    /// Its end is known on the agent, and reported when there is a way again.
    ReportedLater,
    /// The report is sent again if the server misses it, and taken in once.
    ToldAgain,
    /// Nobody knows whether it took effect: it is run again.
    RunsAgain,
    /// Nobody knows whether it took effect: its check is asked, and it is run again if it is not done.
    CheckDecides,
    /// Nobody knows whether it took effect: the run waits for a person's decision.
    PersonDecides,
}

impl EffectKind {
    /// Every effect.
    pub const ALL: [Self; 4] = [Self::ReadOnly, Self::Idempotent, Self::Guarded, Self::Once];

    /// The word in a job file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Idempotent => "idempotent",
            Self::Guarded => "guarded",
            Self::Once => "once",
        }
    }
}

impl From<&Effect> for EffectKind {
    fn from(effect: &Effect) -> Self {
        match effect {
            Effect::ReadOnly => Self::ReadOnly,
            Effect::Idempotent => Self::Idempotent,
            Effect::Guarded(_) => Self::Guarded,
            Effect::Once => Self::Once,
        }
    }
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 6] =
        [Self::BeforeStarted, Self::Started, Self::Running, Self::Exiting, Self::Exited, Self::Reported];

    /// The phase as scripts see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeStarted => "before-started",
            Self::Started => "started",
            Self::Running => "running",
            Self::Exiting => "exiting",
            Self::Exited => "exited",
            Self::Reported => "reported",
        }
    }

    /// The phase in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::BeforeStarted => "before it is started",
            Self::Started => "started",
            Self::Running => "running",
            Self::Exiting => "ended, not yet noted",
            Self::Exited => "ended, not yet reported",
            Self::Reported => "reported, not yet acknowledged",
        }
    }
}

impl Lost {
    /// Everything that can be lost, the least first.
    pub const ALL: [Self; 3] = [Self::Link, Self::Agent, Self::Machine];

    /// What is lost, as scripts see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Agent => "agent",
            Self::Machine => "machine",
        }
    }

    /// What is lost, in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Link => "broker, network or server",
            Self::Agent => "the agent's process",
            Self::Machine => "the machine, or the step's supervisor",
        }
    }
}

impl Fate {
    /// What becomes of the step, as scripts see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GoesOn => "goes-on",
            Self::Begins => "begins",
            Self::ReportedLater => "reported-later",
            Self::ToldAgain => "told-again",
            Self::RunsAgain => "runs-again",
            Self::CheckDecides => "check-decides",
            Self::PersonDecides => "person-decides",
        }
    }

    /// What becomes of the step, in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::GoesOn => "goes on",
            Self::Begins => "begins when it is back",
            Self::ReportedLater => "reported later",
            Self::ToldAgain => "told again, counts once",
            Self::RunsAgain => "is run again",
            Self::CheckDecides => "its check decides",
            Self::PersonDecides => "a person decides",
        }
    }

    /// Whether the program may be executed a second time.
    #[must_use]
    pub const fn may_run_twice(self) -> bool {
        match self {
            Self::RunsAgain | Self::CheckDecides => true,
            Self::GoesOn | Self::Begins | Self::ReportedLater | Self::ToldAgain | Self::PersonDecides => false,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.words())
    }
}

/// The table: what becomes of a step with that effect, when that is lost in that phase.
#[must_use]
pub const fn fate(effect: EffectKind, phase: Phase, lost: Lost) -> Fate {
    match (lost, phase) {
        // An agent needs nobody to go on with what it has.
        (Lost::Link, Phase::BeforeStarted | Phase::Started | Phase::Running | Phase::Exiting) => Fate::GoesOn,
        // The mark comes before the program, so nothing has run.
        (Lost::Agent | Lost::Machine, Phase::BeforeStarted) => Fate::Begins,
        // The step and the process over it do not belong to the agent's process.
        (Lost::Agent, Phase::Started | Phase::Running | Phase::Exiting) => Fate::GoesOn,
        (Lost::Machine, Phase::Started | Phase::Running | Phase::Exiting) => match effect {
            EffectKind::ReadOnly | EffectKind::Idempotent => Fate::RunsAgain,
            EffectKind::Guarded => Fate::CheckDecides,
            EffectKind::Once => Fate::PersonDecides,
        },
        (Lost::Link | Lost::Agent | Lost::Machine, Phase::Exited) => Fate::ReportedLater,
        (Lost::Link | Lost::Agent | Lost::Machine, Phase::Reported) => Fate::ToldAgain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loss_of_the_supervisor_in_mid_step_asks_for_the_effect() {
        for phase in Phase::ALL {
            for lost in Lost::ALL {
                let fates = EffectKind::ALL.map(|effect| fate(effect, phase, lost));
                let differ = fates.iter().any(|fate| *fate != fates[0]);
                let mid_step = matches!(phase, Phase::Started | Phase::Running | Phase::Exiting);
                assert_eq!(differ, mid_step && lost == Lost::Machine, "{phase:?} {lost:?}");
            }
        }
    }

    #[test]
    fn scripts_see_the_words_that_are_serialised() {
        for effect in EffectKind::ALL {
            assert_eq!(serde_json::to_value(effect).ok(), Some(effect.as_str().into()));
            for phase in Phase::ALL {
                assert_eq!(serde_json::to_value(phase).ok(), Some(phase.as_str().into()));
                for lost in Lost::ALL {
                    assert_eq!(serde_json::to_value(lost).ok(), Some(lost.as_str().into()));
                    let fate = fate(effect, phase, lost);
                    assert_eq!(serde_json::to_value(fate).ok(), Some(fate.as_str().into()));
                }
            }
        }
    }

    #[test]
    fn a_step_that_must_not_run_twice_never_does() {
        for phase in Phase::ALL {
            for lost in Lost::ALL {
                assert!(!fate(EffectKind::Once, phase, lost).may_run_twice(), "{phase:?} {lost:?}");
            }
        }
    }
}
