//! Which boot of which machine this is. It never uses a clock: the kernel makes a new random id at every boot.

use std::io::Read as _;
use std::{fmt, fs, io};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where the kernel says it.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Bytes read of that file at most: a UUID has 36 characters, and a line end follows.
const BOOT_ID_BYTES_MAX: u64 = 64;

/// One boot of one machine. A process id means something only together with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(Uuid);

impl BootId {
    /// Takes over an id that was read elsewhere.
    #[must_use]
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Asks the kernel which boot this is.
///
/// # Errors
/// `/proc` is not mounted, or what it says is not a UUID ([`io::ErrorKind::InvalidData`]).
pub fn boot_id() -> io::Result<BootId> {
    let mut text = String::new();
    fs::File::open(BOOT_ID_FILE)?.take(BOOT_ID_BYTES_MAX).read_to_string(&mut text)?;
    Uuid::try_parse(text.trim()).map(BootId).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
