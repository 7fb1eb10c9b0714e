//! Shims that stay for another step, what must be true of one before it has that, and what is left when it, or its agent, is killed.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use agent::attempt::{Attempt, AttemptEnd, AttemptState, Exit, Plan, Ran, Shims, boot_id};
use messages::LogStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::runtime::Runtime;

use crate::groups::grouped;
use crate::support::{Held, PATIENCE, Place, hear, let_go, output, prepare, role, shim, state};
use crate::{SHIM, STAYING, WAITER};

pub(crate) const TESTS: [(&str, fn()); 11] = [
    ("a_shim_that_is_as_before_has_the_next_step_too_and_each_is_accounted_for_alone", stays),
    ("a_shim_that_stays_starts_each_step_in_its_own_group", in_groups),
    ("a_shim_of_which_something_is_left_has_no_other_step", left_over),
    ("a_shim_to_which_its_step_did_something_has_no_other_step", changed),
    ("a_wish_to_end_a_step_never_meets_the_next_one", wished),
    ("a_shim_that_is_stopped_without_a_step_goes_on_with_the_next", stopped),
    ("a_shim_that_is_killed_without_a_step_is_replaced", killed),
    ("a_shim_that_is_asked_to_end_without_a_step_ends", asked),
    ("a_shim_ends_after_its_step_when_its_agent_is_gone", orphaned),
    ("a_shim_ends_when_no_step_wants_it_and_there_is_another_for_the_next", idle),
    ("a_shim_ends_when_it_is_asked_for_nonsense", nonsense),
];

/// Prints the shim.
const PARENT: &str = "echo $PPID";

/// As in an agent, one for all steps: a shim that stays is heard by it.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_io().build().unwrap());

fn run(attempt: &Attempt, shims: &Shims) -> Ran {
    RUNTIME.block_on(attempt.run(shims, boot_id().unwrap()))
}

fn exit(ran: Ran) -> Exit {
    match ran.unwrap().unwrap() {
        AttemptState::Ended(exit) => *exit,
        other => panic!("expected an end, found {other:?}"),
    }
}

