//! Time that limits of work are counted in: how long this machine has been up. It does not jump when somebody sets the clock. It
//! decides nothing about messages.

use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time. Of another boot only that it is one: what is counted from there begins anew, since nobody knows how long the
/// machine was off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Since {
    boot: String,
    at_ms: u64,
}

impl Since {
    /// Now.
    #[must_use]
    pub(crate) fn now() -> Self {
        Self { boot: boot().to_owned(), at_ms: up_ms() }
    }

    /// Milliseconds since then, of this boot.
    #[must_use]
    pub(crate) fn elapsed_ms(&self) -> u64 {
        if self.boot == boot() { up_ms().saturating_sub(self.at_ms) } else { 0 }
    }

    /// Whether it is of another boot, so that the counting must begin anew.
    #[must_use]
    pub(crate) fn is_of_another_boot(&self) -> bool {
        self.boot != boot()
    }
}

/// The kernel's name for this boot; empty where it has none, which makes all boots one.
fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        read.map(|id| id.trim().to_owned()).unwrap_or_default()
    })
}

fn up_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let up = Duration::try_from(time).unwrap_or_default();
    u64::try_from(up.as_millis()).unwrap_or(u64::MAX)
}

/// A span of time in words, exact.
#[must_use]
pub(crate) fn duration_words(ms: u64) -> String {
    let mut rest = ms;
    let mut text = String::new();
    for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= unit_ms {
            text.push_str(&format!("{}{unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_said_exactly() {
        for (ms, words) in [(0, "0s"), (1_500, "1s500ms"), (5_400_000, "1h30m"), (604_800_000, "7d")] {
            assert_eq!(duration_words(ms), words);
        }
    }

    #[test]
    fn what_began_before_the_machine_was_started_begins_anew() {
        let now = Since::now();
        assert!(!now.is_of_another_boot());
        let other = Since { boot: "another".into(), at_ms: 0 };
        assert!(other.is_of_another_boot());
        assert_eq!(other.elapsed_ms(), 0);
        assert!(Since { at_ms: now.at_ms.saturating_sub(5_000), ..now }.elapsed_ms() >= 5_000);
    }
}
