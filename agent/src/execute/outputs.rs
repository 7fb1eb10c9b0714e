//! What a step hands on: lines `name=value` in a file of its attempt, checked against what the job file declares, kept in the
//! run's row and given to later steps as variables. It never guesses: on success, what is missing or malformed fails the step.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;

use messages::limits::OUTPUT_BYTES_MAX;
use messages::{OutputType, StepEnd, StepId, StepSpec};

use super::{Execution, blocking};
use crate::attempt::layout::{self, OUTPUT};

/// Bytes of the file that are read: all values that a run may have, and their names.
const FILE_BYTES_MAX: usize = 2 * OUTPUT_BYTES_MAX;

type Outputs = BTreeMap<String, String>;

impl Execution {
    /// What the step hands on, and how it ended once that is checked.
    pub(super) async fn hand_on(&self, spec: &StepSpec, end: StepEnd) -> (StepEnd, Outputs) {
        if spec.outputs.is_empty() {
            return (end, Outputs::new());
        }
        let whole = match end {
            StepEnd::Exited(0) | StepEnd::AlreadyDone => true,
            // A person said that it took effect; what it left is used, what is missing is missing.
            StepEnd::DeclaredDone(_) => false,
            StepEnd::Exited(_) | StepEnd::Signaled(_) | StepEnd::TimedOut | StepEnd::NotStarted(_) => {
                return (end, Outputs::new());
            }
            StepEnd::Failed(_) | StepEnd::Cancelled | StepEnd::Skipped | StepEnd::DeclaredFailed(_) => {
                return (end, Outputs::new());
            }
        };
        let stem = self.worker.attempt_stem(self.record.start.run, &spec.id, self.record.attempt());
        let file = layout::file(&stem, OUTPUT);
        let kept = self.record.progress.outputs.values().flatten().map(|(name, value)| name.len() + value.len()).sum();
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept);
        let declared = spec.outputs.clone();
        match (blocking(move || collect(&file, &declared, room)).await, whole) {
            (Ok((outputs, None)), _) | (Ok((outputs, Some(_))), false) => (end, outputs),
            (Ok((_, Some(missing))), true) => {
                (StepEnd::Failed(format!("it did not hand on its output `{missing}`")), Outputs::new())
            }
            (Err(reason), true) => {
                (StepEnd::Failed(format!("what it hands on cannot be used: {reason}")), Outputs::new())
            }
            (Err(_), false) => (end, Outputs::new()),
        }
    }

    /// What earlier steps handed on, as variables.
    pub(super) fn handed_on(&self) -> BTreeMap<String, String> {
        let steps = self.record.progress.outputs.iter();
        steps
            .flat_map(|(step, outputs)| outputs.iter().map(|(name, value)| (variable(step, name), value.clone())))
            .collect()
    }
}

/// How a step ended whose shim could not keep what it hands on, if that is the error: a later step would be given what the next loss of
/// power may take away, so one that declares outputs has not succeeded.
pub(super) fn relied_on(spec: &StepSpec, end: StepEnd, error: Option<String>) -> StepEnd {
    match error {
        Some(error) if end == StepEnd::Exited(0) && !spec.outputs.is_empty() => {
            StepEnd::Failed(format!("what it hands on could not be put on the disk for good: {error}"))
        }
        Some(_) | None => end,
    }
}

/// The variable that an output is given to later steps as.
fn variable(step: &StepId, name: &str) -> String {
    let upper = |c: char| if matches!(c, '-' | '.') { '_' } else { c.to_ascii_uppercase() };
    format!("OUTPUT_{}_{}", step.as_str(), name).chars().map(upper).collect()
}

