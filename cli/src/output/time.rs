//! Times for people. The one place of the command line that reads the clock, and it only shows what it reads.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::args::TimeStyle;

/// Shows times as the command line wants them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    style: TimeStyle,
    now_ms: u64,
}

/// Milliseconds since 1970, now.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

impl Clock {
    /// A clock that shows times in that style, ages from now on.
    pub(crate) fn new(style: TimeStyle) -> Self {
        Self { style, now_ms: now_ms() }
    }

    /// A time.
    pub(crate) fn show(&self, ms: u64) -> String {
        if self.style.is_relative() {
            return took(self.now_ms.saturating_sub(ms));
        }
        self.absolute(ms)
    }

    /// Whether times are shown as an age.
    pub(crate) const fn is_relative(&self) -> bool {
        self.style.is_relative()
    }

    /// A time that is never shown as an age.
    pub(crate) fn absolute(&self, ms: u64) -> String {
        let Some(time) = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()) else {
            return "?".into();
        };
        match self.style {
            TimeStyle::Utc => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            TimeStyle::Local | TimeStyle::Relative => {
                time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
            }
        }
    }

    /// The heading of a column of ages or times.
    pub(crate) const fn heading(&self, age: &'static str, time: &'static str) -> &'static str {
        match self.style {
            TimeStyle::Relative => age,
            TimeStyle::Utc | TimeStyle::Local => time,
        }
    }
}

/// A span of time with two significant units at most: `340ms`, `9.8s`, `1m07s`, `3h05m`, `2d04h`.
pub(crate) fn took(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{}m{:02}s", ms / 60_000, ms % 60_000 / 1_000),
        3_600_000..86_400_000 => format!("{}h{:02}m", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{}d{:02}h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_have_at_most_two_units() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (9_870, "9.8s"),
            (67_000, "1m07s"),
            (11_100_000, "3h05m"),
            (187_200_000, "2d04h"),
            (u64::MAX, "213503982334d14h"),
        ] {
            assert_eq!(took(ms), text);
        }
    }

    #[test]
    fn any_number_of_milliseconds_can_be_shown() {
        for style in [TimeStyle::Utc, TimeStyle::Local, TimeStyle::Relative] {
            let clock = Clock { style, now_ms: 1_000 };
            for ms in [0, 1, u64::MAX / 2, u64::MAX] {
                assert!(!clock.show(ms).is_empty());
            }
        }
        assert_eq!(Clock { style: TimeStyle::Utc, now_ms: 0 }.show(1_700_000_000_000), "2023-11-14 22:13:20Z");
    }
}
