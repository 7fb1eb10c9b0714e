//! One control group, a folder that the kernel fills with files. No file is ever made in it, so that a folder which is none is left as
//! it is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::attempt::procfs;

/// A group that was just made may be swept away before it is entered, which happens once at most.
const ENTER_TRIES: u32 = 3;
/// Levels of groups within a step's that are looked into: whatever a step nests, it is ended and removed whole.
const DEPTH_MAX: u32 = 16;
/// Looks at a group that was told to freeze, [`PAUSE`] apart. It takes microseconds; a process in the kernel may take longer, and is
/// signalled all the same.
const FREEZE_LOOKS: u32 = 100;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);
/// Bytes of a file of a group at most, with room; of those that are read here the longest is `cpu.stat`.
const FILE_BYTES_MAX: usize = 4 * 1024;
/// Microseconds over which the kernel counts processor time.
const PERIOD_MICROS: u64 = 100_000;

/// A group, which need not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    dir: PathBuf,
}

/// What the processes of a group used. What the host does not count is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Milliseconds of processor time, in the programs and in the system.
    pub(crate) cpu_ms: Option<(u64, u64)>,
    /// Bytes of memory of all of them together, at most.
    pub(crate) memory_bytes: Option<u64>,
    /// Whether the kernel ended any of them for want of memory.
    pub(crate) out_of_memory: bool,
}

