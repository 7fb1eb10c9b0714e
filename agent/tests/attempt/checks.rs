//! The check of a guarded step: what it says, and that nothing of it stays.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use agent::attempt::{CheckError, CheckOutcome, run_check};
use messages::Program;

use crate::support::{Held, Place};

pub(crate) const TESTS: [(&str, fn()); 5] = [
    ("a_check_says_done_or_not_done_by_its_exit_code", codes),
    ("a_check_gets_nothing_of_the_agents_environment", environment),
    ("a_check_that_hangs_is_killed_with_all_its_group", hangs),
    ("a_check_that_a_signal_ended_found_nothing", signalled),
    ("a_check_that_cannot_be_started_says_why", cannot_start),
];

/// Far longer than any check here takes.
const LONG: Duration = Duration::from_secs(600);

fn check(script: &str, dir: &Path, timeout: Duration) -> Result<CheckOutcome, CheckError> {
    let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    run_check(&Program::Shell(script.to_owned()), &env, dir, timeout)
}

fn codes() {
    let place = Place::new();
    let run = |script| check(script, place.root.path(), LONG).unwrap();
    assert_eq!(run("true"), CheckOutcome::Done);
    assert_eq!(run("echo much; exit 3"), CheckOutcome::NotDone(3));
    assert_eq!(run("test -e made"), CheckOutcome::NotDone(1));
    File::create(place.path("made")).unwrap();
    assert_eq!(run("test -e made"), CheckOutcome::Done);
    // No output of it can block it.
    assert_eq!(run("head -c 1000000 /dev/zero"), CheckOutcome::Done);
}

fn environment() {
    let place = Place::new();
    // This program was started by cargo, so its own environment holds more than the one variable given.
    assert!(std::env::vars_os().count() > 1);
    let outcome = check("test \"$(tr '\\0' '\\n' < /proc/$$/environ)\" = PATH=/usr/bin:/bin", place.root.path(), LONG);
    assert_eq!(outcome.unwrap(), CheckOutcome::Done);
}

fn hangs() {
    let place = Place::new();
    let held = Held::new(&place, "held");
    let result = check(
        "exec 3>held; trap '' TERM; sleep 1000 & echo up >&3; sleep 1000",
        place.root.path(),
        Duration::from_millis(1500),
    );
    assert!(matches!(result, Err(CheckError::TimedOut { .. })), "{result:?}");
    assert_eq!(held.after_all_are_gone(), "up\n");
}

fn signalled() {
    let place = Place::new();
    let result = check("kill -9 $$", place.root.path(), LONG);
    assert!(matches!(result, Err(CheckError::Signaled { signal: 9 })), "{result:?}");
}

fn cannot_start() {
    let place = Place::new();
    let missing = Program::Exec(vec!["no-such-check".into()]);
    let error = run_check(&missing, &BTreeMap::new(), place.root.path(), LONG).unwrap_err();
    assert!(error.to_string().contains("no-such-check"), "{error}");
    let error = check("true", &place.path("gone"), LONG).unwrap_err();
    assert!(error.to_string().contains("working folder"), "{error}");
}
