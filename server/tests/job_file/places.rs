//! Every problem, and the piece of the text that is marked for it.

use server::job_file::{FILE_BYTES_MAX, JobFile, PROBLEMS_MAX};

use crate::{problems, with_step};

/// Checks the one problem of each step: (its lines, marked piece, what is wrong, a piece of the hint).
fn check_steps(cases: &[(&str, &str, &str, &str)]) {
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
fn every_problem_of_a_step_is_marked_where_it_is() {
    check_steps(&[
        ("rnu = \"x\"\nexec = [\"a\"]", "rnu", "unknown key `rnu`", "did you mean `run`?"),
        ("run = \"x\"\nput = []", "put", "`put` is not supported yet in this version", "store the file in `run`"),
        ("run = \"x\"\nget = {}", "get", "`get` is not supported yet in this version", "fetch the file in `run`"),
        (
            "run = \"x\"\nsecrets = {}",
            "secrets",
            "`secrets` is not supported yet in this version",
            "never write a secret",
        ),
        ("run = \"x\"\nexec = [\"a\"]", "exec", "a step has `run` or `exec`, not both", "make it two steps"),
        ("", "[[step]]", "this step has nothing to run", "exec = "),
        ("run = \"\"", "\"\"", "`run` is empty", ""),
        ("run = 3", "3", "`run` must be a text in quotes, this is a number", ""),
        ("exec = []", "[]", "`exec` names no program", "first entry"),
        ("exec = [\"\"]", "[\"\"]", "`exec` names no program", "first entry"),
        ("run = \"a\\u0000b\"", "\"a\\u0000b\"", "`run` holds a NUL character", "leave it out"),
        (
            "run = \"x\"\neffect = \"idempotant\"",
            "\"idempotant\"",
            "`idempotant` is nothing that `effect` can be",
            "\"idempotent\"?",
        ),
        ("run = \"x\"\neffect = \"guarded\"", "effect", "a guarded step needs a `check`", "exit code 0"),
        ("run = \"x\"\ncheck = \"y\"", "check", "`check` has no use when the effect is once", "guarded"),
        ("run = \"x\"\ntimeout = 5", "5", "`timeout` must be a text in quotes, this is a number", ""),
        ("run = \"x\"\ntimeout = \"5 min\"", "\"5 min\"", "`5 min` is not a span of time", "1h30m"),
        ("run = \"x\"\ndir = \"\"", "\"\"", "`dir` is empty", "own folder"),
        ("run = \"x\"\nenv = { \"1A\" = \"\" }", "\"1A\"", "`1A` cannot name an environment variable", "digit"),
        ("run = \"x\"\nenv = { PARAM_REL = \"\" }", "PARAM_REL", "`PARAM_REL` already carries the parameter `rel`", ""),
        ("run = \"x\"\n[[step]]\nid = \"s\"\nrun = \"y\"", "\"s\"", "the step id `s` is used twice", "of its own"),
        ("run = \"x\"\n[[step]]\nrun = \"y\"", "[[step]]", "this step has no `id`", "id = "),
        ("run = \"x\"\n[[step]]\nid = \"../x\"\nrun = \"y\"", "\"../x\"", "step id `../x` may hold only", ""),
        ("run = \"x", "", "not valid TOML: invalid basic string, expected", ""),
        ("run = \"x\"\nrun = \"y\"", "run", "not valid TOML: duplicate key", ""),
    ]);
}

#[test]
fn every_problem_of_a_placeholder_is_marked_where_it_is() {
    check_steps(&[
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
    ]);
}

/// Checks the one problem of each head: (head, marked piece, what is wrong, a piece of the hint).
fn check_heads(cases: &[(&str, &str, &str, &str)]) {
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
fn every_problem_of_the_head_is_marked_where_it_is() {
    check_heads(&[
        ("target = { all = true }", "", "the job has no `name`", "begin the file"),
        ("name = 'x'", "", "the job has no `target`", "agents"),
        ("name='x'\ntarget={all=true}\ntimeout='3 m'", "'3 m'", "`3 m` is not a span of time", "2m"),
        ("name='x'\ntarget={all=true}\nconcurrency={}", "{}", "`concurrency` names no group", "group = "),
        (
            "name='x'\ntarget={all=true}\nconcurrency={group='g',on_conflict='cancel_older'}",
            "'cancel_older'",
            "`cancel_older` is nothing that `on_conflict` can be",
            "cancel-older",
        ),
        ("name='x'\ntarget={all=true}\nkeep='allways'", "'allways'", "`allways` is nothing that `keep`", "\"always\"?"),
        ("pool='web'\nname='x'\ntarget={all=true}", "pool", "unknown key `pool`", "it belongs into the target"),
        (
            "name='x'\ntarget={all=true}\nsecrets={}",
            "secrets",
            "`secrets` is not supported yet",
            "never write a secret",
        ),
        ("nmae='y'\nname='x'\ntarget={all=true}", "nmae", "unknown key `nmae`", "did you mean `name`?"),
    ]);
}

#[test]
fn every_problem_of_a_target_is_marked_where_it_is() {
    let cases = [
        ("'all'", "'all'", "`target` must be a table", "{ all = true }"),
        ("{ all = false }", "false", "`all = false` names no agent", ""),
        ("{ agents = [] }", "[]", "the target names no agent", ""),
        ("{}", "{}", "the target names no agent", ""),
        ("{ agents = ['a', 'a'] }", "'a'", "the agent `a` is named twice", ""),
        ("{ agents = ['A.b'] }", "'A.b'", "agent name `A.b` may hold only", ""),
        ("{ all = true, agents = ['b'] }", "true", "a target has `agents` or `all`, not both", "leave one"),
        ("{ all = true, pool = 'web' }", "pool", "a target with `all` has no use for `pool`", "leave out `all`"),
        ("{ agents = ['a'], labels = 'b' }", "labels", "a target with `agents` has no use for `labels`", "`agents`"),
        ("{ pool = 'a b' }", "'a b'", "`a b` cannot be the name of a pool", "letters"),
        ("{ labels = [] }", "[]", "`labels` has 1 to 64 entries", "leave it out"),
        ("{ labels = 3 }", "3", "`labels` must be a text in quotes, or a list", "env=prod"),
        ("{ labels = ['a', 'b && && c'] }", "&&", "a label is missing here", "env=prod"),
        ("{ labels = 'a=${{ params.b }}' }", "$", "`$` means nothing", "placeholders are not expanded in labels"),
        ("{ all = true, pick = 'On' }", "'On'", "`On` is nothing that `pick` can be", "\"one\"?"),
        ("{ all = true, max_parallel = 0 }", "0", "`max_parallel` must be 1 to 4294967295", ""),
        ("{ all = true, max_parallel = '0%' }", "'0%'", "`0%` is not a part of the agents", "\"25%\""),
        ("{ all = true, max_parallel = [] }", "[]", "`max_parallel` must be a number, or a text", "\"25%\""),
        ("{ all = true, max_failed = -1 }", "-1", "`max_failed` must be 0 to 4294967295", ""),
        ("{ all = true, expires = 'soon' }", "'soon'", "`soon` is not a span of time", "1h30m"),
    ];
    for (target, place, what, hint) in cases {
        check_heads(&[(&format!("name = \"x\"\ntarget = {target}"), place, what, hint)]);
    }
}

#[test]
fn every_problem_of_a_parameter_is_marked_where_it_is() {
    let cases = [
        ("{ \"a-b\" = {} }", "\"a-b\"", "`a-b` cannot name a parameter", "environment variable"),
        ("{ a = { pattern = '(' } }", "'('", "not a valid pattern: unclosed group", ""),
        ("{ a = { pattern = '\\w{1000}{1000}' } }", "'\\w{1000}{1000}'", "not a valid pattern: ", ""),
        (
            "{ a = { pattern = 'a|ab', default = 'abc' } }",
            "'abc'",
            "the default `abc` does not match the pattern `a|ab`",
            "",
        ),
        ("{ a = { required = true, default = 'a' } }", "'a'", "a required parameter has no use for a default", ""),
    ];
    for (params, place, what, hint) in cases {
        check_heads(&[(&format!("name = \"x\"\ntarget = {{ all = true }}\nparams = {params}"), place, what, hint)]);
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