/// Writes to a file of the kernel's, which must be there.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// The number in a line `NAME NUMBER` of that text.
fn number(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

impl Group {
    /// The group in that folder.
    pub(crate) const fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn set(&self, name: &str, text: &str) -> io::Result<()> {
        write(&self.file(name), text)
    }

    /// What a file says, which is short. The kernel gives all of it to who asks once for more.
    fn read(&self, name: &str) -> Option<String> {
        let mut bytes = [0; FILE_BYTES_MAX];
        let count = File::open(self.file(name)).and_then(|mut file| file.read(&mut bytes)).ok()?;
        (count < bytes.len()).then(|| String::from_utf8_lossy(&bytes[..count]).into_owned())
    }

    /// The number in a line `NAME NUMBER` of a file.
    fn number(&self, file: &str, name: &str) -> Option<u64> {
        number(&self.read(file)?, name)
    }

    /// Makes it, unless it is there.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it was swept away at once.
    pub(crate) fn make(&self) -> io::Result<()> {
        match fs::create_dir(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.look_at_made()
    }

    /// Whether what was just made is a group.
    fn look_at_made(&self) -> io::Result<()> {
        // On anything but a hierarchy of groups, a new folder is empty.
        if self.file("cgroup.procs").exists() {
            return Ok(());
        }
        match fs::remove_dir(&self.dir) {
            // Whoever sweeps was quicker, which says nothing of what is mounted there: it may be made again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "what is mounted there is no hierarchy of control groups",
            )),
        }
    }

    /// Its folder, by which a process can be started in it.
    pub(crate) fn open(&self) -> io::Result<File> {
        File::open(&self.dir)
    }

    /// Where a process is moved here.
    pub(super) fn members_file(&self) -> PathBuf {
        self.file("cgroup.procs")
    }

    /// Moves this process here, with all its threads.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.set("cgroup.procs", &std::process::id().to_string())
    }

    /// Makes it and moves this process here, although empty groups may be swept away at any time.
    pub(crate) fn make_and_enter(&self) -> io::Result<()> {
        let mut tries = ENTER_TRIES;
        loop {
            tries -= 1;
            match self.make().and_then(|()| self.enter()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 0 => {}
                done => return done,
            }
        }
    }

    /// Limits the memory of all its processes together, swapped out or not. When they need more, all of them are ended.
    pub(crate) fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        // Without swap on the host these files may be missing.
        for (file, text) in [("memory.swap.max", "0"), ("memory.oom.group", "1")] {
            match self.set(file, text) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        self.set("memory.max", &bytes.to_string())
    }

    /// Takes that limit back.
    pub(crate) fn unlimit_memory(&self) -> io::Result<()> {
        self.set("memory.max", "max")
    }

    /// Limits their processor time together: percent of one core.
    pub(crate) fn limit_cpu(&self, percent: u32) -> io::Result<()> {
        let micros = PERIOD_MICROS / 100 * u64::from(percent);
        self.set("cpu.max", &format!("{micros} {PERIOD_MICROS}"))
    }

    /// Whether any process is in it, or in a group below it. A group that is gone has none.
    pub(crate) fn is_populated(&self) -> bool {
        self.number("cgroup.events", "populated") == Some(1)
    }

    /// Sends SIGKILL to every process in it and below it, so that none can start another meanwhile. They are gone a little later. A
    /// group that is gone, or that goes meanwhile, has none: then it is done.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match self.set("cgroup.kill", "1") {
            // Linux before 5.14, or the whole group is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.dir.exists() => self.kill_frozen(),
            done => self.unless_gone(done),
        }
    }

    /// What writing to one of its files came to. Only a group without processes can be removed, so to one that is gone it is done.
    fn unless_gone(&self, done: io::Result<()>) -> io::Result<()> {
        match done {
            Err(_) if matches!(self.dir.try_exists(), Ok(false)) => Ok(()),
            done => done,
        }
    }

    /// The same without the kernel's help: frozen processes start no others.
    fn kill_frozen(&self) -> io::Result<()> {
        self.unless_gone(self.set("cgroup.freeze", "1"))?;
        for _ in 0..FREEZE_LOOKS {
            if self.number("cgroup.events", "frozen") != Some(0) {
                break;
            }
            thread::sleep(PAUSE);
        }
        let killed = self.members().into_iter().try_for_each(|pid| {
            let Some(process) = procfs::process(pid)? else { return Ok(()) };
            procfs::signal(pid, process.start_ticks, Signal::KILL, || self.members().contains(&pid)).map(drop)
        });
        // Also after a failure: what is left must not hang for ever.
        self.unless_gone(self.set("cgroup.freeze", "0"))?;
        killed
    }

    /// The processes in it and below it.
    fn members(&self) -> Vec<Pid> {
        let groups = self.with_those_below();
        let texts = groups.iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
        texts
            .flat_map(|text| text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect::<Vec<_>>())
            .collect()
    }

    /// Its folder and those of all groups below it, each behind the one that it is in.
    fn with_those_below(&self) -> Vec<PathBuf> {
        let mut found = vec![self.dir.clone()];
        let mut level = found.clone();
        for _ in 0..DEPTH_MAX {
            let entries = level.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
            level = entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path())
                .collect();
            found.extend(level.iter().cloned());
        }
        found
    }

    /// Removes it with what is below it, if nothing runs in there.
    pub(crate) fn remove(&self) {
        // The kernel refuses to remove one with processes in it, or with groups, so nothing is lost by trying.
        if fs::remove_dir(&self.dir).is_err() && !self.is_populated() {
            self.with_those_below().iter().rev().for_each(|dir| drop(fs::remove_dir(dir)));
        }
    }

    /// What its processes have used so far.
    pub(crate) fn used(&self) -> Used {
        let times = self.read("cpu.stat").unwrap_or_default();
        let millis = |name| number(&times, name).map(|micros| micros / 1_000);
        Used {
            cpu_ms: millis("user_usec").zip(millis("system_usec")),
            memory_bytes: self.read("memory.peak").and_then(|text| text.trim().parse().ok()),
            out_of_memory: self.number("memory.events", "oom_kill").is_some_and(|times| times > 0),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    use super::super::hierarchy;
    use super::*;

    /// After this a test fails that would otherwise go on for ever. Nothing here takes a hundredth of it.
    const PATIENCE: Duration = Duration::from_secs(600);

    /// Does that again and again until it says that it is done.
    fn until(mut done: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < PATIENCE, "it is not done after {PATIENCE:?}");
            thread::yield_now();
        }
    }

    /// A group of this test with a process in it, or nothing where that is not allowed.
    fn group_of_one(name: &str, script: &str) -> Option<(Group, Child)> {
        let name = format!("longshore-test-{name}-{}", std::process::id());
        let made = hierarchy::own().map_err(io::Error::other).and_then(|own| {
            let group = Group::at(own.join(name));
            group.make().map(|()| group)
        });
        let group = match made {
            Ok(group) => group,
            Err(error) => {
                // Past the harness, which keeps what a test that passes prints to itself.
                writeln!(io::stderr(), "SKIPPED: no control group can be made here: {error}").unwrap();
                return None;
            }
        };
        let script = format!("echo $$ > '{}' && echo in && {script}", group.file("cgroup.procs").display());
        let mut child = Command::new("/bin/sh")
            .args(["-c", &script])
            // It must not find the end of what the tests were given to read.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut word = [0; 3];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
        Some((group, child))
    }

    fn killed_by(kill: impl Fn(&Group) -> io::Result<()>, name: &str) {
        // It nests, leaves its session, and its parent in the middle ends.
        let script = "(setsid sh -c 'trap \"\" TERM; while :; do sleep 1000; done' &) ; exec sleep 1000";
        let Some((group, mut child)) = group_of_one(name, script) else { return };
        let below = Group::at(group.dir.join("below"));
        below.make().unwrap();
        until(|| {
            kill(&group).unwrap();
            let _ = child.try_wait();
            group.members().is_empty()
        });
        child.wait().unwrap();
        assert!(!group.is_populated());
        group.remove();
        assert!(!group.dir.exists(), "an empty group is removed with what is below it");
    }

    #[test]
    fn a_group_is_killed_whole() {
        killed_by(Group::kill, "kill");
    }

    #[test]
    fn a_group_is_killed_whole_by_a_kernel_that_cannot_do_it_at_one_stroke() {
        killed_by(Group::kill_frozen, "freeze");
    }

    #[test]
    fn a_group_with_a_process_in_it_is_not_removed() {
        let Some((group, mut child)) = group_of_one("kept", "read end") else { return };
        assert!(group.is_populated());
        group.remove();
        assert!(group.dir.exists());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(group.used().cpu_ms.is_some());
        until(|| {
            group.remove();
            !group.dir.exists()
        });
    }

    /// Somebody else may remove it as soon as its last process has ended: the shim, or another agent's sweeping.
    #[test]
    fn killing_a_group_that_is_gone_is_done_with_every_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let gone = Group::at(dir.path().join("gone"));
        gone.kill().unwrap();
        gone.kill_frozen().unwrap();
        // One that is there and cannot be killed is not.
        let other = Group::at(dir.path().to_owned());
        assert!(other.kill().is_err() && other.kill_frozen().is_err());
    }

    /// A step with limits is not started when its group cannot be made, and is when it was only swept away.
    #[test]
    fn a_group_that_is_swept_away_as_it_is_made_is_gone_and_not_no_group() {
        let dir = tempfile::tempdir().unwrap();
        let swept = Group::at(dir.path().join("swept"));
        assert_eq!(swept.look_at_made().unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_folder_that_is_no_group_is_said_to_be_none_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let group = Group::at(dir.path().join("one"));
        assert!(group.make().unwrap_err().to_string().contains("no hierarchy"));
        assert!(!group.dir.exists() && !group.is_populated() && group.kill().is_ok());
        assert_eq!(group.used(), Used::default());
        fs::create_dir(&group.dir).unwrap();
        assert!(group.enter().is_err() && group.limit_memory(1).is_err() && group.limit_cpu(1).is_err());
        assert_eq!(fs::read_dir(&group.dir).unwrap().count(), 0);
    }
}
