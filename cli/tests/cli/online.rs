//! Commands that ask a server: what they print, and what they make of refusals.

use messages::LogKey;
use serde_json::{Value, json};
use server::views::{JobState, RunState, StepState};

use crate::run::{JOB, Server};

#[test]
fn a_job_is_submitted_listed_and_shown() {
    let server = Server::new();
    let id = server.submit();
    let ran = server.run(&["job", "list", "--time", "utc"]);
    let short = &id[..13];
    let expected = format!(
        "JOB            NAME  STATE    AGENTS  STEPS  STOPPED AT  CREATED               TOOK\n{short}  x     running       1    0/1  -           1970-01-01 00:00:00Z  -\n"
    );
    assert_eq!((ran.code, ran.out), (0, expected));
    let ran = server.run(&["job", "show", short, "--time", "utc"]);
    assert!(ran.out.starts_with(&format!("job {id} · x · running · created 1970-01-01 00:00:00Z")), "{ran:?}");
    assert!(ran.out.contains("  a1 sent · 0/1 steps\n"), "{ran:?}");
    assert!(ran.out.ends_with(
        "AGENT  STEP  STATE    EFFECT  ATTEMPT  TOOK  DETAIL\na1     s     pending  once          -  -     -\n"
    ));
    let show: Value = serde_json::from_str(&server.run(&["job", "show", &id, "--json"]).out).unwrap();
    assert_eq!((&show["schema"], &show["id"]), (&json!("longshore.job/1"), &json!(id)));
    let lines = server.run(&["job", "list", "-o", "ndjson"]).out;
    assert_eq!(serde_json::from_str::<Value>(lines.trim()).unwrap()["steps"], 1);
    assert_eq!(server.run(&["job", "list", "-o", "name"]).out, format!("{id}\n"));
    assert_eq!(server.run(&["job", "list", "--state", "failed", "-o", "name"]).out, "");
}

#[test]
fn submitting_with_the_same_id_is_the_same_job() {
    let server = Server::new();
    let id = server.submit();
    let ran = server.run(&["job", "run", "job.toml", "--id", &id, "-o", "name"]);
    assert_eq!((ran.code, ran.out.trim()), (0, id.as_str()));
    let ran = server.run(&["job", "run", "job.toml", "--id", &id]);
    let said = format!("job {id} was submitted before and is running; nothing is run again\n");
    assert_eq!((ran.code, ran.out), (0, said));
    server.home.write("other.toml", &JOB.replace("'x'", "'y'"));
    let ran = server.run(&["job", "run", "other.toml", "--id", &id]);
    assert!(ran.code == 2 && ran.err.contains("another job has the id"), "{ran:?}");
    assert!(ran.err.contains(&format!("`longshore job show {id}`")), "{ran:?}");
}

#[test]
fn what_the_server_refuses_is_explained() {
    let server = Server::new();
    server.home.write("job.toml", &JOB.replace("a1", "a11"));
    let ran = server.run(&["job", "run", "job.toml"]);
    assert_eq!(ran.code, 2);
    assert_eq!(
        ran.err,
        "error: there is no agent `a11`\nstate: no job was made\nnext:  did you mean `a1`? `longshore fleet list` shows the agents\n"
    );
    let ran = server.run(&["job", "show", "ffff"]);
    assert!(ran.code == 2 && ran.err.contains("there is no job `ffff`"), "{ran:?}");
    let ran = server.run(&["fleet", "show", "a9"]);
    assert!(ran.code == 2 && ran.err.contains("there is no agent `a9`"), "{ran:?}");
}

#[test]
fn a_wrong_token_is_not_allowed() {
    let server = Server::new();
    server.home.write("token", &"t".repeat(64));
    let ran = server.run(&["fleet", "list", "--token-file", "token"]);
    assert!(ran.code == 77 && ran.err.contains("the token is missing or not the server's"), "{ran:?}");
    server.home.write("token", server.token.reveal());
    let url = format!("http://{}", server.address);
    assert_eq!(server.run(&["fleet", "list", "--token-file", "token", "--server", &url, "--dir", "nowhere"]).code, 0);
}

#[test]
fn something_else_on_the_port_is_recognised() {
    let server = Server::new();
    server.home.write("token", &"t".repeat(64));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let other = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").unwrap();
    });
    let ran = server.run(&["fleet", "list", "--server", &url, "--token-file", "token"]);
    assert!(ran.code == 69 && ran.err.contains("not a Longshore server"), "{ran:?}");
    other.join().unwrap();
}

