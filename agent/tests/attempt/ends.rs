//! How steps end when nothing is broken: by themselves, by a signal, by their limit, on request, or never having begun.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use agent::attempt::{AttemptEnd, AttemptState, CancelOutcome, PrepareError, StreamEnd, boot_id};
use messages::{Digest, LogStream, Program};

use crate::support::{Held, Place, ended, hear, let_go, not_started_reason, output, shim, state};

pub(crate) const TESTS: [(&str, fn()); 21] = [
    ("what_a_step_inherits_shows_neither_its_program_nor_its_environment", inherited),
    ("success_is_exit_code_0_with_both_outputs_and_their_digests", success),
    ("a_failure_keeps_its_exit_code_and_a_script_stops_at_its_first_error", failure),
    ("a_signal_is_recorded_by_its_number", signal),
    ("the_time_limit_ends_the_whole_process_group", timeout),
    ("a_process_in_a_session_of_its_own_does_not_escape_the_time_limit", escapee),
    ("a_step_that_ignores_sigterm_is_killed", stubborn),
    ("a_missing_program_is_not_started_and_says_so", missing_program),
    ("an_empty_program_is_not_started_and_says_so", empty_program),
    ("a_missing_working_folder_is_named_as_the_reason", missing_dir),
    ("output_beyond_the_limit_is_cut_and_counted", limit),
    ("both_outputs_at_once_are_kept_whole_however_large", both_at_once),
    ("the_environment_is_exactly_that_of_the_plan", exact_environment),
    ("a_step_reads_nothing_and_leads_a_group_in_the_shims_session", surroundings),
    ("the_umask_of_the_agent_reaches_the_step_and_files_are_private", privacy),
    ("a_daemon_that_holds_the_output_is_left_and_recorded", daemon_with_output),
    ("a_daemon_without_the_output_is_left_and_recorded", daemon_without_output),
    ("a_cancelled_step_ends_and_the_record_says_how", cancel_running),
    ("a_step_cancelled_before_it_began_never_begins", cancel_early),
    ("watching_does_not_need_to_be_waited_for", watching),
    ("what_cannot_be_run_is_refused_when_it_is_prepared", refused_plans),
];

fn stream(text: &str) -> StreamEnd {
    StreamEnd { bytes: text.len() as u64, sha256: Digest::of(text.as_bytes()), ..StreamEnd::empty() }
}

fn success() {
    let place = Place::new();
    let (attempt, exit) = place.run(&place.shell("echo out; echo err >&2"));
    assert_eq!((exit.end, exit.cancelled, exit.left_processes), (AttemptEnd::Exited(0), false, false));
    assert_eq!((exit.stdout, exit.stderr), (stream("out\n"), stream("err\n")));
    assert_eq!(output(&attempt, LogStream::Stdout), "out\n");
    assert_eq!(output(&attempt, LogStream::Stderr), "err\n");
    assert!(exit.started_at_ms > 0 && exit.ended_at_ms > 0);
}

fn failure() {
    let place = Place::new();
    let (attempt, exit) = place.run(&place.shell("echo before; (exit 7); echo after"));
    assert_eq!(exit.end, AttemptEnd::Exited(7));
    assert_eq!(output(&attempt, LogStream::Stdout), "before\n");
    let place = Place::new();
    let (_, exit) = place.run(&place.shell("-no-option-of-the-shell"));
    assert_eq!(exit.end, AttemptEnd::Exited(127));
    let place = Place::new();
    let (_, exit) = place.run(&place.plan(Program::Exec(["sh", "-c", "exit 200"].map(String::from).to_vec())));
    assert_eq!(exit.end, AttemptEnd::Exited(200));
}

fn signal() {
    let place = Place::new();
    let (_, exit) = place.run(&place.shell("kill -USR1 $$"));
    assert_eq!((exit.end, exit.cancelled), (AttemptEnd::Signaled(10), false));
}

/// Milliseconds. Time enough for a shell to start also on a busy machine; the test then fails, it does not hang.
const STARTING_MS: u64 = 1500;

fn timeout() {
    let place = Place::new();
    let held = Held::new(&place, "held");
    let mut plan = place.shell("exec 3>held; sleep 1000 & sleep 1000 & echo up >&3; sleep 1000");
    plan.timeout_ms = Some(STARTING_MS);
    let (_, exit) = place.run(&plan);
    assert_eq!((exit.end, exit.cancelled, exit.left_processes), (AttemptEnd::TimedOut, false, false));
    assert_eq!(held.after_all_are_gone(), "up\n");
}

