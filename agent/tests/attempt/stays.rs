//! Shims that are forked by a process which is there for that, and what is left when that process, or its agent, is killed.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use agent::attempt::{Attempt, AttemptEnd, AttemptState, Plan, Ran, Shims, boot_id};
use messages::LogStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process, pidfd_open, prlimit};

use crate::groups::grouped;
use crate::support::{PATIENCE, Place, hear, let_go, output, prepare, role, shim, state};
use crate::{FORKING, SHIM, WAITER};

pub(crate) const TESTS: [(&str, fn()); 7] = [
    ("shims_are_forked_by_one_process_and_run_their_steps_as_ever", forked),
    ("a_forked_shim_starts_its_step_in_the_group", in_group),
    ("a_step_survives_the_kill_of_what_forked_its_shim_and_its_end_is_seen", killed),
    ("what_forks_shims_ends_with_its_agent_and_a_step_survives_both", orphaned),
    ("what_forks_shims_ends_when_no_step_wants_it_and_is_there_again_for_the_next", idle),
    ("what_forks_shims_ends_when_it_is_asked_for_nonsense", nonsense),
    ("a_shim_that_cannot_be_forked_is_executed", refused),
];

/// Prints which process forked the shim.
const PARENT: &str = "cut -d ' ' -f 4 /proc/$PPID/stat";

fn run(attempt: &Attempt, shims: &Shims) -> Ran {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(attempt.run(shims, boot_id().unwrap()))
}

fn end(ran: Ran) -> AttemptEnd {
    match ran.unwrap().unwrap() {
        AttemptState::Ended(exit) => exit.end,
        other => panic!("expected an end, found {other:?}"),
    }
}

fn attempt(place: &Place, name: &str, plan: &Plan) -> Attempt {
    prepare(&place.path(name), plan).unwrap()
}

fn pid(word: &str) -> Pid {
    Pid::from_raw(word.trim().parse().unwrap()).unwrap()
}

/// Waits for the end of a process that need not be a child.
fn await_end(of: &OwnedFd) {
    let limit = Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut [PollFd::new(of, PollFlags::IN)], Some(&limit)), Ok(1), "it has not ended");
}

/// The process that forked the shim of a step that runs.
fn forker(attempt: &Attempt) -> Pid {
    let AttemptState::Running { started: Some(started) } = state(attempt) else { panic!("{:?}", state(attempt)) };
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", started.pid)).unwrap();
    pid(stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap())
}

fn forked() {
    let (place, shims) = (Place::new(), Shims::new(shim()));
    let script = format!("{PARENT}; echo word >&2; exit 7");
    let attempts = ["1", "2"].map(|name| attempt(&place, name, &place.shell(&script)));
    let parents = attempts.each_ref().map(|attempt| {
        assert_eq!(end(run(attempt, &shims)), AttemptEnd::Exited(7));
        assert_eq!(output(attempt, LogStream::Stderr), "word\n");
        output(attempt, LogStream::Stdout)
    });
    assert_eq!(parents[0], parents[1]);
    let own = std::fs::read_to_string(format!("/proc/{}/stat", parents[0].trim())).unwrap();
    assert_eq!(own.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap(), std::process::id().to_string());
    let refused = run(&attempts[0], &shims).unwrap_err();
    assert!(matches!(refused, agent::attempt::LaunchError::AlreadyEnded), "{refused:?}");
}

fn in_group() {
    let (place, shims) = (Place::new(), Shims::new(shim()));
    let Some(plan) = grouped(place.shell("cat /proc/self/cgroup"), "forked") else { return };
    let attempt = attempt(&place, "1", &plan);
    assert_eq!(end(run(&attempt, &shims)), AttemptEnd::Exited(0));
    let name = plan.group.as_ref().unwrap().place.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(output(&attempt, LogStream::Stdout).lines().any(|line| line.starts_with("0::") && line.contains(&name)));
}

fn killed() {
    let (place, shims) = (Place::new(), Shims::new(shim()));
    let (ready, go) = (place.pipe("ready"), place.pipe("go"));
    let one = attempt(&place, "1", &place.shell("echo yes > ready; read go < go; exit 4"));
    let running = thread::spawn({
        let (one, shims) = (one.clone(), shims.clone());
        move || end(run(&one, &shims))
    });
    assert_eq!(hear(&ready), "yes");
    let forker = forker(&one);
    let gone = pidfd_open(forker, PidfdFlags::empty()).unwrap();
    kill_process(forker, Signal::KILL).unwrap();
    await_end(&gone);
    assert!(matches!(state(&one), AttemptState::Running { .. }));
    let two = attempt(&place, "2", &place.shell(PARENT));
    assert_eq!(end(run(&two, &shims)), AttemptEnd::Exited(0));
    assert_ne!(pid(&output(&two, LogStream::Stdout)), forker);
    let_go(&go);
    assert_eq!(running.join().unwrap(), AttemptEnd::Exited(4));
}

