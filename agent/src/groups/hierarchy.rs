//! Where the hierarchy of control groups is mounted, and where in it this process is, as the kernel tells. Assumes no path.

use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

/// The folder of this process's own group, or why there is none.
pub(crate) fn own() -> Result<PathBuf, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"));
    let own = find(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)?;
    match own.join("cgroup.procs").exists() {
        true => Ok(own),
        false => Err(format!("{} is no control group, although the kernel says so", own.display())),
    }
}

fn find(mounts: &str, groups: &str) -> Result<PathBuf, String> {
    let own = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or("the kernel has no control groups of version 2")?;
    let mut mounted = false;
    for (root, point) in mounts.lines().filter_map(mount) {
        mounted = true;
        // A mount shows the hierarchy from its root on. What is above that, or above the namespace's root (`/..`), is out of reach.
        let Ok(below) = Path::new(own).strip_prefix(&root) else { continue };
        if below.components().all(|part| matches!(part, Component::Normal(_))) {
            return Ok(point.join(below));
        }
    }
    Err(match mounted {
        true => "the own control group is outside what is mounted of the hierarchy".to_owned(),
        false => "no hierarchy of control groups of version 2 is mounted".to_owned(),
    })
}

/// The root and the mount point of a line about a hierarchy of version 2: `36 35 0:31 ROOT POINT options ... - cgroup2 ...`.
fn mount(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (fields, kind) = line.split_once(" - ")?;
    if kind.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = fields.split(' ').skip(3);
    Some((unescaped(fields.next()?), unescaped(fields.next()?)))
}

// The kernel writes spaces, tabs, line ends and backslashes as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PURE: &str = "23 28 0:21 / /sys rw - sysfs sysfs rw\n31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_own_group_is_found_wherever_the_hierarchy_is_mounted() {
        let own = "0::/system.slice/longshore-agent.service\n";
        assert_eq!(find(PURE, own).unwrap(), Path::new("/sys/fs/cgroup/system.slice/longshore-agent.service"));
        let own = "4:memory:/elsewhere\n0::/\n";
        assert_eq!(find(HYBRID, own).unwrap(), Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn only_a_part_of_the_hierarchy_may_be_mounted_at_a_path_with_spaces() {
        let mounts = "31 23 0:28 /docker/abc /my\\040groups rw - cgroup2 cgroup2 rw\n";
        assert_eq!(find(mounts, "0::/docker/abc/x\n").unwrap(), Path::new("/my groups/x"));
        assert!(find(mounts, "0::/docker/abcd\n").unwrap_err().contains("outside"));
    }

    #[test]
    fn a_host_without_it_says_which_part_is_missing() {
        assert!(find(PURE, "4:memory:/\n").unwrap_err().contains("kernel has no"));
        assert!(find("33 31 0:30 / /x rw - cgroup cgroup rw,cpu\n", "0::/\n").unwrap_err().contains("is mounted"));
        assert!(find(PURE, "0::/../other\n").unwrap_err().contains("outside"));
        assert!(find("", "").is_err() && find("a - b\n - cgroup2\n", "0::/\n").is_err());
    }
}