fn escapee() {
    let place = Place::new();
    let held = Held::new(&place, "held");
    let away = "trap '' TERM; echo away >&3; while :; do sleep 1000; done";
    let mut plan = place.plan(Program::Exec(vec![
        "sh".into(),
        "-c".into(),
        "exec 3>held; setsid sh -c \"$0\" & wait".into(),
        away.into(),
    ]));
    plan.timeout_ms = Some(STARTING_MS);
    let (_, exit) = place.run(&plan);
    assert_eq!((exit.end, exit.left_processes), (AttemptEnd::TimedOut, false));
    assert_eq!(held.after_all_are_gone(), "away\n");
}

fn stubborn() {
    let place = Place::new();
    let ready = place.pipe("ready");
    let attempt = place.launch(&place.shell("trap '' TERM; echo yes > ready; while :; do sleep 1000; done"));
    assert_eq!(hear(&ready), "yes");
    assert_eq!(attempt.cancel().unwrap(), CancelOutcome::Told);
    let exit = ended(&attempt);
    assert_eq!((exit.end, exit.cancelled), (AttemptEnd::Signaled(9), true));
}

fn missing_program() {
    let place = Place::new();
    let (_, exit) = place.run(&place.plan(Program::Exec(vec!["no-such-program".into()])));
    let reason = not_started_reason(&exit);
    assert!(reason.contains("no-such-program") && reason.contains("not in PATH"), "{reason}");
    assert_eq!((exit.stdout.clone(), exit.left_processes), (StreamEnd::empty(), false));
}

fn empty_program() {
    let place = Place::new();
    let (_, exit) = place.run(&place.plan(Program::Exec(Vec::new())));
    assert_eq!(not_started_reason(&exit), "the program is empty");
}

fn missing_dir() {
    let place = Place::new();
    let mut plan = place.shell("true");
    plan.dir = place.path("gone");
    let (_, exit) = place.run(&plan);
    let reason = not_started_reason(&exit);
    assert!(reason.starts_with("the working folder `") && reason.contains("gone"), "{reason}");
}

fn limit() {
    let place = Place::new();
    let mut plan = place.shell("head -c 1000000 /dev/zero; printf 12345 >&2");
    plan.output_bytes_max = 1000;
    let (attempt, exit) = place.run(&plan);
    assert_eq!(exit.end, AttemptEnd::Exited(0));
    assert_eq!((exit.stdout.bytes, exit.stdout.cut_bytes), (1000, 999_000));
    assert_eq!(exit.stdout.sha256, Digest::of(&[0; 1000]));
    assert_eq!(fs::metadata(attempt.output(LogStream::Stdout)).unwrap().len(), 1000);
    assert_eq!((exit.stderr.bytes, exit.stderr.cut_bytes), (5, 0));
}

fn both_at_once() {
    let place = Place::new();
    let script = "head -c 5000000 /dev/zero & head -c 5000000 /dev/zero >&2; wait";
    let (attempt, exit) = place.run(&place.shell(script));
    for (kept, file) in [(exit.stdout, LogStream::Stdout), (exit.stderr, LogStream::Stderr)] {
        assert_eq!((kept.bytes, kept.cut_bytes, kept.error), (5_000_000, 0, None));
        assert_eq!(kept.sha256, Digest::of(&fs::read(attempt.output(file)).unwrap()));
    }
}

fn exact_environment() {
    let place = Place::new();
    let mut plan = place.plan(Program::Exec(vec!["/usr/bin/env".into(), "-0".into()]));
    plan.env.insert("SEVERAL".into(), "lines\nand = signs".into());
    let (attempt, _) = place.run(&plan);
    let text = output(&attempt, LogStream::Stdout);
    let found: Vec<_> = text.split_terminator('\0').filter_map(|pair| pair.split_once('=')).collect();
    let mut found: Vec<_> = found.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    found.sort();
    assert_eq!(found, plan.env.into_iter().collect::<Vec<_>>());
}

fn surroundings() {
    let place = Place::new();
    let script = "readlink /proc/self/fd/0; pwd -P; cut -d ' ' -f 1,5,6 /proc/$$/stat; echo $$";
    let (attempt, _) = place.run(&place.shell(script));
    let text = output(&attempt, LogStream::Stdout);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "/dev/null");
    assert_eq!(PathBuf::from(lines[1]), fs::canonicalize(place.root.path()).unwrap());
    let ids: Vec<&str> = lines[2].split(' ').collect();
    assert_eq!((ids[0], ids[1]), (lines[3], lines[3]), "it leads its own group");
    // As text: in a container whose session began outside, the number of one's own session is 0, which is no process id.
    let own_stat = fs::read_to_string("/proc/self/stat").unwrap();
    let own_session = own_stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
    assert!(ids[2] != own_session && ids[2] != lines[3], "its session is the shim's");
    assert_ne!(ids[2], "0", "a session that can be seen from here");
}

