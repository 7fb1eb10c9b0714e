//! "Did you mean": the known word that is nearest to a mistyped one. Never suggests a word that is more guess than likeness.

/// Characters of a word that is looked at. The comparison costs the product of both lengths, and no key is longer.
const WORD_CHARS_MAX: usize = 64;

/// The known word nearest to `word`: at most one edit away for short words, two from five characters, three from nine. An edit
/// puts in, leaves out, replaces one character or swaps two neighbours.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters: Vec<char> = word.chars().take(WORD_CHARS_MAX + 1).map(|c| c.to_ascii_lowercase()).collect();
    if letters.len() > WORD_CHARS_MAX {
        return None;
    }
    let allowed = match letters.len() {
        0..=4 => 1,
        5..=8 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .map(|candidate| (edits(&letters, &candidate.chars().take(WORD_CHARS_MAX).collect::<Vec<_>>()), candidate))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// How many edits make one word into the other (optimal string alignment).
fn edits(from: &[char], to: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in to.iter().enumerate() {
            let mut best = (last[column] + usize::from(a != b)).min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *a == to[column - 1] && from[row - 1] == *b {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 6] = ["id", "run", "exec", "effect", "timeout", "target"];

    #[test]
    fn a_slip_of_the_fingers_finds_the_word_that_was_meant() {
        for (typed, meant) in
            [("rnu", "run"), ("efect", "effect"), ("timeuot", "timeout"), ("Target", "target"), ("targets", "target")]
        {
            assert_eq!(nearest(typed, KNOWN), Some(meant), "{typed}");
        }
    }

    #[test]
    fn a_word_of_another_kind_finds_nothing() {
        for typed in ["", "concurrency", "x", "artifacts", &"run".repeat(1000)] {
            assert_eq!(nearest(typed, KNOWN), None, "{typed}");
        }
    }
}
