//! From which world each visited one was first reached, in the order of visits, in a file without a name: it is read only where
//! something is wrong, and would take a quarter of the memory. It knows nothing of worlds but their places.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _};

use super::visited::At;

/// Bytes of one note: two places.
const NOTE_BYTES: usize = 8;
/// Bytes that are gathered.
const GATHERED: usize = 1 << 16;

/// The ways to all worlds.
#[derive(Debug)]
pub(super) struct Ways {
    file: io::Result<BufWriter<File>>,
}

impl Ways {
    pub(super) fn new() -> Self {
        Self { file: tempfile::tempfile().map(|file| BufWriter::with_capacity(GATHERED, file)) }
    }

    /// Notes that a world was first reached from that one. What cannot be noted is said when somebody asks.
    pub(super) fn note(&mut self, at: At, from: At) {
        let Ok(file) = &mut self.file else { return };
        let note = u64::from(at.0) << 32 | u64::from(from.0);
        if let Err(error) = file.write_all(&note.to_le_bytes()) {
            self.file = Err(error);
        }
    }

    /// For each place, from which one it was first reached.
    ///
    /// # Errors
    /// The file cannot be written or read, such as on a full disk.
    pub(super) fn read(&mut self, places: usize) -> io::Result<Vec<At>> {
        let mut from = vec![At::NOWHERE; places];
        let file = match &mut self.file {
            Ok(file) => file,
            Err(error) => return Err(io::Error::new(error.kind(), error.to_string())),
        };
        file.flush()?;
        let file = file.get_mut();
        file.rewind()?;
        let mut file = BufReader::with_capacity(GATHERED, file);
        let mut note = [0; NOTE_BYTES];
        loop {
            match file.read_exact(&mut note) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(from),
                Err(error) => return Err(error),
            }
            let note = u64::from_le_bytes(note);
            from[(note >> 32) as usize] = At(note as u32);
        }
    }
}
