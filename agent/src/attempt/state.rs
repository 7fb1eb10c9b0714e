//! What is true of an attempt, decided from its files alone. It never trusts a process id or a clock, and never writes.

use std::fmt;

use super::boot::BootId;
use super::layout::{Damage, Record};
use super::record_file::RECORD;
use super::records::{Exit, Plan, Started};

/// What is true of an attempt.
///
#[doc = include_str!("truth-table.md")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptState {
    /// The step has not begun. Preparing was cut short, or is lost: prepare it again.
    NotPrepared,
    /// The step has not begun: it may be launched by the process that prepared it. Any other prepares it again.
    NotStarted,
    /// A shim is alive.
    Running {
        /// When it began; nothing while the shim is about to write it.
        started: Option<Started>,
    },
    /// It is over, and this is how.
    Ended(Box<Exit>),
    /// It began, and nobody knows how far it came: its declared effect decides what may happen next.
    Interrupted(Interruption),
    /// The file that decides is missing, or the record of the end in it cannot be believed, which means that the step has run.
    Unreadable {
        /// How the file's name ends.
        file: &'static str,
        /// What is wrong with it.
        damage: Damage,
    },
}

/// What is known of an attempt whose shim ended without a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interruption {
    /// The mark that it began; nothing when the mark is there but damaged.
    pub started: Option<Started>,
    /// Whether the machine restarted since.
    pub boot: BootMatch,
    /// Whether processes of the step live on without their shim.
    pub survivors: Survivors,
}

/// Whether an attempt began in the present boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMatch {
    /// The same boot: the shim was killed.
    Same,
    /// Another boot: the machine went down, or the files were copied from another machine.
    Other,
    /// The mark is damaged.
    Unknown,
}

/// Whether processes of a step live on without their shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// At least one does. Running the step again would run it beside itself: see [`super::Attempt::end_survivors`].
    Seen,
    /// None was seen. Without a control group, a process that closes every file it inherits, as some daemons do, cannot be seen.
    NotSeen,
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.boot {
            BootMatch::Same => "the step began and its supervisor ended without a record, in the same boot",
            BootMatch::Other => "the step began and the machine restarted before an end was recorded",
            BootMatch::Unknown => "the step may have begun: the mark of its beginning is damaged, no end was recorded",
        })?;
        f.write_str(match self.survivors {
            Survivors::Seen => "; processes of it are still running",
            Survivors::NotSeen => "; no process of it was seen running",
        })
    }
}

/// Whether a shim, or whoever is just launching one, holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    Held,
    Free,
}

/// The files of an attempt at one moment.
#[derive(Debug, Clone)]
pub(super) struct Observation {
    pub(super) plan: Record<Plan>,
    pub(super) started: Record<Started>,
    pub(super) exit: Record<Exit>,
    pub(super) lock: Lock,
    pub(super) survivors: Survivors,
}

