//! Spans of time as people write them: `90s`, `2m`, `1h30m`. Whole numbers only, largest unit first.

/// Milliseconds. The shortest and the longest time limit of a step: less ends a step before it could do anything, more is a
/// slip of the keyboard rather than a limit.
const LIMITS_MS: std::ops::RangeInclusive<u64> = 100..=30 * 24 * 60 * 60 * 1000;

/// Unit names with their milliseconds, largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A regular expression for texts that [`parse`] reads, but for their size; without `^` and `$`.
pub(super) fn pattern() -> String {
    let units: String = UNITS.iter().map(|(unit, _)| format!("([0-9]+{unit})?")).collect();
    // At least one of them: all of them alone would take an empty text as well.
    format!("\\s*(?=[0-9]){units}\\s*")
}

/// Reads a span of time in milliseconds.
///
/// # Errors
/// What is wrong with it, in words that follow the value.
pub(super) fn parse(text: &str) -> Result<u64, &'static str> {
    const SHAPE: &str = "is not a span of time";
    let mut rest = text.trim();
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(SHAPE);
    }
    while !rest.is_empty() {
        let (digits, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (unit, left) = after.split_at(after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len()));
        // The iterator goes on where it was, so a unit cannot come twice or after a smaller one.
        let (Ok(count), Some((_, unit_ms))) = (digits.parse::<u64>(), units.find(|(name, _)| *name == unit)) else {
            return Err(SHAPE);
        };
        total = count.checked_mul(*unit_ms).and_then(|ms| total.checked_add(ms)).ok_or("is longer than 30 days")?;
        rest = left;
    }
    if total < *LIMITS_MS.start() {
        return Err("is shorter than 100 ms");
    }
    if total > *LIMITS_MS.end() {
        return Err("is longer than 30 days");
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_read_as_people_write_them() {
        for (text, ms) in
            [("90s", 90_000), ("2m", 120_000), ("1h30m", 5_400_000), ("500ms", 500), ("1d12h", 129_600_000)]
        {
            assert_eq!(parse(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_of_time_is_refused() {
        for text in ["", "5", "s", "1x", "-1s", "1.5h", "30m1h", "1s1s", "0s", "31d", "99999999999999999999s", "1h 30m"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("18446744073709551615d").is_err());
    }
}
