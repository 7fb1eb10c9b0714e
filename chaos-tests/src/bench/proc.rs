//! What /proc says of running processes: who belongs together, what memory they have, how long they ran. Reads; never waits.

use std::io;
use std::ops::Add;

/// Memory of processes, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// What is there of each, what is shared counted for everybody.
    pub(super) rss_kib: u64,
    /// The same, what is shared divided by those who share it.
    pub(super) pss_kib: u64,
}

impl Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { rss_kib: self.rss_kib + other.rss_kib, pss_kib: self.pss_kib + other.pss_kib }
    }
}

fn unreadable(path: &str) -> io::Error {
    io::Error::other(format!("{path} cannot be understood"))
}

/// The memory of these processes together.
pub(super) fn memory(pids: &[u32]) -> io::Result<Memory> {
    pids.iter().try_fold(Memory::default(), |sum, pid| {
        let path = format!("/proc/{pid}/smaps_rollup");
        Ok(sum + rollup(&std::fs::read_to_string(&path)?).ok_or_else(|| unreadable(&path))?)
    })
}

fn rollup(text: &str) -> Option<Memory> {
    Some(Memory { rss_kib: kib(text, "Rss:")?, pss_kib: kib(text, "Pss:")? })
}

fn kib(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The processes that were started by that one and still run, and whose last argument is this.
pub(super) fn children(pid: u32, last: &str) -> io::Result<Vec<u32>> {
    let is_meant = |child: &u32| {
        let words = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).rev().nth(1) == Some(last.as_bytes())
    };
    let children = parents()?.into_iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| child);
    Ok(children.filter(is_meant).collect())
}

/// A process and all that come from it, as far as they are its children's children.
pub(super) fn tree(pid: u32) -> io::Result<Vec<u32>> {
    let parents = parents()?;
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
        next += 1;
    }
    Ok(found)
}

/// Every process and its parent.
fn parents() -> io::Result<Vec<(u32, u32)>> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(child) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended since.
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        parents.extend(parent(&stat).map(|parent| (child, parent)));
    }
    Ok(parents)
}

/// The parent of a process: the fourth field, counted from the end of the name, which may hold anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// How long the threads of these processes have run, in nanoseconds. A thread that has ended counts no more.
pub(super) fn run_ns(pids: &[u32]) -> io::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = thread?.path().join("schedstat");
            let text = std::fs::read_to_string(&path)?;
            let ran = text.split_whitespace().next().and_then(|ran| ran.parse::<u64>().ok());
            sum += ran.ok_or_else(|| unreadable(&path.display().to_string()))?;
        }
    }
    Ok(sum)
}

/// How many threads and open files a process has.
pub(super) fn threads_and_files(pid: u32) -> io::Result<(u64, u64)> {
    let count = |what: &str| Ok::<_, io::Error>(std::fs::read_dir(format!("/proc/{pid}/{what}"))?.count() as u64);
    Ok((count("task")?, count("fd")?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_whatever_the_name_of_a_process() {
        assert_eq!(parent("7 (a) S 9) S 12 7 7"), Some(12));
        assert_eq!(parent("7 (a"), None);
    }

    #[test]
    fn memory_is_read_from_its_own_lines_alone() {
        let text = "1-2 ---p 0 00:00 0 [rollup]\nRss:     20 kB\nPss:    15 kB\nPss_Dirty:   3 kB\nSwapPss: 9 kB\n";
        assert_eq!(rollup(text), Some(Memory { rss_kib: 20, pss_kib: 15 }));
        assert_eq!(rollup("Rss: 20 kB\n"), None);
    }

    #[test]
    fn a_child_is_of_its_parents_tree_and_has_memory_and_time_of_its_own() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let own = std::process::id();
        let family = tree(own).unwrap();
        assert!(family.first() == Some(&own) && family.contains(&child.id()), "{family:?}");
        assert!(memory(&family).unwrap().rss_kib > memory(&[own]).unwrap().rss_kib);
        assert!(run_ns(&[own]).unwrap() > 0 && threads_and_files(own).unwrap().0 >= 1);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
