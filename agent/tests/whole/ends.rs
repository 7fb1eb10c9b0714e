//! How runs end: conditions of steps, tries after failures, the run's own time limit, and what becomes of its folder.

use agent::attempt::{Attempt, AttemptState, boot_id};
use messages::{Body, Keep, Retry, RunEnd, StepEnd, StepEvent, When};

use crate::Test;
use crate::world::{How, World, drained, on, pipe, within};

pub(crate) const TESTS: [Test; 8] = [
    ("after_a_failure_only_steps_for_that_case_run_and_the_end_names_the_first", || on(conditions())),
    ("a_known_failure_is_tried_again_as_often_as_declared", || on(tries())),
    ("a_wait_to_try_again_survives_a_restart", || on(wait_survives())),
    ("an_interruption_does_not_count_as_a_try", || on(resumed())),
    ("a_step_that_ended_without_its_agent_is_said_to_have_ended_then", || on(ended_away())),
    ("an_end_is_said_at_once_unless_the_beginning_of_something_else_goes_with_it", || on(company())),
    ("a_run_whose_time_is_over_ends_with_its_processes", || on(time_is_over())),
    ("the_working_folder_goes_only_when_the_run_says_so", || on(folders())),
];

fn exited(step: &str, code: i32) -> (String, StepEnd) {
    (step.to_owned(), StepEnd::Exited(code))
}

async fn conditions() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let step = |id: &str, script: &str, when| messages::StepSpec { when, ..world.step(id, script) };
    let steps = |first: &str| {
        vec![
            step("first", first, When::Success),
            step("second", "true", When::Success),
            step("undo", "exit 9", When::Failure),
            step("clean", "true", When::Always),
        ]
    };
    let (bad, good) = (world.run(1, steps("exit 4")), world.run(2, steps("true")));
    world.send_all(&[Body::RunStart(bad.clone()), Body::RunStart(good.clone())]).await;
    assert_eq!(world.run_end(bad.run).await, RunEnd::Failed("first".parse().unwrap()));
    assert_eq!(world.step_ends(bad.run), [exited("first", 4), exited("undo", 9), exited("clean", 0)]);
    assert_eq!(world.run_end(good.run).await, RunEnd::Succeeded);
    assert_eq!(world.step_ends(good.run), [exited("first", 0), exited("second", 0), exited("clean", 0)]);
    agent.stop().await;
}

fn retry(limit: u32, on_exit: &[i32]) -> Option<Retry> {
    Some(Retry { limit, on_exit: on_exit.to_vec(), first_ms: 1, max_ms: 4 })
}

async fn tries() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let run = |number, script: &str, retry| {
        let mut step = world.step("tries", script);
        step.retry = retry;
        world.run(number, vec![step])
    };
    let third = run(1, "[ $LONGSHORE_ATTEMPT = 3 ] || exit 75", retry(5, &[75]));
    let other = run(2, "exit 1", retry(5, &[75]));
    let never = run(3, "exit 75", retry(2, &[]));
    world.send_all(&[&third, &other, &never].map(|run| Body::RunStart(run.clone()))).await;
    assert_eq!(world.run_end(third.run).await, RunEnd::Succeeded);
    let events: Vec<_> = world.changes(third.run).into_iter().map(|change| (change.attempt, change.event)).collect();
    let again = |delay| StepEvent::Retrying(StepEnd::Exited(75), delay);
    let ended = StepEvent::Ended(StepEnd::Exited(0));
    let started = StepEvent::Started;
    let expected = [(1, started.clone()), (1, again(1)), (2, started.clone()), (2, again(2)), (3, started), (3, ended)];
    assert_eq!(events, expected);
    for attempt in 1..=3 {
        assert!(world.agent_dir().join(format!("runs/{}/tries.{attempt}.record", third.run)).exists());
    }
    assert!(matches!(world.run_end(other.run).await, RunEnd::Failed(_)));
    assert_eq!(world.changes(other.run).len(), 2);
    assert!(matches!(world.run_end(never.run).await, RunEnd::Failed(_)));
    assert_eq!(world.changes(never.run).last().map(|change| change.attempt), Some(3));
    agent.stop().await;
}

async fn wait_survives() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let mut step = world.step("tries", "[ -e $PLACE/fixed ]");
    step.retry = Some(Retry { limit: 1, on_exit: vec![], first_ms: 300, max_ms: 300 });
    let run = world.run(1, vec![step]);
    world.send(&Body::RunStart(run.clone())).await;
    // If the machine is slow it tried again before it was stopped. Then it has failed, which is no less right.
    world.event(run.run, |change| matches!(change.event, StepEvent::Retrying(..))).await;
    let ended = !world.step_ends(run.run).is_empty();
    agent.stop().await;
    std::fs::write(world.path("fixed"), "").unwrap();
    let agent = world.agent(How::default());
    let end = world.run_end(run.run).await;
    assert!(end == RunEnd::Succeeded || ended || world.changes(run.run).len() == 4, "{end:?}");
    assert_eq!(world.changes(run.run).last().map(|change| change.attempt), Some(2));
    agent.stop().await;
}

