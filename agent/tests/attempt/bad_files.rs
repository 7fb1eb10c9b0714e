//! Folders that were damaged: each file replaced by garbage of several kinds gives an answer in words, never a panic and never
//! a step that runs although it may have run before.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use agent::attempt::{
    Attempt, AttemptState, BootMatch, CancelOutcome, Damage, LaunchError, Plan, PrepareError, ShimCommand, boot_id,
};
use messages::Digest;

use crate::SHIM;
use crate::support::{
    EXIT_AT, PLAN_AT, Place, STARTED_AT, ended, hear, not_started_reason, prepare, role, shim, shim_errors, state,
};

pub(crate) const TESTS: [(&str, fn()); 11] = [
    ("a_damaged_plan_is_not_started_and_says_so", plan),
    ("a_damaged_mark_of_the_beginning_still_counts_as_begun", started),
    ("a_damaged_record_of_the_end_is_not_believed", exit),
    ("a_record_with_one_changed_bit_is_not_believed", one_bit),
    ("a_name_of_which_there_is_no_attempt_says_so", no_attempt),
    ("an_attempt_without_its_record_is_not_taken_for_a_new_one", no_record),
    ("preparing_that_was_cut_short_is_done_again", cut_short),
    ("a_shim_without_a_plan_says_so_where_the_agent_can_read_it", shim_without_plan),
    ("what_a_shim_complains_about_is_behind_the_plan_and_changes_nothing_else", complaints),
    ("what_an_earlier_step_put_in_the_place_of_a_file_is_neither_followed_nor_waited_for", in_place),
    ("a_step_that_put_something_in_the_place_of_the_wish_to_end_it_is_ended_all_the_same", wish_in_place),
];

// Every kind of wrong: empty, too short for a checksum, wrong checksum, whole but no MessagePack, whole but something else,
// longer than any such record.
fn garbage() -> Vec<Vec<u8>> {
    let whole = |payload: &[u8]| [Digest::of(payload).bytes().as_slice(), payload].concat();
    let other = messages::to_msgpack(&("another", "thing")).unwrap();
    vec![vec![], vec![1; 10], vec![0; 8192], whole(&[0xc1]), whole(&other), vec![7; 3_000_000]]
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat()
}

/// A place of the record, in each kind of wrong: with and without a length in front that says as much, or one that no place has room for.
fn damage(path: &Path, at: u64, mut then: impl FnMut(&str)) {
    let good = fs::read(path).unwrap();
    for bytes in garbage().into_iter().filter(|bytes| bytes.len() < 4096) {
        for (how, bytes) in [
            ("its length", long(&bytes)),
            ("no length", [&[0; 8], &bytes[..], &[1]].concat()),
            ("too large a length", [&[0xff; 4], &bytes[..]].concat()),
            ("too small a length", [&[1, 0, 0, 0], &bytes[..]].concat()),
        ] {
            if bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let file = fs::File::options().write(true).open(path).unwrap();
            file.write_all_at(&[0; 1028], at).unwrap();
            file.write_all_at(&bytes[..bytes.len().min(1028)], at).unwrap();
            then(&format!("{} bytes at {at} with {how}", bytes.len()));
        }
    }
    fs::write(path, good).unwrap();
}

fn plan() {
    for (index, bytes) in garbage().into_iter().filter(|bytes| !bytes.is_empty()).enumerate() {
        let place = Place::new();
        let attempt = place.prepare(&place.shell("touch began"));
        let file = fs::File::options().write(true).open(place.file("record")).unwrap();
        file.set_len(PLAN_AT).unwrap();
        file.write_all_at(&long(&bytes), PLAN_AT).unwrap();
        assert_eq!(state(&attempt), AttemptState::NotPrepared, "{index}");
        attempt.launch(&shim()).unwrap();
        let exit = ended(&attempt);
        assert!(not_started_reason(&exit).starts_with("the plan cannot be believed"), "{index}: {exit:?}");
        assert!(!place.path("began").exists());
    }
}

fn started() {
    let place = Place::new();
    let attempt = place.prepare(&place.shell("touch began"));
    let cancel = || attempt.cancel().unwrap();
    damage(&place.file("record"), STARTED_AT, |case| {
        // A shim that lives is just making it, and looks for the wish then.
        let shim_lives = fs::File::open(place.file("record")).unwrap();
        shim_lives.lock().unwrap();
        assert_eq!(cancel(), CancelOutcome::Noted, "{case}");
        drop(shim_lives);
        assert_eq!(cancel(), CancelOutcome::TooLate, "{case}");
        match state(&attempt) {
            AttemptState::Interrupted(found) => assert_eq!(found.boot, BootMatch::Unknown, "{case}"),
            other => panic!("{case}: {other:?}"),
        }
        assert!(matches!(attempt.launch(&shim()), Err(LaunchError::AlreadyStarted)), "{case}");
        assert!(!role(SHIM, &place.stem()).wait().unwrap().success(), "{case}");
    });
    assert!(!place.path("began").exists());
}

fn exit() {
    let place = Place::new();
    let (attempt, _) = place.run(&place.shell("true"));
    damage(&place.file("record"), EXIT_AT, |case| {
        let found = state(&attempt);
        assert!(matches!(found, AttemptState::Unreadable { file: "record", .. }), "{case}: {found:?}");
        assert!(matches!(attempt.launch(&shim()), Err(LaunchError::AlreadyEnded)), "{case}");
    });
}

