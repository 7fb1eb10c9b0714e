//! One output stream of a step, copied from a pipe to a file. It always reads on, whatever happens to the file: a step is never
//! blocked by what it writes. The first byte makes the file and starts a thread, so that a slow disk holds up neither the other stream
//! nor whoever looks after the step; a stream that says nothing has neither.

use std::fs::File;
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use messages::Digest;
use rustix::event::PollFlags;
use rustix::io::ioctl_fionbio;
use sha2::{Digest as _, Sha256};

use super::spawn;
use crate::attempt::StreamEnd;
use crate::attempt::layout::make_new;
use crate::attempt::records::{STREAM_ERROR_BYTES_MAX, cut};

/// Bytes read at once: what a pipe holds.
const BUFFER_BYTES: usize = 64 * 1024;

/// One stream being copied.
pub(super) struct Capture {
    kept: Arc<Mutex<Kept>>,
    pipe: PipeReader,
    copied: Copied,
}

/// By whom it is copied.
enum Copied {
    /// By nobody: nothing has come yet.
    NotYet,
    /// By a thread. The pipe comes to its end when the thread does.
    Apart(PipeReader, JoinHandle<()>),
    /// By whoever looks after the step, because no thread could be made.
    Here,
    /// It came to its end.
    Over,
}

/// What of the stream is in the file.
struct Kept {
    /// Whose it is.
    stem: PathBuf,
    name: &'static str,
    /// Nothing before the first byte that is kept.
    file: Option<File>,
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
    /// Prepares copying from the pipe into that file of the attempt.
    pub(super) fn new(stem: &Path, name: &'static str, bytes_max: u64, pipe: PipeReader) -> Self {
        let kept = Kept {
            stem: stem.to_owned(),
            name,
            file: None,
            hasher: Sha256::new(),
            bytes: 0,
            bytes_max,
            cut_bytes: 0,
            error: None,
            ended: false,
            closed: false,
        };
        Self { kept: Arc::new(Mutex::new(kept)), pipe, copied: Copied::NotYet }
    }