/// The outputs in that file, and the first declared one that is missing; or why they cannot be used.
fn collect(
    file: &Path,
    declared: &BTreeMap<String, OutputType>,
    room: usize,
) -> Result<(Outputs, Option<String>), String> {
    let bytes = read(file).map_err(|error| format!("the file cannot be read: {error}"))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!("the file has more than {FILE_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned())?;
    let outputs = parse(&text, declared)?;
    if outputs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > room {
        return Err(format!("the outputs of a run have at most {OUTPUT_BYTES_MAX} bytes together"));
    }
    let missing = declared.keys().find(|name| !outputs.contains_key(*name)).cloned();
    Ok((outputs, missing))
}

/// At most one byte more than the limit.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let file = match layout::open_as_left(file) {
        Ok(file) => file,
        // A step may remove it, which is to hand on nothing.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The lines of the file. The last of several with one name counts.
fn parse(text: &str, declared: &BTreeMap<String, OutputType>) -> Result<Outputs, String> {
    let mut outputs = Outputs::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| format!("line {number} is not `name=value`"))?;
        let kind = declared.get(name).ok_or_else(|| format!("line {number} names no output that is declared"))?;
        let right = match kind {
            // A variable cannot hold it.
            OutputType::Text => !value.contains('\0'),
            OutputType::Integer => value.parse::<i64>().is_ok(),
            OutputType::Boolean => matches!(value, "true" | "false"),
        };
        if !right {
            let wanted = match kind {
                OutputType::Text => "text without zero bytes",
                OutputType::Integer => "a whole number of 64 bits",
                OutputType::Boolean => "`true` or `false`",
            };
            return Err(format!("line {number}: `{name}` is to be {wanted}"));
        }
        outputs.insert(name.to_owned(), value.to_owned());
    }
    Ok(outputs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn declared() -> BTreeMap<String, OutputType> {
        [("path", OutputType::Text), ("count", OutputType::Integer), ("dry", OutputType::Boolean)]
            .map(|(name, kind)| (name.to_owned(), kind))
            .into()
    }

    #[test]
    fn lines_are_checked_against_what_is_declared() {
        let outputs = parse("path=/a=b c\n\ncount=-3\ndry=true\ncount=4\n", &declared()).unwrap();
        assert_eq!((outputs["path"].as_str(), outputs["count"].as_str()), ("/a=b c", "4"));
        for (bad, why) in [
            ("path", "line 1 is not"),
            ("path=x\nother=1", "line 2 names no output"),
            ("count=four", "`count` is to be a whole number"),
            ("count=9223372036854775808", "`count` is to be a whole number"),
            ("dry=yes", "`dry` is to be `true`"),
            ("path=a\0b", "`path` is to be text"),
        ] {
            let reason = parse(bad, &declared()).unwrap_err();
            assert!(reason.contains(why), "{bad:?}: {reason}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_or_no_file_any_more_is_refused_and_none_at_all_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("one.1.output");
        let at = |room| collect(&file, &declared(), room);
        assert_eq!(at(100).unwrap(), (Outputs::new(), Some("count".to_owned())));
        std::fs::write(&file, "path=0123456789\n").unwrap();
        assert!(at(14).is_ok() && at(13).unwrap_err().contains("bytes together"));
        std::fs::write(&file, vec![b'\n'; FILE_BYTES_MAX + 1]).unwrap();
        assert!(at(100).unwrap_err().contains("more than"));
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
        assert!(at(100).is_err());
    }

    #[test]
    fn a_step_whose_outputs_could_not_be_synced_has_failed_if_it_declares_any() {
        let mut spec = StepSpec::new("one".parse().unwrap(), messages::Program::Shell("true".to_owned()));
        let end = |spec: &StepSpec, end, error: Option<&str>| relied_on(spec, end, error.map(str::to_owned));
        assert_eq!(end(&spec, StepEnd::Exited(0), Some("EIO")), StepEnd::Exited(0));
        spec.outputs = declared();
        assert_eq!(end(&spec, StepEnd::Exited(0), None), StepEnd::Exited(0));
        assert_eq!(end(&spec, StepEnd::Exited(3), Some("EIO")), StepEnd::Exited(3));
        let StepEnd::Failed(reason) = end(&spec, StepEnd::Exited(0), Some("EIO")) else { panic!("it succeeded") };
        assert_eq!(reason, "what it hands on could not be put on the disk for good: EIO");
    }

    #[test]
    fn the_name_of_a_variable_holds_only_what_a_shell_reads() {
        assert_eq!(variable(&"get-it.now".parse().unwrap(), "last_id"), "OUTPUT_GET_IT_NOW_LAST_ID");
    }
}
