//! What the harness prints. A reader that has gone, as `head` does, is no failure: what is under way comes to its end, so that nothing
//! is left running and the exit code is still the verdict. Never panics.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Set when something could not be printed although somebody may want to read it, as on a full disk.
static LOST: AtomicBool = AtomicBool::new(false);

/// Prints on standard output.
pub fn print(what: impl Display) {
    if let Err(error) = write!(io::stdout().lock(), "{what}")
        && error.kind() != ErrorKind::BrokenPipe
        && !LOST.swap(true, Ordering::Relaxed)
    {
        note(format_args!("The output cannot be written: {error}\n"));
    }
}

/// Prints on standard error. When that is gone, nobody is left to tell.
pub fn note(what: impl Display) {
    let _ = write!(io::stderr().lock(), "{what}");
}

/// Whether all that was printed went out, as far as anybody wanted to read it.
#[must_use]
pub fn is_whole() -> bool {
    match io::stdout().lock().flush() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => false,
        Ok(()) | Err(_) => !LOST.load(Ordering::Relaxed),
    }
}
