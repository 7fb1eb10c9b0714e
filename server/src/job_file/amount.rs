//! Amounts as people write them: `256M`, `10MB`, `50%`, `2s..30s`. Whole numbers only, and every unit is said.

use super::duration;

/// Unit names with their bytes. One letter is a power of 1024, as in systemd; `MB` is a power of 1000, as on a disk.
const UNITS: [(&str, u64); 11] = [
    ("B", 1),
    ("K", 1 << 10),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("M", 1 << 20),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("G", 1 << 30),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("T", 1 << 40),
];

/// A regular expression for texts that [`bytes`] reads, but for their size.
pub(super) fn bytes_pattern() -> String {
    let units: Vec<&str> = UNITS.iter().map(|(name, _)| *name).collect();
    format!("^[0-9]+({})$", units.join("|"))
}

/// Reads an amount of bytes.
///
/// # Errors
/// What is wrong with it, in words that follow the value.
pub(super) fn bytes(text: &str) -> Result<u64, &'static str> {
    const SHAPE: &str = "is not an amount of bytes";
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = digits.parse().map_err(|_| SHAPE)?;
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(SHAPE)?;
    number.checked_mul(*factor).ok_or("is more than any machine has")
}

/// Reads a part of a hundred, or more than that.
///
/// # Errors
/// What is wrong with it, in words that follow the value.
pub(super) fn percent(text: &str) -> Result<u32, &'static str> {
    let digits = text.strip_suffix('%').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or("is not a part of a hundred")
}

/// Reads one span of time, or the first and the longest of some: milliseconds.
///
/// # Errors
/// What is wrong with it, in words that follow the value.
pub(super) fn spans(text: &str) -> Result<(u64, u64), &'static str> {
    let Some((first, longest)) = text.split_once("..") else {
        let span = duration::parse(text)?;
        return Ok((span, span));
    };
    let (first, longest) = (duration::parse(first)?, duration::parse(longest)?);
    if first > longest {
        return Err("begins with more than its longest");
    }
    Ok((first, longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (text, amount) in [("256M", 268_435_456), ("10MB", 10_000_000), ("1KiB", 1024), ("7B", 7), ("2T", 2 << 40)]
        {
            assert_eq!(bytes(text), Ok(amount), "{text}");
        }
        assert_eq!((percent("50%"), percent("400%")), (Ok(50), Ok(400)));
        assert_eq!(spans("2s..30s"), Ok((2_000, 30_000)));
        assert_eq!(spans("5s"), Ok((5_000, 5_000)));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "M", "256", "256m", "1.5G", "-1M", "1 M", "99999999999999999999B", "16777216T", "+1M"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        for text in ["", "%", "50", "-1%", "1.5%", "+5%", "99999999999%"] {
            assert!(percent(text).is_err(), "{text}");
        }
        for text in ["", "..", "2s..", "..2s", "30s..2s", "1s..2s..3s"] {
            assert!(spans(text).is_err(), "{text}");
        }
    }
}
