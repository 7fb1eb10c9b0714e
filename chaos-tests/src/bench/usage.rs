//! What a process has used: time on the processors and memory, as the kernel counts them. It reads `/proc/self` and nothing else.

use std::time::Duration;

/// Time on the processors of all threads of this process that still run.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn cpu() -> std::io::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        match std::fs::read_to_string(thread?.path().join("schedstat")) {
            Ok(line) => nanoseconds += first_number(&line)?,
            // A thread that ended meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The most memory that this process ever had, in KiB.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn peak_kib() -> std::io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    first_number(line.unwrap_or_default())
}

/// Bytes that this process handed to the storage below, whether or not they were written over later.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn written_bytes() -> std::io::Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:"));
    first_number(line.unwrap_or_default())
}

fn first_number(line: &str) -> std::io::Result<u64> {
    let number = line.split_whitespace().next().and_then(|word| word.parse().ok());
    number.ok_or_else(|| std::io::Error::other("a file of /proc/self is not as expected"))
}
