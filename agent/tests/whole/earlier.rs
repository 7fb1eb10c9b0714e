//! Runs that go on from earlier ones: in their folder, with what their steps handed on, and doing nothing again.

use std::fs;

use messages::{
    Body, Decision, Earlier, Effect, Keep, OutputType, Program, RunCancel, RunDecide, RunEnd, RunStart, StepEnd,
    StepEvent,
};

use crate::Test;
use crate::world::{How, World, drained, on, pipe};

pub(crate) const TESTS: [Test; 4] = [
    ("a_run_goes_on_in_the_folder_of_the_earlier_one_and_does_only_what_is_left", || on(goes_on())),
    ("a_run_without_the_folder_that_it_goes_on_in_begins_nothing_and_says_what_to_do", || on(homeless())),
    ("of_a_step_that_an_earlier_run_may_have_done_its_effect_decides", || on(unknown())),
    ("a_run_waits_until_the_one_that_it_goes_on_from_is_over", || on(waits())),
];

fn again(run: RunStart, earlier: Earlier) -> Body {
    Body::RunRetry(RunStart { earlier: Some(earlier), ..run })
}

/// After that run, with these steps done.
fn after(earlier: &RunStart, done: &[&str]) -> Earlier {
    let done = done.iter().map(|step| step.parse().unwrap()).collect();
    Earlier { runs: vec![earlier.run], done, folder: true, ..Earlier::default() }
}

fn lines(world: &World, name: &str) -> usize {
    fs::read_to_string(world.path(name)).map_or(0, |text| text.lines().count())
}

async fn goes_on() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let mut first = world.step("get", "echo x >> $PLACE/get; echo kept > file; echo id=7 > $LONGSHORE_OUTPUT");
    first.outputs = [("id".to_owned(), OutputType::Integer)].into();
    let second =
        world.step("use", r#"echo x >> $PLACE/use; [ -e $PLACE/mended ]; [ "$(cat file)$OUTPUT_GET_ID" = kept7 ]"#);
    let run = world.run(1, vec![first.clone(), second.clone()]);
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(world.run_end(run.run).await, RunEnd::Failed("use".parse().unwrap()));
    fs::write(world.path("mended"), "").unwrap();
    let handed_on = [("get".parse().unwrap(), [("id".to_owned(), "7".to_owned())].into())].into();
    let next = world.run(2, vec![first, second]);
    // One in between was never begun, and has no folder.
    let mut earlier = Earlier { outputs: handed_on, ..after(&run, &["get"]) };
    earlier.runs.insert(0, messages::RunId::from_u128(77));
    world.send(&again(next.clone(), earlier)).await;
    assert_eq!(world.run_end(next.run).await, RunEnd::Succeeded);
    assert_eq!((lines(&world, "get"), lines(&world, "use")), (1, 2));
    assert_eq!(world.step_ends(next.run), [("use".to_owned(), StepEnd::Exited(0))]);
    agent.stop().await;
}

async fn homeless() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let steps = || vec![world.step("one", "true"), world.step("two", "echo x >> $PLACE/two; exit 3")];
    let run = RunStart { keep: Keep::Never, ..world.run(1, steps()) };
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(world.run_end(run.run).await, RunEnd::Failed("two".parse().unwrap()));
    let next = world.run(2, steps());
    world.send(&again(next.clone(), after(&run, &["one"]))).await;
    assert_eq!(world.run_end(next.run).await, RunEnd::Failed("two".parse().unwrap()));
    let ends = world.step_ends(next.run);
    let said = |reason: &str| reason.contains("folder") && reason.contains("--from one");
    assert!(matches!(&ends[..], [(_, StepEnd::NotStarted(reason))] if said(reason)), "{ends:?}");
    assert_eq!(lines(&world, "two"), 1);
    agent.stop().await;
}

async fn unknown() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let step = |effect: Effect| {
        let mut step = world.step("one", "echo x >> $PLACE/ran");
        step.effect = effect;
        step
    };
    let known = |number| Earlier {
        runs: vec![messages::RunId::from_u128(99)],
        unknown: [("one".parse().unwrap(), format!("evidence {number}"))].into(),
        ..Earlier::default()
    };
    let once = world.run(1, vec![step(Effect::Once)]);
    world.send(&again(once.clone(), known(1))).await;
    let waits = world.event(once.run, |change| matches!(change.event, StepEvent::Undecided(_))).await;
    assert_eq!(waits.event, StepEvent::Undecided("in an earlier run: evidence 1".to_owned()));
    assert_eq!(lines(&world, "ran"), 0);
    let order = RunDecide {
        run: once.run,
        step: "one".parse().unwrap(),
        attempt: waits.attempt,
        decision: Decision::Retry,
        note: "looked".to_owned(),
    };
    world.send(&Body::RunDecide(order)).await;
    assert_eq!(world.run_end(once.run).await, RunEnd::Succeeded);
    assert_eq!(lines(&world, "ran"), 1);
    // A check that can tell is asked.
    for (number, check, ran) in [(2, "true", 1), (3, "false", 2)] {
        let run = world.run(number, vec![step(Effect::Guarded(Program::Shell(check.to_owned())))]);
        world.send(&again(run.clone(), known(number))).await;
        assert_eq!(world.run_end(run.run).await, RunEnd::Succeeded);
        assert_eq!(lines(&world, "ran"), ran, "{check}");
    }
    agent.stop().await;
}

async fn waits() {
    let world = World::new().await;
    pipe(&world.path("ready"));
    let agent = world.agent(How::default());
    let mut clean = world.step("clean", "echo cleaned > ../cleaned; mv ../cleaned .");
    clean.when = messages::When::Always;
    let steps = vec![world.step("one", "echo y > $PLACE/ready; sleep 600"), clean];
    let run = world.run(1, steps);
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(drained(world.path("ready")).await, "y\n");
    // Given up at the server, which ends it there and starts it again.
    let cancel = Body::RunCancel(RunCancel { run: run.run, reason: "given up".to_owned() });
    let next = world.run(2, vec![world.step("one", "true"), world.step("two", "[ -e cleaned ]")]);
    world.send_all(&[again(next.clone(), after(&run, &["one"])), cancel]).await;
    assert_eq!(world.run_end(next.run).await, RunEnd::Succeeded);
    let order = |end: &Body| match end {
        Body::RunFinished(end) => Some(end.run),
        _ => None,
    };
    let ends: Vec<_> = world.told().iter().filter_map(order).collect();
    assert_eq!(ends, [run.run, next.run], "it did not wait for the end of the earlier one");
    agent.stop().await;
}
