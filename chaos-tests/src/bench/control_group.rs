//! Control groups for the steps of a reference, in the cheapest way that safe code has. A step's group is a threaded one: into such a group a
//! thread may move itself without the wait for every processor that moving a process costs, and what it starts there is in the group from
//! its first instruction on. Nothing of Longshore's groups is in it. It sets no limits, and removes only what it made.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// Tries at removing a group: a process that was waited for may be in it for a moment more.
const REMOVE_TRIES: u32 = 1_000;

/// What the group of a run begins with. An agent beside it sweeps away those that are named as its own.
const PREFIX: &str = "bench-of-jobs-";

/// Looks at a run's group that has groups of processes which are just being ended, [`PAUSE`] apart.
const CLEAR_TRIES: u32 = 200;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// The group in which the groups of a run are. It is removed with this value, with what a supervising process has left in it.
pub(super) struct Groups {
    dir: PathBuf,
}

/// Groups for the steps of one supervising process, one after the other.
pub(super) struct Place {
    groups: PathBuf,
    name: String,
    made: u64,
    /// Where this process belongs.
    home: File,
    /// The next step's, with the file by which a thread enters it.
    next: (PathBuf, File),
}

/// The group of a step.
pub(super) struct Group(PathBuf);

impl Groups {
    /// A new one within this process's own group, or why there can be none.
    pub(super) fn make() -> Result<Self, String> {
        let dir = own()?.join(format!("{PREFIX}{}", std::process::id()));
        let groups = Self { dir };
        let tried = threaded(&groups.dir).and_then(|_| {
            let mut place = Place::new(&groups.dir, "try")?;
            let (mut child, group) = place.start(&mut Command::new("true"))?;
            child.wait()?;
            group.remove()
        });
        tried.map_err(|error| format!("no control group can be made: {error}"))?;
        Ok(groups)
    }

    /// For [`Place::new`], in this process or in one that it starts.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for _ in 0..CLEAR_TRIES {
            for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
                // The files in it are the kernel's, and are no folders.
                let _ = fs::remove_dir(entry.path());
            }
            match fs::remove_dir(&self.dir) {
                Err(error) if error.kind() != ErrorKind::NotFound => std::thread::sleep(PAUSE),
                Ok(()) | Err(_) => return,
            }
        }
    }
}

impl Place {
    /// In the groups of a run, under a name that no other place has. The first step's group is there then.
    pub(super) fn new(groups: &Path, name: &str) -> io::Result<Self> {
        let home = members(groups.parent().ok_or(ErrorKind::NotFound)?)?;
        let next = next(groups, name, 0)?;
        Ok(Self { groups: groups.to_owned(), name: name.to_owned(), made: 0, home, next })
    }

    /// Starts a step's program in the group that was made for it. This thread is in it only meanwhile.
    pub(super) fn start(&mut self, program: &mut Command) -> io::Result<(Child, Group)> {
        let (dir, members) = &mut self.next;
        enter(members)?;
        let started = program.spawn();
        enter(&mut self.home)?;
        Ok((started?, Group(dir.clone())))
    }

    /// Makes the group for the step after that, for which there is time when nobody waits.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        self.made += 1;
        self.next = next(&self.groups, &self.name, self.made)?;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It has been removed already if a step was started in it.
        let _ = fs::remove_dir(&self.next.0);
    }
}

impl Group {
    /// Removes it. Its program has ended.
    pub(super) fn remove(self) -> io::Result<()> {
        let mut tries = REMOVE_TRIES;
        loop {
            tries -= 1;
            match fs::remove_dir(&self.0) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy && tries > 0 => std::thread::yield_now(),
                done => return done,
            }
        }
    }
}

fn next(groups: &Path, name: &str, number: u64) -> io::Result<(PathBuf, File)> {
    let dir = groups.join(format!("{name}-{number}"));
    threaded(&dir).map(|members| (dir, members))
}

/// A new group for threads, and the file by which one enters it.
fn threaded(dir: &Path) -> io::Result<File> {
    fs::create_dir(dir)?;
    fs::write(dir.join("cgroup.type"), "threaded")?;
    members(dir)
}

fn members(dir: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(dir.join("cgroup.threads"))
}

/// Moves this thread.
fn enter(members: &mut File) -> io::Result<()> {
    members.write_all(b"0")
}

/// The folder of this process's own group, or why there is none.
fn own() -> Result<PathBuf, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"));
    find(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)
        .ok_or_else(|| "its control group of version 2 is mounted nowhere".to_owned())
}

/// Finds that folder in what the kernel says of mounts and groups. Mounts at paths with spaces are not found.
fn find(mounts: &str, groups: &str) -> Option<PathBuf> {
    let own = Path::new(groups.lines().find_map(|line| line.strip_prefix("0::"))?);
    mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then_some(())?;
        let mut fields = fields.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = own.strip_prefix(root).ok()?;
        below.components().all(|part| matches!(part, Component::Normal(_))).then(|| Path::new(point).join(below))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn the_own_group_is_found_below_the_mount_and_not_outside_of_it() {
        let mounts =
            "36 23 0:30 / /groups/cpu rw - cgroup cgroup rw,cpu\n41 31 0:38 /box /groups/two rw - cgroup2 cgroup2 rw\n";
        assert_eq!(find(mounts, "4:cpu:/else\n0::/box/one\n").unwrap(), Path::new("/groups/two/one"));
        assert_eq!(find(mounts, "0::/box\n").unwrap(), Path::new("/groups/two"));
        assert_eq!(find(mounts, "0::/other\n").or(find(mounts, "4:cpu:/box\n")).or(find("", "0::/\n")), None);
    }

    #[test]
    fn a_program_is_in_the_group_of_its_step_and_who_started_it_is_not() {
        let groups = match Groups::make() {
            Ok(groups) => groups,
            Err(why) => {
                // Past the harness, which keeps what a test that passes prints to itself.
                writeln!(io::stderr(), "SKIPPED: {why}").unwrap();
                return;
            }
        };
        let mut place = Place::new(groups.dir(), "place").unwrap();
        let mut program = Command::new("cat");
        let (child, group) = place.start(program.arg("/proc/self/cgroup").stdout(Stdio::piped())).unwrap();
        let text = child.wait_with_output().unwrap().stdout;
        let name = |text: &str| text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned).unwrap();
        let within = name(&String::from_utf8(text).unwrap());
        assert!(within.ends_with("/place-0"), "{within}");
        let own = fs::read_to_string("/proc/thread-self/cgroup").unwrap();
        assert!(!name(&own).contains(PREFIX), "{own}");
        place.prepare().unwrap();
        group.remove().unwrap();
        let dir = groups.dir().to_owned();
        // The next step's is in it still.
        assert!(dir.join("place-1").exists() && !dir.join("place-0").exists());
        drop(groups);
        assert!(!dir.exists());
    }
}
