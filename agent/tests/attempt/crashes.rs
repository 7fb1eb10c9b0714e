//! Processes that are killed, and what is still true afterwards.

use std::io::{BufRead as _, BufReader, Read as _};
use std::time::Duration;

use agent::attempt::{
    AttemptEnd, AttemptState, BootId, BootMatch, LaunchError, Started, Survivors, SurvivorsError, boot_id,
};
use messages::LogStream;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Held, Place, ended, hear, let_go, output, role, shim, shim_errors, state};
use crate::{LAUNCHER, SHIM, WAITER};

pub(crate) const TESTS: [(&str, fn()); 8] = [
    ("a_step_survives_the_kill_of_its_launcher_and_another_process_gets_its_end", killed_launcher),
    ("a_killed_shim_is_an_interruption_and_never_an_end", killed_shim),
    ("survivors_of_a_killed_shim_are_seen_and_can_be_ended", survivors),
    ("survivors_cannot_be_ended_while_the_shim_lives", no_survivors),
    ("a_machine_that_restarted_is_told_from_a_killed_shim", other_boot),
    ("a_second_shim_is_refused_while_the_first_runs", second_shim),
    ("a_step_that_began_is_never_started_again", began),
    ("a_shim_that_cannot_be_started_leaves_the_attempt_as_it_was", no_shim),
];

fn killed_launcher() {
    let place = Place::new();
    let (ready, go) = (place.pipe("ready"), place.pipe("go"));
    let attempt = place.prepare(&place.shell("echo first; echo yes > ready; read go < go; echo second; exit 9"));
    let mut launcher = role(LAUNCHER, &place.stem());
    let mut line = String::new();
    BufReader::new(launcher.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "launched\n");
    assert_eq!(hear(&ready), "yes");
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    assert!(matches!(state(&attempt), AttemptState::Running { .. }));
    let mut waiter = role(WAITER, &place.stem());
    let_go(&go);
    let mut said = String::new();
    waiter.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    waiter.wait().unwrap();
    assert_eq!(said, "Exited(9) first\nsecond\n");
}

// Kills the shim and says what it had written of itself.
pub(crate) fn kill_shim(attempt: &agent::attempt::Attempt) -> Started {
    let AttemptState::Running { started: Some(started) } = state(attempt) else { panic!("{:?}", state(attempt)) };
    kill_process(Pid::from_raw(started.pid).unwrap(), Signal::KILL).unwrap();
    started
}

fn killed_shim() {
    let place = Place::new();
    let (ready, go, over) = (place.pipe("ready"), place.pipe("go"), place.pipe("over"));
    let attempt = place.launch(&place.shell("echo yes > ready; read go < go; echo yes > over"));
    assert_eq!(hear(&ready), "yes");
    let started = kill_shim(&attempt);
    let AttemptState::Interrupted(found) = attempt.wait_blocking(boot_id().unwrap()).unwrap() else {
        panic!("{:?}", state(&attempt))
    };
    assert_eq!((found.started, found.boot, found.survivors), (Some(started), BootMatch::Same, Survivors::Seen));
    // The step itself goes on to its end, which nobody records any more.
    let_go(&go);
    assert_eq!(hear(&over), "yes");
    assert!(matches!(state(&attempt), AttemptState::Interrupted(_)));
}

fn survivors() {
    let place = Place::new();
    let (ready, held) = (place.pipe("ready"), Held::new(&place, "held"));
    place.pipe("never");
    let script = "exec 9> held; setsid sh -c 'trap \"\" TERM; echo yes > ready; read go < never' & read go < never";
    let attempt = place.launch(&place.shell(script));
    assert_eq!(hear(&ready), "yes");
    kill_shim(&attempt);
    let AttemptState::Interrupted(found) = attempt.wait_blocking(boot_id().unwrap()).unwrap() else {
        panic!("{:?}", state(&attempt))
    };
    assert_eq!(found.survivors, Survivors::Seen);
    assert_eq!(attempt.end_survivors(Duration::from_secs(60)).unwrap(), Survivors::NotSeen);
    assert_eq!(held.after_all_are_gone(), "");
    let AttemptState::Interrupted(found) = state(&attempt) else { panic!("{:?}", state(&attempt)) };
    assert_eq!(found.survivors, Survivors::NotSeen);
}

