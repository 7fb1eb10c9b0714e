//! What is done again, what never is, and that a retry is taken once.
#![allow(clippy::unwrap_used)]

use futures_util::FutureExt as _;
use messages::{Decision, RunFinished, StepChanged, StepEnd, StepEvent};

use super::*;
use crate::api::{Desk as _, Resolution, Submission};
use crate::job_file::JobFile;
use crate::submit::tests::server;

const JOB: &str = r#"
name = "n"
target = { all = true }
[[step]]
id = "get"
run = "true"
effect = "idempotent"
outputs = ["version"]
[[step]]
id = "stop"
run = "true"
[[step]]
id = "start"
run = "true"
[[step]]
id = "check"
run = "true"
effect = "read-only"
[[step]]
id = "clean"
run = "true"
when = "always"
"#;

fn plan(text: &str) -> Plan {
    JobFile::parse(text).unwrap().plan(&BTreeMap::new()).unwrap()
}

/// A run of that job whose steps are in those states, and which failed.
fn run(plan: &Plan, states: &[StepState]) -> RunRow {
    let steps = plan.steps.iter().zip(states).map(|(spec, state)| {
        let attempt = u32::from(!matches!(state, StepState::NotRun | StepState::Pending));
        StepRow { state: *state, attempt, ..StepRow::new(spec) }
    });
    let (agent, message) = ("a1".parse().unwrap(), message_id());
    let run = RunRow::waiting(RunId::from_u128(1), JobId::from_u128(1), agent, message, steps.collect());
    RunRow { state: RunState::Failed, since: Some(Since::now()), ..run }
}

const FAILED: [StepState; 5] =
    [StepState::Succeeded, StepState::Succeeded, StepState::Failed, StepState::NotRun, StepState::Succeeded];

fn step(id: &str) -> StepId {
    id.parse().unwrap()
}

#[test]
fn a_retry_runs_what_is_left_and_carries_what_was_done_with_its_outputs() {
    let plan = plan(JOB);
    let mut failed = run(&plan, &FAILED);
    failed.steps[0].outputs = [("version".to_owned(), "7".to_owned())].into();
    let (steps, earlier) = go_on(&failed, &plan, None).unwrap();
    let earlier = earlier.unwrap();
    assert_eq!(earlier.done, ["get", "stop", "clean"].map(step).into(), "`clean` is `once`, too, and took effect");
    assert!(earlier.folder && earlier.unknown.is_empty());
    let left: Vec<&str> = steps.iter().filter(|row| row.earlier.is_none()).map(|row| row.id.as_str()).collect();
    assert_eq!(left, ["start", "check"]);
    let told = "done in job 00000000-0000";
    assert_eq!(steps[0].detail.as_deref(), Some(told), "people know jobs, not runs");
    let (id, job) = (RunId::from_u128(2), JobId::from_u128(1 << 100));
    let next = RunRow { id, job, earlier: Some(earlier), steps, ..failed.clone() };
    assert_eq!(next.told_earlier().unwrap().outputs[&step("get")]["version"], "7");
    // It fails again: what is said of the first run stays, and its folder is looked for there, too.
    let (steps, earlier) = go_on(&next, &plan, None).unwrap();
    assert_eq!((steps[0].earlier, steps[0].detail.as_deref()), (Some(RunId::from_u128(1)), Some(told)));
    assert_eq!(earlier.unwrap().runs, [RunId::from_u128(2), RunId::from_u128(1)]);
    // From its first step it needs nothing of what was, and is as good as new.
    let idempotent = self::plan(
        &JOB.replace("id = \"stop\"", "id = \"stop\"\neffect = \"idempotent\"")
            .replace("when", "effect = \"idempotent\"\nwhen"),
    );
    let (steps, earlier) = go_on(&run(&idempotent, &FAILED), &idempotent, Some(&step("get"))).unwrap();
    assert_eq!(earlier, None);
    assert!(steps.iter().all(|row| row.state == StepState::Pending));
}