/// The role of an agent whose shims are forked and that is going to be killed.
pub(crate) fn run_and_say(dir: &Path) -> ExitCode {
    println!("launched");
    match run(&Attempt::open(dir).unwrap(), &Shims::new(shim())) {
        Ok(Ok(_)) => ExitCode::SUCCESS,
        Ok(Err(_)) | Err(_) => ExitCode::FAILURE,
    }
}

fn orphaned() {
    let place = Place::new();
    let (ready, go) = (place.pipe("ready"), place.pipe("go"));
    let attempt = place.prepare(&place.shell("echo yes > ready; read go < go; echo second; exit 9"));
    let mut agent = role(FORKING, &place.dir());
    let mut line = String::new();
    BufReader::new(agent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!((line.as_str(), hear(&ready).as_str()), ("launched\n", "yes"));
    let gone = pidfd_open(forker(&attempt), PidfdFlags::empty()).unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    await_end(&gone);
    assert!(matches!(state(&attempt), AttemptState::Running { .. }));
    let mut waiter = role(WAITER, &place.dir());
    let_go(&go);
    let mut said = String::new();
    waiter.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    waiter.wait().unwrap();
    assert_eq!(said, "Exited(9) second\n");
}

fn idle() {
    let (place, shims) = (Place::new(), Shims::kept_for(shim(), Duration::from_millis(1)));
    let (ready, go) = (place.pipe("ready"), place.pipe("go"));
    let one = attempt(&place, "1", &place.shell("echo yes > ready; read go < go"));
    let running = thread::spawn({
        let (one, shims) = (one.clone(), shims.clone());
        move || end(run(&one, &shims))
    });
    assert_eq!(hear(&ready), "yes");
    // It is kept for as long as a step runs, however long that is beyond its time.
    let gone = pidfd_open(forker(&one), PidfdFlags::empty()).unwrap();
    let_go(&go);
    assert_eq!(running.join().unwrap(), AttemptEnd::Exited(0));
    await_end(&gone);
    let two = attempt(&place, "2", &place.shell("exit 3"));
    assert_eq!(end(run(&two, &shims)), AttemptEnd::Exited(3));
}

fn refused() {
    let (place, shims) = (Place::new(), Shims::new(shim()));
    let (ready, go) = (place.pipe("ready"), place.pipe("go"));
    let one = attempt(&place, "1", &place.shell("echo yes > ready; read go < go; exit 4"));
    let running = thread::spawn({
        let (one, shims) = (one.clone(), shims.clone());
        move || end(run(&one, &shims))
    });
    assert_eq!(hear(&ready), "yes");
    // Standard streams, the socket, the pidfd, and the two files of a request: there is no room to look whether it is alone.
    let forker = forker(&one);
    prlimit(Some(forker), Resource::Nofile, Rlimit { current: Some(7), maximum: Some(7) }).unwrap();
    let two = attempt(&place, "2", &place.shell(PARENT));
    assert_eq!(end(run(&two, &shims)), AttemptEnd::Exited(0));
    assert_eq!(output(&two, LogStream::Stdout).trim(), std::process::id().to_string());
    let_go(&go);
    assert_eq!(running.join().unwrap(), AttemptEnd::Exited(4));
}

fn nonsense() {
    let status = |stdin: Stdio| {
        let own = std::env::current_exe().unwrap();
        Command::new(own).args([SHIM, "-"]).stdin(stdin).stderr(Stdio::null()).status().unwrap()
    };
    assert_eq!(status(Stdio::null()).code(), Some(1));
    for nonsense in [&b"x"[..], &[0; 8], &[b'/'; 9000]] {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        send(&ours, nonsense, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(status(Stdio::from(theirs)).code(), Some(1), "{} bytes", nonsense.len());
    }
    // Closed without a word: its agent is gone.
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    drop(ours);
    assert_eq!(status(Stdio::from(theirs)).code(), Some(0));
}
