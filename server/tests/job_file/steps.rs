//! What a step's rules become, what is wrong with them, and what is allowed but probably not meant.

use messages::{Limits, OutputType, Retry, When};
use server::job_file::{JobFile, output_variable};

use crate::{marked, params, problems, with_step};

#[test]
fn the_rules_of_a_step_travel_with_it() {
    let rules = "run = 'x'\nwhen = 'always'\nuser = 'www-data'\nretry = { limit = 5, on_exit = [7, 22], backoff = '2s..30s' }\n\
        limits = { memory = '256M', cpu = '50%', output = '10MB' }\n\
        outputs = { count = 'integer', ok = 'boolean', url = 'text' }";
    let plan = JobFile::parse(&with_step(rules)).unwrap().plan(&params(&[])).unwrap();
    let step = &plan.steps[0];
    assert_eq!((step.when, step.user.as_deref()), (When::Always, Some("www-data")));
    assert_eq!(step.retry, Some(Retry { limit: 5, on_exit: vec![7, 22], first_ms: 2_000, max_ms: 30_000 }));
    let limits = Limits { memory_bytes: Some(256 << 20), cpu_percent: Some(50), output_bytes: Some(10_000_000) };
    assert_eq!(step.limits, limits);
    let outputs: Vec<_> = step.outputs.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
    assert_eq!(outputs, [("count", OutputType::Integer), ("ok", OutputType::Boolean), ("url", OutputType::Text)]);
    let plain = JobFile::parse(&with_step("run = 'x'\nretry = { limit = 1 }\noutputs = ['v']")).unwrap();
    let plain = &plain.plan(&params(&[])).unwrap().steps[0];
    assert_eq!(plain.retry, Some(Retry { limit: 1, on_exit: vec![], first_ms: 1_000, max_ms: 60_000 }));
    assert_eq!(plain.outputs["v"], OutputType::Text);
}

#[test]
fn an_output_is_a_variable_that_any_shell_can_name() {
    assert_eq!(output_variable(&"build.web-2".parse().unwrap(), "Version"), "OUTPUT_BUILD_WEB_2_VERSION");
}

#[test]
fn every_problem_of_a_rule_is_marked_where_it_is() {
    let many = format!("outputs = [{}]", (0..65).map(|n| format!("'o{n}'")).collect::<Vec<_>>().join(","));
    let cases: &[(&str, &str, &str, &str)] = &[
        ("when = 'failur'", "'failur'", "`failur` is nothing that `when` can be", "\"failure\"?"),
        ("retry = 3", "3", "`retry` must be a table, this is a number", ""),
        ("retry = {}", "{}", "`retry` has no `limit`", "limit = 3"),
        ("retry = { limit = 101 }", "101", "`limit` must be 1 to 100", ""),
        ("retry = { limit = 0 }", "0", "`limit` must be 1 to 100", ""),
        ("retry = { limt = 3, limit = 3 }", "limt", "unknown key `limt`", "`limit`?"),
        ("retry = { limit = 1, on_exit = [0] }", "0", "exit code 0 is success", "leave it out"),
        ("retry = { limit = 1, on_exit = [] }", "[]", "`on_exit` names no exit code", "any failure"),
        ("retry = { limit = 1, on_exit = [7, 7] }", "7", "the exit code 7 is named twice", ""),
        ("retry = { limit = 1, on_exit = [256] }", "256", "`on_exit` must be 0 to 255", ""),
        ("retry = { limit = 1, backoff = '30s..2s' }", "'30s..2s'", "`30s..2s` begins with more than its longest", ""),
        ("retry = { limit = 1, backoff = '2d' }", "'2d'", "`2d` waits longer than a day", ""),
        ("limits = {}", "{}", "`limits` limits nothing", "256M"),
        ("limits = { memory = '256' }", "'256'", "`256` is not an amount of bytes", "10MB"),
        ("limits = { memory = '1K' }", "'1K'", "`1K` is too little", ""),
        ("limits = { cpu = '0%' }", "'0%'", "`0%` is not between", "half a core"),
        ("limits = { cpu = '1' }", "'1'", "`1` is not a part of a hundred", ""),
        ("limits = { memroy = '256M' }", "memroy", "unknown key `memroy`", "`memory`?"),
        ("memory = '256M'", "memory", "unknown key `memory`", "into the limits of a step"),
        ("user = '1000'", "'1000'", "`1000` cannot be the name of a user", "not a number"),
        ("user = '${{ params.rel }}'", "'${{ params.rel }}'", "`${{ params.rel }}` cannot be the name of a user", ""),
        ("outputs = 'v'", "'v'", "`outputs` must be a list or a table", ""),
        ("outputs = []", "[]", "0 outputs, 1 to 64 are allowed", ""),
        (&many, &many[10..], "65 outputs, 1 to 64 are allowed", ""),
        ("outputs = ['a-b']", "'a-b'", "`a-b` cannot name an output", "letters"),
        ("outputs = ['v', 'v']", "'v'", "the output `v` is named twice", ""),
        ("outputs = ['v', 'V']", "'v'", "`OUTPUT_S_V` already carries the output `V` of step `s`", "another name"),
        ("outputs = { v = 'number' }", "'number'", "`number` is nothing that `v` can be", "integer"),
        (
            "outputs = ['v']\n[[step]]\nid = 't'\nrun = 'x'\nenv = { OUTPUT_S_V = '' }",
            "OUTPUT_S_V",
            "`OUTPUT_S_V` already carries the output `v` of step `s`",
            "another name",
        ),
        (
            "outputs = ['b_c']\n[[step]]\nid = 's.b'\nrun = 'x'\noutputs = ['c']",
            "'c'",
            "`OUTPUT_S_B_C` already carries the output `b_c` of step `s`",
            "",
        ),
    ];
    for (lines, place, what, hint) in cases {
        let text = with_step(&format!("run = 'x'\n{lines}"));
        let found = problems(&text);
        let [(at, said, hinted)] = found.as_slice() else { panic!("{lines}: {found:?}") };
        assert_eq!(at, place, "{lines}: {found:?}");
        assert!(said.starts_with(what), "{lines}: {found:?}");
        assert!(hinted.contains(hint), "{lines}: {found:?}");
    }
}