#[test]
fn a_once_step_that_took_effect_is_never_run_again_and_a_failed_one_never_left_out() {
    let plan = plan(JOB);
    let failed = run(&plan, &FAILED);
    for from in ["get", "stop"] {
        let refused = go_on(&failed, &plan, Some(&step(from))).unwrap_err();
        assert!(
            matches!(&refused, RetryError::OnceDone { step, .. } if step.as_str() == "stop"),
            "{from}: {refused:?}"
        );
    }
    let refused = go_on(&failed, &plan, Some(&step("check"))).unwrap_err();
    assert!(matches!(&refused, RetryError::Skips { step, .. } if step.as_str() == "start"), "{refused:?}");
    assert!(matches!(go_on(&failed, &plan, Some(&step("no"))), Err(RetryError::UnknownStep { .. })));
    let gone = self::plan(&JOB.replace("target", "keep = \"never\"\ntarget"));
    let refused = go_on(&run(&gone, &FAILED), &gone, None).unwrap_err();
    assert!(matches!(&refused, RetryError::NoFolder { first, .. } if first.as_str() == "get"), "{refused:?}");
}

#[test]
fn where_a_run_goes_on_from_is_where_it_went_wrong() {
    use StepState::{Cancelled, NotRun, Pending, Succeeded, TimedOut};
    let plan = plan(&JOB.replace("id = \"start\"", "id = \"start\"\nwhen = \"failure\""));
    for (states, at) in [
        ([Succeeded, TimedOut, NotRun, NotRun, Succeeded], "stop"),
        ([Succeeded, Cancelled, Succeeded, NotRun, NotRun], "stop"),
        // It was cancelled between two steps; `start` was for failures only.
        ([Succeeded, Succeeded, NotRun, NotRun, NotRun], "check"),
        ([NotRun; 5], "get"),
        ([Pending; 5], "get"),
    ] {
        let (steps, _) = go_on(&run(&plan, &states), &plan, None).unwrap();
        let first = steps.iter().find(|row| row.state == Pending).unwrap();
        assert_eq!(first.id.as_str(), at, "{states:?}");
    }
}

#[test]
fn a_step_of_which_nobody_knows_is_left_to_a_person_or_to_its_check() {
    let guarded = JOB.replace("id = \"start\"", "id = \"start\"\neffect = \"guarded\"\ncheck = \"true\"");
    let idempotent = JOB.replace("id = \"start\"", "id = \"start\"\neffect = \"idempotent\"");
    for (text, asked) in [(JOB, true), (guarded.as_str(), true), (idempotent.as_str(), false)] {
        let plan = plan(text);
        let mut failed = run(&plan, &FAILED);
        failed.steps[2].unknown = true;
        failed.steps[2].detail = Some("a person gave it up: who knows".to_owned());
        let (_, earlier) = go_on(&failed, &plan, None).unwrap();
        let unknown = earlier.unwrap().unknown;
        assert_eq!(unknown.get(&step("start")).is_some_and(|known| known.contains("who knows")), asked, "{text}");
    }
}

/// Nobody knows of a step, and the run that was to ask does not come to it: the next one asks.
#[test]
fn what_nobody_knows_is_not_forgotten_by_a_retry_that_was_never_begun() {
    let guarded = "id = \"check\"\neffect = \"guarded\"\ncheck = \"true\"";
    let plan = plan(
        &JOB.replace("id = \"check\"\nrun = \"true\"\neffect = \"read-only\"", &format!("{guarded}\nrun = \"true\"")),
    );
    let mut failed = run(
        &plan,
        &[StepState::Succeeded, StepState::Failed, StepState::NotRun, StepState::Succeeded, StepState::NotRun],
    );
    failed.steps[1].unknown = true;
    let (steps, earlier) = go_on(&failed, &plan, None).unwrap();
    let asked = |earlier: &Option<Earlier>| {
        earlier.iter().flat_map(|earlier| earlier.unknown.keys().cloned()).collect::<Vec<_>>()
    };
    assert_eq!(asked(&earlier), [step("check"), step("stop")], "the guarded one succeeded, and its check is asked");
    let mut cancelled = RunRow { id: RunId::from_u128(2), steps, earlier, ..failed.clone() };
    cancelled.end(RunState::Cancelled, None, 1);
    let (steps, earlier) = go_on(&cancelled, &plan, None).unwrap();
    assert_eq!(asked(&earlier), [step("check"), step("stop")]);
    // The first that was to be run comes first, whatever is known of those behind it.
    assert_eq!(steps.iter().find(|row| row.state == StepState::Pending).unwrap().id, step("stop"));
}