fn one_bit() {
    let place = Place::new();
    let (attempt, _) = place.run(&place.shell("exit 1"));
    let path = place.file("record");
    let good = fs::read(&path).unwrap();
    let at = usize::try_from(EXIT_AT).unwrap();
    let length = u32::from_le_bytes(good[at..at + 4].try_into().unwrap()) as usize;
    for position in at..at + 4 + length {
        let mut bytes = good.clone();
        bytes[position] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(state(&attempt), AttemptState::Unreadable { file: "record", damage: Damage::Checksum });
    }
    fs::write(&path, good).unwrap();
    assert!(matches!(state(&attempt), AttemptState::Ended(_)));
}

fn no_attempt() {
    let place = Place::new();
    let attempt = Attempt::open(&place.stem()).unwrap();
    assert_eq!(state(&attempt), AttemptState::NotPrepared);
    assert!(matches!(attempt.launch(&shim()), Err(LaunchError::NotPrepared)));
    assert!(!role(SHIM, &place.stem()).wait().unwrap().success());
}

fn no_record() {
    let place = Place::new();
    let (attempt, _) = place.run(&place.shell("echo word"));
    fs::remove_file(place.file("record")).unwrap();
    let expected = AttemptState::Unreadable { file: "record", damage: Damage::Missing };
    assert_eq!(state(&attempt), expected);
    assert_eq!(attempt.wait_blocking(boot_id().unwrap()).unwrap(), expected);
    fs::remove_file(place.file("stdout")).unwrap();
    assert_eq!(state(&attempt), AttemptState::NotPrepared);
}

fn cut_short() {
    let place = Place::new();
    place.prepare(&place.shell("exit 1"));
    let file = fs::File::options().write(true).open(place.file("record")).unwrap();
    let attempt = Attempt::open(&place.stem()).unwrap();
    for bytes in [PLAN_AT + 14, PLAN_AT, 7, 0] {
        file.set_len(bytes).unwrap();
        assert_eq!(state(&attempt), AttemptState::NotPrepared, "{bytes}");
    }
    assert!(matches!(attempt.launch(&shim()), Err(LaunchError::NotPrepared)));
    let (_, exit) = place.run(&place.shell("exit 5"));
    assert_eq!(exit.end, agent::attempt::AttemptEnd::Exited(5));
}

fn shim_without_plan() {
    let place = Place::new();
    let attempt = place.prepare(&place.shell("true"));
    fs::File::options().write(true).open(place.file("record")).unwrap().set_len(PLAN_AT).unwrap();
    let errors = fs::File::options().append(true).open(place.file("record")).unwrap();
    let own = std::env::current_exe().unwrap();
    let status = std::process::Command::new(own).arg(SHIM).arg(place.stem()).stderr(errors).status().unwrap();
    assert!(!status.success());
    assert_eq!(shim_errors(&attempt), "longshore shim: there is no plan\n");
}

fn complaints() {
    let place = Place::new();
    let attempt = place.prepare(&place.shell("exit 5"));
    let complains = ShimCommand::new("/bin/sh", ["-c", "echo complaint >&2"]);
    for said in ["complaint\n", "complaint\ncomplaint\n"] {
        attempt.launch(&complains).unwrap();
        assert_eq!(attempt.wait_blocking(boot_id().unwrap()).unwrap(), AttemptState::NotStarted);
        assert_eq!(shim_errors(&attempt), said);
    }
    attempt.launch(&shim()).unwrap();
    assert_eq!(ended(&attempt).end, agent::attempt::AttemptEnd::Exited(5));
}

/// What a step can put in the place of a file: a pipe that nobody reads, links to a file, to one that is not there, and to a pipe, and a folder.
const IN_PLACE: [&str; 5] = ["mkfifo", "ln -s other", "ln -s none", "ln -s pipe", "mkdir"];

fn in_place() {
    for name in ["record", "output"] {
        for makes in IN_PLACE {
            let place = Place::new();
            place.pipe("pipe");
            fs::write(place.path("other"), "kept").unwrap();
            place.run(&place.shell(&format!("{makes} later.1.{name}")));
            let plan = Plan { hands_on: true, ..place.shell("touch began") };
            let refused = prepare(&place.path("later.1"), &plan);
            assert!(matches!(refused, Err(PrepareError::Io { .. })), "{name}, {makes}: {refused:?}");
            assert_eq!(fs::read(place.path("other")).unwrap(), b"kept", "{name}, {makes}");
            let later = Attempt::open(&place.path("later.1")).unwrap();
            assert!(later.launch(&shim()).is_err() && !place.path("none").exists(), "{name}, {makes}");
        }
    }
}

fn wish_in_place() {
    for makes in IN_PLACE {
        let place = Place::new();
        let (ready, _) = (place.pipe("ready"), place.pipe("pipe"));
        fs::write(place.path("other"), "kept").unwrap();
        let script = format!("{makes} attempt.cancel; echo yes > ready; sleep 1000");
        let attempt = place.launch(&place.shell(&script));
        assert_eq!(hear(&ready), "yes");
        assert_eq!(attempt.cancel().unwrap(), CancelOutcome::Told, "{makes}");
        assert!(ended(&attempt).cancelled, "{makes}");
        assert_eq!(fs::read(place.path("other")).unwrap(), b"kept", "{makes}");
        assert!(!place.path("none").exists(), "{makes}");
    }
}
