//! One output stream of a step, copied from a pipe to a file. It always reads on, whatever happens to the file: a step is never
//! blocked by what it writes.

use std::fs::File;
use std::io::{self, PipeReader, Read as _, Write as _};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use messages::Digest;
use sha2::{Digest as _, Sha256};

use super::spawn;
use super::supervise::Event;
use crate::attempt::StreamEnd;
use crate::attempt::layout::open_empty;
use crate::attempt::records::{STREAM_ERROR_BYTES_MAX, cut};

/// Bytes read at once: what a pipe holds.
const BUFFER_BYTES: usize = 64 * 1024;

/// One stream being copied.
pub(super) struct Capture {
    kept: Arc<Mutex<Kept>>,
    pipe: PipeReader,
}

/// What of the stream is in the file.
struct Kept {
    file: File,
    hasher: Sha256,
    bytes: u64,
    bytes_max: u64,
    cut_bytes: u64,
    error: Option<String>,
    /// The stream's end was read.
    ended: bool,
    /// The count is final; what comes later is read and forgotten.
    closed: bool,
}

impl Capture {
    /// Starts copying from the pipe into that file of the folder.
    pub(super) fn start(
        dir: &Path,
        name: &str,
        bytes_max: u64,
        events: Sender<Event>,
        pipe: PipeReader,
    ) -> io::Result<Self> {
        let file = open_empty(dir, name)?;
        let kept = Kept {
            file,
            hasher: Sha256::new(),
            bytes: 0,
            bytes_max,
            cut_bytes: 0,
            error: None,
            ended: false,
            closed: false,
        };
        let kept = Arc::new(Mutex::new(kept));
        let (reader, shared) = (pipe.try_clone()?, Arc::clone(&kept));
        spawn(name, move || {
            copy(reader, &shared);
            let _ = events.send(Event::StreamEnded);
        })?;
        Ok(Self { kept, pipe })
    }

    /// Whether bytes of the step wait in the pipe: the disk is slower than the step was.
    pub(super) fn bytes_wait(&self) -> bool {
        rustix::io::ioctl_fionread(&self.pipe).is_ok_and(|bytes| bytes > 0)
    }

    /// Stops counting, makes the file durable and says what is in it.
    pub(super) fn finish(&self) -> StreamEnd {
        let mut kept = lock(&self.kept);
        kept.closed = true;
        // An empty one is as it was made, and its name was made durable before the step began.
        if kept.bytes > 0
            && let Err(error) = kept.file.sync_all()
        {
            kept.fail(&error);
        }
        StreamEnd {
            bytes: kept.bytes,
            sha256: Digest::from_bytes(kept.hasher.clone().finalize().into()),
            cut_bytes: kept.cut_bytes,
            left_open: !kept.ended,
            error: kept.error.clone(),
        }
    }
}

impl Kept {
    fn take(&mut self, bytes: &[u8]) {
        if self.closed {
            return;
        }
        let room = usize::try_from(self.bytes_max.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        let wanted = if self.error.is_none() { bytes.len().min(room) } else { 0 };
        let mut written = 0;
        while written < wanted {
            match self.file.write(&bytes[written..wanted]) {
                Ok(0) => self.fail(&io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.fail(&error),
            }
            if self.error.is_some() {
                break;
            }
        }
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        self.cut_bytes = self.cut_bytes.saturating_add((bytes.len() - written) as u64);
    }

    // The first reason is the one that explains the rest.
    fn fail(&mut self, error: &io::Error) {
        self.error.get_or_insert_with(|| cut(&error.to_string(), STREAM_ERROR_BYTES_MAX));
    }
}

fn copy(mut pipe: PipeReader, kept: &Mutex<Kept>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => {
                lock(kept).ended = true;
                return;
            }
            Ok(count) => lock(kept).take(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                lock(kept).fail(&error);
                return;
            }
        }
    }
}

// Nothing in here leaves the counts half changed, so a panic elsewhere does not spoil them.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_is_beyond_the_limit_is_counted_and_the_writer_is_never_blocked() {
        let dir = tempfile::tempdir().unwrap();
        let (events, ended) = mpsc::channel();
        let (pipe, mut writer) = io::pipe().unwrap();
        let capture = Capture::start(dir.path(), "stdout", 10, events, pipe).unwrap();
        writer.write_all(&[b'x'; 300_000]).unwrap();
        drop(writer);
        assert!(matches!(ended.recv().unwrap(), Event::StreamEnded));
        let end = capture.finish();
        assert_eq!((end.bytes, end.cut_bytes, end.left_open, end.error), (10, 299_990, false, None));
        assert_eq!(end.sha256, Digest::of(&[b'x'; 10]));
        assert_eq!(std::fs::read(dir.path().join("stdout")).unwrap(), [b'x'; 10]);
    }

    #[test]
    fn a_file_that_cannot_be_written_does_not_block_the_writer_and_is_reported() {
        if !Path::new("/dev/full").exists() {
            eprintln!("skipped: there is no /dev/full");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.path().join("stdout")).unwrap();
        let (events, ended) = mpsc::channel();
        let (pipe, mut writer) = io::pipe().unwrap();
        let capture = Capture::start(dir.path(), "stdout", u64::MAX, events, pipe).unwrap();
        writer.write_all(&[b'x'; 300_000]).unwrap();
        drop(writer);
        ended.recv().unwrap();
        let end = capture.finish();
        assert_eq!((end.bytes, end.cut_bytes), (0, 300_000));
        assert!(end.error.unwrap().contains("No space left"));
    }

    #[test]
    fn a_stream_that_somebody_holds_open_is_finished_without_waiting_for_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, _writer) = io::pipe().unwrap();
        let capture = Capture::start(dir.path(), "stdout", 10, mpsc::channel().0, pipe).unwrap();
        assert!(capture.finish().left_open);
    }
}