fn report(run: RunId, id: &str, event: StepEvent) -> StepChanged {
    let (outputs, usage, note) = (BTreeMap::new(), None, None);
    StepChanged {
        run,
        step: step(id),
        attempt: 1,
        event,
        at_ms: 5,
        usage,
        outputs,
        note,
        unknown: false,
        silent: false,
    }
}

/// A run that was given up while its first `once` step ran: its agent may do anything with it until it says what it did.
#[test]
fn a_run_that_was_given_up_is_not_started_again_before_its_agent_was_heard() {
    let plan = plan(JOB);
    let mut given_up = run(
        &plan,
        &[StepState::Succeeded, StepState::Running, StepState::Pending, StepState::Pending, StepState::Pending],
    );
    given_up.steps[1].unknown = true;
    given_up.end(RunState::Failed, Some("given up".to_owned()), 1);
    given_up.given_up = true;
    assert!(matches!(go_on(&given_up, &plan, None), Err(RetryError::NotHeardOf { .. })));
    // It had come further than anybody knew.
    let mut heard = given_up.clone();
    heard.step_changed(&report(heard.id, "stop", StepEvent::Ended(StepEnd::Exited(0)))).unwrap();
    heard.step_changed(&report(heard.id, "start", StepEvent::Started)).unwrap();
    heard.step_changed(&report(heard.id, "start", StepEvent::Ended(StepEnd::Cancelled))).unwrap();
    let end = messages::RunEnd::Cancelled("given up".to_owned());
    heard.finished(&RunFinished { run: heard.id, end, at_ms: 6 }.end, 7).unwrap();
    assert_eq!(heard.state, RunState::Failed, "what a person decided stands");
    let (_, earlier) = go_on(&heard, &plan, None).unwrap();
    let earlier = earlier.unwrap();
    assert!(earlier.done.contains(&step("stop")) && earlier.unknown.is_empty(), "{earlier:?}");
    // Nobody knew there either: then a person decides.
    let mut unknown = given_up.clone();
    let end = StepEnd::Failed("its run was ended while nobody knew its outcome".to_owned());
    let changed = StepChanged { unknown: true, ..report(unknown.id, "stop", StepEvent::Ended(end)) };
    unknown.step_changed(&changed).unwrap();
    unknown.finished(&messages::RunEnd::Cancelled("given up".to_owned()), 7).unwrap();
    let (_, earlier) = go_on(&unknown, &plan, None).unwrap();
    assert!(earlier.unwrap().unknown.contains_key(&step("stop")));
}

fn retry(id: u128) -> Retry {
    Retry { id: JobId::from_u128(id), job: JobId::from_u128(7), agents: BTreeSet::new(), from: None }
}

