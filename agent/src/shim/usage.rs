//! What a step used, as the kernel adds it up for the shim's children. It watches nothing while the step runs.

use messages::Usage;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// Bytes in the kernel's unit of memory here.
const KIB: u64 = 1024;

/// What all processes used that ended below this one and were reaped: here or by their parents, which is every process of a step
/// that left none behind. Nothing when the system does not say.
///
/// Linux passes the memory that a process had before it became another program on to that one, so the least that is ever said is
/// the shim's own.
pub(super) fn of_children() -> Option<Usage> {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).ok()?;
    // None of them is ever negative.
    let number = |number: i64| u64::try_from(number).unwrap_or_default();
    Some(Usage {
        user_ms: number(used.user_time().num_milliseconds()),
        system_ms: number(used.system_time().num_milliseconds()),
        memory_bytes: number(used.max_rss()).saturating_mul(KIB),
    })
}