fn privacy() {
    let place = Place::new();
    let (attempt, _) = place.run(&place.shell("umask; touch made"));
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let own = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(own);
    assert_eq!(output(&attempt, LogStream::Stdout).trim(), format!("{:04o}", own.bits()));
    assert_eq!(mode(place.path("made")), 0o666 & !own.bits());
    for name in ["record", "stdout"] {
        assert_eq!(mode(place.file(name)), 0o600, "{name}");
    }
}

/// As a daemon does that gives up its rights and its environment, and closes nothing.
fn inherited() {
    let place = Place::new();
    let script = r#"exec env -i /bin/sh -c 'for file in /proc/$$/fd/*; do
        case $(/usr/bin/readlink $file) in *.record) echo found; /bin/cat $file;; esac
    done'"#;
    let mut plan = place.shell(&format!("{script} # a word in the program"));
    plan.env.insert("TOKEN".into(), "a word in the environment".into());
    let attempt = place.prepare(&plan);
    let before = String::from_utf8_lossy(&fs::read(place.file("record")).unwrap()).into_owned();
    assert!(before.contains("a word in the program") && before.contains("a word in the environment"));
    attempt.launch(&shim()).unwrap();
    assert_eq!(ended(&attempt).end, AttemptEnd::Exited(0));
    let seen = fs::read(attempt.output(LogStream::Stdout)).unwrap();
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.starts_with("found") && !seen.contains("a word"), "it has read the plan");
}

fn daemon_with_output() {
    let place = Place::new();
    let stay = place.pipe("stay");
    let (_, exit) = place.run(&place.shell("echo hello; setsid sh -c 'read go < stay' & exit 0"));
    assert_eq!((exit.end, exit.left_processes), (AttemptEnd::Exited(0), true));
    assert!(exit.stdout.left_open && exit.stderr.left_open);
    assert_eq!(exit.stdout.bytes, 6);
    // It was left alive: somebody still comes to read.
    let_go(&stay);
}

fn daemon_without_output() {
    let place = Place::new();
    let stay = place.pipe("stay");
    let (_, exit) = place.run(&place.shell("setsid sh -c 'read go < stay' > /dev/null 2>&1 & exit 3"));
    assert_eq!((exit.end, exit.left_processes), (AttemptEnd::Exited(3), true));
    assert!(!exit.stdout.left_open && !exit.stderr.left_open);
    let_go(&stay);
}

fn cancel_running() {
    let place = Place::new();
    let ready = place.pipe("ready");
    let attempt = place.launch(&place.shell("trap 'echo tidied; exit 4' TERM; echo yes > ready; sleep 1000 & wait"));
    assert_eq!(hear(&ready), "yes");
    assert!(matches!(state(&attempt), AttemptState::Running { started: Some(_) }));
    assert_eq!(attempt.cancel().unwrap(), CancelOutcome::Told);
    let exit = ended(&attempt);
    assert_eq!((exit.end, exit.cancelled, exit.left_processes), (AttemptEnd::Exited(4), true, false));
    assert_eq!(output(&attempt, LogStream::Stdout), "tidied\n");
    assert_eq!(attempt.cancel().unwrap(), CancelOutcome::TooLate);
}

fn cancel_early() {
    let place = Place::new();
    let attempt = place.prepare(&place.shell("touch began"));
    assert_eq!(attempt.cancel().unwrap(), CancelOutcome::Noted);
    assert_eq!(state(&attempt), AttemptState::NotStarted);
    attempt.launch(&shim()).unwrap();
    let exit = ended(&attempt);
    assert_eq!(not_started_reason(&exit), "it was cancelled before it began");
    assert!(exit.cancelled && !place.path("began").exists());
}

fn watching() {
    let place = Place::new();
    let go = place.pipe("go");
    let attempt = place.launch(&place.shell("read go < go"));
    drop(attempt.watch(boot_id().unwrap()).unwrap());
    let end = attempt.watch(boot_id().unwrap()).unwrap();
    let_go(&go);
    assert!(matches!(end.blocking_recv().unwrap().unwrap(), AttemptState::Ended(_)));
}

fn refused_plans() {
    let place = Place::new();
    let mut plan = place.shell("true");
    plan.env.insert("A=B".into(), String::new());
    let prepare = |plan: &agent::attempt::Plan| crate::support::prepare(&place.stem(), plan);
    assert!(matches!(prepare(&plan), Err(PrepareError::Variable { name }) if name == "A=B"));
    let mut plan = place.shell("true");
    plan.dir = "relative".into();
    assert!(matches!(prepare(&plan), Err(PrepareError::RelativeDir { .. })));
    assert!(matches!(prepare(&place.shell(&"x".repeat(2_000_000))), Err(PrepareError::Plan(_))));
    assert!(!place.file("record").exists());
    let (_, exit) = place.run(&place.shell("true"));
    assert_eq!(exit.end, AttemptEnd::Exited(0));
    assert!(matches!(prepare(&place.shell("true")), Err(PrepareError::Exists { .. })));
}
