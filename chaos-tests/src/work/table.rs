//! What the matrix is made of, and what must become of each cell. What an outage means is the server's table, as the command line
//! prints it; what follows from that for marks and folders is here. Runs nothing but that one command.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::WorkError;
use crate::live::longshore;

/// Words of one kind, as the server's table and this program's output spell them.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// Which one a word means.
            #[must_use]
            pub fn of(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }
    };
}

words! {
    /// What is killed with -9.
    Victim {
        /// The agent's worker. Its monitor starts another.
        Worker = "worker",
        /// The agent's monitor. The kernel takes the worker with it.
        Monitor = "monitor",
        /// Both, the worker first.
        Both = "both",
        /// The server.
        Server = "server",
        /// The broker.
        Broker = "broker",
        /// The process over the step, and nothing else.
        Shim = "shim",
        /// Everything of the agent's machine: monitor, worker, shims and the steps themselves.
        Machine = "machine",
    }
}

words! {
    /// How far a step has come.
    Phase {
        /// The agent has the run, and there is no mark.
        BeforeStarted = "before-started",
        /// The mark is there, the program does not execute yet.
        Started = "started",
        /// The program executes.
        Running = "running",
        /// The program has ended, and how is not on the disk.
        Exiting = "exiting",
        /// How it ended is on the disk, and not in the agent's journal.
        Exited = "exited",
        /// The report is in the agent's journal, and the server has not said that it has it.
        Reported = "reported",
    }
}

words! {
    /// The declared effect.
    Effect {
        /// It changes nothing.
        ReadOnly = "read-only",
        /// Twice is as good as once.
        Idempotent = "idempotent",
        /// A check can tell whether it is done.
        Guarded = "guarded",
        /// It must not run twice.
        Once = "once",
    }
}

words! {
    /// What the table says becomes of a step.
    Fate {
        /// It goes on.
        GoesOn = "goes-on",
        /// It begins.
        Begins = "begins",
        /// Its end is reported later.
        ReportedLater = "reported-later",
        /// The report is sent again and counts once.
        ToldAgain = "told-again",
        /// It is run again.
        RunsAgain = "runs-again",
        /// Its check decides.
        CheckDecides = "check-decides",
        /// A person decides.
        PersonDecides = "person-decides",
    }
}

words! {
    /// What a person says of a step that waits for one.
    Decision {
        /// It took effect.
        Done = "done",
        /// It did not: run it again.
        Retry = "retry",
        /// Give it up.
        Fail = "fail",
    }
}

impl Victim {
    /// What is lost with it, in the table's words.
    #[must_use]
    pub const fn lost(self) -> &'static str {
        match self {
            Self::Worker | Self::Monitor | Self::Both => "agent",
            Self::Server | Self::Broker => "link",
            Self::Shim | Self::Machine => "machine",
        }
    }

    /// Whether there is such a victim in that phase.
    #[must_use]
    pub const fn is_there(self, phase: Phase) -> bool {
        match self {
            Self::Shim => phase.has_shim(),
            Self::Worker | Self::Monitor | Self::Both | Self::Server | Self::Broker | Self::Machine => true,
        }
    }
}

impl Phase {
    /// Whether a process is over the step.
    #[must_use]
    pub const fn has_shim(self) -> bool {
        match self {
            Self::Started | Self::Running | Self::Exiting => true,
            Self::BeforeStarted | Self::Exited | Self::Reported => false,
        }
    }

    /// Whether the program has begun.
    #[must_use]
    pub const fn has_begun(self) -> bool {
        match self {
            Self::BeforeStarted | Self::Started => false,
            Self::Running | Self::Exiting | Self::Exited | Self::Reported => true,
        }
    }

    /// Whether the program has done what it is for.
    #[must_use]
    pub const fn is_done(self) -> bool {
        match self {
            Self::BeforeStarted | Self::Started | Self::Running => false,
            Self::Exiting | Self::Exited | Self::Reported => true,
        }
    }
}

/// How a cell came out, or must: what the server says, what the step itself left on disk, and the records of its attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The job's state.
    pub job: String,
    /// The step's state.
    pub step: String,
    /// How often the program began, from its marks.
    pub executions: usize,
    /// How often it did what it is for, from its marks.
    pub completions: usize,
    /// For each attempt, whether its end is recorded.
    pub recorded: Vec<bool>,
}

impl Outcome {
    /// Of one that was left in that phase, and run again as often as said.
    fn left(phase: Phase, job: &str, step: &str, again: usize, recorded: &[bool]) -> Self {
        Self {
            job: job.to_owned(),
            step: step.to_owned(),
            executions: usize::from(phase.has_begun()) + again,
            completions: usize::from(phase.is_done()) + again,
            recorded: recorded.to_owned(),
        }
    }
}

