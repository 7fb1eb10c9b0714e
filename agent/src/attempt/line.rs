//! What an agent and the process that forks its shims say to each other: one datagram for each attempt, with its lock and its file for
//! complaints beside it, and one for each end. Both ends are the same program, so it has no versions.

use std::path::Path;

/// Bytes of the number before everything else.
const NUMBER_BYTES: usize = size_of::<u64>();
/// Bytes of a request: its number and a path, of which no system opens a longer one.
pub(crate) const REQUEST_BYTES_MAX: usize = NUMBER_BYTES + 4096;
/// The open files beside a request: the lock, held, and the file for complaints.
pub(crate) const REQUEST_FILES: usize = 2;
/// Bytes of an answer: a number, and that of an error, which is 0 for an end.
pub(crate) const ANSWER_BYTES: usize = NUMBER_BYTES + size_of::<i32>();

/// What is said of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The number of the request.
    pub(crate) number: u64,
    pub(crate) said: Said,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// A shim was forked, and has ended.
    Ended,
    /// There is no shim, for that reason of the operating system.
    NotForked(i32),
}

/// The bytes of a request for that attempt; nothing if its path is too long for a request.
pub(crate) fn request_bytes(number: u64, dir: &Path) -> Option<Vec<u8>> {
    let bytes = [&number.to_le_bytes(), dir.as_os_str().as_encoded_bytes()].concat();
    (bytes.len() <= REQUEST_BYTES_MAX).then_some(bytes)
}

/// The number and the path in a request.
pub(crate) fn request(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, dir) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), dir))
}

impl Answer {
    pub(crate) fn bytes(self) -> [u8; ANSWER_BYTES] {
        let error = match self.said {
            Said::Ended => 0,
            Said::NotForked(error) => error,
        };
        let mut bytes = [0; ANSWER_BYTES];
        bytes[..NUMBER_BYTES].copy_from_slice(&self.number.to_le_bytes());
        bytes[NUMBER_BYTES..].copy_from_slice(&error.to_le_bytes());
        bytes
    }

    /// What such bytes say; nothing of other ones.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (number, error) = bytes.split_first_chunk()?;
        let said = match i32::from_le_bytes(error.try_into().ok()?) {
            0 => Said::Ended,
            error => Said::NotForked(error),
        };
        Some(Self { number: u64::from_le_bytes(*number), said })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_nothing_else_is() {
        let bytes = request_bytes(7, Path::new("/runs/a")).unwrap();
        assert_eq!(request(&bytes), Some((7, &b"/runs/a"[..])));
        assert_eq!((request(&bytes[..7]), request_bytes(7, Path::new(&"x".repeat(4097)))), (None, None));
        for said in [Said::Ended, Said::NotForked(11)] {
            let answer = Answer { number: u64::MAX, said };
            assert_eq!(Answer::read(&answer.bytes()), Some(answer));
            assert_eq!(Answer::read(&answer.bytes()[1..]), None);
        }
    }
}
