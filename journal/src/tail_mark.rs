//! The tail mark: how many batches have been synced, kept in a small file of its own and written over in place after each
//! sync, without a sync. So it costs microseconds, and still never runs ahead of what is on stable storage.
//!
//! It closes the gap that the high-water file leaves, which is written only every so often: after a process was killed the mark is
//! exact, and whatever is missing at the journal's end was damaged. After a loss of power it may be older than the
//! journal, or empty; then it claims less, and the high-water file is what is left.
//!
//! ```text
//! format 1 | CRC32C of the rest, little-endian | batches, little-endian
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::high_water::ReadError;

/// The file's name in the journal's directory.
pub(crate) const NAME: &str = "tail";
const FORMAT: u8 = 1;
/// Few enough that a disk writes them whole.
const BYTES: usize = 13;

/// The mark, open for writing.
#[derive(Debug)]
pub(crate) struct TailMark(File);

impl TailMark {
    /// Opens the mark, creating it if there is none. What it says is left as it is.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(dir.join(NAME)).map(Self)
    }

    /// Says that so many batches are on stable storage. The caller has synced them.
    pub(crate) fn write(&self, batches: u64) -> io::Result<()> {
        let content = batches.to_le_bytes();
        let mut bytes = [0; BYTES];
        bytes[0] = FORMAT;
        bytes[1..5].copy_from_slice(&crc32c::crc32c(&content).to_le_bytes());
        bytes[5..].copy_from_slice(&content);
        self.0.write_all_at(&bytes, 0)
    }

    /// How many batches are known to have been on stable storage; none when there is no mark, or one that a loss of power
    /// left empty.
    pub(crate) fn read(dir: &Path) -> Result<u64, ReadError> {
        let file = match File::open(dir.join(NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        file.take(BYTES as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() <= BYTES && bytes.iter().all(|byte| *byte == 0) {
            return Ok(0);
        }
        let (Some(&FORMAT), Some(sum), Some(content)) = (bytes.first(), bytes.get(1..5), bytes.get(5..)) else {
            return Err(ReadError::Damaged);
        };
        if crc32c::crc32c(content).to_le_bytes() != sum {
            return Err(ReadError::Damaged);
        }
        content.try_into().map(u64::from_le_bytes).map_err(|_| ReadError::Damaged)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_any_other_bytes_are_damage() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(TailMark::read(dir.path()).unwrap(), 0, "none");
        let mark = TailMark::open(dir.path()).unwrap();
        assert_eq!(TailMark::read(dir.path()).unwrap(), 0, "empty");
        for batches in [1, 7, u64::MAX] {
            mark.write(batches).unwrap();
            assert_eq!(TailMark::read(dir.path()).unwrap(), batches);
        }
        let good = std::fs::read(dir.path().join(NAME)).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(dir.path().join(NAME), bad).unwrap();
            assert!(matches!(TailMark::read(dir.path()), Err(ReadError::Damaged)), "bit {bit}");
        }
        for length in 1..good.len() {
            std::fs::write(dir.path().join(NAME), &good[..length]).unwrap();
            assert!(matches!(TailMark::read(dir.path()), Err(ReadError::Damaged)), "{length} bytes");
        }
        std::fs::write(dir.path().join(NAME), vec![0; BYTES]).unwrap();
        assert_eq!(TailMark::read(dir.path()).unwrap(), 0, "a loss of power may leave zeros");
    }
}
