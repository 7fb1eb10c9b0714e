//! What one run of one side comes to, and how figures are written. Judges nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Measure, Spent};

/// What one run of one side came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// How many of the benchmark's unit were done.
    pub count: u64,
    /// Time, CPU time and the load of others while they were done.
    pub spent: Spent,
    /// The most memory that any process of this side ever had, in KiB; none where that was not looked at.
    pub peak_kib: Option<u64>,
    /// How long single ones took, where that is what is measured.
    pub latency: Option<Latency>,
    /// Whatever else this benchmark counts, by name. Names are for people, units last.
    pub other: BTreeMap<String, f64>,
}

impl Figures {
    /// So many in that time.
    #[must_use]
    pub fn of(count: u64, spent: Spent) -> Self {
        Self { count, spent, ..Self::default() }
    }

    /// With one more figure.
    #[must_use]
    pub fn with(mut self, name: &str, figure: f64) -> Self {
        self.other.insert(name.to_owned(), figure);
        self
    }

    /// CPU time of clients and broker for one, in microseconds.
    #[must_use]
    pub fn cpu_us_each(&self) -> Option<(f64, f64)> {
        let each = |seconds: f64| (self.count > 0).then(|| seconds * 1e6 / self.count as f64);
        Some((each(self.spent.client_cpu_s)?, each(self.spent.broker_cpu_s)?))
    }
}

/// How long single ones took, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them took no longer.
    pub p50_us: f64,
    /// 99 of 100 took no longer.
    pub p99_us: f64,
    /// The slowest.
    pub most_us: f64,
}

impl Latency {
    /// Of these times; nothing if there are none.
    #[must_use]
    pub fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let us = |time: &Duration| time.as_secs_f64() * 1e6;
        let at = |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1)));
        Some(Self { p50_us: us(at(0.5)?), p99_us: us(at(0.99)?), most_us: us(times.last()?) })
    }
}

/// How many are done in a second.
pub const PER_SECOND: Measure = Measure {
    name: "a second",
    of: |figures| (figures.spent.seconds > 0.0).then(|| figures.count as f64 / figures.spent.seconds),
};

/// CPU time of clients and broker together for one, in microseconds. Others on the machine hardly bear on it.
pub const CPU_US: Measure = Measure {
    name: "CPU in all, us each",
    of: |figures| figures.cpu_us_each().map(|(clients, broker)| clients + broker),
};

/// The median time of one, in microseconds.
pub const P50_US: Measure = Measure { name: "p50, us", of: |figures| figures.latency.map(|latency| latency.p50_us) };

/// The time in which 99 of 100 are done, in microseconds.
pub const P99_US: Measure = Measure { name: "p99, us", of: |figures| figures.latency.map(|latency| latency.p99_us) };

/// A figure as short as it stays clear: three digits that count, at least.
#[must_use]
pub(super) fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 10_000.0 => grouped(figure.round()),
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

/// A whole number with its thousands apart.
fn grouped(figure: f64) -> String {
    let digits = format!("{:.0}", figure.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if figure < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_keep_what_counts() {
        for (figure, text) in
            [(0.8149, "0.81"), (12.34, "12.3"), (123.4, "123"), (9_999.0, "9999"), (1_234_567.0, "1,234,567")]
        {
            assert_eq!(short(figure), text);
        }
    }

    #[test]
    fn the_median_and_the_tail_of_times_are_those_of_the_sorted_ones() {
        let times = (1..=200).rev().map(Duration::from_micros).collect();
        let latency = Latency::of(times).unwrap();
        assert!((latency.p50_us - 101.0).abs() < 0.01 && (latency.p99_us - 199.0).abs() < 0.01, "{latency:?}");
        assert_eq!(Latency::of(Vec::new()), None);
    }
}
