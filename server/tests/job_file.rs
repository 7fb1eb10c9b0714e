//! The job file as its author meets it: what is taken, and where exactly what is not taken goes wrong.
#![allow(clippy::unwrap_used, clippy::type_complexity)]

use std::collections::BTreeMap;

use messages::limits::BODY_BYTES_MAX;
use messages::{Body, Effect, JobId, Program, RunId};
use proptest::prelude::*;
use server::job_file::{FILE_BYTES_MAX, JobFile, PROBLEMS_MAX, Problem, Target};

const GOOD: &str = r#"
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

fn params(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The problems as (the marked piece of the text, what is wrong, hint).
fn problems(text: &str) -> Vec<(&str, String, String)> {
    let list = JobFile::parse(text).expect_err("the file has problems");
    list.into_iter().map(|problem| marked(text, problem)).collect()
}

fn marked(text: &str, problem: Problem) -> (&str, String, String) {
    (problem.span.map_or("", |span| &text[span]), problem.what, problem.hint.unwrap_or_default())
}

fn with_step(lines: &str) -> String {
    format!("name = \"x\"\ntarget = {{ all = true }}\n[params]\nrel = {{}}\n[[step]]\nid = \"s\"\n{lines}\n")
}

#[test]
fn a_whole_job_file_becomes_the_steps_that_travel() {
    let file = JobFile::parse(GOOD).unwrap();
    let Target::Agents(agents) = file.target() else { panic!("{:?}", file.target()) };
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
    assert_eq!(JobFile::parse(&with_step("run = \"true\"")).unwrap().target(), &Target::All);
}

#[test]
fn every_problem_of_a_step_is_marked_where_it_is() {
    let cases: &[(&str, &str, &str, &str)] = &[
        ("rnu = \"x\"\nexec = [\"a\"]", "rnu", "unknown key `rnu`", "did you mean `run`?"),
        ("run = \"x\"\nretry = { limit = 2 }", "retry", "`retry` is not supported yet in this version", "leave it out"),
        ("run = \"x\"\nput = []", "put", "`put` is not supported yet in this version", "leave it out"),
        (
            "run = \"echo ${{ params.rel }}\"",
            "${{ params.rel }}",
            "placeholders are not expanded in `run`",
            "\"$PARAM_REL\"",
        ),
        (
            "run = '''\na\n${{params.x}}\n'''",
            "${{params.x}}",
            "placeholders are not expanded in `run`",
            "PARAM_ and its name",
        ),
        (
            "exec = [\"a\", \"${{ params.rel }}\"]",
            "${{ params.rel }}",
            "placeholders are not expanded in `exec`",
            "PARAM_REL",
        ),
        (
            "run = \"x\"\neffect = \"guarded\"\ncheck = \"${{a}}\"",
            "${{a}}",
            "placeholders are not expanded in `check`",
            "",
        ),
        ("run = \"x\"\nexec = [\"a\"]", "exec", "a step has `run` or `exec`, not both", "make it two steps"),
        ("", "[[step]]", "this step has nothing to run", "exec = "),
        ("run = \"\"", "\"\"", "`run` is empty", ""),
        ("run = 3", "3", "`run` must be a text in quotes, this is a number", ""),
        ("exec = []", "[]", "`exec` names no program", "first entry"),
        ("exec = [\"\"]", "[\"\"]", "`exec` names no program", "first entry"),
        ("run = \"a\\u0000b\"", "\"a\\u0000b\"", "`run` holds a NUL character", "leave it out"),
        ("run = \"x\"\neffect = \"idempotant\"", "\"idempotant\"", "`idempotant` is not an effect", "\"idempotent\"?"),
        ("run = \"x\"\neffect = \"guarded\"", "effect", "a guarded step needs a `check`", "exit code 0"),
        ("run = \"x\"\ncheck = \"y\"", "check", "`check` has no use when the effect is once", "guarded"),
        ("run = \"x\"\ntimeout = 5", "5", "`timeout` must be a text in quotes, this is a number", ""),
        ("run = \"x\"\ntimeout = \"5 min\"", "\"5 min\"", "`5 min` is not a span of time", "1h30m"),
        ("run = \"x\"\ndir = \"\"", "\"\"", "`dir` is empty", "own folder"),
        (
            "run = \"x\"\nenv = { A = \"${{ params.rle }}\" }",
            "${{ params.rle }}",
            "there is no parameter `rle`",
            "params.rel",
        ),
        (
            "run = \"x\"\nenv = { A = \"${{ secrets.a }}\" }",
            "${{ secrets.a }}",
            "`secrets.a` is not something",
            "params.NAME",
        ),
        ("run = \"x\"\nenv = { A = \"${{ params.rel\" }", "${{", "this placeholder has no end", "close it"),
        ("run = \"x\"\nenv = { \"1A\" = \"\" }", "\"1A\"", "`1A` cannot name an environment variable", "digit"),
        ("run = \"x\"\nenv = { PARAM_REL = \"\" }", "PARAM_REL", "`PARAM_REL` already carries the parameter `rel`", ""),
        ("run = \"x\"\n[[step]]\nid = \"s\"\nrun = \"y\"", "\"s\"", "the step id `s` is used twice", "of its own"),
        ("run = \"x\"\n[[step]]\nrun = \"y\"", "[[step]]", "this step has no `id`", "id = "),
        ("run = \"x\"\n[[step]]\nid = \"../x\"\nrun = \"y\"", "\"../x\"", "step id `../x` may hold only", ""),
        ("run = \"x", "", "not valid TOML: invalid basic string, expected", ""),
        ("run = \"x\"\nrun = \"y\"", "run", "not valid TOML: duplicate key", ""),
    ];
    for (lines, place, what, hint) in cases {
        let text = with_step(lines);
        let found = problems(&text);
        let [(at, said, hinted)] = found.as_slice() else { panic!("{lines}: {found:?}") };
        assert!(at.starts_with(place) && (at.len() == place.len() || *place == "[[step]]"), "{lines}: {found:?}");
        assert!(said.starts_with(what), "{lines}: {found:?}");
        assert!(hinted.contains(hint), "{lines}: {found:?}");
    }
}

#[test]
fn every_problem_of_the_head_is_marked_where_it_is() {
    let cases: &[(&str, &str, &str, &str)] = &[
        ("target = { all = true }", "", "the job has no `name`", "begin the file"),
        ("name = \"x\"", "", "the job has no `target`", "agents"),
        ("name = \"x\"\ntarget = \"all\"", "\"all\"", "`target` must be a table", "{ all = true }"),
        ("name = \"x\"\ntarget = { all = false }", "false", "`all = false` names no agent", ""),
        ("name = \"x\"\ntarget = { agents = [] }", "[]", "the target names no agent", ""),
        ("name = \"x\"\ntarget = {}", "{}", "the target names no agent", ""),
        ("name = \"x\"\ntarget = { agents = [\"a\", \"a\"] }", "\"a\"", "the agent `a` is named twice", ""),
        ("name = \"x\"\ntarget = { agents = [\"A.b\"] }", "\"A.b\"", "agent name `A.b` may hold only", ""),
        (
            "name = \"x\"\ntarget = { all = true, pool = \"web\" }",
            "pool",
            "`pool` is not supported yet",
            "name the agents",
        ),
        (
            "name = \"x\"\ntarget = { all = true }\ntimeout = \"3m\"",
            "timeout",
            "`timeout` is not supported yet",
            "each step",
        ),
        (
            "name = \"x\"\ntarget = { all = true }\nconcurrency = {}",
            "concurrency",
            "`concurrency` is not supported yet",
            "",
        ),
        ("nmae = \"y\"\nname = \"x\"\ntarget = { all = true }", "nmae", "unknown key `nmae`", "did you mean `name`?"),
        (
            "name = \"x\"\ntarget = { all = true }\nparams = { \"a-b\" = {} }",
            "\"a-b\"",
            "`a-b` cannot name a parameter",
            "environment variable",
        ),
        (
            "name = \"x\"\ntarget = { all = true }\nparams = { a = { pattern = '(' } }",
            "'('",
            "not a valid pattern: unclosed group",
            "",
        ),
        (
            "name = \"x\"\ntarget = { all = true }\nparams = { a = { pattern = '\\w{1000}{1000}' } }",
            "'\\w{1000}{1000}'",
            "not a valid pattern: ",
            "",
        ),
        (
            "name = \"x\"\ntarget = { all = true }\nparams = { a = { pattern = 'a|ab', default = 'abc' } }",
            "'abc'",
            "the default `abc` does not match the pattern `a|ab`",
            "",
        ),
        (
            "name = \"x\"\ntarget = { all = true }\nparams = { a = { required = true, default = 'a' } }",
            "'a'",
            "a required parameter has no use for a default",
            "",
        ),
    ];
    for (head, place, what, hint) in cases {
        let text = format!("{head}\n[[step]]\nid = \"s\"\nrun = \"true\"\n");
        let found = problems(&text);
        let [(at, said, hinted)] = found.as_slice() else { panic!("{head}: {found:?}") };
        assert_eq!(at, place, "{head}: {found:?}");
        assert!(said.starts_with(what), "{head}: {found:?}");
        assert!(hinted.contains(hint), "{head}: {found:?}");
    }
}

#[test]
fn one_look_shows_every_problem_in_the_order_of_the_file() {
    let text = "name = 5\ntarget = { alll = true }\n[[step]]\nid = \"\"\nrum = \"x\"\n";
    let found: Vec<_> = problems(text).into_iter().map(|(at, _, _)| at).collect();
    assert_eq!(found, ["5", "{ alll = true }", "alll", "[[step]]", "\"\"", "rum"]);
    let list = JobFile::parse(text).unwrap_err();
    assert_eq!(list[2].position(text), Some((2, 12)));
}

#[test]
fn a_file_with_a_thousand_problems_shows_the_first_and_counts_the_others() {
    let list = JobFile::parse(&"k = 1\n".repeat(1000)).unwrap_err();
    assert_eq!(list.len(), PROBLEMS_MAX + 1);
    assert_eq!(list[PROBLEMS_MAX].what, "949 more problems are not shown");
}

#[test]
fn a_file_that_is_too_large_is_not_even_parsed() {
    let list = JobFile::parse(&"#".repeat(FILE_BYTES_MAX + 1)).unwrap_err();
    assert_eq!(list[0].what, "the job file has 196609 bytes, at most 196608 are allowed");
}

#[test]
fn too_many_steps_are_refused() {
    let steps: String = (0..1001).map(|n| format!("[[step]]\nid='{n}'\nrun='x'\n")).collect();
    let found = JobFile::parse(&format!("name='x'\ntarget={{all=true}}\n{steps}")).unwrap_err();
    assert_eq!(found[0].what, "1001 steps, at most 1000 are allowed");
}

#[test]
fn deep_nesting_is_a_problem_and_not_a_stack_overflow() {
    assert!(JobFile::parse(&format!("a = {}", "[".repeat(90_000))).is_err());
    assert!(JobFile::parse(&format!("a = {}", "{b=".repeat(60_000))).is_err());
    assert!(JobFile::parse(&format!("{}a = 1", "a.".repeat(90_000))).is_err());
    assert!(JobFile::parse(&format!("[{}a]", "a.".repeat(90_000))).is_err());
}

#[test]
fn values_of_parameters_are_checked_against_their_declaration() {
    let file = JobFile::parse(GOOD).unwrap();
    let large = "1".repeat(8 * 1024 + 1);
    let cases: &[(&[(&str, &str)], &str, &str)] = &[
        (&[], "release", "the parameter `release` needs a value"),
        (&[("release", "1")], "release", "the value of `release` `1` does not match the pattern"),
        (&[("release", "1.2.3\n")], "release", "the value of `release` `1.2.3\u{fffd}` does not match the pattern"),
        (&[("release", "x1.2.3")], "release", "the value of `release` `x1.2.3` does not match the pattern"),
        (&[("release", "1.2.3"), ("stage", "a\0")], "stage", "the value of `stage` holds a NUL character"),
        (&[("release", "1.2.3"), ("stage", &large)], "stage", "the value of `stage` has 8193 bytes, at most 8192"),
        (&[("release", "1.2.3"), ("stgae", "a")], "", "the job has no parameter `stgae`"),
    ];
    for (given, place, what) in cases {
        let found: Vec<_> =
            file.plan(&params(given)).unwrap_err().into_iter().map(|problem| marked(GOOD, problem)).collect();
        let [(at, said, _)] = found.as_slice() else { panic!("{given:?}: {found:?}") };
        assert_eq!(at, place, "{found:?}");
        assert!(said.starts_with(what), "{found:?}");
    }
}

#[test]
fn a_value_is_never_read_as_a_placeholder() {
    let text = with_step("run = 'x'\nenv = { A = '${{ params.rel }}' }");
    let plan = JobFile::parse(&text).unwrap().plan(&params(&[("rel", "${{ params.rel }}")])).unwrap();
    assert_eq!(plan.steps[0].env["A"], "${{ params.rel }}");
}

#[test]
fn a_run_that_does_not_fit_one_message_says_how_many_bytes_it_is_over() {
    // 20 steps carry the same 8 KiB each, and a little more than fits.
    let mut text = String::from("name='x'\ntarget={all=true}\nparams={a={},b={}}\n");
    for n in 0..30 {
        text.push_str(&format!("[[step]]\nid='{n}'\nrun='x'\n"));
    }
    let file = JobFile::parse(&text).unwrap();
    let size = |bytes: usize| {
        let plan = file.plan(&params(&[("a", &"v".repeat(8192)), ("b", &"v".repeat(bytes))]));
        plan.map(|plan| {
            let start = plan.run_start(RunId::from_u128(1), JobId::from_u128(2));
            Body::RunStart(start).encode().unwrap().1.len()
        })
    };
    // The largest value that fits: one byte more in the value is 30 bytes more in the run.
    let fits = (0..600).rev().find(|bytes| size(*bytes).is_ok()).unwrap();
    assert!((BODY_BYTES_MAX - 30..=BODY_BYTES_MAX).contains(&size(fits).unwrap()), "{fits}");
    let over = size(fits).unwrap() + 30 - BODY_BYTES_MAX;
    let found = size(fits + 1).unwrap_err();
    assert!(found[0].what.contains(&format!(" {over} over the ")), "{over} {found:?}");
}

#[test]
fn a_short_file_cannot_ask_for_endless_text() {
    let placeholders = "${{params.a}}".repeat(10_000);
    let text = format!(
        "name='x'\ntarget={{all=true}}\nparams={{a={{}}}}\n[[step]]\nid='s'\nrun='x'\nenv={{A='{placeholders}'}}\n"
    );
    let found = JobFile::parse(&text).unwrap().plan(&params(&[("a", &"v".repeat(8192))])).unwrap_err();
    assert!(found.iter().any(|problem| problem.what.contains("becomes 81920000 bytes")), "{found:?}");
}

/// Text that is nearly a job file: pieces of the good one, cut and mixed with characters that mean something.
fn nearly() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        (0..GOOD.len(), 0..80_usize).prop_map(|(start, length)| {
            let end = (start + length).min(GOOD.len());
            GOOD.get(start..end).unwrap_or("").to_owned()
        }),
        "[\\[\\]{}='\"\\\\.,#\n$a-z0-9é]{0,12}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics_and_every_mark_is_within_it(text in nearly(), cut in 0..GOOD.len(), put in ".{0,6}") {
        let mut damaged = GOOD.to_owned();
        damaged.insert_str(damaged.floor_char_boundary(cut), &put);
        for text in [text.as_str(), damaged.as_str()] {
            match JobFile::parse(text) {
                Ok(file) => drop(file.plan(&params(&[("release", "1.2.3")]))),
                Err(problems) => for problem in problems {
                    prop_assert!(problem.span.clone().is_none_or(|span| text.get(span).is_some()), "{:?}", problem);
                    prop_assert_eq!(problem.position(text).is_some(), problem.span.is_some());
                },
            }
        }
    }
}
