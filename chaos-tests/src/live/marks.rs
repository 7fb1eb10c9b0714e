//! Marks: what steps leave on disk by themselves. How often a step ran is counted from these alone, never from Longshore's own
//! books.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A folder of marks: a file per agent and step, a line per time it ran.
#[derive(Debug, Clone)]
pub struct Marks {
    dir: PathBuf,
}

/// What the marks say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Steps that should have run and left no mark.
    pub lost: Vec<String>,
    /// Steps that left more than one mark.
    pub twice: Vec<String>,
    /// Marks of steps that nobody asked for.
    pub unexpected: Vec<String>,
    /// Steps that left exactly one mark.
    pub once: usize,
}

impl Marks {
    /// Marks in that folder, which is made.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: std::path::absolute(dir)? })
    }

    /// The shell line with which a step leaves its mark. A short line appended is one write.
    #[must_use]
    pub fn line(&self) -> String {
        format!("echo $$ >> '{}'/\"$LONGSHORE_AGENT.$LONGSHORE_STEP\"", self.dir.display())
    }

    /// How many marks there are of each agent and step.
    ///
    /// # Errors
    /// The operating system's.
    pub fn counts(&self) -> io::Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let lines = fs::read_to_string(entry.path())?.lines().count();
            counts.insert(entry.file_name().to_string_lossy().into_owned(), lines);
        }
        Ok(counts)
    }

    /// How many steps have left a mark.
    #[must_use]
    pub fn made(&self) -> usize {
        self.counts().map(|counts| counts.len()).unwrap_or(0)
    }

    /// How many steps of that agent have left a mark.
    #[must_use]
    pub fn made_by(&self, agent: &str) -> usize {
        let prefix = format!("{agent}.");
        self.counts().map(|counts| counts.keys().filter(|name| name.starts_with(&prefix)).count()).unwrap_or(0)
    }

    /// Compares the marks with what should have run.
    ///
    /// # Errors
    /// The operating system's.
    pub fn tally(&self, agents: &[String], steps: &[String]) -> io::Result<Tally> {
        let mut counts = self.counts()?;
        let mut tally = Tally { lost: Vec::new(), twice: Vec::new(), unexpected: Vec::new(), once: 0 };
        for agent in agents {
            for step in steps {
                let name = format!("{agent}.{step}");
                match counts.remove(&name) {
                    None | Some(0) => tally.lost.push(name),
                    Some(1) => tally.once += 1,
                    Some(_) => tally.twice.push(name),
                }
            }
        }
        tally.unexpected = counts.into_keys().collect();
        Ok(tally)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_tally_tells_lost_from_twice_from_unexpected() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::new(dir.path()).unwrap();
        fs::write(dir.path().join("a1.s1"), "1\n").unwrap();
        fs::write(dir.path().join("a1.s2"), "1\n2\n").unwrap();
        fs::write(dir.path().join("a9.s1"), "1\n").unwrap();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let tally = marks.tally(&names(&["a1"]), &names(&["s1", "s2", "s3"])).unwrap();
        assert_eq!(tally.lost, ["a1.s3"]);
        assert_eq!(tally.twice, ["a1.s2"]);
        assert_eq!(tally.unexpected, ["a9.s1"]);
        assert_eq!(tally.once, 1);
    }
}
