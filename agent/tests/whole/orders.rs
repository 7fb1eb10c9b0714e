//! What the server orders of a run: cancel it, or go on as a person decided.

use messages::{Body, Decision, RunCancel, RunDecide, RunEnd, RunId, StepEnd, StepEvent, When};

use crate::Test;
use crate::world::{How, World, drained, on, pipe};

pub(crate) const TESTS: [Test; 10] = [
    ("a_cancel_ends_the_whole_tree_and_cleaning_up_still_runs", || on(running())),
    ("a_cancel_of_a_run_that_waits_for_a_slot_ends_it_at_once", || on(waits_for_slot())),
    ("a_cancel_of_a_run_that_waits_to_try_again_ends_it_at_once", || on(waits_to_retry())),
    ("a_cancel_of_a_run_that_waits_for_a_decision_ends_it_at_once", || on(waits_for_decision())),
    ("a_cancel_goes_on_after_a_restart_of_the_agent", || on(restarted())),
    ("a_cancel_of_a_run_that_is_over_means_nothing", || on(over())),
    ("a_persons_decision_is_carried_out_for_the_attempt_that_it_names", || on(decided())),
    ("what_is_left_of_a_step_ends_when_a_person_says_how_it_ended", || on(left())),
    ("a_decision_that_came_while_the_agent_was_away_is_carried_out_after_it", || on(decided_away())),
    ("the_log_of_an_attempt_that_waits_for_a_decision_is_shipped_after_a_restart", || on(waiting_log())),
];

/// A script that ends its own shim: nobody knows then what became of the step.
const VANISH: &str = "kill -9 $PPID; exit 0";

fn cancel(run: RunId) -> Body {
    Body::RunCancel(RunCancel { run, reason: "enough".to_owned() })
}

fn cancelled() -> RunEnd {
    RunEnd::Cancelled("enough".to_owned())
}

fn decide(run: RunId, step: &str, attempt: u32, decision: Decision) -> Body {
    let (step, note) = (step.parse().unwrap(), "looked".to_owned());
    Body::RunDecide(RunDecide { run, step, attempt, decision, note })
}

async fn running() {
    let world = World::new().await;
    pipe(&world.path("ready"));
    pipe(&world.path("alive"));
    let agent = world.agent(How::default());
    let script = "exec 3> $PLACE/alive; setsid sh -c 'sleep 600' & echo yes > $PLACE/ready; sleep 600";
    let mut clean = world.step("clean", "echo cleaned");
    clean.when = When::Always;
    let run = world.run(1, vec![world.step("long", script), world.step("next", "true"), clean]);
    let alive = tokio::spawn(drained(world.path("alive")));
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(drained(world.path("ready")).await, "yes\n");
    world.send(&cancel(run.run)).await;
    assert_eq!(world.run_end(run.run).await, cancelled());
    assert_eq!(alive.await.unwrap(), "", "no process of the step holds the pipe any more");
    let ends = [("long".to_owned(), StepEnd::Cancelled), ("clean".to_owned(), StepEnd::Exited(0))];
    assert_eq!(world.step_ends(run.run), ends);
    agent.stop().await;
}

async fn waits_for_slot() {
    let world = World::new().await;
    pipe(&world.path("go"));
    let agent = world.agent(How { slots: 1, ..How::default() });
    let first = world.run(1, vec![world.step("holds", "read go < $PLACE/go")]);
    let mut always = world.step("always", "true");
    always.when = When::Always;
    let second = world.run(2, vec![world.step("never", "true"), always]);
    world.send_all(&[Body::RunStart(first.clone()), Body::RunStart(second.clone()), cancel(second.run)]).await;
    assert_eq!(world.run_end(second.run).await, cancelled());
    assert!(world.changes(second.run).is_empty(), "nothing was begun, so there is nothing to clean up after");
    std::fs::write(world.path("go"), "go\n").unwrap();
    assert_eq!(world.run_end(first.run).await, RunEnd::Succeeded);
    agent.stop().await;
}