#[test]
fn agents_and_links_are_shown() {
    let server = Server::new();
    let ran = server.run(&["fleet", "list", "--time", "utc"]);
    assert_eq!(
        ran.out,
        "NAME  POOL  STATE        SLOTS  RUNS  LAG  SEEN AT               VERSION  NOTE\n\
         a1    -     online         1/2     1    0  1970-01-01 00:00:00Z  0.1.0    -\n\
         a2    -     unreachable    1/2     1    0  1970-01-01 00:00:00Z  0.1.0    -\n"
    );
    assert!(ran.err.starts_with("2 agents: 1 online, 1 unreachable"), "{ran:?}");
    assert_eq!(server.run(&["-q", "agents", "list", "-o", "name"]).out, "a1\na2\n");
    let ran = server.run(&["reconcile", "show", "a1"]);
    assert_eq!(
        ran.out,
        "LINK       SENT  CONFIRMED  RECEIVED  SETTLED  FORGOTTEN  GAP\n\
         server→a1     3          0         0        0          0  1-2\n\
         a1→server     0          -         0        0          0  none\n\
         not heard yet · resent 0 · duplicates dropped 0\n"
    );
    assert!(server.run(&["version"]).out.contains("server 0.1.0 at http://127.0.0.1:"));
}

#[test]
fn one_log_is_printed_as_the_bytes_it_is_and_several_get_headings() {
    let server = Server::new();
    let id = server.submit();
    let ran = server.run(&["job", "logs", &id]);
    assert!(ran.code == 2 && ran.err.contains("no step that was asked for has begun"), "{ran:?}");
    // More than one answer holds, so that it must be read in pieces.
    let long = "0123456789\n".repeat(200_000);
    server.desk.change(|books| {
        let job = &mut books.jobs.values_mut().next().unwrap().1;
        job.state = JobState::Succeeded;
        job.runs[0].state = RunState::Succeeded;
        job.runs[0].steps[0].state = StepState::Succeeded;
        job.runs[0].steps[0].attempt = 1;
        for (stream, bytes, complete) in
            [("stdout", long.clone().into_bytes(), true), ("stderr", b"oh\n".to_vec(), false)]
        {
            let key = json!({"run": job.runs[0].id, "step": "s", "attempt": 1, "stream": stream});
            books.logs.insert(serde_json::from_value::<LogKey>(key).unwrap(), (bytes, complete));
        }
    });
    let ran = server.run(&["job", "logs", &id, "--stream", "stdout"]);
    assert!(ran.code == 0 && ran.out == long && ran.err.is_empty());
    let ran = server.run(&["job", "logs", &id]);
    assert!(ran.out.starts_with("==> a1 s stdout, attempt 1 <==\n0123"), "{}", &ran.out[..60]);
    assert!(ran.out.ends_with("==> a1 s stderr, attempt 1 <==\noh\n"));
    assert_eq!(ran.err, "a1 s stderr: not all of it has arrived yet\n");
    let ran = server.run(&["job", "logs", &id, "--step", "t"]);
    assert!(ran.code == 2 && ran.err.contains("the job has no step `t`"), "{ran:?}");
}

#[test]
fn a_job_that_did_not_succeed_says_how_to_start_it_again() {
    let server = Server::new();
    let id = server.submit();
    let short = &id[..13];
    let ran = server.run(&["job", "cancel", &id]);
    let words = format!(
        "on its way to a1; `longshore job show {short}` says when it is ended there\nthen `longshore job retry {short}` starts it again\n"
    );
    assert_eq!((ran.code, ran.err), (0, words));
    let ran = server.run(&["job", "cancel", &id]);
    assert!(ran.code == 2 && ran.err.contains("next:  `longshore job retry`"), "{ran:?}");
    let hint = format!("`longshore job retry {short}` starts again what did not succeed\n");
    assert_eq!(server.run(&["job", "show", &id]).err, "");
    assert_eq!(server.run(&["job", "show", &id, "-o", "name"]).out, format!("{id}\n"));
    let end = |state, run: RunState, retried: bool| {
        server.desk.change(|books| {
            let job = &mut books.jobs.values_mut().next().unwrap().1;
            job.state = state;
            job.runs[0].state = run;
            job.runs[0].retried = retried.then_some(job.id);
        });
        server.run(&["job", "show", &id]).err
    };
    assert_eq!(end(JobState::Cancelled, RunState::Cancelled, false), hint);
    assert_eq!(end(JobState::Failed, RunState::Failed, false), hint);
    assert_eq!(end(JobState::Failed, RunState::Failed, true), "");
    assert_eq!(end(JobState::Succeeded, RunState::Succeeded, false), "");
    let decide = format!(
        "`longshore job resolve {short} --as done|retry|fail --note WHY` decides, and ends the processes of the step that still run\n"
    );
    assert_eq!(end(JobState::NeedsDecision, RunState::NeedsDecision, false), decide);
    assert_eq!(server.run(&["job", "list", "--state", "failed"]).err, "no jobs\n");
}

