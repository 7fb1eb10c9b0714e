//! Running a program under strace, and reading what strace wrote: which calls, with which bytes, begun and ended in which order.
//! It gives no meaning to a call.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Calls that are understood. With a question mark, because not every machine has all of them.
pub(crate) const UNDERSTOOD: [&str; 18] = [
    "open",
    "openat",
    "creat",
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "ftruncate",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "fsync",
    "fdatasync",
];

/// Calls that change files, too, and are not understood: a recording that has one is refused, so that none is overlooked.
pub(crate) const REFUSED: [&str; 17] = [
    "truncate",
    "fallocate",
    "copy_file_range",
    "sendfile",
    "splice",
    "vmsplice",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mknodat",
    "mknod",
    "pwritev2",
    "openat2",
    "io_uring_setup",
    "io_submit",
    "syncfs",
];

/// Bytes of one write that are recorded; a longer one makes the recording fail. The journal writes at most 4 MiB at once.
const WRITE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One call, as strace saw it.
#[derive(Debug)]
pub(crate) struct Call {
    /// The line of the trace where it began.
    pub(crate) begin: u64,
    /// The line where it had ended; nothing when the process was killed in it.
    pub(crate) end: Option<u64>,
    pub(crate) name: String,
    pub(crate) args: Vec<String>,
    /// What it returned, below zero for an error.
    pub(crate) result: i64,
}

/// Why nothing can be traced here, if so.
pub(crate) fn missing() -> Option<String> {
    let probe = Command::new("strace")
        .args(["-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-o", "/dev/null", "true"])
        .stdin(Stdio::null())
        .output();
    match probe {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "this system does not let strace trace processes: {}",
            String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default()
        )),
        Err(_) => Some("strace is not installed; to have it: sudo apt-get install strace".to_owned()),
    }
}

/// The same command under strace, which writes to that file. With a number the process is killed at its sync of that number,
/// counted in each of its threads, instead of that sync.
pub(crate) fn traced(command: &Command, trace: &Path, kill_at: Option<u64>) -> Command {
    let names: Vec<String> = UNDERSTOOD.iter().chain(&REFUSED).map(|name| format!("?{name}")).collect();
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-y", "-xx", "-e", "signal=none", "-s"]);
    traced.arg(WRITE_BYTES_MAX.to_string()).arg("-e").arg(format!("trace={}", names.join(","))).arg("-o").arg(trace);
    match kill_at {
        Some(number) => traced.arg("-e").arg(format!("inject=fsync,fdatasync:signal=KILL:when={number}")),
        // Much faster, but then nothing is injected into the first thread.
        None => traced.arg("--seccomp-bpf"),
    };
    traced.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    traced
}

/// Reads a trace. Calls are in the order in which they began.
pub(crate) fn read(trace: &Path) -> Vec<Call> {
    let text = fs::read_to_string(trace).unwrap();
    let mut calls: Vec<Call> = Vec::new();
    // What each thread has begun: its call's place, and the text up to where another thread came in between.
    let mut open: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    for (number, line) in (0..).zip(text.lines()) {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((place, before)) = open.remove(thread) else { continue };
            let after = resumed.split_once("resumed>").map_or("", |(_, after)| after);
            finish(&mut calls[place], &(before + after), Some(number));
            continue;
        }
        let Some((name, body)) = rest.split_once('(') else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        calls.push(Call { begin: number, end: None, name: name.to_owned(), args: Vec::new(), result: -1 });
        let place = calls.len() - 1;
        match body.strip_suffix("<unfinished ...>") {
            Some(body) => {
                open.insert(thread, (place, body.trim_end().to_owned()));
            }
            None => finish(&mut calls[place], body, Some(number)),
        }
    }
    for (place, body) in open.into_values() {
        finish(&mut calls[place], &body, None);
    }
    calls
}

/// Takes in the text behind the opening bracket of a call: arguments, closing bracket, result.
fn finish(call: &mut Call, body: &str, end: Option<u64>) {
    let (args, result) = match body.rfind(") ") {
        Some(at) if body[at..].trim_start_matches(')').trim_start().starts_with('=') => {
            (&body[..at], body[at..].split_once('=').map_or("", |(_, result)| result.trim()))
        }
        Some(_) | None => (body, "?"),
    };
    call.args = split(args);
    let digits = result.split(|c: char| c != '-' && !c.is_ascii_digit()).next().unwrap_or_default();
    // A process that is killed in a call gets no answer, and neither do we.
    match digits.parse() {
        Ok(number) => (call.result, call.end) = (number, end),
        Err(_) => (call.result, call.end) = (-1, None),
    }
    assert!(
        call.result < 0 || !call.args.iter().any(|argument| argument.ends_with("\"...")),
        "a {} of more than {WRITE_BYTES_MAX} bytes cannot be recorded",
        call.name
    );
}

/// Splits arguments at their commas. Strings hold only escaped bytes, so no comma and no bracket is part of one.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(text[start..at].trim().to_owned());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim().to_owned());
    parts
}

/// The bytes of what strace escaped.
pub(crate) fn bytes(escaped: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).expect("-xx escapes");
    escaped.as_bytes().chunks_exact(4).map(|escape| digit(escape[2]) << 4 | digit(escape[3])).collect()
}

/// The bytes of a string, or of all strings of a vector of buffers, one after the other.
pub(crate) fn strings(argument: &str) -> Vec<u8> {
    argument.split('"').skip(1).step_by(2).flat_map(bytes).collect()
}

/// A path given as a string.
pub(crate) fn path(argument: &str) -> PathBuf {
    PathBuf::from(OsString::from_vec(strings(argument)))
}

/// What lies behind a descriptor: its number and its path. Nothing for a file that has no name any more.
pub(crate) fn descriptor(argument: &str) -> Option<(i64, PathBuf)> {
    let (number, rest) = argument.split_once('<')?;
    let (name, deleted) = rest.split_once('>')?;
    let number = if number == "AT_FDCWD" { -100 } else { number.parse().ok()? };
    deleted.is_empty().then(|| (number, PathBuf::from(OsString::from_vec(bytes(name)))))
}

/// A path that is relative to a folder's descriptor, or absolute.
pub(crate) fn path_at(folder: &str, argument: &str) -> PathBuf {
    let name = path(argument);
    descriptor(folder).map_or_else(|| name.clone(), |(_, folder)| folder.join(&name))
}

/// Whether any argument names something below that folder.
pub(crate) fn touches(call: &Call, root: &OsStr) -> bool {
    let escaped: String = root.as_encoded_bytes().iter().map(|byte| format!("\\x{byte:02x}")).collect();
    call.args.iter().any(|argument| argument.contains(&escaped))
}
