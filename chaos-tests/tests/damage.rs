//! A part of the damage trials, in every test run: the program itself, over real files. It must find nothing, and what it prints
//! must be what it found. The whole of it is `longshore-chaos damage`.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use serde_json::Value;

/// Three of each fault.
const TRIALS: u64 = 45;

fn damage(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_longshore-chaos")).arg("damage").args(arguments).output().unwrap()
}

/// The trials of one engine, as JSON, so that every one of them can be looked at.
fn trials(engine: &str) -> Vec<Value> {
    let trials = TRIALS.to_string();
    let seed = seed().to_string();
    println!("the same again: longshore-chaos damage --engine {engine} --trials {trials} --seed {seed}");
    let output = damage(&["--engine", engine, "--trials", &trials, "--seed", &seed, "-o", "json"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&said).unwrap()
}

/// Given, or fresh.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    match std::env::var("DAMAGE_TEST_SEED") {
        Ok(text) => text.parse().expect("the seed is a whole number"),
        Err(_) => RandomState::new().hash_one("damage"),
    }
}

fn count(outcomes: &[Value], verdict: &str) -> usize {
    outcomes.iter().filter(|outcome| outcome["verdict"] == verdict).count()
}

fn finds_nothing(engine: &str) {
    let outcomes = trials(engine);
    assert_eq!(outcomes.len() as u64, TRIALS);
    // Damage that no trial noticed would be as good as no damage.
    let noticed = count(&outcomes, "detected") + count(&outcomes, "left-damaged");
    assert!(noticed > outcomes.len() / 3, "{outcomes:#?}");
    println!("{noticed} of {TRIALS} noticed, {} skipped", count(&outcomes, "skipped"));
}

#[test]
fn sled_journals_that_are_damaged_lose_nothing_without_a_word() {
    finds_nothing("sled");
}

#[test]
fn segmented_journals_that_are_damaged_lose_nothing_without_a_word() {
    finds_nothing("segments");
}

#[test]
fn one_trial_run_alone_is_the_same_trial_and_its_table_has_one_row() {
    let all = damage(&["--trials", "4", "--seed", "11", "-o", "json"]);
    let all: Vec<Value> = serde_json::from_slice(&all.stdout).unwrap();
    let alone = damage(&["--seed", "11", "--only", "3", "-o", "json"]);
    let alone: Vec<Value> = serde_json::from_slice(&alone.stdout).unwrap();
    for what in ["number", "seed", "fault", "steps", "ending"] {
        assert_eq!(alone[0][what], all[3][what]);
    }
    let table = String::from_utf8(damage(&["--seed", "11", "--only", "3"]).stdout).unwrap();
    let rows = table.lines().skip_while(|line| !line.starts_with("FAULT")).take_while(|line| !line.starts_with("all"));
    assert_eq!(rows.count(), 2, "{table}");
    assert!(table.ends_with("PASS\n"), "{table}");
}