async fn waits_to_retry() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let mut step = world.step("fails", "exit 3");
    step.retry = Some(messages::Retry { limit: 5, on_exit: vec![], first_ms: 3_600_000, max_ms: 3_600_000 });
    let run = world.run(1, vec![step]);
    world.send(&Body::RunStart(run.clone())).await;
    let retrying = |event: &StepEvent| matches!(event, StepEvent::Retrying(StepEnd::Exited(3), 3_600_000));
    world.event(run.run, |change| retrying(&change.event)).await;
    world.send(&cancel(run.run)).await;
    assert_eq!(world.run_end(run.run).await, cancelled());
    assert_eq!(world.step_ends(run.run), [("fails".to_owned(), StepEnd::Cancelled)]);
    agent.stop().await;
}

async fn waits_for_decision() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let run = world.run(1, vec![world.step("vanishes", VANISH)]);
    world.send(&Body::RunStart(run.clone())).await;
    world.event(run.run, |change| matches!(change.event, StepEvent::Undecided(_))).await;
    world.send(&cancel(run.run)).await;
    assert_eq!(world.run_end(run.run).await, cancelled());
    let ends = world.step_ends(run.run);
    assert!(
        matches!(&ends[..], [(_, StepEnd::Failed(reason))] if reason.contains("nobody knew its outcome")),
        "{ends:?}"
    );
    let ended = world.event(run.run, |change| matches!(change.event, StepEvent::Ended(_))).await;
    assert!(ended.unknown, "the server is to know that nobody knows");
    agent.stop().await;
}

async fn restarted() {
    let world = World::new().await;
    pipe(&world.path("ready"));
    let agent = world.agent(How::default());
    // It does not listen to SIGTERM, so that the agent is surely stopped before the step is ended.
    let run = world.run(1, vec![world.step("long", "trap '' TERM; echo yes > $PLACE/ready; sleep 600")]);
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(drained(world.path("ready")).await, "yes\n");
    world.send(&cancel(run.run)).await;
    until_file(&world.agent_dir().join(format!("runs/{}/long.1.cancel", run.run))).await;
    agent.stop().await;
    assert!(world.step_ends(run.run).is_empty());
    let agent = world.agent(How::default());
    assert_eq!(world.run_end(run.run).await, cancelled());
    assert_eq!(world.step_ends(run.run), [("long".to_owned(), StepEnd::Cancelled)]);
    agent.stop().await;
}

/// Waits until somebody made that file.
async fn until_file(path: &std::path::Path) {
    let made = async {
        while !path.exists() {
            tokio::task::yield_now().await;
        }
    };
    crate::world::within(made).await;
}

async fn over() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let (run, other) = (world.run(1, vec![world.step("one", "true")]), world.run(2, vec![world.step("one", "true")]));
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(world.run_end(run.run).await, RunEnd::Succeeded);
    world.send_all(&[cancel(run.run), cancel(RunId::from_u128(99)), Body::RunStart(other.clone())]).await;
    assert_eq!(world.run_end(other.run).await, RunEnd::Succeeded);
    let finished = world.told().iter().filter(|body| matches!(body, Body::RunFinished(_) | Body::Refusal(_))).count();
    assert_eq!(finished, 2);
    agent.stop().await;
}