async fn resumed() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let script = "case $LONGSHORE_ATTEMPT in 1|2) kill -9 $PPID;; 3) exit 5;; esac";
    let mut step = world.step("flaky", script);
    (step.retry, step.effect) = (retry(1, &[]), messages::Effect::Idempotent);
    let run = world.run(1, vec![step]);
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(world.run_end(run.run).await, RunEnd::Succeeded);
    assert_eq!(world.changes(run.run).last().map(|change| change.attempt), Some(4));
    agent.stop().await;
}

async fn ended_away() {
    let world = World::new().await;
    ["ready", "go"].iter().for_each(|name| pipe(&world.path(name)));
    let agent = world.agent(How::default());
    let run = world.run(1, vec![world.step("long", "echo yes > $PLACE/ready; read go < $PLACE/go")]);
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(drained(world.path("ready")).await, "yes\n");
    agent.stop().await;
    let (go, stem) = (world.path("go"), world.agent_dir().join(format!("runs/{}/long.1", run.run)));
    let ended = move || {
        std::fs::write(go, "on\n").unwrap();
        Attempt::open(&stem).unwrap().wait_blocking(boot_id().unwrap()).unwrap()
    };
    let AttemptState::Ended(exit) = within(tokio::task::spawn_blocking(ended)).await.unwrap() else {
        panic!("it has ended");
    };
    let agent = world.agent(How::default());
    assert_eq!(world.run_end(run.run).await, RunEnd::Succeeded);
    let ended = world.event(run.run, |change| matches!(change.event, StepEvent::Ended(_))).await;
    assert_eq!(ended.at_ms, exit.ended_at_ms);
    agent.stop().await;
}

async fn time_is_over() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let mut undo = world.step("undo", "true");
    undo.when = When::Failure;
    let mut run = world.run(1, vec![world.step("quick", "true"), world.step("long", "sleep 600"), undo]);
    run.timeout_ms = Some(1_500);
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(world.run_end(run.run).await, RunEnd::TimedOut);
    let ends = world.step_ends(run.run);
    // On a machine that is slow enough, the time was over before the long step began.
    assert_eq!(ends.last(), Some(&exited("undo", 0)), "{ends:?}");
    assert!(ends.iter().all(|(step, end)| step != "long" || *end == StepEnd::Cancelled), "{ends:?}");
    agent.stop().await;
}

async fn folders() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let cases = [
        (1, Keep::OnFailure, "true", false),
        (2, Keep::OnFailure, "false", true),
        (3, Keep::Always, "true", true),
        (4, Keep::Never, "false", false),
    ];
    for (number, keep, script, _) in cases {
        let mut run = world.run(number, vec![world.step("one", &format!("touch here; {script}"))]);
        run.keep = keep;
        world.send(&Body::RunStart(run)).await;
    }
    for (number, ..) in cases {
        world.run_end(messages::RunId::from_u128(number)).await;
    }
    // An agent that has drained has shipped the logs and tidied up.
    agent.drain.send_replace(true);
    agent.ended().await.unwrap();
    for (number, keep, _, kept) in cases {
        let run = world.agent_dir().join(format!("runs/{}", messages::RunId::from_u128(number)));
        assert_eq!(run.join("work/here").exists(), kept, "{keep:?} {number}");
        assert!(run.join("one.1.record").exists(), "what happened is kept until the run is forgotten");
    }
}

async fn company() {
    let world = World::new().await;
    let agent = world.agent(How { slots: 1, ..How::default() });
    let [first, second] =
        [1, 2].map(|number| world.run(number, vec![world.step("a", "true"), world.step("b", "true")]));
    // The agent says who it is before all else.
    world.send_all(&[&first, &second].map(|run| Body::RunStart(run.clone()))).await;
    for run in [&first, &second] {
        assert_eq!(world.run_end(run.run).await, RunEnd::Succeeded);
    }
    // Of each run: two beginnings and two ends, the latter with the end of the run. Behind the last one nothing is to come.
    let mut expected = vec![false];
    expected.extend([true; 5]);
    expected.extend([true, true, true, false, false]);
    assert_eq!(world.might_wait(), expected);
    let told = world.told();
    let at = |wanted: &dyn Fn(&Body) -> bool| told.iter().position(wanted).unwrap();
    let over = at(&|body| matches!(body, Body::RunFinished(over) if over.run == first.run));
    let begun = at(&|body| matches!(body, Body::StepChanged(begun) if begun.run == second.run));
    assert!(over < begun, "a beginning overtook the end that its slot waited for");
    agent.stop().await;
}