fn no_survivors() {
    let place = Place::new();
    let (ready, go) = (place.pipe("ready"), place.pipe("go"));
    let attempt = place.launch(&place.shell("echo yes > ready; read go < go"));
    assert_eq!(hear(&ready), "yes");
    let refused = attempt.end_survivors(Duration::from_secs(60));
    assert!(matches!(refused, Err(SurvivorsError::ShimAlive)), "{refused:?}");
    let_go(&go);
    assert_eq!(ended(&attempt).end, AttemptEnd::Exited(0));
}

fn other_boot() {
    let place = Place::new();
    let (ready, go) = (place.pipe("ready"), place.pipe("go"));
    let attempt = place.launch(&place.shell("echo yes > ready; read go < go"));
    assert_eq!(hear(&ready), "yes");
    kill_shim(&attempt);
    attempt.wait_blocking(boot_id().unwrap()).unwrap();
    let later = BootId::new(uuid::Uuid::from_u128(1));
    let AttemptState::Interrupted(found) = attempt.state(later).unwrap() else { panic!("not interrupted") };
    assert_eq!(found.boot, BootMatch::Other);
    let_go(&go);
}

fn second_shim() {
    let place = Place::new();
    let (ready, go) = (place.pipe("ready"), place.pipe("go"));
    let attempt = place.launch(&place.shell("echo >> runs; echo yes > ready; read go < go"));
    assert_eq!(hear(&ready), "yes");
    assert!(matches!(attempt.launch(&shim()), Err(LaunchError::Held)));
    // Also one that was not launched properly and brings no lock along.
    assert!(!role(SHIM, &place.stem()).wait().unwrap().success());
    let_go(&go);
    assert_eq!(ended(&attempt).end, AttemptEnd::Exited(0));
    assert!(matches!(attempt.launch(&shim()), Err(LaunchError::AlreadyEnded)));
    assert!(!role(SHIM, &place.stem()).wait().unwrap().success());
    assert_eq!(std::fs::read_to_string(place.path("runs")).unwrap().lines().count(), 1);
    assert_eq!(output(&attempt, LogStream::Stdout), "");
}

fn began() {
    let place = Place::new();
    let (ready, go) = (place.pipe("ready"), place.pipe("go"));
    let attempt = place.launch(&place.shell("echo >> runs; echo yes > ready; read go < go"));
    assert_eq!(hear(&ready), "yes");
    kill_shim(&attempt);
    attempt.wait_blocking(boot_id().unwrap()).unwrap();
    assert!(matches!(attempt.launch(&shim()), Err(LaunchError::AlreadyStarted)));
    assert!(!role(SHIM, &place.stem()).wait().unwrap().success());
    let_go(&go);
    assert!(matches!(state(&attempt), AttemptState::Interrupted(_)));
    assert_eq!(std::fs::read_to_string(place.path("runs")).unwrap().lines().count(), 1);
    assert_eq!(shim_errors(&attempt), "");
}

fn no_shim() {
    let place = Place::new();
    let attempt = place.prepare(&place.shell("true"));
    let missing = agent::attempt::ShimCommand::new(place.path("no-such-shim"), ["x"]);
    assert!(matches!(attempt.launch(&missing), Err(LaunchError::Spawn { .. })));
    assert_eq!(state(&attempt), AttemptState::NotStarted);
    attempt.launch(&shim()).unwrap();
    assert_eq!(ended(&attempt).end, AttemptEnd::Exited(0));
}