    /// What is to be waited for before the next [`Self::advance`]; nothing when it came to its end.
    pub(super) fn wakes(&self) -> Option<BorrowedFd<'_>> {
        match &self.copied {
            Copied::NotYet | Copied::Here => Some(self.pipe.as_fd()),
            Copied::Apart(over, _) => Some(over.as_fd()),
            Copied::Over => None,
        }
    }

    /// Does what is to be done once that has something: what it has. Whether the stream came to its end by it. It never waits for
    /// bytes, also when another process reads those that were there.
    pub(super) fn advance(&mut self, has: PollFlags) -> bool {
        match &mut self.copied {
            Copied::NotYet if has.contains(PollFlags::IN) => {
                self.copied = self.copy_apart().unwrap_or(Copied::Here);
                if matches!(self.copied, Copied::Here) {
                    // Nobody shares this end any more. Without it a read could wait, which is better than to read no more.
                    let _ = ioctl_fionbio(&self.pipe, true);
                }
                return false;
            }
            // Nobody can write any more, and nothing is left.
            Copied::NotYet => lock(&self.kept).ended = true,
            Copied::Here => {
                if read_once(&mut self.pipe, &mut vec![0; BUFFER_BYTES], &self.kept) {
                    return false;
                }
            }
            Copied::Apart(..) => {}
            Copied::Over => return false,
        }
        if let Copied::Apart(_, thread) = std::mem::replace(&mut self.copied, Copied::Over) {
            // It has said its last word, and is to be gone before the shim has another step. How it ended is in the counts.
            let _ = thread.join();
        }
        true
    }

    fn copy_apart(&self) -> io::Result<Copied> {
        let (over, running) = io::pipe()?;
        let (mut pipe, kept) = (self.pipe.try_clone()?, Arc::clone(&self.kept));
        let name = lock(&self.kept).name;
        let thread = spawn(name, move || {
            let mut buffer = vec![0; BUFFER_BYTES];
            while read_once(&mut pipe, &mut buffer, &kept) {}
            drop(running);
        })?;
        Ok(Copied::Apart(over, thread))
    }

    /// Whether bytes of the step wait in the pipe: the disk is slower than the step was.
    pub(super) fn bytes_wait(&self) -> bool {
        rustix::io::ioctl_fionread(&self.pipe).is_ok_and(|bytes| bytes > 0)
    }

    /// Stops counting. Whether it has a file; none is made afterwards.
    fn close(&self) -> bool {
        let mut kept = lock(&self.kept);
        kept.closed = true;
        kept.file.is_some()
    }

    /// Makes the file of one that was closed durable and says what is in it. Its name may be lost, if that is said.
    pub(super) fn finish(&self, unnamed: Option<&io::Error>) -> StreamEnd {
        let mut kept = lock(&self.kept);
        kept.closed = true;
        let synced = kept.file.as_ref().map_or(Ok(()), File::sync_all);
        if let (Some(_), Some(error)) = (&kept.file, unnamed) {
            kept.fail(error);
        }
        if let Err(error) = synced {
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

/// Stops counting what comes on any of them, before the first is finished. Whether one has a file, whose name is to be made durable then.
pub(super) fn close(streams: [&Capture; 2]) -> bool {
    // Every one: what is still open must not make a file once names were made durable.
    streams.map(Capture::close).contains(&true)
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
            match self.write(&bytes[written..wanted]) {
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

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            // A step could have put anything in its place.
            None => self.file.insert(make_new(&self.stem, self.name)?),
        };
        file.write(bytes)
    }

    // The first reason is the one that explains the rest.
    fn fail(&mut self, error: &io::Error) {
        self.error.get_or_insert_with(|| cut(&error.to_string(), STREAM_ERROR_BYTES_MAX));
    }
}

// False when nothing more will come.
fn read_once(pipe: &mut PipeReader, buffer: &mut [u8], kept: &Mutex<Kept>) -> bool {
    match pipe.read(buffer) {
        Ok(0) => {
            let mut kept = lock(kept);
            // Between the last byte that was counted and this one others may have come.
            kept.ended |= !kept.closed;
            return false;
        }
        Ok(count) => lock(kept).take(&buffer[..count]),
        Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
        Err(error) => {
            lock(kept).fail(&error);
            return false;
        }
    }
    true
}

// Nothing in here leaves the counts half changed, so a panic elsewhere does not spoil them.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustix::event::{PollFd, poll};

    use super::*;

    /// Copies until the stream is over.
    fn finish(mut capture: Capture) -> StreamEnd {
        loop {
            let wakes = capture.wakes().unwrap();
            let mut asked = [PollFd::from_borrowed_fd(wakes, PollFlags::IN)];
            poll(&mut asked, None).unwrap();
            let has = asked[0].revents();
            if capture.advance(has) {
                assert!(capture.wakes().is_none());
                return capture.finish(None);
            }
        }
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted_and_the_writer_is_never_blocked() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, mut writer) = io::pipe().unwrap();
        let capture = Capture::new(&dir.path().join("one.1"), "stdout", 10, pipe);
        let writing = std::thread::spawn(move || writer.write_all(&[b'x'; 300_000]).unwrap());
        let end = finish(capture);
        writing.join().unwrap();
        assert_eq!((end.bytes, end.cut_bytes, end.left_open, end.error), (10, 299_990, false, None));
        assert_eq!(end.sha256, Digest::of(&[b'x'; 10]));
        assert_eq!(std::fs::read(dir.path().join("one.1.stdout")).unwrap(), [b'x'; 10]);
    }

    #[test]
    fn a_file_that_cannot_be_written_does_not_block_the_writer_and_is_reported() {
        if !Path::new("/dev/full").exists() {
            eprintln!("skipped: there is no /dev/full");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (pipe, mut writer) = io::pipe().unwrap();
        let capture = Capture::new(&dir.path().join("one.1"), "stdout", u64::MAX, pipe);
        lock(&capture.kept).file = Some(File::options().write(true).open("/dev/full").unwrap());
        let writing = std::thread::spawn(move || writer.write_all(&[b'x'; 300_000]).unwrap());
        let end = finish(capture);
        writing.join().unwrap();
        assert_eq!((end.bytes, end.cut_bytes), (0, 300_000));
        assert!(end.error.unwrap().contains("No space left"));
    }

    #[test]
    fn a_stream_that_somebody_holds_open_is_finished_without_waiting_for_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, _writer) = io::pipe().unwrap();
        let capture = Capture::new(&dir.path().join("one.1"), "stdout", 10, pipe);
        assert!(capture.finish(None).left_open);
    }

    #[test]
    fn what_comes_after_all_were_closed_makes_no_file_and_is_not_taken_for_all_there_was() {
        let dir = tempfile::tempdir().unwrap();
        let [(mut stdout, mut out), (mut stderr, mut err)] = ["stdout", "stderr"].map(|name| {
            let (pipe, writer) = io::pipe().unwrap();
            (Capture::new(&dir.path().join("one.1"), name, 10, pipe), writer)
        });
        out.write_all(b"word").unwrap();
        drop(out);
        while !stdout.advance(PollFlags::IN) {
            poll(&mut [PollFd::from_borrowed_fd(stdout.wakes().unwrap(), PollFlags::IN)], None).unwrap();
        }
        assert!(close([&stdout, &stderr]));
        // What the step left behind speaks once more, and ends.
        err.write_all(b"late").unwrap();
        drop(err);
        while !stderr.advance(PollFlags::IN) {
            poll(&mut [PollFd::from_borrowed_fd(stderr.wakes().unwrap(), PollFlags::IN)], None).unwrap();
        }
        let [stdout, stderr] = [stdout, stderr].map(|stream| stream.finish(None));
        assert_eq!((stdout.bytes, stdout.left_open), (4, false));
        assert_eq!((stderr.bytes, stderr.left_open), (0, true));
        assert!(!dir.path().join("one.1.stderr").exists());
    }

    #[test]
    fn a_stream_that_says_nothing_is_over_without_a_thread_and_one_without_a_thread_is_copied_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, writer) = io::pipe().unwrap();
        let mut capture = Capture::new(&dir.path().join("one.1"), "stdout", 10, pipe);
        drop(writer);
        assert!(capture.advance(PollFlags::HUP) && !matches!(capture.copied, Copied::Apart(..)));
        let end = capture.finish(None);
        assert_eq!((end.bytes, end.left_open), (0, false));
        assert!(!capture.close() && !dir.path().join("one.1.stdout").exists());

        let (pipe, mut writer) = io::pipe().unwrap();
        let mut capture = Capture::new(&dir.path().join("one.1"), "stdout", 10, pipe);
        ioctl_fionbio(&capture.pipe, true).unwrap();
        capture.copied = Copied::Here;
        // Another process has taken what was there.
        assert!(!capture.advance(PollFlags::IN));
        writer.write_all(b"word").unwrap();
        assert!(!capture.advance(PollFlags::IN));
        drop(writer);
        let end = finish(capture);
        assert_eq!((end.bytes, end.left_open, end.sha256), (4, false, Digest::of(b"word")));
    }

    #[test]
    fn a_stream_follows_no_link_that_a_step_made_in_its_place_and_says_that_its_name_may_be_lost() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("other"), "kept").unwrap();
        std::os::unix::fs::symlink("other", dir.path().join("one.1.stdout")).unwrap();
        let ends = ["stdout", "stderr"].map(|name| {
            let (pipe, mut writer) = io::pipe().unwrap();
            let mut capture = Capture::new(&dir.path().join("one.1"), name, 10, pipe);
            writer.write_all(b"word").unwrap();
            drop(writer);
            while !capture.advance(PollFlags::IN) {
                let wakes = capture.wakes().unwrap();
                poll(&mut [PollFd::from_borrowed_fd(wakes, PollFlags::IN)], None).unwrap();
            }
            capture.finish(Some(&io::Error::other("not synced")))
        });
        assert_eq!((ends[0].bytes, ends[0].cut_bytes), (0, 4));
        assert!(ends[0].error.as_ref().is_some_and(|error| error.contains("exists")), "{ends:?}");
        assert_eq!((ends[1].bytes, ends[1].error.as_deref()), (4, Some("not synced")));
        assert_eq!(std::fs::read(dir.path().join("other")).unwrap(), b"kept");
    }
}