/// The truth table, once.
pub(super) fn decide(seen: Observation, boot: BootId) -> AttemptState {
    let survivors = seen.survivors;
    match (seen.exit, seen.lock, seen.started, seen.plan) {
        (Record::Readable(exit), Lock::Held | Lock::Free, _, _) => AttemptState::Ended(exit.into()),
        (Record::Damaged(_) | Record::Absent, Lock::Held, Record::Readable(started), _) => {
            AttemptState::Running { started: Some(started) }
        }
        (Record::Damaged(_) | Record::Absent, Lock::Held, Record::Absent | Record::Damaged(_), _) => {
            AttemptState::Running { started: None }
        }
        (Record::Damaged(damage), Lock::Free, _, _) => AttemptState::Unreadable { file: RECORD, damage },
        (Record::Absent, Lock::Free, Record::Readable(started), _) => {
            let boot = if started.boot == boot { BootMatch::Same } else { BootMatch::Other };
            AttemptState::Interrupted(Interruption { started: Some(started), boot, survivors })
        }
        (Record::Absent, Lock::Free, Record::Damaged(_), _) => {
            AttemptState::Interrupted(Interruption { started: None, boot: BootMatch::Unknown, survivors })
        }
        (Record::Absent, Lock::Free, Record::Absent, Record::Readable(_)) => AttemptState::NotStarted,
        (Record::Absent, Lock::Free, Record::Absent, Record::Absent | Record::Damaged(_)) => AttemptState::NotPrepared,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use messages::Program;
    use uuid::Uuid;

    use super::super::records::{AttemptEnd, StreamEnd};
    use super::*;

    const HERE: BootId = BootId::new(Uuid::from_u128(1));
    const ELSEWHERE: BootId = BootId::new(Uuid::from_u128(2));

    fn record<T>(name: &str, value: T) -> Record<T> {
        match name {
            "absent" => Record::Absent,
            "damaged" => Record::Damaged(Damage::Checksum),
            _ => Record::Readable(value),
        }
    }

    fn observe(exit: &str, lock: &str, started: &str, plan: &str) -> Observation {
        let (stdout, stderr) = (StreamEnd::empty(), StreamEnd::empty());
        let end = AttemptEnd::Exited(3);
        let boot = if started == "other boot" { ELSEWHERE } else { HERE };
        Observation {
            plan: record(
                plan,
                Plan {
                    program: Program::Shell("true".into()),
                    env: BTreeMap::new(),
                    dir: "/".into(),
                    timeout_ms: None,
                    output_bytes_max: 1,
                    run_as: None,
                    memory_bytes_max: None,
                    group: None,
                    hands_on: false,
                },
            ),
            started: record(started, Started { boot, pid: 7, start_ticks: 8, at_ms: 9 }),
            exit: record(
                exit,
                Exit {
                    end,
                    cancelled: false,
                    started_at_ms: 1,
                    ended_at_ms: 2,
                    stdout,
                    stderr,
                    output_error: None,
                    left_processes: false,
                    usage: None,
                    out_of_memory: false,
                },
            ),
            lock: if lock == "held" { Lock::Held } else { Lock::Free },
            survivors: Survivors::NotSeen,
        }
    }

    fn name(state: &AttemptState) -> &'static str {
        match state {
            AttemptState::NotPrepared => "NotPrepared",
            AttemptState::NotStarted => "NotStarted",
            AttemptState::Running { .. } => "Running",
            AttemptState::Ended(_) => "Ended",
            AttemptState::Interrupted(_) => "Interrupted",
            AttemptState::Unreadable { .. } => "Unreadable",
        }
    }

    // The documented table is the expectation: exactly one of its rows speaks of each of the 72 cases.
    #[test]
    fn every_case_is_decided_as_the_one_row_of_the_table_that_speaks_of_it() {
        let rows: Vec<Vec<&str>> = include_str!("truth-table.md")
            .lines()
            .skip(2)
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let mut cases = 0;
        for exit in ["absent", "readable", "damaged"] {
            for lock in ["held", "free"] {
                for started in ["absent", "same boot", "other boot", "damaged"] {
                    for plan in ["absent", "readable", "damaged"] {
                        let case = [exit, lock, started, plan];
                        let speaks = |row: &&Vec<&str>| case.iter().zip(*row).all(|(c, r)| *r == "any" || r == c);
                        let said: Vec<_> = rows.iter().filter(speaks).collect();
                        assert_eq!(said.len(), 1, "{case:?}");
                        let state = decide(observe(exit, lock, started, plan), HERE);
                        println!("{exit:9}{lock:5}{started:11}{plan:9}-> {}", name(&state));
                        assert_eq!(name(&state), said[0][4], "{case:?}");
                        cases += 1;
                    }
                }
            }
        }
        assert_eq!((cases, rows.len()), (72, 10));
    }

    #[test]
    fn the_evidence_tells_a_killed_shim_from_a_restarted_machine() {
        let boot_of = |started: &str| match decide(observe("absent", "free", started, "readable"), HERE) {
            AttemptState::Interrupted(interruption) => (interruption.boot, interruption.started.is_some()),
            other => panic!("{other:?}"),
        };
        assert_eq!(boot_of("same boot"), (BootMatch::Same, true));
        assert_eq!(boot_of("other boot"), (BootMatch::Other, true));
        assert_eq!(boot_of("damaged"), (BootMatch::Unknown, false));
    }

    #[test]
    fn the_evidence_reads_as_a_sentence() {
        let started = None;
        let text = Interruption { started, boot: BootMatch::Other, survivors: Survivors::NotSeen }.to_string();
        assert_eq!(
            text,
            "the step began and the machine restarted before an end was recorded; no process of it was seen running"
        );
    }
}