fn end(ran: Ran) -> AttemptEnd {
    exit(ran).end
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

/// Runs a step that prints its shim.
fn ask(place: &Place, name: &str, shims: &Shims) -> Pid {
    let attempt = attempt(place, name, &place.shell(PARENT));
    assert_eq!(end(run(&attempt, shims)), AttemptEnd::Exited(0));
    pid(&output(&attempt, LogStream::Stdout))
}

/// The shim of a step that has begun.
fn shim_of(attempt: &Attempt) -> Pid {
    let AttemptState::Running { started: Some(started) } = state(attempt) else { panic!("{:?}", state(attempt)) };
    Pid::from_raw(started.pid).unwrap()
}

fn stays() {
    let (place, shims) = (Place::new(), Shims::new(shim()));
    let first = ask(&place, "0", &shims);
    // The largest comes first.
    let hungry =
        attempt(&place, "1", &place.shell("x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo word >&2; exit 7"));
    let used = exit(run(&hungry, &shims));
    assert_eq!((used.end.clone(), output(&hungry, LogStream::Stderr).as_str()), (AttemptEnd::Exited(7), "word\n"));
    let silent = attempt(&place, "2", &place.shell("exit 3"));
    let small = exit(run(&silent, &shims));
    assert_eq!(small.end, AttemptEnd::Exited(3));
    let memory = |exit: &Exit| exit.usage.unwrap().memory_bytes;
    assert!(memory(&used) > 50_000_000 && memory(&small) < 30_000_000, "{:?} {:?}", used.usage, small.usage);
    assert!(small.is_silent());
    assert_eq!(ask(&place, "3", &shims), first);
    let refused = run(&silent, &shims).unwrap_err();
    assert!(matches!(refused, agent::attempt::LaunchError::AlreadyEnded), "{refused:?}");
}

fn in_groups() {
    let (place, shims) = (Place::new(), Shims::new(shim()));
    let groups = ["1", "2"].map(|number| {
        let plan = grouped(place.shell(&format!("cat /proc/self/cgroup; {PARENT}")), &format!("stays-{number}"))?;
        let attempt = attempt(&place, number, &plan);
        assert_eq!(end(run(&attempt, &shims)), AttemptEnd::Exited(0));
        let name = plan.group.as_ref().unwrap().place.file_name().unwrap().to_str().unwrap().to_owned();
        let said = output(&attempt, LogStream::Stdout);
        assert!(said.lines().any(|line| line.starts_with("0::") && line.contains(&name)), "{said}");
        Some(said.lines().last().unwrap().to_owned())
    });
    assert_eq!(groups[0], groups[1]);
}

fn left_over() {
    let (place, shims) = (Place::new(), Shims::new(shim()));
    let held = Held::new(&place, "held");
    let one =
        attempt(&place, "1", &place.shell(&format!("{PARENT}; exec 9>held; (read end < never) >&- 2>&- & exit 4")));
    place.pipe("never");
    let left = exit(run(&one, &shims));
    assert_eq!((left.end, left.left_processes), (AttemptEnd::Exited(4), true));
    let two = attempt(&place, "2", &place.shell(PARENT));
    let clean = exit(run(&two, &shims));
    assert_eq!((clean.end, clean.left_processes), (AttemptEnd::Exited(0), false));
    assert_ne!(output(&one, LogStream::Stdout), output(&two, LogStream::Stdout));
    drop(fs::OpenOptions::new().read(true).write(true).open(place.path("never")).map(|pipe| {
        use std::io::Write as _;
        (&pipe).write_all(b"end\n").unwrap();
        held.after_all_are_gone();
    }));
}

fn changed() {
    let (place, shims) = (Place::new(), Shims::new(shim()));
    let mut last = ask(&place, "0", &shims);
    let mut scripts = vec![
        "renice -n 3 -p $PPID",
        "prlimit --pid $PPID --core=0:0",
        "ionice -c 3 -p $PPID",
        "chrt -b -p 0 $PPID",
        "echo 0x21 > /proc/$PPID/coredump_filter",
    ];
    if thread::available_parallelism().unwrap().get() > 1 {
        scripts.push("taskset -cp 0 $PPID");
    }
    for (number, script) in (1..).zip(scripts) {
        let one = attempt(&place, &format!("{number}"), &place.shell(&format!("{PARENT}; {{ {script}; }} >&2")));
        let done = end(run(&one, &shims));
        assert_eq!(done, AttemptEnd::Exited(0), "{script}: {}", output(&one, LogStream::Stderr));
        assert_eq!(pid(&output(&one, LogStream::Stdout)), last, "{script}");
        last = ask(&place, &format!("{number}-after"), &shims);
        assert_ne!(pid(&output(&one, LogStream::Stdout)), last, "{script}");
    }
}

fn wished() {
    let (place, shims) = (Place::new(), Shims::new(shim()));
    let one = attempt(&place, "1", &place.shell(&format!("{PARENT}; touch 1.cancel")));
    assert_eq!(end(run(&one, &shims)), AttemptEnd::Exited(0));
    // Whoever noted the wish may be about to send a signal to the shim that it found.
    let first = pid(&output(&one, LogStream::Stdout));
    assert_ne!(ask(&place, "2", &shims), first);
}

fn stopped() {
    let (place, shims) = (Place::new(), Shims::new(shim()));
    let first = ask(&place, "1", &shims);
    kill_process(first, Signal::STOP).unwrap();
    assert_eq!(ask(&place, "2", &shims), first);
}

fn killed() {
    let (place, shims) = (Place::new(), Shims::new(shim()));
    let first = ask(&place, "1", &shims);
    let gone = pidfd_open(first, PidfdFlags::empty()).unwrap();
    kill_process(first, Signal::KILL).unwrap();
    await_end(&gone);
    assert_ne!(ask(&place, "2", &shims), first);
}

fn asked() {
    let (place, shims) = (Place::new(), Shims::new(shim()));
    let first = ask(&place, "1", &shims);
    let gone = pidfd_open(first, PidfdFlags::empty()).unwrap();
    kill_process(first, Signal::TERM).unwrap();
    await_end(&gone);
    assert_ne!(ask(&place, "2", &shims), first);
}

/// The role of an agent whose shims stay and that is going to be killed.
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
    let mut agent = role(STAYING, &place.stem());
    let mut line = String::new();
    BufReader::new(agent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!((line.as_str(), hear(&ready).as_str()), ("launched\n", "yes"));
    let gone = pidfd_open(shim_of(&attempt), PidfdFlags::empty()).unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(matches!(state(&attempt), AttemptState::Running { .. }));
    let mut waiter = role(WAITER, &place.stem());
    let_go(&go);
    let mut said = String::new();
    waiter.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    waiter.wait().unwrap();
    assert_eq!(said, "Exited(9) second\n");
    await_end(&gone);
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
    // It is there for as long as its step runs, however long that is beyond its time.
    let gone = pidfd_open(shim_of(&one), PidfdFlags::empty()).unwrap();
    let_go(&go);
    assert_eq!(running.join().unwrap(), AttemptEnd::Exited(0));
    await_end(&gone);
    let two = attempt(&place, "2", &place.shell("exit 3"));
    assert_eq!(end(run(&two, &shims)), AttemptEnd::Exited(3));
}

fn nonsense() {
    let status = |stdin: Stdio| {
        let own = std::env::current_exe().unwrap();
        Command::new(own).args([SHIM, "-"]).stdin(stdin).stderr(Stdio::null()).status().unwrap()
    };
    assert_eq!(status(Stdio::null()).code(), Some(1));
    let pair = || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    for nonsense in [&b"x"[..], b"/runs/a", &[b'/'; 9000]] {
        let (ours, theirs) = pair();
        send(&ours, nonsense, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(status(Stdio::from(theirs)).code(), Some(1), "{} bytes", nonsense.len());
    }
    // Closed without a word: its agent is gone.
    let (ours, theirs) = pair();
    drop(ours);
    assert_eq!(status(Stdio::from(theirs)).code(), Some(0));
}
