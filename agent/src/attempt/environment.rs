//! The environment of a step: a small part of the agent's own, what the step may want to know of itself, and what its author
//! gave it. Everything else that the agent was started with stays with the agent, credentials above all.

use std::collections::BTreeMap;
use std::ffi::OsString;

use messages::{AgentId, JobId, RunId, StepId};

/// What a step gets of the agent's own environment: where programs are, where to put things, how to speak.
pub const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];

/// Names one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptKey {
    /// Where it runs.
    pub agent: AgentId,
    /// The job.
    pub job: JobId,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// Which attempt at the step, from 1.
    pub attempt: u32,
}

/// The whole environment of one attempt. `own` looks up a variable of the agent, normally `|name| std::env::var_os(name)`;
/// what is not UTF-8 is left out, since a plan holds text. What the step's author gave comes last and wins.
#[must_use]
pub fn environment(
    own: impl Fn(&str) -> Option<OsString>,
    key: &AttemptKey,
    step: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let inherited = INHERITED.iter().filter_map(|&name| Some((name.to_owned(), own(name)?.into_string().ok()?)));
    let told = [
        ("LONGSHORE_AGENT", key.agent.to_string()),
        ("LONGSHORE_JOB", key.job.to_string()),
        ("LONGSHORE_RUN", key.run.to_string()),
        ("LONGSHORE_STEP", key.step.to_string()),
        ("LONGSHORE_ATTEMPT", key.attempt.to_string()),
    ];
    let told = told.into_iter().map(|(name, value)| (name.to_owned(), value));
    let given = step.iter().map(|(name, value)| (name.clone(), value.clone()));
    inherited.chain(told).chain(given).collect()
}

/// What the operating system could not carry: a name that is empty or holds `=`, or a zero byte anywhere. The offending
/// name, if there is one.
pub(super) fn unusable(env: &BTreeMap<String, String>) -> Option<&str> {
    let bad =
        |(name, value): &(&String, &String)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
    env.iter().find(bad).map(|(name, _)| name.as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn key() -> AttemptKey {
        AttemptKey {
            agent: "web-01".parse().unwrap(),
            job: JobId::from_u128(1),
            run: RunId::from_u128(2),
            step: "copy".parse().unwrap(),
            attempt: 3,
        }
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_step_gets_the_allowed_part_of_the_agents_environment_and_no_more() {
        let own = |name: &str| match name {
            "PATH" => Some("/bin".into()),
            "TMPDIR" => Some(OsString::from_vec(vec![0xff])),
            "AWS_SECRET_ACCESS_KEY" => Some("secret".into()),
            _ => None,
        };
        let expected = map(&[
            ("GREETING", "hello"),
            ("LONGSHORE_AGENT", "web-01"),
            ("LONGSHORE_ATTEMPT", "3"),
            ("LONGSHORE_JOB", "00000000-0000-0000-0000-000000000001"),
            ("LONGSHORE_RUN", "00000000-0000-0000-0000-000000000002"),
            ("LONGSHORE_STEP", "copy"),
            ("PATH", "/bin"),
        ]);
        assert_eq!(environment(own, &key(), &map(&[("GREETING", "hello")])), expected);
    }

    #[test]
    fn the_steps_author_has_the_last_word() {
        let env = environment(|_| Some("/agent".into()), &key(), &map(&[("HOME", "/step")]));
        assert_eq!((env["HOME"].as_str(), env["PATH"].as_str()), ("/step", "/agent"));
    }

    #[test]
    fn names_and_values_that_no_process_can_have_are_found() {
        for bad in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0")] {
            assert_eq!(unusable(&map(&[("FINE", "x"), bad])), Some(bad.0));
        }
        assert_eq!(unusable(&map(&[("FINE", "a=b c")])), None);
    }
}
