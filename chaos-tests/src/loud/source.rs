//! What a step is to write: bytes that are another in each file and at each place, so that a piece of one log in another, or at a
//! wrong place, is seen.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use messages::{Digest, Hasher};

/// Bytes of one line, its end included.
const LINE_BYTES: u64 = 64;

/// Writes a file of that many bytes, and says its digest.
pub(super) fn write(path: &Path, seed: u64, bytes: u64) -> io::Result<Digest> {
    let mut file = BufWriter::new(File::create(path)?);
    let (mut hasher, mut state, mut left) = (Hasher::default(), seed.wrapping_mul(2).wrapping_add(1), bytes);
    for number in 0..bytes.div_ceil(LINE_BYTES) {
        // Marsaglia's xorshift: it need not be good, only different.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let line =
            format!("{seed:04} {number:012} {state:016x} {:028x}\n", (u128::from(state) * 0x9e37_79b9_7f4a_7c15) >> 16);
        let line = &line.as_bytes()[..usize::try_from(left.min(LINE_BYTES)).unwrap_or(0)];
        file.write_all(line)?;
        hasher.update(line);
        left -= line.len() as u64;
    }
    file.into_inner()?.sync_all()?;
    Ok(hasher.finish())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_size_and_the_digest_that_are_said_and_is_another_for_each_seed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one");
        let digest = write(&path, 1, 1_000).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((bytes.len(), Digest::of(&bytes)), (1_000, digest));
        assert_ne!(write(&path, 2, 1_000).unwrap(), digest);
    }
}
