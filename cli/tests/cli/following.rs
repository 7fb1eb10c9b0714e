//! Watching a job: what is shown, how it ends, and what happens when the server goes away meanwhile.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};

use messages::LogKey;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use server::views::{JobState, JobView, RunState, StepState};

use crate::run::{JOB, Server};

/// A watcher whose lines are read one after the other.
struct Watcher {
    child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Watcher {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        server.home.write("job.toml", JOB);
        Self::watch(server, &[&["job", "run", "job.toml", "--follow"], arguments].concat())
    }

    fn watch(server: &Server, arguments: &[&str]) -> Self {
        let mut command = server.home.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { child, out: BufReader::new(out), err: BufReader::new(err) }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    fn note(&mut self) -> String {
        let mut line = String::new();
        self.err.read_line(&mut line).unwrap();
        line
    }

    fn end(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

/// One that was not watched to its end would look for its server for ever.
impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn change(server: &Server, how: impl FnOnce(&mut JobView)) {
    server.desk.change(|books| how(&mut books.jobs.values_mut().next().unwrap().1));
}

fn write(server: &Server, stream: &str, text: &str, complete: bool) {
    server.desk.change(|books| {
        let job = &mut books.jobs.values_mut().next().unwrap().1;
        job.runs[0].steps[0].attempt = 1;
        let key = json!({"run": job.runs[0].id, "step": "s", "attempt": 1, "stream": stream});
        books.logs.insert(serde_json::from_value::<LogKey>(key).unwrap(), (text.into(), complete));
    });
}

fn settle(server: &Server, job_state: JobState, step_state: StepState) {
    change(server, |job| {
        job.state = job_state;
        job.ended_ms = Some(job.created_ms + 67_000);
        let run = &mut job.runs[0];
        run.state = if job_state == JobState::Succeeded { RunState::Succeeded } else { RunState::Failed };
        run.steps[0].state = step_state;
        (run.steps[0].started_ms, run.steps[0].ended_ms) = (Some(1_000), Some(4_100));
        run.steps[0].detail = Some("exit code 3".into());
    });
}

#[test]
fn a_job_is_watched_to_its_good_end() {
    let server = Server::new();
    let mut watcher = Watcher::start(&server, &[]);
    let first = watcher.line();
    assert!(first.starts_with("job ") && first.ends_with(" x → a1\n"), "{first}");
    write(&server, "stdout", "one\ntw", false);
    assert_eq!(watcher.line(), "a1 s │ one\n");
    write(&server, "stdout", "one\ntwo\u{1b}[2J\nthree", true);
    assert_eq!(watcher.line(), "a1 s │ two\u{fffd}[2J\n");
    write(&server, "stderr", "", true);
    settle(&server, JobState::Succeeded, StepState::Succeeded);
    assert_eq!(watcher.line(), "a1 s ✓ 3.1s\n");
    assert_eq!(watcher.line(), "a1 s │ three\n");
    let last = watcher.line();
    assert!(last.ends_with(" succeeded in 1m07s · 1 of 1 agent ok\n"), "{last}");
    assert_eq!(watcher.end(), 0);
}

#[test]
fn the_exit_code_tells_how_a_job_ended() {
    for (job, step, code, line) in [
        (JobState::Failed, StepState::Failed, 1, "a1 s ✗ failed 3.1s: exit code 3\n"),
        (JobState::NeedsDecision, StepState::NeedsDecision, 75, "a1 s ⚠ needs-decision 3.1s: exit code 3\n"),
    ] {
        let server = Server::new();
        let mut watcher = Watcher::start(&server, &["--no-logs"]);
        watcher.line();
        settle(&server, job, step);
        assert_eq!(watcher.line(), line);
        if code == 1 {
            assert!(watcher.line().contains(" failed in 1m07s · 0 of 1 agent ok"));
            let hint = watcher.line();
            assert!(
                hint.starts_with("`longshore job retry ") && hint.ends_with("` starts again what did not succeed\n"),
                "{hint}"
            );
        } else {
            assert!(watcher.line().contains(" needs-decision in 1m07s"));
            let (unknown, command, ended) = (watcher.line(), watcher.line(), watcher.line());
            assert!(
                unknown.contains("must not run twice") && command.starts_with("longshore job resolve "),
                "{command}"
            );
            assert_eq!(ended, "decides, and ends the processes of the step that still run\n");
        }
        assert_eq!(watcher.end(), code);
    }
}

#[test]
fn a_restart_of_the_server_is_survived_and_said() {
    let mut server = Server::new();
    let mut watcher = Watcher::start(&server, &[]);
    watcher.line();
    write(&server, "stdout", "before\n", false);
    assert_eq!(watcher.line(), "a1 s │ before\n");
    server.stop();
    let note = watcher.note();
    assert!(note.starts_with("server unreachable (") && note.contains("the job goes on"), "{note}");
    write(&server, "stdout", "before\nafter\n", true);
    write(&server, "stderr", "", true);
    settle(&server, JobState::Succeeded, StepState::Succeeded);
    // A server that comes back with another token writes it down, and is found with it.
    server.token = server::api::Token::generate().unwrap();
    server.start();
    assert_eq!(watcher.note(), "server back\n");
    assert_eq!(watcher.line(), "a1 s │ after\n");
    assert_eq!(watcher.line(), "a1 s ✓ 3.1s\n");
    assert!(watcher.line().contains(" succeeded in "));
    assert_eq!(watcher.end(), 0);
}

#[test]
fn interrupting_only_stops_watching() {
    let server = Server::new();
    let mut watcher = Watcher::start(&server, &[]);
    watcher.line();
    let pid = Pid::from_child(&watcher.child);
    kill_process(pid, Signal::INT).unwrap();
    let note = watcher.note();
    assert!(note.starts_with("stopped watching; job ") && note.ends_with(" goes on\n"), "{note}");
    assert_eq!(watcher.end(), 130);
    let job = server.desk.books.lock().unwrap().jobs.values().next().unwrap().1.clone();
    assert_eq!(job.state, JobState::Running);
}

#[test]
fn a_wait_has_the_end_that_it_was_given() {
    let server = Server::new();
    let mut watcher = Watcher::start(&server, &["--timeout", "0s"]);
    assert!(watcher.note().starts_with("stopped watching after the time given"));
    assert_eq!(watcher.end(), 124);
    let ran = server.run(&["job", "run", "job.toml", "--follow", "--timeout", "-3s"]);
    assert!(ran.code == 2, "{ran:?}");
}

#[test]
fn programs_get_views_line_by_line_or_only_the_last() {
    let server = Server::new();
    let mut watcher = Watcher::start(&server, &["-o", "ndjson", "--no-logs"]);
    let first: serde_json::Value = serde_json::from_str(&watcher.line()).unwrap();
    assert_eq!((&first["schema"], &first["state"]), (&json!("longshore.job/1"), &json!("running")));
    settle(&server, JobState::Failed, StepState::Failed);
    let last: serde_json::Value = serde_json::from_str(&watcher.line()).unwrap();
    assert_eq!(last["state"], "failed");
    assert_eq!((watcher.line(), watcher.end()), (String::new(), 1));
}

#[test]
fn a_job_that_runs_already_is_followed_by_its_logs() {
    let server = Server::new();
    server.home.write("job.toml", JOB);
    let ran = server.run(&["job", "run", "job.toml"]);
    let id = server.desk.books.lock().unwrap().jobs.keys().next().unwrap().to_string();
    assert_eq!(ran.err, format!("watch it with `longshore job logs -f {}`\n", &id[..13]));
    let mut watcher = Watcher::watch(&server, &["job", "logs", "-f", &id[..13], "--stream", "stdout"]);
    assert!(watcher.line().ends_with(" x → a1\n"));
    write(&server, "stderr", "hidden\n", true);
    write(&server, "stdout", "one\n", false);
    assert_eq!(watcher.line(), "a1 s │ one\n");
    write(&server, "stdout", "one\ntwo\n", true);
    assert_eq!(watcher.line(), "a1 s │ two\n");
    settle(&server, JobState::Failed, StepState::Failed);
    assert_eq!(watcher.line(), "a1 s ✗ failed 3.1s: exit code 3\n");
    assert_eq!(watcher.end(), 1);
    let ran = server.run(&["job", "logs", "-f", &id, "--agent", "a2"]);
    assert!(ran.code == 2 && ran.err.contains("the job does not run on `a2`"), "{ran:?}");
    let ran = server.run(&["job", "logs", &id, "--timeout", "1s"]);
    assert!(ran.code == 2 && ran.err.contains("--follow"), "{ran:?}");
}

/// What was written before is sent before the first view of the job.
#[test]
fn a_job_that_has_written_already_says_whose_output_that_is() {
    let server = Server::new();
    server.home.write("job.toml", JOB);
    server.run(&["job", "run", "job.toml"]);
    let id = server.desk.books.lock().unwrap().jobs.keys().next().unwrap().to_string();
    write(&server, "stdout", "early\n", true);
    for only in [&["--stream", "stdout"][..], &["--agent", "a1"]] {
        let mut watcher = Watcher::watch(&server, &[&["job", "logs", "-f", &id[..13]], only].concat());
        assert!(watcher.line().ends_with(" x → a1\n"));
        assert_eq!(watcher.line(), "a1 s │ early\n");
    }
}

/// On standard output there is only data, and what steps wrote is no progress.
#[test]
fn to_be_quiet_silences_notes_and_no_data() {
    let server = Server::new();
    let id = server.submit();
    write(&server, "stdout", "one\ntwo", true);
    write(&server, "stderr", "", true);
    settle(&server, JobState::Failed, StepState::Failed);
    let follow = |more: &[&str]| server.run(&[&["job", "logs", "-f", &id], more].concat());
    let ran = follow(&["-q"]);
    assert!(ran.out.starts_with("job ") && ran.out.contains(" x → a1\na1 s │ one\n"), "{ran:?}");
    assert!(ran.out.contains("a1 s │ two\n") && ran.out.contains("a1 s ✗ failed 3.1s: exit code 3\n"), "{ran:?}");
    assert_eq!((ran.code, ran.out, ran.err), (1, follow(&[]).out, String::new()));
    let ran = follow(&["--no-progress"]);
    assert!(ran.out.starts_with("a1 s │ one\na1 s │ two\njob "), "{ran:?}");
    let mut watcher = Watcher::start(&server, &["-q", "--timeout", "0s"]);
    assert_eq!((watcher.note(), watcher.end()), (String::new(), 124));
}
