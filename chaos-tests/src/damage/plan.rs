//! What one trial does, as a pure function of the run's seed and the trial's number: which fault, after how many steps, and how
//! the journal ended before it. It touches no file.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::random::Random;

/// What is done to a journal's files or to the system calls under them. One for each trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// One bit of one file is another.
    FlippedBit,
    /// One file ends early.
    CutTail,
    /// 4 KiB of one file are zeros.
    ZeroedPage,
    /// Two pages of one file have changed places, or one is there twice.
    MisplacedPage,
    /// One file is gone.
    MissingFile,
    /// Where one file was there is a folder, so that reading it fails.
    UnreadableFile,
    /// The file system is mounted read-only.
    ReadOnlyMount,
    /// The disk is full while rows are added.
    FullOnAppend,
    /// The disk is full when a batch is synced.
    FullOnSync,
    /// The disk is full when settled messages are dropped.
    FullOnTruncation,
    /// The disk is full when the high-water file is written.
    FullOnMark,
    /// The store answers one call with an I/O error.
    EioOnce,
    /// From one call on the store answers nothing but I/O errors.
    EioForEver,
    /// The kernel answers one system call of each thread with an I/O error.
    KernelEioOnce,
    /// From one system call of each thread on the kernel answers nothing but I/O errors.
    KernelEioForEver,
}

impl Fault {
    /// Every fault, in the order of the table.
    pub const ALL: [Self; 15] = [
        Self::FlippedBit,
        Self::CutTail,
        Self::ZeroedPage,
        Self::MisplacedPage,
        Self::MissingFile,
        Self::UnreadableFile,
        Self::ReadOnlyMount,
        Self::FullOnAppend,
        Self::FullOnSync,
        Self::FullOnTruncation,
        Self::FullOnMark,
        Self::EioOnce,
        Self::EioForEver,
        Self::KernelEioOnce,
        Self::KernelEioForEver,
    ];

    /// Where the fault is put.
    pub(super) const fn place(self) -> Place {
        match self {
            Self::FlippedBit
            | Self::CutTail
            | Self::ZeroedPage
            | Self::MisplacedPage
            | Self::MissingFile
            | Self::UnreadableFile => Place::AtRest,
            Self::ReadOnlyMount | Self::FullOnAppend | Self::FullOnTruncation | Self::FullOnMark => Place::Mount,
            // A file system in memory reserves its space when it is written, so that a sync never finds it full.
            Self::FullOnSync | Self::EioOnce | Self::EioForEver => Place::Seam,
            Self::KernelEioOnce | Self::KernelEioForEver => Place::Kernel,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FlippedBit => "one flipped bit",
            Self::CutTail => "a cut tail",
            Self::ZeroedPage => "a zeroed page",
            Self::MisplacedPage => "a misplaced page",
            Self::MissingFile => "a missing file",
            Self::UnreadableFile => "an unreadable file",
            Self::ReadOnlyMount => "a read-only mount",
            Self::FullOnAppend => "disk full: append",
            Self::FullOnSync => "disk full: sync",
            Self::FullOnTruncation => "disk full: dropping rows",
            Self::FullOnMark => "disk full: high-water file",
            Self::EioOnce => "EIO of the store, once",
            Self::EioForEver => "EIO of the store, for ever",
            Self::KernelEioOnce => "EIO of the kernel, once",
            Self::KernelEioForEver => "EIO of the kernel, for ever",
        })
    }
}

/// Where a fault is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Into the files, while nobody has them open.
    AtRest,
    /// Into a file system of the trial's own.
    Mount,
    /// Between the journal and its store.
    Seam,
    /// Between the process and the kernel.
    Kernel,
}

/// How the journal ended before the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// It was closed.
    Closed,
    /// Its process was killed, with one more commit on its way.
    Killed,
}

/// One trial.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Trial {
    /// Its number within the run.
    pub number: u64,
    /// Its own seed, for its history and its fault.
    pub seed: u64,
    /// What is done.
    pub fault: Fault,
    /// Steps of the history that are committed and acknowledged before the fault.
    pub steps: u64,
    /// How the journal ended before the fault, if it ended before.
    pub ending: Ending,
}

/// Steps of a history at least: enough to fill a page.
const STEPS_MIN: u64 = 20;
/// Steps of a history at most. Enough for every table, for several hundred kilobytes, and for dropped rows.
const STEPS_MAX: u64 = 220;

impl Trial {
    /// The trial of that number.
    #[must_use]
    pub fn of(seed: u64, number: u64) -> Self {
        let mut random = Random::new(seed, number.wrapping_add(1_000));
        // Each fault as often as any other, beginning anywhere.
        let count = Fault::ALL.len() as u64;
        let place = usize::try_from((seed % count + number % count) % count).expect("there are few faults");
        Self {
            number,
            seed: random.next(),
            fault: Fault::ALL[place],
            steps: STEPS_MIN + random.below(STEPS_MAX - STEPS_MIN),
            ending: if random.below(2) == 0 { Ending::Closed } else { Ending::Killed },
        }
    }

    /// The trial's numbers for its fault.
    pub(super) fn random(&self) -> Random {
        Random::new(self.seed, 2)
    }
}

/// The part of a trial that one process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Writes the journal, and ends as the trial says.
    Build,
    /// Opens the journal that that many steps were acknowledged of, and judges it.
    Judge {
        /// Steps.
        acknowledged: u64,
    },
    /// The whole trial on a file system of its own.
    Mounted,
    /// The whole trial with a store that fails.
    Seam,
    /// Commits until the kernel fails it, and says how far it came.
    UntilRefused,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build => f.write_str("build"),
            Self::Judge { acknowledged } => write!(f, "judge:{acknowledged}"),
            Self::Mounted => f.write_str("mounted"),
            Self::Seam => f.write_str("seam"),
            Self::UntilRefused => f.write_str("until-refused"),
        }
    }
}

impl FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = text.split_once(':').unwrap_or((text, ""));
        match (name, number.parse()) {
            ("build", _) => Ok(Self::Build),
            ("judge", Ok(acknowledged)) => Ok(Self::Judge { acknowledged }),
            ("mounted", _) => Ok(Self::Mounted),
            ("seam", _) => Ok(Self::Seam),
            ("until-refused", _) => Ok(Self::UntilRefused),
            _ => Err(format!("{text} is no phase of a trial")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_the_same_for_the_same_seed_and_every_fault_has_its_turn() {
        let trials = |seed: u64| (0..15).map(|number| Trial::of(seed, number)).collect::<Vec<_>>();
        assert_eq!(format!("{:?}", trials(4)), format!("{:?}", trials(4)));
        assert_ne!(format!("{:?}", trials(4)), format!("{:?}", trials(5)));
        for seed in [0, 9, u64::MAX] {
            let mut faults: Vec<_> = trials(seed).into_iter().map(|trial| trial.fault).collect();
            faults.sort();
            assert_eq!(faults, Fault::ALL);
        }
    }

    #[test]
    fn a_phase_is_read_as_it_is_written() {
        for phase in [Phase::Build, Phase::Judge { acknowledged: 7 }, Phase::Mounted, Phase::Seam, Phase::UntilRefused]
        {
            assert_eq!(phase.to_string().parse(), Ok(phase));
        }
        assert!("judge".parse::<Phase>().is_err() && "x".parse::<Phase>().is_err());
    }
}
