//! Job files put together by chance from pieces that are each right or nearly so: most become plans, and every plan can be sent.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use server::job_file::JobFile;

use super::any_bytes::body;

const HEAD: &[&str] = &[
    "timeout = '30m'",
    "keep = 'never'",
    "concurrency = { group = 'g-${{ params.a }}' }",
    "concurrency = { group = 'g', on_conflict = 'cancel-older' }",
    "params = { a = { default = 'x' } }",
    "params = { a = {}, b = { pattern = '[a-z]+', default = 'b' } }",
];

const TARGET: &[&str] = &[
    "all = true",
    "agents = ['a', 'b']",
    "pool = 'web', labels = ['a=b', '!c']",
    "labels = 'a in (b, c) || d'",
    "pool = 'web', pick = 'one', sticky = true",
    "all = true, max_parallel = '25%', max_failed = 3",
    "all = true, skip_offline = true, expires = '1h'",
    "pool = 'a b'",
];

const STEP: &[&str] = &[
    "effect = 'idempotent'",
    "effect = 'guarded'\ncheck = 'true'",
    "timeout = '90s'",
    "when = 'failure'",
    "when = 'always'",
    "retry = { limit = 3 }",
    "retry = { limit = 100, on_exit = [1, 255], backoff = '1s..24h' }",
    "limits = { memory = '1G' }",
    "timeout = ' 1h30m '",
    "retry = { limit = 0x10, backoff = '1s .. 2s' }",
    "limits = { cpu = '200%', output = '1KiB' }",
    "user = 'nobody'",
    "outputs = ['x', 'y']",
    "outputs = { n = 'integer', ok = 'boolean' }",
    "env = { A = '${{ params.a }}', OUTPUT_S0_X = 'z' }",
    "dir = '/srv/${{ params.a }}'",
    "rum = 'x'",
];

fn pieces(of: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    // Each key once, most of the time: the order of the list decides among two of one key.
    prop::collection::btree_set(select(of), 0..most).prop_map(|set| {
        let mut seen = Vec::new();
        set.into_iter().fold(String::new(), |mut text, piece| {
            let key = piece.split(' ').next().unwrap_or_default();
            if !seen.contains(&key) {
                seen.push(key);
                text.push_str(piece);
                text.push('\n');
            }
            text
        })
    })
}

pub fn file() -> impl Strategy<Value = String> {
    let steps = prop::collection::vec(pieces(STEP, 6), 1..5);
    (pieces(HEAD, 5), select(TARGET), steps).prop_map(|(head, target, steps)| {
        let mut text = format!("name = 'x'\ntarget = {{ {target} }}\n{head}");
        for (nth, step) in steps.iter().enumerate() {
            text.push_str(&format!("[[step]]\nid = 's{nth}'\nrun = 'true'\n{step}"));
        }
        text
    })
}

proptest! {
    #[test]
    fn a_file_put_together_by_chance_can_be_sent_or_has_problems_that_point_into_it(text in file()) {
        body::any_bytes(text.as_bytes());
    }
}

#[test]
fn not_every_file_put_together_by_chance_is_refused() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let taken = (0..200)
        .filter(|_| {
            let text = file().new_tree(&mut runner).expect("nothing is rejected").current();
            JobFile::parse(&text).is_ok()
        })
        .count();
    assert!((20..190).contains(&taken), "{taken} of 200");
}
