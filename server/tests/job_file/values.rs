//! Values for parameters, the size of what comes of them, and text that no author would write.

use messages::limits::BODY_BYTES_MAX;
use messages::{Body, JobId, Keep, RunId};
use proptest::prelude::*;
use server::job_file::{Concurrency, JobFile, OnConflict, Pick, Selector, Share, Target, Who};

use crate::{GOOD, marked, params, with_step};

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
fn the_head_of_a_job_file_is_in_its_plan() {
    let text = "name = 'x'\ntimeout = '30m'\nkeep = 'always'\nconcurrency = { group = 'web-${{ params.a }}' }\n\
        target = { pool = 'web', labels = ['env=prod'], pick = 'one', max_parallel = '25%', max_failed = 1, sticky = true, \
        skip_offline = true, expires = '24h' }\nparams = { a = {} }\n[[step]]\nid = 's'\nrun = 'x'\n";
    let file = JobFile::parse(text).unwrap();
    let labels = Selector::parse("env=prod").unwrap();
    let target = Target {
        who: Who::Matching { pool: Some("web".into()), labels },
        pick: Pick::One,
        max_parallel: Some(Share::Percent(25)),
        max_failed: Some(1),
        sticky: true,
        skip_offline: true,
        expires_ms: Some(86_400_000),
    };
    assert_eq!(file.target(), &target);
    assert_eq!(file.concurrency().unwrap().group, "web-${{ params.a }}");
    let plan = file.plan(&params(&[("a", "prod")])).unwrap();
    let group = Concurrency { group: "web-prod".into(), on_conflict: OnConflict::Queue };
    assert_eq!((plan.timeout_ms, plan.keep, plan.concurrency.as_ref()), (Some(1_800_000), Keep::Always, Some(&group)));
    let start = plan.run_start(RunId::from_u128(1), JobId::from_u128(2));
    assert_eq!((start.timeout_ms, start.keep), (Some(1_800_000), Keep::Always));
    let found = file.plan(&params(&[("a", "two\nlines")])).unwrap_err();
    assert_eq!(found[0].what, "a group's name has 1 to 100 characters in one line");
}

#[test]
fn numbers_are_read_as_toml_writes_them() {
    for (written, number) in [("0x10", 16), ("1_000", 1_000), ("+5", 5), ("0b11", 3), ("0", 0)] {
        let text = with_step("run = 'x'").replace("all = true", &format!("all = true, max_failed = {written}"));
        assert_eq!(JobFile::parse(&text).unwrap().target().max_failed, Some(number), "{written}");
    }
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
