//! Words that are written now and read much later, in a file without a name: what would take memory and is not looked at meanwhile. It
//! does not know what they mean.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _};

/// Bytes that are gathered before they are written, or read ahead.
const GATHERED: usize = 1 << 16;
const WORD_BYTES: usize = 4;

/// Words in the order in which they were written.
#[derive(Debug)]
pub(super) struct Spool {
    file: io::Result<BufWriter<File>>,
    words: u64,
}

impl Spool {
    pub(super) fn new() -> Self {
        Self { file: tempfile::tempfile().map(|file| BufWriter::with_capacity(GATHERED, file)), words: 0 }
    }

    /// Adds words. What cannot be written is said when somebody reads.
    pub(super) fn add(&mut self, words: &[u32]) {
        self.words += words.len() as u64;
        let Ok(file) = &mut self.file else { return };
        for word in words {
            if let Err(error) = file.write_all(&word.to_le_bytes()) {
                self.file = Err(error);
                return;
            }
        }
    }

    /// Why what was added last is not there, if it is not.
    pub(super) fn failed(&self) -> Option<&io::Error> {
        self.file.as_ref().err()
    }

    /// Shows everything that was written, some words at a time.
    ///
    /// # Errors
    /// The file cannot be written or read, such as on a full disk.
    pub(super) fn read<const N: usize>(&mut self, mut show: impl FnMut([u32; N])) -> io::Result<()> {
        let file = match &mut self.file {
            Ok(file) => file,
            Err(error) => return Err(io::Error::new(error.kind(), error.to_string())),
        };
        file.flush()?;
        let file = file.get_mut();
        file.rewind()?;
        let mut file = BufReader::with_capacity(GATHERED, file);
        let mut bytes = [[0; WORD_BYTES]; N];
        for _ in 0..self.words / N as u64 {
            file.read_exact(bytes.as_flattened_mut())?;
            show(bytes.map(u32::from_le_bytes));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_noticed_at_once_and_when_it_is_read() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut spool = Spool { file: Ok(BufWriter::with_capacity(8, full)), words: 0 };
        spool.add(&[1; 8]);
        assert!(spool.failed().is_some());
        assert!(spool.read(|[_]| ()).is_err());
    }

    #[test]
    fn what_was_written_is_read_in_order_and_more_than_once() {
        let mut spool = Spool::new();
        for number in 0..100_000 {
            spool.add(&[number, !number]);
        }
        for _ in 0..2 {
            let mut next = 0;
            spool
                .read(|pair: [u32; 2]| {
                    assert_eq!(pair, [next, !next]);
                    next += 1;
                })
                .unwrap();
            assert_eq!(next, 100_000);
        }
    }
}