async fn decided() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    // The first attempt vanishes, the next one does not.
    let script = format!("if [ $LONGSHORE_ATTEMPT = 1 ]; then {VANISH}; fi; echo again");
    let mut runs = Vec::new();
    for (number, decision) in [(1, Decision::Done), (2, Decision::Retry), (3, Decision::Fail)] {
        let run = world.run(number, vec![world.step("vanishes", &script), world.step("after", "true")]);
        world.send(&Body::RunStart(run.clone())).await;
        let undecided = world.event(run.run, |change| matches!(change.event, StepEvent::Undecided(_))).await;
        assert_eq!(undecided.attempt, 1);
        // About an attempt that was never seen, and about another step: both mean nothing.
        world.send(&decide(run.run, "vanishes", 2, Decision::Fail)).await;
        world.send(&decide(run.run, "after", 1, Decision::Fail)).await;
        world.send(&decide(run.run, "vanishes", 1, decision)).await;
        // The first word stands.
        world.send(&decide(run.run, "vanishes", 1, Decision::Fail)).await;
        runs.push(run.run);
    }
    assert_eq!(world.run_end(runs[0]).await, RunEnd::Succeeded);
    assert_eq!(world.step_ends(runs[0])[0].1, StepEnd::DeclaredDone("looked".to_owned()));
    assert_eq!(world.run_end(runs[1]).await, RunEnd::Succeeded);
    assert_eq!(world.step_ends(runs[1])[0].1, StepEnd::Exited(0));
    assert_eq!(world.changes(runs[1]).iter().map(|change| change.attempt).collect::<Vec<_>>(), [1, 1, 2, 2, 1, 1]);
    assert_eq!(world.run_end(runs[2]).await, RunEnd::Failed("vanishes".parse().unwrap()));
    assert_eq!(world.step_ends(runs[2]), [("vanishes".to_owned(), StepEnd::DeclaredFailed("looked".to_owned()))]);
    agent.stop().await;
}

async fn left() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    for (number, decision) in [(1, Decision::Done), (2, Decision::Fail)] {
        let name = format!("alive-{number}");
        pipe(&world.path(&name));
        let alive = tokio::spawn(drained(world.path(&name)));
        let script = format!("exec 3> $PLACE/{name}; setsid sleep 600 & {VANISH}");
        let run = world.run(number, vec![world.step("vanishes", &script)]);
        world.send(&Body::RunStart(run.clone())).await;
        world.event(run.run, |change| matches!(change.event, StepEvent::Undecided(_))).await;
        assert!(!alive.is_finished(), "nothing ends it before somebody has decided");
        world.send(&decide(run.run, "vanishes", 1, decision)).await;
        world.run_end(run.run).await;
        assert_eq!(alive.await.unwrap(), "", "no process of the step holds the pipe any more");
    }
    agent.stop().await;
}

async fn decided_away() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let run = world.run(1, vec![world.step("vanishes", VANISH)]);
    world.send(&Body::RunStart(run.clone())).await;
    world.event(run.run, |change| matches!(change.event, StepEvent::Undecided(_))).await;
    agent.stop().await;
    world.send(&decide(run.run, "vanishes", 1, Decision::Done)).await;
    let agent = world.agent(How::default());
    assert_eq!(world.run_end(run.run).await, RunEnd::Succeeded);
    agent.stop().await;
}

async fn waiting_log() {
    let world = World::new().await;
    world.logs.lock().unwrap().deaf = true;
    let agent = world.agent(How::default());
    // Its shim is ended only once it has written down what it was given.
    let script = format!("echo here; until [ -s $PLACE/agent/runs/*/vanishes.1.stdout ]; do :; done; {VANISH}");
    let run = world.run(1, vec![world.step("vanishes", &script)]);
    world.send(&Body::RunStart(run.clone())).await;
    world.event(run.run, |change| matches!(change.event, StepEvent::Undecided(_))).await;
    agent.stop().await;
    world.logs.lock().unwrap().deaf = false;
    let agent = world.agent(How::default());
    world.send(&decide(run.run, "vanishes", 1, Decision::Done)).await;
    assert_eq!(world.run_end(run.run).await, RunEnd::Succeeded);
    // Once it has drained, the server has every log.
    agent.drain.send_replace(true);
    agent.ended().await.unwrap();
    let taken: Vec<_> = world.logs.lock().unwrap().taken.values().cloned().collect();
    assert!(taken.contains(&b"here\n".to_vec()), "{taken:?}");
}
