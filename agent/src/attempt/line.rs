//! What an agent and a shim that stays say to each other: one datagram for each attempt, with its lock and the file for complaints
//! beside it, and one when the shim is there for another. That one is the record of the end, byte for byte as it is on stable storage: the
//! attempt's lock is let go, and the shim is as it was before. Both ends are the same program, so this has no versions.

use std::path::Path;

/// Bytes of a request: a path, of which no system opens a longer one.
pub(crate) const REQUEST_BYTES_MAX: usize = 4096;
/// The open files beside a request: the lock, held, and the file for complaints.
pub(crate) const REQUEST_FILES: usize = 2;

/// The bytes of a request for that attempt; nothing if its path is too long for a request.
pub(crate) fn request_bytes(stem: &Path) -> Option<&[u8]> {
    let bytes = stem.as_os_str().as_encoded_bytes();
    (1..=REQUEST_BYTES_MAX).contains(&bytes.len()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_that_can_be_opened_is_asked_for() {
        assert_eq!(request_bytes(Path::new("/runs/a")), Some(&b"/runs/a"[..]));
        assert_eq!(request_bytes(Path::new("")), None);
        assert_eq!(request_bytes(Path::new(&"x".repeat(REQUEST_BYTES_MAX + 1))), None);
    }
}
