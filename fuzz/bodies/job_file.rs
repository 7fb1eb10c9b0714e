//! What must hold for any text that is given as a job file: a file within its limits, or problems that point into the text. Run by
//! the fuzz target `job_file` and by the property tests of `server`.

use std::collections::BTreeMap;

use messages::limits::{BODY_BYTES_MAX, STEPS_MAX};
use messages::{Body, JobId, RunId};
use server::job_file::{FILE_BYTES_MAX, JobFile, NAME_CHARS_MAX, PARAMS_MAX, PROBLEMS_MAX, Plan, Problem};

/// Panics when something does not hold. Says whether the bytes were a job file.
pub(crate) fn any_bytes(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let file = match JobFile::parse(&text) {
        Ok(file) => file,
        Err(problems) => {
            check_problems(&text, &problems);
            return false;
        }
    };
    assert!(text.len() <= FILE_BYTES_MAX);
    assert!((1..=STEPS_MAX).contains(&file.step_ids().len()));
    if !file.warnings().is_empty() {
        check_problems(&text, file.warnings());
    }
    let names: Vec<String> = file.param_names().map(str::to_owned).collect();
    assert!(names.len() <= PARAMS_MAX);
    // Without values, and with one that no pattern expects to be harmless.
    for value in [None, Some("x"), Some("${{ params.x }}\n\"'")] {
        let given = |value: &str| names.iter().map(|name| (name.clone(), value.to_owned())).collect();
        match file.plan(&value.map_or_else(BTreeMap::new, given)) {
            Ok(plan) => {
                assert_eq!(plan.steps.len(), file.step_ids().len());
                assert!((1..=NAME_CHARS_MAX).contains(&plan.name.chars().count()));
                check_plan(&plan);
            }
            Err(problems) => check_problems(&text, &problems),
        }
    }
    true
}

/// What was planned can be sent, and is taken by whoever receives it.
fn check_plan(plan: &Plan) {
    let start = plan.run_start(RunId::from_u128(1), JobId::from_u128(2));
    assert_eq!(start.check(), Ok(()));
    let body = Body::RunStart(start);
    let (kind, bytes) = body.encode().expect("a plan was encoded before to measure it");
    assert!(bytes.len() <= BODY_BYTES_MAX);
    assert_eq!(Body::decode(kind, &bytes).expect("what was encoded decodes"), body);
}

fn check_problems(text: &str, problems: &[Problem]) {
    // One more says how many were left out.
    assert!((1..=PROBLEMS_MAX + 1).contains(&problems.len()));
    for problem in problems {
        assert!(!problem.what.is_empty() && !problem.what.contains('\n'), "{problem:?}");
        if let Some(span) = &problem.span {
            assert!(text.get(span.clone()).is_some(), "{problem:?} is not about a place in the file");
            assert!(problem.position(text).is_some());
        }
    }
}
