//! Outages: whatever dies, nothing is lost and nothing runs twice.

use chaos_tests::demo;
use chaos_tests::live::{Marks, wait_for};
use libtest_mimic::Failed;

use crate::Test;
use crate::support::{LIMIT, World, ensure};

pub(crate) const TESTS: &[Test] = &[
    ("the_demonstration_loses_nothing_and_runs_nothing_twice", demonstration),
    ("a_broker_killed_right_after_its_queues_were_declared_costs_only_time", killed_early),
    ("a_purged_queue_is_noticed_without_a_disconnect", purged),
    ("an_agent_that_is_away_gets_its_run_when_it_is_back", away),
    ("a_job_ended_when_its_last_step_did_and_not_when_the_server_heard_of_it", heard_late),
];

fn demonstration() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let (report, fleet) = demo::run(dir.path(), &mut |line| eprintln!("{line}"))?;
    drop(fleet);
    ensure(report.is_clean(), format!("{report:?}"))
}

/// RabbitMQ 3.10 may leave a quorum queue without a leader for good when it is killed this early.
fn killed_early() -> Result<(), Failed> {
    let mut world = World::start(&["a1", "a2"])?;
    let marks = Marks::new(&world.path("marks"))?;
    let names: Vec<String> = (1..=6).map(|number| format!("s{number}")).collect();
    let line = marks.line();
    let steps: String = names.iter().map(|id| format!("[[step]]\nid = \"{id}\"\nrun = '''\n{line}\n'''\n")).collect();
    let job = world.submit(&steps)?;
    world.fleet.node.kill()?;
    world.fleet.node.start()?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "succeeded", format!("{ended:#}"))?;
    let tally = marks.tally(&["a1".to_owned(), "a2".to_owned()], &names)?;
    ensure(tally.once == 12 && tally.twice.is_empty(), format!("{tally:?}"))
}

fn purged() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    // With the server down, what the agent reports waits in the queue; and then the queue is emptied behind everybody's back.
    let gate = world.path("gate");
    let began = world.path("began");
    let (shown, open) = (began.display(), gate.display());
    let first = format!("touch \"{shown}\"; while [ ! -e \"{open}\" ]; do sleep 0.05; done");
    let steps = format!("[[step]]\nid = \"one\"\nrun = '{first}'\n[[step]]\nid = \"two\"\nrun = 'true'\n");
    let job = world.submit(&steps)?;
    // A submitted job is durable, not yet at its agent.
    wait_for("the first step to begin", LIMIT, || began.exists().then_some(()))?;
    world.fleet.server.kill()?;
    std::fs::write(&gate, "")?;
    wait_for("the agent's reports to be in the broker", LIMIT, || {
        let (_, views) = world.fleet.link("a1").ok()?;
        let view = views.first()?;
        // What the agent is, two reports of each step, and the end of the run.
        (view.streams.open_work == 1 && view.confirmed.map(|seq| seq.value()) == Some(6)).then_some(())
    })?;
    world.fleet.node.ctl(&["purge_queue", "longshore.v1.server", "--vhost", "longshore"])?;
    world.fleet.server.start()?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "succeeded", format!("{ended:#}"))
}

fn away() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    world.fleet.agents.get_mut("a1").unwrap().kill()?;
    let job = world.submit("[[step]]\nid = \"one\"\nrun = 'true'\n")?;
    ensure(world.fleet.api().job_state(&job).as_deref() == Some("running"), "a job waits for its agent")?;
    world.fleet.agents.get_mut("a1").unwrap().start()?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "succeeded", format!("{ended:#}"))
}

fn heard_late() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    let (began, gate) = (world.path("began"), world.path("gate"));
    let run = format!("touch \"{}\"; while [ ! -e \"{}\" ]; do sleep 0.05; done", began.display(), gate.display());
    let job = world.submit(&format!("[[step]]\nid = \"one\"\nrun = '{run}'\n"))?;
    wait_for("the step to begin", LIMIT, || began.exists().then_some(()))?;
    world.fleet.server.kill()?;
    std::fs::write(&gate, "")?;
    wait_for("the run to be over at its agent", LIMIT, || {
        let (_, views) = world.fleet.link("a1").ok()?;
        let view = views.first()?;
        // What the agent is, two reports of the step, and the end of the run.
        (view.confirmed.map(|seq| seq.value()) == Some(4)).then_some(())
    })?;
    world.fleet.server.start()?;
    let ended = world.ended(&job)?;
    let step = &ended["runs"][0]["steps"][0];
    ensure(ended["ended_ms"].is_u64() && ended["ended_ms"] == step["ended_ms"], format!("{ended:#}"))
}