#[tokio::test]
async fn a_retry_whose_caller_hung_up_is_the_same_when_it_is_asked_for_again_and_no_run_is_done_again_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (core, service, _stop) = server(dir.path()).await;
    let file = JobFile::parse(JOB).unwrap();
    let submission = Submission {
        id: JobId::from_u128(7),
        definition: JOB.to_owned(),
        params: BTreeMap::new(),
        target: file.target().clone(),
        plan: plan(JOB),
    };
    let job = core.submit(submission.clone()).await.unwrap().job;
    assert!(matches!(core.retry(retry(8)).await, Err(RetryError::NotOver { agent: Some(_) })));
    {
        let mut books = core.books();
        let failed = run(&plan(JOB), &FAILED);
        let row = books.run(job.runs[0].id).unwrap().clone();
        books.replace(RunRow { state: failed.state, steps: failed.steps, ..row });
    }
    assert!(core.retry(retry(8)).now_or_never().is_none(), "looked at once, and dropped");
    let again = core.retry(retry(8)).await.unwrap();
    assert!(!again.created, "it was taken twice");
    assert_eq!((again.job.retry_of, again.job.runs.len()), (Some(job.id), 1));
    let other = core.retry(Retry { from: Some(step("start")), ..retry(8) }).await;
    assert!(matches!(other, Err(RetryError::IdTaken { .. })), "{other:?}");
    let submitted = core.submit(Submission { id: JobId::from_u128(8), ..submission }).await;
    assert!(submitted.is_err(), "a job of its own is not the retry with that id");
    match core.retry(retry(9)).await {
        Err(RetryError::Retried { by, .. }) => assert_eq!(by, JobId::from_u128(8)),
        other => panic!("the run was done again twice: {other:?}"),
    }
    let resolution = Resolution { agent: None, step: None, decision: Decision::Done, note: "x".into(), give_up: true };
    core.resolve(JobId::from_u128(8), resolution).await.unwrap();
    let chain: Vec<JobId> = core.view(job.id).await.unwrap().unwrap().chain.iter().map(|link| link.id).collect();
    assert_eq!(chain, [job.id, JobId::from_u128(8)]);
    // The journal says the same.
    let written = Books::load(&service.journal).unwrap();
    let retried = written.runs_of(job.id).next().unwrap();
    assert_eq!(retried.retried, Some(JobId::from_u128(8)));
    assert!(written.runs_of(JobId::from_u128(8)).eq(core.books().runs_of(JobId::from_u128(8))));
}

/// Rows of a server that knew nothing of retries.
#[test]
fn rows_from_before_retries_are_read_as_they_were_meant() {
    #[derive(serde::Serialize)]
    struct OldStep {
        id: StepId,
        effect: &'static str,
        state: StepState,
        attempt: u32,
        detail: Option<String>,
        started_ms: Option<u64>,
        ended_ms: Option<u64>,
    }
    #[derive(serde::Serialize)]
    struct OldRun {
        id: RunId,
        job: JobId,
        agent: &'static str,
        message: messages::MessageId,
        state: RunState,
        reason: Option<String>,
        steps: Vec<OldStep>,
        ended_ms: Option<u64>,
    }
    let (id, job, message) = (RunId::from_u128(1), JobId::from_u128(2), messages::MessageId::from_u128(3));
    let (detail, started_ms, ended_ms) = (None, None, None);
    let old =
        OldStep { id: step("get"), effect: "once", state: StepState::Failed, attempt: 1, detail, started_ms, ended_ms };
    let old =
        OldRun { id, job, agent: "a1", message, state: RunState::Failed, reason: None, steps: vec![old], ended_ms };
    let run = RunRow::decode(&messages::to_msgpack(&old).unwrap()).unwrap();
    assert_eq!((run.earlier.clone(), run.retried, run.given_up), (None, None, false));
    assert_eq!((run.steps[0].unknown, run.steps[0].earlier), (false, None));
    #[derive(serde::Serialize)]
    struct OldJob {
        id: JobId,
        name: &'static str,
        definition: &'static str,
        params: BTreeMap<String, String>,
        created_ms: u64,
    }
    let old = OldJob { id: job, name: "n", definition: JOB, params: BTreeMap::new(), created_ms: 1 };
    assert_eq!(JobRow::decode(&messages::to_msgpack(&old).unwrap()).unwrap().retry, None);
}