#[test]
fn a_job_that_did_not_succeed_shows_how_far_it_came_and_where_it_stopped() {
    use StepState::{Cancelled, Failed, NeedsDecision, NotRun, Pending, Running, Skipped, Succeeded};
    let server = Server::new();
    let step = |id: &str| format!("[[step]]\nid = '{id}'\nrun = 'true'\n");
    let steps = ["get", "build", "ship", "tidy"].map(step).concat();
    server.home.write("job.toml", &format!("name = 'x'\ntarget = {{ agents = ['a1'] }}\n{steps}"));
    let id = server.run(&["job", "run", "job.toml", "-o", "name"]).out.trim().to_owned();
    let shown = |state, run_state, steps: [StepState; 4]| {
        server.desk.change(|books| {
            let job = &mut books.jobs.values_mut().next().unwrap().1;
            (job.state, job.runs[0].state) = (state, run_state);
            for (step, state) in job.runs[0].steps.iter_mut().zip(steps) {
                step.state = state;
                step.attempt = u32::from(!matches!(state, NotRun | Pending | Skipped));
            }
        });
        let row = server.run(&["job", "list", "-o", "csv"]).out.lines().nth(1).unwrap().to_owned();
        let line = server.run(&["job", "show", &id]).out.lines().nth(1).unwrap().to_owned();
        (row.split(',').skip(4).take(2).collect::<Vec<_>>().join(" "), line)
    };
    for (state, run, steps, row, line) in [
        (
            JobState::Failed,
            RunState::Failed,
            [Succeeded, Failed, NotRun, Succeeded],
            "2/4 build",
            "  a1 failed at build · 2/4 steps",
        ),
        (
            JobState::Cancelled,
            RunState::Cancelled,
            [Succeeded, Cancelled, NotRun, NotRun],
            "1/4 build",
            "  a1 cancelled at build · 1/4 steps",
        ),
        (
            JobState::Cancelled,
            RunState::Cancelled,
            [Succeeded, Succeeded, NotRun, NotRun],
            "2/4 ship",
            "  a1 cancelled at ship · 2/4 steps",
        ),
        (
            JobState::NeedsDecision,
            RunState::NeedsDecision,
            [NeedsDecision, Pending, Pending, Pending],
            "0/4 get",
            "  a1 needs-decision at get · 0/4 steps",
        ),
        (JobState::Failed, RunState::Refused, [NotRun; 4], "0/4 ", "  a1 refused · 0/4 steps"),
        (
            JobState::Succeeded,
            RunState::Succeeded,
            [Succeeded, Succeeded, Succeeded, Skipped],
            "4/4 ",
            "  a1 succeeded · 4/4 steps",
        ),
        (
            JobState::Running,
            RunState::Running,
            [Succeeded, Running, Pending, Pending],
            "1/4 ",
            "  a1 running · 1/4 steps",
        ),
    ] {
        assert_eq!(shown(state, run, steps), (row.to_owned(), line.to_owned()));
    }
    let table = server.run(&["job", "list"]).out;
    assert!(table.starts_with("JOB            NAME  STATE    AGENTS  STEPS  STOPPED AT  AGE"), "{table}");
}

#[test]
fn a_decision_about_an_agent_without_one_to_make_says_which_has() {
    let server = Server::new();
    let id = server.submit();
    let resolve = |agent| server.run(&["job", "resolve", &id, "--agent", agent, "--as", "done", "--note", "seen"]);
    let ran = resolve("a9");
    let words = "error: the job has no run on a9\nstate: nothing was changed\nnext:  it has one on: a1\n";
    assert_eq!((ran.code, ran.err.as_str()), (2, words));
    let ran = resolve("a1");
    assert!(ran.code == 2 && ran.err.starts_with("error: nothing on a1 waits for a decision\n"), "{ran:?}");
}

#[test]
fn a_decision_says_before_it_is_sent_that_it_ends_what_still_runs() {
    let server = Server::new();
    let id = server.submit();
    server.desk.change(|books| {
        let job = &mut books.jobs.values_mut().next().unwrap().1;
        job.state = JobState::NeedsDecision;
        job.runs[0].state = RunState::NeedsDecision;
        (job.runs[0].steps[0].state, job.runs[0].steps[0].attempt) = (StepState::NeedsDecision, 1);
    });
    let resolve = ["job", "resolve", &id, "--as", "done", "--note", "seen"];
    let ran = server.run(&resolve);
    let words = "a1 s attempt 1\nprocesses of the step that still run are ended first\n";
    assert_eq!((ran.code, ran.err.as_str()), (0, words));
    let ran = server.run(&[&resolve[..], &["--give-up"]].concat());
    assert!(ran.err.contains("what its agent still does of the run is ended when it can be reached"), "{ran:?}");
    let help = server.run(&["job", "resolve", "--help"]).out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("first ends all processes of the step that still run"), "{help}");
}

#[test]
fn times_for_programs_are_milliseconds_and_named_so() {
    let server = Server::new();
    let id = server.submit();
    let head = |arguments: &[&str]| server.run(arguments).out.lines().next().unwrap().to_owned();
    assert_eq!(head(&["job", "list", "-o", "csv"]), "job,name,state,agents,steps,stopped_at,created_ms,took_ms,id");
    assert_eq!(head(&["job", "show", &id, "-o", "csv"]), "agent,step,state,effect,attempt,took_ms,detail,run");
    assert_eq!(head(&["fleet", "list", "-o", "csv"]), "name,pool,state,slots,runs,lag,seen_ms,version,labels,note");
}
