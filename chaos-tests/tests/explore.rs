//! Small worlds, searched exhaustively, and the proof that the search bites. What was searched is printed with
//! `cargo test -p chaos-tests --test explore -- --nocapture`.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use chaos_tests::explore::{Budget, Exploration, Limits, Plant, Scope, explore, explore_watched};

/// More than any of these worlds has, so that one that grew without bound ends.
const STATES_MAX: usize = 6_000_000;

const CALM: Budget =
    Budget { crashes: 0, wipes: 0, rollbacks: 0, duplicates: 0, reorders: 0, losses: 0, disconnects: 0 };
const SMALL: Scope = Scope { messages: 2, budget: CALM, statuses: 1, short_reads: false, patient: false, plain: false };

fn story(found: &Exploration) -> String {
    let mut text = String::new();
    if let Some(example) = &found.counterexample {
        for (number, action) in (1..).zip(&example.actions) {
            writeln!(text, "{number:4}  {action}").unwrap();
        }
        writeln!(text, "      {}", example.violation).unwrap();
    }
    text
}

fn holds(scope: Scope, at_least: usize) -> Exploration {
    let found = explore(&scope, None, STATES_MAX);
    println!("{scope:?}: {} states, {} transitions, depth {}", found.states, found.transitions, found.depth);
    assert!(found.counterexample.is_none(), "{scope:?}\n{}", story(&found));
    assert!(found.complete, "{scope:?} has more than {STATES_MAX} states");
    assert!(
        found.states >= at_least,
        "{scope:?} has shrunk to {} states: something is not explored any more",
        found.states
    );
    assert!(found.ends > 0);
    found
}

#[test]
fn a_search_that_outgrows_its_room_begins_again_and_finds_as_much() {
    let scope = Scope { budget: Budget { crashes: 1, wipes: 1, ..CALM }, messages: 1, ..SMALL };
    let at_once = explore(&scope, None, STATES_MAX);
    let limits = Limits { states_max: STATES_MAX, room: 1, share: None };
    let begun_again = explore_watched(&scope, None, limits, &mut |_| {});
    assert!(at_once.complete && begun_again.complete);
    let counts = |found: &Exploration| (found.states, found.transitions, found.depth, found.ends);
    assert_eq!(counts(&begun_again), counts(&at_once));
    let least = Limits { states_max: 1_000, room: 1, share: None };
    assert!(!explore_watched(&scope, None, least, &mut |_| {}).complete, "more than a thousand are in it");
}

#[test]
fn no_order_of_two_messages_and_a_crash_breaks_a_promise() {
    let budget = Budget { crashes: 1, ..CALM };
    holds(Scope { budget, ..SMALL }, 50_000);
}

#[test]
fn no_order_of_two_messages_a_crash_and_a_wiped_broker_breaks_a_promise_while_probes_are_patient() {
    let budget = Budget { crashes: 1, wipes: 1, ..CALM };
    holds(Scope { budget, patient: true, ..SMALL }, 50_000);
}

#[test]
fn in_every_order_of_one_message_and_a_restored_journal_the_two_ends_agree_again() {
    let budget = Budget { rollbacks: 1, ..CALM };
    let found = holds(Scope { messages: 1, budget, ..SMALL }, 20_000);
    assert!(found.healed > 0, "no restored journal goes on under another name");
}

#[test]
fn no_order_of_three_messages_and_a_crash_breaks_a_promise() {
    let budget = Budget { crashes: 1, ..CALM };
    holds(Scope { messages: 3, budget, ..SMALL }, 1_000_000);
}

#[test]
fn no_order_of_three_messages_and_a_wiped_broker_breaks_a_promise() {
    let budget = Budget { wipes: 1, ..CALM };
    holds(Scope { messages: 3, budget, ..SMALL }, 100_000);
}

#[test]
fn no_order_of_one_message_a_crash_a_wiped_broker_and_a_restored_journal_breaks_a_promise() {
    let budget = Budget { crashes: 1, wipes: 1, rollbacks: 1, ..CALM };
    let found = holds(Scope { messages: 1, budget, ..SMALL }, 1_000_000);
    assert!(found.healed > 0, "no restored journal goes on under another name");
}

/// Whatever leaves worlds out leaves out none in which anything new is said, and every endpoint that occurs in them has a journal that
/// occurs in others. The plain search also asks for every promise in two ways, and compares the answers.
#[test]
fn a_search_that_leaves_nothing_out_finds_nothing_else() {
    let budgets =
        [Budget { crashes: 1, ..CALM }, Budget { rollbacks: 1, ..CALM }, Budget { crashes: 1, wipes: 1, ..CALM }];
    for budget in budgets {
        let scope = Scope { messages: 1, budget, ..SMALL };
        let found = [false, true].map(|plain| explore(&Scope { plain, ..scope }, None, STATES_MAX));
        let [reduced, plain] = &found;
        assert!(plain.complete && plain.counterexample.is_none(), "{scope:?}\n{}", story(plain));
        assert!(reduced.complete && reduced.counterexample.is_none(), "{scope:?}\n{}", story(reduced));
        assert!(reduced.states < plain.states, "{scope:?}: nothing is left out");
        assert_eq!(reduced.journals, plain.journals, "{scope:?}: a journal occurs in one search only");
        assert_eq!(reduced.parts[1], plain.parts[1], "{scope:?}: something is said in one search only");
        assert_eq!(reduced.healed > 0, plain.healed > 0, "{scope:?}");
    }
}

/// The wiped broker may lose the first words of a restored agent.
#[test]
fn in_every_order_of_one_message_a_restored_journal_and_a_wiped_broker_the_two_ends_agree_again_while_probes_are_patient()
 {
    let budget = Budget { wipes: 1, rollbacks: 1, ..CALM };
    let found = holds(Scope { messages: 1, budget, patient: true, ..SMALL }, 50_000);
    assert!(found.healed > 0, "no restored journal goes on under another name");
}

#[test]
fn no_order_of_one_message_and_a_repeated_a_displaced_and_a_lost_envelope_breaks_a_promise_while_probes_are_patient() {
    let budget = Budget { duplicates: 1, reorders: 1, losses: 1, ..CALM };
    holds(Scope { messages: 1, budget, short_reads: true, patient: true, ..SMALL }, 10_000);
}

#[test]
fn every_planted_defect_is_found() {
    let budget = Budget { crashes: 1, wipes: 1, ..CALM };
    for plant in Plant::ALL {
        // What can be seen only when everything was visited is shown in the smallest world that has it.
        let messages = if plant == Plant::AnswersUnmarked { 1 } else { 3 };
        let scope = Scope { messages, budget, patient: true, ..SMALL };
        let found = explore(&scope, Some(plant), STATES_MAX);
        let example = found.counterexample.as_ref();
        let example = example.unwrap_or_else(|| panic!("{plant:?} is not found in {} states", found.states));
        println!("{plant:?}, after {} states:\n{}", found.states, story(&found));
        assert!(example.actions.len() <= 20, "{plant:?} takes {} actions", example.actions.len());
    }
}

#[test]
fn two_searches_of_one_world_find_the_same() {
    let count = |found: Exploration| (found.states, found.transitions, found.depth, found.ends, found.healed);
    let budget = Budget { rollbacks: 1, ..CALM };
    let search = || count(explore(&Scope { messages: 1, budget, ..SMALL }, None, STATES_MAX));
    assert_eq!(search(), search());
}