/// What must come of a step that was in that phase, when that is its fate.
#[must_use]
pub fn expected(phase: Phase, fate: Fate) -> Outcome {
    match fate {
        Fate::GoesOn | Fate::Begins | Fate::ReportedLater | Fate::ToldAgain => {
            Outcome::left(Phase::Exited, "succeeded", "succeeded", 0, &[true])
        }
        Fate::CheckDecides if phase.is_done() => Outcome::left(phase, "succeeded", "already-done", 0, &[false]),
        Fate::RunsAgain | Fate::CheckDecides => Outcome::left(phase, "succeeded", "succeeded", 1, &[false, true]),
        Fate::PersonDecides => Outcome::left(phase, "needs-decision", "needs-decision", 0, &[false]),
    }
}

/// What must come of a step that was left in that phase and about which a person has decided.
#[must_use]
pub fn decided(phase: Phase, decision: Decision) -> Outcome {
    match decision {
        Decision::Done => Outcome::left(phase, "succeeded", "succeeded", 0, &[false]),
        Decision::Retry => Outcome::left(phase, "succeeded", "succeeded", 1, &[false, true]),
        Decision::Fail => Outcome::left(phase, "failed", "failed", 0, &[false]),
    }
}

/// The server's table: effect, phase and what is lost, to what becomes of the step.
#[derive(Debug)]
pub struct Table(BTreeMap<(String, String, String), Fate>);

impl Table {
    /// Has the command line print it for a job file with a step of each effect.
    ///
    /// # Errors
    /// [`WorkError::Table`]
    pub fn read(dir: &Path) -> Result<Self, WorkError> {
        let mut file = "name = \"table\"\ntarget = { all = true }\n".to_owned();
        for effect in Effect::ALL {
            let check = if *effect == Effect::Guarded { "check = 'true'\n" } else { "" };
            let word = effect.as_str();
            file.push_str(&format!("[[step]]\nid = \"{word}\"\neffect = \"{word}\"\n{check}run = 'true'\n"));
        }
        let path = dir.join("table.toml");
        fs::write(&path, file)?;
        let output = Command::new(longshore()?).args(["job", "explain", "-o", "csv"]).arg(&path).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let bad = |what: &str| WorkError::Table(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        if !output.status.success() {
            return Err(bad("`longshore job explain` failed"));
        }
        Self::parse(&text).ok_or_else(|| bad("`longshore job explain -o csv` printed something else"))
    }

    fn parse(csv: &str) -> Option<Self> {
        let mut table = BTreeMap::new();
        let mut lines = csv.lines();
        if !lines.next()?.eq_ignore_ascii_case("step,effect,phase,lost,fate") {
            return None;
        }
        for line in lines {
            let mut words = line.split(',').skip(1).map(str::to_owned);
            let key = (words.next()?, words.next()?, words.next()?);
            table.insert(key, Fate::of(&words.next()?)?);
        }
        Some(Self(table))
    }

    /// What becomes of a step.
    ///
    /// # Errors
    /// [`WorkError::Table`] when the table does not say.
    pub fn fate(&self, effect: Effect, phase: Phase, victim: Victim) -> Result<Fate, WorkError> {
        let key = (effect.as_str().to_owned(), phase.as_str().to_owned(), victim.lost().to_owned());
        let missing = || WorkError::Table(format!("it does not say what becomes of {} {} {}", key.0, key.1, key.2));
        self.0.get(&key).copied().ok_or_else(missing)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_by_its_words_and_anything_else_is_refused() {
        let table = Table::parse("step,effect,phase,lost,fate\na,once,running,machine,person-decides\n").unwrap();
        assert_eq!(table.fate(Effect::Once, Phase::Running, Victim::Shim).unwrap(), Fate::PersonDecides);
        assert!(table.fate(Effect::Once, Phase::Running, Victim::Server).is_err());
        assert!(Table::parse("step,effect,phase,lost,fate\na,once,running,machine,something\n").is_none());
        assert!(Table::parse("effect,phase,lost,fate\n").is_none());
    }

    #[test]
    fn what_must_not_run_twice_is_expected_to_run_at_most_once() {
        for phase in Phase::ALL {
            let outcome = expected(*phase, Fate::PersonDecides);
            assert!(outcome.executions <= 1 && outcome.recorded == [false], "{phase:?}");
        }
        let again = expected(Phase::Running, Fate::CheckDecides);
        assert_eq!((again.executions, again.completions), (2, 1));
        assert_eq!(expected(Phase::Exiting, Fate::CheckDecides).step, "already-done");
    }
}
