//! Attempts that a build before this one began, which had files of their own for plan, lock, mark and end: they are read and waited for where they
//! are, and never begun beside themselves. Their files are made from those of real attempts.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use agent::attempt::{
    Attempt, AttemptEnd, AttemptState, CancelOutcome, Damage, LaunchError, PrepareError, Survivors, SurvivorsError,
};
use messages::LogStream;

use crate::crashes::kill_shim;
use crate::support::{EXIT_AT, Held, PLAN_AT, Place, STARTED_AT, hear, output, prepare, shim, state};

pub(crate) const TESTS: [(&str, fn()); 2] = [
    ("an_attempt_that_an_earlier_build_began_is_read_and_waited_for_where_it_is", read),
    ("what_is_left_of_a_step_without_a_record_is_found_and_ended", without_record),
];

/// What a place of a record holds, without its length.
fn part(record: &[u8], at: u64) -> &[u8] {
    let (length, rest) = record[usize::try_from(at).unwrap()..].split_first_chunk().unwrap();
    &rest[..usize::try_from(u32::from_le_bytes(*length)).unwrap()]
}

/// Gives an attempt the files of an earlier build. The lock is held until dropped.
fn as_before(dir: &Path) -> File {
    let record = fs::read(dir.join("record")).unwrap();
    fs::remove_file(dir.join("record")).unwrap();
    for (name, at) in [("plan", PLAN_AT), ("started", STARTED_AT), ("exit", EXIT_AT)] {
        fs::write(dir.join(name), part(&record, at)).unwrap();
    }
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    lock
}

fn read() {
    let place = Place::new();
    let plan = place.shell("exit 7");
    let (attempt, exit) = place.run(&plan);
    let lock = as_before(&place.dir());
    let exit_file = fs::read(place.dir().join("exit")).unwrap();
    fs::remove_file(place.dir().join("exit")).unwrap();
    // Its shim lives.
    assert!(matches!(state(&attempt), AttemptState::Running { started: Some(_) }));
    let limit = Duration::from_secs(60);
    assert!(matches!(attempt.end_survivors(limit), Err(SurvivorsError::ShimAlive)));
    let refused = || {
        assert!(matches!(prepare(&place.dir(), &plan), Err(PrepareError::Exists { .. })));
        assert!(matches!(attempt.launch(&shim()), Err(LaunchError::NotPrepared)));
        assert!(!place.dir().join("record").exists());
    };
    refused();
    drop(lock);
    assert!(matches!(state(&attempt), AttemptState::Interrupted(_)));
    assert_eq!(attempt.end_survivors(limit).unwrap(), Survivors::NotSeen);
    assert_eq!(attempt.cancel().unwrap(), CancelOutcome::TooLate);
    refused();
    fs::write(place.dir().join("exit"), &exit_file[1..]).unwrap();
    assert!(matches!(state(&attempt), AttemptState::Unreadable { .. }));
    fs::write(place.dir().join("exit"), exit_file).unwrap();
    assert_eq!(state(&attempt), AttemptState::Ended(exit.into()));
    refused();
    // It is just being launched.
    let launched = File::open(place.dir().join("lock")).unwrap();
    launched.lock().unwrap();
    for name in ["exit", "started", "cancel"] {
        fs::remove_file(place.dir().join(name)).unwrap();
    }
    refused();
    drop(launched);
    // One that had not begun is prepared as it is now, with the outputs that such a build made beforehand.
    for name in ["stdout", "stderr"] {
        fs::write(place.dir().join(name), []).unwrap();
    }
    assert_eq!(state(&attempt), AttemptState::NotStarted);
    let (attempt, exit) = place.run(&place.shell("echo word; echo another >&2; exit 7"));
    assert_eq!((exit.end, exit.stdout.error, exit.stderr.error), (AttemptEnd::Exited(7), None, None));
    assert_eq!([LogStream::Stdout, LogStream::Stderr].map(|stream| output(&attempt, stream)), ["word\n", "another\n"]);
}

fn without_record() {
    let place = Place::new();
    let (ready, held) = (place.pipe("ready"), Held::new(&place, "held"));
    place.pipe("never");
    let attempt = place.launch(&place.shell("exec 3> held; echo yes > ready; read go < never"));
    assert_eq!(hear(&ready), "yes");
    kill_shim(&attempt);
    attempt.wait_blocking(agent::attempt::boot_id().unwrap()).unwrap();
    fs::remove_file(place.dir().join("record")).unwrap();
    let attempt = Attempt::open(&place.dir()).unwrap();
    // It has said nothing, so only its processes tell that it began.
    assert_eq!(state(&attempt), AttemptState::Unreadable { file: "record", damage: Damage::Missing });
    assert_eq!(attempt.end_survivors(Duration::from_secs(60)).unwrap(), Survivors::NotSeen);
    assert_eq!(held.after_all_are_gone(), "");
}
