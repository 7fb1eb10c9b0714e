//! What came of a trial, and which of that is a failure.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// What came of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything acknowledged was there, as it was written, and the journal went on.
    Unharmed,
    /// The journal said what was wrong, and handed out nothing that was. Where the fault ended, everything was there afterwards.
    Detected,
    /// It refused, and still does now that the fault is over: what the engine did while the disk could not be read is not undone.
    /// Nothing is silent, but somebody has to put the journal aside.
    LeftDamaged,
    /// The fault cannot be made on this machine.
    Skipped,
    /// A panic came out of the journal, or took its process down.
    Panicked,
    /// The process said nothing any more.
    Hung,
    /// It opened, and something acknowledged was missing without a word.
    SilentLoss,
    /// It handed out something that was never written so.
    WrongData,
    /// It refused, and gave a reason that sends people the wrong way.
    Misnamed,
    /// The fault was over, nothing had been damaged, and it still refused.
    StillRefused,
}

impl Verdict {
    /// Every verdict, in the order of the table's columns.
    pub const ALL: [Self; 10] = [
        Self::Unharmed,
        Self::Detected,
        Self::LeftDamaged,
        Self::Skipped,
        Self::Panicked,
        Self::Hung,
        Self::SilentLoss,
        Self::WrongData,
        Self::Misnamed,
        Self::StillRefused,
    ];

    /// Whether the journal broke a promise.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Unharmed | Self::Detected | Self::LeftDamaged | Self::Skipped => false,
            Self::Panicked | Self::Hung | Self::SilentLoss | Self::WrongData | Self::Misnamed | Self::StillRefused => {
                true
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unharmed => "unharmed",
            Self::Detected => "detected",
            Self::LeftDamaged => "left-damaged",
            Self::Skipped => "skipped",
            Self::Panicked => "panicked",
            Self::Hung => "hung",
            Self::SilentLoss => "silent-loss",
            Self::WrongData => "wrong-data",
            Self::Misnamed => "misnamed",
            Self::StillRefused => "still-refused",
        })
    }
}

impl FromStr for Verdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|verdict| verdict.to_string() == text);
        found.ok_or_else(|| format!("{text} is no verdict"))
    }
}

/// A verdict, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// What was seen, in words, on one line.
    pub detail: String,
}

impl Judgement {
    pub(super) fn new(verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { verdict, detail: detail.into().replace('\n', " ") }
    }

    /// What this means for a fault that is over: what was refused while it lasted must be there now. `damaging` says whether the
    /// fault may have made the engine damage its own files, as a disk does that cannot be read.
    pub(super) fn after(self, refusals: &[String], damaging: bool) -> Self {
        match (self.verdict, refusals.first()) {
            (Verdict::Detected, _) => {
                let verdict = if damaging { Verdict::LeftDamaged } else { Verdict::StillRefused };
                Self::new(verdict, format!("after the fault: {}; while it lasted: {refusals:?}", self.detail))
            }
            (Verdict::Unharmed, Some(refusal)) => {
                Self::new(Verdict::Detected, format!("{refusal}; everything was there afterwards"))
            }
            _ => Self { detail: format!("{}; while the fault lasted: {refusals:?}", self.detail), ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_read_as_it_is_written_and_only_four_are_no_failure() {
        for verdict in Verdict::ALL {
            assert_eq!(verdict.to_string().parse(), Ok(verdict));
        }
        assert_eq!(Verdict::ALL.into_iter().filter(|verdict| !verdict.is_failure()).count(), 4);
    }

    #[test]
    fn who_still_refuses_after_the_fault_fails_and_who_lost_something_stays_failed() {
        let after = |verdict| Judgement::new(verdict, "").after(&["no space".to_owned()], false).verdict;
        assert_eq!(after(Verdict::Unharmed), Verdict::Detected);
        assert_eq!(after(Verdict::Detected), Verdict::StillRefused);
        assert_eq!(after(Verdict::SilentLoss), Verdict::SilentLoss);
        assert_eq!(Judgement::new(Verdict::Unharmed, "").after(&[], false).verdict, Verdict::Unharmed);
        assert_eq!(Judgement::new(Verdict::Detected, "").after(&[], true).verdict, Verdict::LeftDamaged);
    }
}
