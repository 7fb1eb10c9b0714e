//! The simulator, as far as every run of the tests goes: seeds that keep every promise, planted faults that are found, and the same
//! seed that is the same run. `longshore-chaos simulate` runs more of it.

use chaos_tests::sim::{CUT_OFF_MS, FaultClass, Options, Planted, cut_off, hunt, run, sweep};
use chaos_tests::simulate::command;

/// `LONGSHORE_SEEDS` asks for more, or for fewer while looking for something else.
fn seeds() -> u64 {
    std::env::var("LONGSHORE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2_000)
}

#[test]
fn two_thousand_seeds_keep_every_promise() {
    let summary = sweep(1, seeds(), Options::default(), &|_, _| {});
    let failed = summary.violations.iter();
    let failed = failed.map(|(seed, violation)| format!("seed {seed}: {violation}\n  again: {}", command(*seed, None)));
    assert!(summary.violations.is_empty(), "\n{}", failed.collect::<Vec<_>>().join("\n"));
    assert_eq!(summary.seeds, seeds());
    if summary.seeds >= 2_000 {
        // A fault that never happens proves nothing, nor does a world in which nothing is done.
        for class in FaultClass::ALL {
            assert!(summary.faults.get(&class).is_some_and(|count| *count >= 100), "{class:?} happens too seldom");
        }
        assert!(summary.messages > 100 * summary.seeds && summary.executed > 10 * summary.seeds, "{summary:?}");
        assert!(summary.resent > summary.seeds && summary.stopped > 20, "{summary:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_timeline_to_the_byte() {
    let options = Options { trace: true, ..Options::default() };
    for seed in [1, 2, 651, 1_711, u64::MAX] {
        let (first, second) = (run(seed, options), run(seed, options));
        assert!(first.lines.len() > 100, "seed {seed} has a timeline");
        assert_eq!(first.lines, second.lines, "seed {seed}");
        assert_eq!(first.fingerprint, second.fingerprint, "seed {seed}");
        let silent = run(seed, Options::default());
        assert_eq!(silent.fingerprint, first.fingerprint, "keeping the timeline of seed {seed} changes nothing");
    }
    assert_ne!(run(1, Options::default()).fingerprint, run(2, Options::default()).fingerprint);
}

#[test]
fn every_planted_fault_is_found_within_a_thousand_seeds() {
    let escaped: Vec<&str> =
        Planted::ALL.into_iter().filter(|planted| hunt(*planted, 1, 1_000).by.is_none()).map(Planted::name).collect();
    assert!(escaped.is_empty(), "not found: {escaped:?}; longshore-chaos simulate --planted prints the table");
}

/// Seeds of the day without a broker: one takes some ten thousand moves.
const CUT_OFF_SEEDS: u64 = 150;

#[test]
fn an_agent_that_was_cut_off_for_a_day_reports_everything_in_order_and_once() {
    let seeds = seeds().min(CUT_OFF_SEEDS);
    let (mut resent, mut refused, mut steps) = (0, 0, 0);
    for seed in 1..=seeds {
        let found = cut_off(seed, Options::default());
        if let Some(violation) = &found.outcome.violation {
            let again = cut_off(seed, Options { trace: true, ..Options::default() });
            panic!("seed {seed}: {violation}\n{}\n{found:?}", again.outcome.lines.join("\n"));
        }
        assert!(found.outcome.passed_ms > CUT_OFF_MS && found.in_hand >= 2, "seed {seed}: {found:?}");
        assert!(found.steps_ended > found.in_hand, "seed {seed}: too little ended while it was cut off: {found:?}");
        resent += found.outcome.resent;
        refused += u64::from(found.orders_waiting >= 6);
        steps += found.steps_of_others;
    }
    // Otherwise it shows little: nothing was lost, nobody was refused, the others stood still.
    assert!(
        resent > 0 && refused > 0 && steps > seeds,
        "{resent} resent, {refused} times full, {steps} steps of others"
    );
}

#[test]
fn what_is_wrong_with_an_agent_that_was_cut_off_is_found() {
    let options = Options { planted: Some(Planted::BlindResend), ..Options::default() };
    let found = (1..=20).find_map(|seed| cut_off(seed, options).outcome.violation);
    assert!(found.is_some(), "resending blindly went unnoticed");
}
