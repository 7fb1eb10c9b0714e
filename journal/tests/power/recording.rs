//! From calls to changes of the model: the calls of a trace, one after the other, with a stop before each sync takes effect and
//! one at the end. It decides nothing about what is lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::content::{Span, What};
use super::disk::{Disk, Node};
use super::strace::{Call, REFUSED, descriptor, path, path_at, strings, touches};

/// What happens while a recording is replayed.
#[derive(Debug)]
pub(crate) enum Moment<'a> {
    /// The program said a line on its standard output.
    Said(&'a str),
    /// Power may be lost: since the last such moment nothing has become certain, and now something will.
    Loss(&'a Disk),
}

/// Replays calls onto a disk, which lies in that folder.
pub(crate) fn replay(calls: &[Call], root: &Path, disk: &mut Disk, tell: &mut dyn FnMut(Moment<'_>)) {
    let mut replay = Replay { root, disk, cursors: BTreeMap::new() };
    // A sync takes effect where it ends, everything else where it begins; what came to an end in between is not covered.
    let mut order: Vec<(u64, &Call)> =
        calls.iter().filter_map(|call| Some((if is_sync(call) { call.end? } else { call.begin }, call))).collect();
    order.sort_by_key(|(line, _)| *line);
    for (_, call) in order {
        if call.result < 0 {
            continue;
        }
        assert!(
            !REFUSED.contains(&call.name.as_str()) || !touches(call, root.as_os_str()),
            "the recording has a {}, which is not understood: {:?}",
            call.name,
            call.args
        );
        if is_sync(call) {
            if let Some(node) = replay.behind(&call.args[0]) {
                tell(Moment::Loss(replay.disk));
                replay.disk.sync(node, call.begin, call.name == "fdatasync");
            }
        } else if let Some(text) = said(call) {
            text.lines().for_each(|line| tell(Moment::Said(line)));
        } else {
            replay.take(call);
        }
    }
    tell(Moment::Loss(disk));
}

fn is_sync(call: &Call) -> bool {
    matches!(call.name.as_str(), "fsync" | "fdatasync")
}

/// What a program says: it writes to a pipe that is its standard output.
fn said(call: &Call) -> Option<String> {
    if call.name != "write" {
        return None;
    }
    let (number, name) = descriptor(&call.args[0])?;
    let pipe = number == 1 && name.to_string_lossy().starts_with("pipe:");
    pipe.then(|| String::from_utf8_lossy(&strings(&call.args[1])).into_owned())
}

struct Replay<'a> {
    root: &'a Path,
    disk: &'a mut Disk,
    /// Where the next write without an offset goes, by file; nothing for one that always adds. One program at a time writes to a
    /// file here, and whether that is so is seen in the end, when the model is compared with the files.
    cursors: BTreeMap<Node, Option<u64>>,
}

impl Replay<'_> {
    fn below(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(self.root).ok().map(Path::to_owned)
    }

    fn behind(&self, argument: &str) -> Option<Node> {
        let (_, path) = descriptor(argument)?;
        self.disk.find(&self.below(&path)?)
    }

    fn take(&mut self, call: &Call) {
        let span = Span { begin: call.begin, end: call.end.unwrap_or(u64::MAX) };
        let args = &call.args;
        match call.name.as_str() {
            "open" => self.open(&path(&args[0]), &args[1], span),
            "creat" => self.open(&path(&args[0]), "O_WRONLY|O_CREAT|O_TRUNC", span),
            "openat" => self.open(&path_at(&args[0], &args[1]), &args[2], span),
            "write" | "writev" => self.write(call, None, span),
            "pwrite64" => self.write(call, args[3].parse().ok(), span),
            "pwritev" => self.write(call, args[3].parse().ok(), span),
            "ftruncate" => {
                if let Some(node) = self.behind(&args[0]) {
                    self.disk.file(node).change(span, What::Resize(args[1].parse().unwrap()));
                }
            }
            "rename" => self.rename(&path(&args[0]), &path(&args[1]), span),
            "renameat" | "renameat2" => {
                assert!(args.get(4).is_none_or(|flags| matches!(flags.as_str(), "0" | "RENAME_NOREPLACE")), "{args:?}");
                self.rename(&path_at(&args[0], &args[1]), &path_at(&args[2], &args[3]), span);
            }
            "unlink" | "rmdir" => self.remove(&path(&args[0]), span),
            "unlinkat" => self.remove(&path_at(&args[0], &args[1]), span),
            "mkdir" => self.make_folder(&path(&args[0]), span),
            "mkdirat" => self.make_folder(&path_at(&args[0], &args[1]), span),
            // What is refused and lies elsewhere.
            _ => {}
        }
    }

    fn open(&mut self, path: &Path, flags: &str, span: Span) {
        let has = |flag: &str| flags.split('|').any(|given| given == flag);
        let writes = has("O_WRONLY") || has("O_RDWR");
        let Some(path) = self.below(path) else { return };
        assert!(!has("O_TMPFILE") && !has("O_DIRECT"), "{flags}");
        let node = match self.disk.find(&path) {
            Some(node) => node,
            None if has("O_CREAT") => self.disk.make_file(&path, span),
            None => return,
        };
        if writes && has("O_TRUNC") && !self.disk.file(node).live().is_empty() {
            self.disk.file(node).change(span, What::Resize(0));
        }
        if writes {
            self.cursors.insert(node, (!has("O_APPEND")).then_some(0));
        }
    }

    fn write(&mut self, call: &Call, offset: Option<u64>, span: Span) {
        let Some(node) = self.behind(&call.args[0]) else { return };
        let mut bytes = strings(&call.args[1]);
        bytes.truncate(usize::try_from(call.result).unwrap());
        let end = self.disk.file(node).live().len() as u64;
        let offset = offset.unwrap_or_else(|| {
            let cursor = self.cursors.entry(node).or_insert(Some(0));
            let at = cursor.unwrap_or(end);
            *cursor = cursor.map(|at| at + bytes.len() as u64);
            at
        });
        self.disk.file(node).change(span, What::Write(offset, bytes));
    }

    fn rename(&mut self, from: &Path, to: &Path, span: Span) {
        match (self.below(from), self.below(to)) {
            (Some(from), Some(to)) => self.disk.rename(&from, &to, span),
            (None, None) => {}
            (from, to) => panic!("renamed across the border of what is recorded: {from:?} to {to:?}"),
        }
    }

    fn remove(&mut self, path: &Path, span: Span) {
        if let Some(path) = self.below(path) {
            self.disk.remove(&path, span);
        }
    }

    fn make_folder(&mut self, path: &Path, span: Span) {
        if let Some(path) = self.below(path) {
            self.disk.make_folder(&path, span);
        }
    }
}
