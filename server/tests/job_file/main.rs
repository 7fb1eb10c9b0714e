//! The job file as its author meets it: what is taken, and where exactly what is not taken goes wrong.
#![allow(clippy::unwrap_used, clippy::type_complexity, missing_docs, unreachable_pub)]

mod any_bytes;
mod any_file;
mod examples;
mod labels;
mod places;
mod schema;
mod steps;
mod values;

use std::collections::BTreeMap;

use messages::{Effect, JobId, Program, RunId};
use server::job_file::{JobFile, Problem, Who};

pub use examples::{EXAMPLES, WITH_LATER};

pub const GOOD: &str = r#"
name = "deploy ${{ params.release }}"
target = { agents = ["web-01", "web-02"] }

[params]
release = { required = true, pattern = '\d+\.\d+\.\d+' }
stage = { default = "test" }
note = {}

[[step]]
id = "fetch"
exec = ["/usr/bin/curl", "-fsS", "https://example.org/x"]
effect = "read-only"
timeout = "1h30m"

[[step]]
id = "switch"
run = 'ln -sfn "/srv/$PARAM_RELEASE" /srv/current'
env = { APP_ROOT = "/srv/${{params.stage}}/${{ params.release }}" }
dir = "/srv/${{ params.stage }}"
effect = "idempotent"

[[step]]
id = "migrate"
run = "migrate up"
effect = "guarded"
check = "migrate status"

[[step]]
id = "notify"
run = "./notify"
"#;

pub fn params(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The problems as (the marked piece of the text, what is wrong, hint).
pub fn problems(text: &str) -> Vec<(&str, String, String)> {
    let list = JobFile::parse(text).expect_err("the file has problems");
    list.into_iter().map(|problem| marked(text, problem)).collect()
}

pub fn marked(text: &str, problem: Problem) -> (&str, String, String) {
    (problem.span.map_or("", |span| &text[span]), problem.what, problem.hint.unwrap_or_default())
}

pub fn with_step(lines: &str) -> String {
    format!("name = \"x\"\ntarget = {{ all = true }}\n[params]\nrel = {{}}\n[[step]]\nid = \"s\"\n{lines}\n")
}

#[test]
fn a_whole_job_file_becomes_the_steps_that_travel() {
    let file = JobFile::parse(GOOD).unwrap();
    let Who::Agents(agents) = &file.target().who else { panic!("{:?}", file.target()) };
    assert_eq!(agents.iter().map(|agent| agent.as_str()).collect::<Vec<_>>(), ["web-01", "web-02"]);
    let plan = file.plan(&params(&[("release", "2.4.1")])).unwrap();
    assert_eq!(plan.name, "deploy 2.4.1");
    let [fetch, switch, migrate, notify] = plan.steps.as_slice() else { panic!("{plan:?}") };
    assert_eq!(
        fetch.program,
        Program::Exec(vec!["/usr/bin/curl".into(), "-fsS".into(), "https://example.org/x".into()])
    );
    assert_eq!((&fetch.effect, fetch.timeout_ms), (&Effect::ReadOnly, Some(5_400_000)));
    assert_eq!(fetch.env, params(&[("PARAM_RELEASE", "2.4.1"), ("PARAM_STAGE", "test"), ("PARAM_NOTE", "")]));
    assert_eq!(switch.env["APP_ROOT"], "/srv/test/2.4.1");
    assert_eq!(switch.dir.as_deref(), Some("/srv/test"));
    assert_eq!(migrate.effect, Effect::Guarded(Program::Shell("migrate status".into())));
    assert_eq!((&notify.effect, notify.timeout_ms), (&Effect::Once, None));
    plan.run_start(RunId::from_u128(1), JobId::from_u128(2)).check().unwrap();
}

#[test]
fn a_file_can_be_for_all_agents() {
    assert_eq!(JobFile::parse(&with_step("run = \"true\"")).unwrap().target().who, Who::All);
}

#[test]
fn what_comes_later_is_refused_with_what_to_do_and_nothing_else_is() {
    for (text, place, later, keys) in WITH_LATER {
        let text = text.replace(place, later);
        let found = problems(&text);
        let marked: Vec<&str> = found.iter().map(|(at, _, _)| *at).collect();
        assert_eq!(marked, keys, "{found:?}");
        for (_, what, hint) in found {
            assert!(what.ends_with("is not supported yet in this version") && !hint.is_empty(), "{what}");
        }
    }
}
