//! Decisions and cancels across outages, over a real broker: they are given while nobody can carry them out, and whatever dies before
//! somebody can, each is carried out once.

use std::path::Path;

use chaos_tests::live::wait_for;
use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::Test;
use crate::effects::restart;
use crate::orders::{alive, endless, settled};
use crate::support::{LIMIT, World, ensure, lines, steps, text};

pub(crate) const TESTS: &[Test] = &[
    ("orders_for_a_dead_agent_are_carried_out_although_the_server_was_restarted", agent_dead),
    ("orders_that_a_broker_lost_with_everything_else_are_carried_out", broker_wiped),
    ("orders_given_while_the_broker_is_down_and_comes_back_empty_are_carried_out", broker_empty),
];

/// What a person decides, and what must come of it: job, step, how often it began.
const DECISIONS: [(&str, &str, &str, usize); 3] =
    [("done", "succeeded", "succeeded", 1), ("retry", "succeeded", "succeeded", 2), ("fail", "failed", "failed", 1)];

/// A job for each decision, which waits for it, and one that runs and is to be cancelled.
struct Waiting {
    undecided: Vec<String>,
    running: String,
    pids: Vec<i32>,
}

/// Brings them about.
fn waiting(world: &mut World) -> Result<Waiting, Failed> {
    let mut undecided = Vec::new();
    for (word, ..) in DECISIONS {
        undecided.push(in_doubt(world, word)?);
    }
    let file = world.path("pids");
    let running = world.submit(&endless(&file))?;
    wait_for("both processes to begin", LIMIT, || (lines(&file) == 2).then_some(()))?;
    let pids: Vec<i32> = std::fs::read_to_string(&file)?.lines().filter_map(|line| line.parse().ok()).collect();
    ensure(pids.len() == 2, "both wrote down who they are")?;
    world.fleet.wait_reconciled()?;
    Ok(Waiting { undecided, running, pids })
}

/// A job whose only step began and was killed with everything above it. A second attempt would come through.
fn in_doubt(world: &mut World, name: &str) -> Result<String, Failed> {
    let (began, gate) = (world.path(&format!("{name}.began")), world.path(&format!("{name}.gate")));
    let run = format!("echo $$ >> '{}'\nwhile [ ! -e '{}' ]; do sleep 0.05; done", began.display(), gate.display());
    let job = world.submit(&format!("[[step]]\nid = \"one\"\nrun = '''\n{run}\n'''\n"))?;
    wait_for("the step to begin", LIMIT, || (lines(&began) == 1).then_some(()))?;
    world.fleet.agents.get_mut("a1").unwrap().kill()?;
    let step: i32 = std::fs::read_to_string(&began)?.trim().parse()?;
    let status = std::fs::read_to_string(Path::new("/proc").join(step.to_string()).join("status"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap_or_default();
    for pid in [parent.trim().parse::<i32>()?, step] {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL)?;
    }
    std::fs::write(gate, "")?;
    restart(world)?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "needs-decision", format!("{ended:#}"))?;
    Ok(job)
}

/// Gives all orders. None of them can be carried out yet.
fn order(world: &World, waiting: &Waiting) -> Result<(), Failed> {
    for (job, (word, ..)) in waiting.undecided.iter().zip(DECISIONS) {
        let said = world.cli(&["job", "resolve", job, "--as", word, "--note", "looked at it"])?;
        ensure(said.status.success(), text(&said))?;
    }
    let said = world.cli(&["job", "cancel", &waiting.running, "--reason", "wrong release"])?;
    ensure(said.status.success(), text(&said))?;
    ensure(waiting.pids.iter().all(|pid| alive(*pid)), "nothing was ended before the agent could know")
}

/// All orders are still known, and none was carried out.
fn still_open(world: &World, waiting: &Waiting) -> Result<(), Failed> {
    for (job, (word, ..)) in waiting.undecided.iter().zip(DECISIONS) {
        let view = world.fleet.api().get(&format!("/v1/jobs/{job}"))?;
        let reason = view["runs"][0]["reason"].as_str().unwrap_or_default();
        ensure(view["state"] == "needs-decision" && reason.contains("a person decided"), format!("{word}: {view:#}"))?;
        let twice = world.cli(&["job", "resolve", job, "--as", word, "--note", "again"])?;
        ensure(!twice.status.success() && text(&twice).contains("decided already"), text(&twice))?;
    }
    let view = world.fleet.api().get(&format!("/v1/jobs/{}", waiting.running))?;
    ensure(view["state"] == "running", format!("{view:#}"))
}

/// Each order was carried out, once.
fn carried_out(world: &World, waiting: &Waiting) -> Result<(), Failed> {
    for (job, (word, state, step, begins)) in waiting.undecided.iter().zip(DECISIONS) {
        let ended = settled(world, job)?;
        let found = steps(&ended).first().map(|(_, state)| state.clone()).unwrap_or_default();
        ensure(ended["state"] == state && found == step, format!("{word}: {ended:#}"))?;
        let began = lines(&world.path(&format!("{word}.began")));
        ensure(began == begins, format!("{word}: it began {began} times"))?;
    }
    let ended: Value = settled(world, &waiting.running)?;
    ensure(ended["state"] == "cancelled" && ended["runs"][0]["reason"] == "wrong release", format!("{ended:#}"))?;
    ensure(!waiting.pids.iter().any(|pid| alive(*pid)), "something of the cancelled step lives")?;
    ensure(lines(&world.path("pids")) == 2, "the cancelled step began once")
}

fn agent_dead() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    let waiting = waiting(&mut world)?;
    world.fleet.agents.get_mut("a1").unwrap().kill()?;
    order(&world, &waiting)?;
    world.fleet.server.kill()?;
    world.fleet.server.start()?;
    wait_for("the server to answer", LIMIT, || world.fleet.api().get("/v1/status").ok())?;
    still_open(&world, &waiting)?;
    restart(&mut world)?;
    carried_out(&world, &waiting)
}

fn broker_wiped() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    let waiting = waiting(&mut world)?;
    world.fleet.agents.get_mut("a1").unwrap().kill()?;
    order(&world, &waiting)?;
    wait_for("the orders to be in the broker", LIMIT, || {
        let (_, views) = world.fleet.link("server").ok()?;
        views.iter().all(|view| view.confirmed == view.streams.outgoing.last).then_some(())
    })?;
    world.fleet.node.wipe()?;
    world.fleet.node.start()?;
    restart(&mut world)?;
    carried_out(&world, &waiting)?;
    world.fleet.wait_reconciled()?;
    let resent = world.fleet.resent();
    ensure(resent.get("server") == Some(&4), format!("what was lost is sent again, and no more: {resent:?}"))
}

fn broker_empty() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    let waiting = waiting(&mut world)?;
    world.fleet.node.wipe()?;
    order(&world, &waiting)?;
    still_open(&world, &waiting)?;
    world.fleet.server.kill()?;
    world.fleet.server.start()?;
    world.fleet.node.start()?;
    carried_out(&world, &waiting)
}