#[test]
fn what_is_probably_not_meant_is_said_and_taken() {
    let two = "[[step]]\nid = 's'\nrun = 'x'\n[[step]]\nid = 't'\nrun = 'x'\n";
    let cases: &[(&str, &str, &str)] = &[
        (
            "target={all=true}\n[[step]]\nid='s'\nrun='x'\nwhen='failure'",
            "when",
            "step `s` runs after a failure, and no",
        ),
        ("target={all=true}\n[[step]]\nid='s'\nrun='x'\nretry={limit=1}", "retry", "step `s` must not run twice"),
        ("target={all=true}\n[[step]]\nid='s'\nrun='x'\noutputs=['v']", "outputs", "step `s` is the last"),
        (
            "target={all=true}\n[[step]]\nid='s'\nrun='x'\neffect='guarded'\ncheck='x'\noutputs=['v']\n[[step]]\nid='t'\nrun='x'",
            "outputs",
            "when its check finds step `s` done, its outputs may be missing",
        ),
        (
            "target={all=true}\ntimeout='1m'\n[[step]]\nid='s'\nrun='x'\ntimeout='2m'",
            "timeout",
            "step `s` may take longer than the whole job",
        ),
        (
            "target={all=true}\ntimeout='1m'\n[[step]]\nid='s'\nrun='x'\neffect='read-only'\nretry={limit=1,backoff='2m'}",
            "retry",
            "step `s` would be tried again only after",
        ),
        (
            &format!("target={{pool='a',pick='one',max_failed=1}}\n{two}"),
            "target",
            "`max_parallel` and `max_failed` have no",
        ),
        (
            &format!("target={{agents=['a'],max_parallel=1}}\n{two}"),
            "target",
            "`max_parallel` and `max_failed` have no",
        ),
        (&format!("target={{all=true,max_failed=1}}\n{two}"), "target", "`max_failed` stops little without"),
        (&format!("target={{all=true,sticky=true}}\n{two}"), "target", "`sticky` has no use with pick = \"all\""),
    ];
    for (lines, place, what) in cases {
        let text = format!("name='x'\n{lines}\n");
        let file = JobFile::parse(&text).unwrap();
        let [warning] = file.warnings() else { panic!("{lines}: {:?}", file.warnings()) };
        let (at, said, hint) = marked(&text, warning.clone());
        assert_eq!(at, *place, "{lines}: {warning:?}");
        assert!(said.starts_with(what) && !hint.is_empty(), "{lines}: {warning:?}");
    }
    assert_eq!(JobFile::parse(&with_step("run = 'x'")).unwrap().warnings(), []);
}
