//! The life of an agent: what it tells of itself, draining, and doing one run only.

use messages::{AgentDrain, AgentFacts, Body, RefusalCode, RunEnd, RunId};

use crate::Test;
use crate::world::{How, World, drained, on, pipe};

pub(crate) const TESTS: [Test; 4] = [
    ("an_agent_says_what_it_is_when_that_changed_and_not_otherwise", || on(facts())),
    ("an_agent_that_drains_finishes_what_it_has_refuses_the_rest_and_ends", || on(drains())),
    ("an_agent_drained_by_its_server_stays_so_after_a_restart", || on(drained_by_server())),
    ("one_thousand_runs_for_an_agent_that_does_one_are_one_run_and_refusals", || on(once())),
];

fn facts_in(bodies: &[Body]) -> Vec<AgentFacts> {
    let facts = |body: &Body| match body {
        Body::AgentFacts(facts) => Some(facts.clone()),
        _ => None,
    };
    bodies.iter().filter_map(facts).collect()
}

async fn facts() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let first = world.until(|bodies| facts_in(bodies).pop()).await;
    assert_eq!((first.labels["os"].as_str(), first.slots, first.once), ("linux", 2, false));
    agent.labels.send_replace([("env".to_owned(), "prod".to_owned())].into());
    let second = world.until(|bodies| facts_in(bodies).into_iter().nth(1)).await;
    assert_eq!(second.labels["env"], "prod");
    agent.stop().await;
    // Now without that label, which is a change, and then as before, which is none.
    for _ in 0..2 {
        let agent = world.agent(How::default());
        let third = world.until(|bodies| facts_in(bodies).into_iter().nth(2)).await;
        assert_eq!(third, first);
        agent.stop().await;
    }
    let agent = world.agent(How { slots: 5, ..How::default() });
    let last = world.until(|bodies| facts_in(bodies).into_iter().nth(3)).await;
    assert_eq!(last.slots, 5, "nothing was told in between");
    agent.stop().await;
}

async fn drains() {
    let world = World::new().await;
    pipe(&world.path("ready"));
    pipe(&world.path("go"));
    let agent = world.agent(How::default());
    let run = world.run(1, vec![world.step("one", "echo yes > $PLACE/ready; read go < $PLACE/go; echo done")]);
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(drained(world.path("ready")).await, "yes\n");
    agent.drain.send_replace(true);
    let late = world.send(&Body::RunStart(world.run(2, vec![world.step("one", "true")]))).await;
    assert_eq!(world.refusal(late).await.0, RefusalCode::Draining);
    std::fs::write(world.path("go"), "go\n").unwrap();
    agent.ended().await.unwrap();
    assert_eq!(world.run_end(run.run).await, RunEnd::Succeeded);
}

async fn drained_by_server() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let drain = |draining| Body::AgentDrain(AgentDrain { draining, note: "maintenance".to_owned() });
    let run = |number| world.run(number, vec![world.step("one", "true")]);
    world.send(&drain(true)).await;
    let refused = world.send(&Body::RunStart(run(1))).await;
    assert_eq!(world.refusal(refused).await, (RefusalCode::Draining, "this agent is drained: maintenance".to_owned()));
    agent.stop().await;
    let agent = world.agent(How::default());
    let refused = world.send(&Body::RunStart(run(2))).await;
    assert_eq!(world.refusal(refused).await.0, RefusalCode::Draining);
    world.send_all(&[drain(false), Body::RunStart(run(3))]).await;
    assert_eq!(world.run_end(RunId::from_u128(3)).await, RunEnd::Succeeded);
    agent.stop().await;
}

async fn once() {
    let world = World::new().await;
    pipe(&world.path("go"));
    let how = How { once: true, ..How::default() };
    let start = |number| Body::RunStart(world.run(number, vec![world.step("one", "read go < $PLACE/go")]));
    let runs: Vec<Body> = (1..=1_000).map(start).collect();
    let (before, after) = runs.split_at(400);
    let agent = world.agent(how.clone());
    world.send_all(before).await;
    world.until(|bodies| bodies.iter().any(|body| matches!(body, Body::StepChanged(_))).then_some(())).await;
    agent.stop().await;
    world.send_all(after).await;
    let agent = world.agent(how);
    let refused = |bodies: &[Body]| {
        let only = |body: &&Body| matches!(body, Body::Refusal(refusal) if refusal.code == RefusalCode::OneRunOnly);
        bodies.iter().filter(only).count()
    };
    world.until(|bodies| (refused(bodies) == 999).then_some(())).await;
    std::fs::write(world.path("go"), "go\n").unwrap();
    // It ends by itself, and only after the server has the outcome.
    agent.ended().await.unwrap();
    let finished = world.told().iter().filter(|body| matches!(body, Body::RunFinished(_))).count();
    assert_eq!((finished, refused(&world.told())), (1, 999));
}
