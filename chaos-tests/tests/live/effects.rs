//! What becomes of a step when nobody knows whether it ran: its shim is killed with it, and the agent too. The declared effect
//! decides, and the marks on disk must agree.

use std::path::Path;

use chaos_tests::live::wait_for;
use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::Test;
use crate::support::{LIMIT, World, ensure, lines, steps};

pub(crate) const TESTS: &[Test] = &[
    ("a_step_outlives_its_agent_and_runs_once", outlives),
    ("an_interrupted_once_step_is_never_run_again_and_waits_for_a_decision", once),
    ("an_interrupted_idempotent_step_is_run_again", idempotent),
    ("an_interrupted_guarded_step_asks_its_check", guarded),
];

/// A step that marks that it began, waits for its gate, and marks that it ended.
pub(crate) fn step(world: &World, effect: &str) -> String {
    let (began, gate, done) = (world.path("began"), world.path("gate"), world.path("done"));
    format!(
        "[[step]]\nid = \"one\"\n{effect}\nrun = '''\necho $$ >> '{}'\nwhile [ ! -e '{}' ]; do sleep 0.05; done\necho x >> '{}'\n'''\n",
        began.display(),
        gate.display(),
        done.display()
    )
}

/// Waits until the step has begun that many times.
pub(crate) fn begun(world: &World, times: usize) -> Result<(), Failed> {
    let began = world.path("began");
    Ok(wait_for("the step to begin", LIMIT, || (lines(&began) >= times).then_some(()))?)
}

/// Kills the agent, then the shim above the step, then the step.
pub(crate) fn kill_everything(world: &mut World) -> Result<(), Failed> {
    world.fleet.agents.get_mut("a1").unwrap().kill()?;
    let text = std::fs::read_to_string(world.path("began"))?;
    let step: i32 = text.lines().last().unwrap_or_default().parse()?;
    let status = std::fs::read_to_string(Path::new("/proc").join(step.to_string()).join("status"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap_or_default();
    for pid in [parent.trim().parse::<i32>()?, step] {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL)?;
    }
    Ok(())
}

pub(crate) fn restart(world: &mut World) -> Result<(), Failed> {
    Ok(world.fleet.agents.get_mut("a1").unwrap().start()?)
}

fn only_step(job: &Value) -> String {
    steps(job).first().map(|(_, state)| state.clone()).unwrap_or_default()
}

fn outlives() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    let job = world.submit(&step(&world, ""))?;
    begun(&world, 1)?;
    world.fleet.agents.get_mut("a1").unwrap().kill()?;
    // The step ends while no agent runs.
    std::fs::write(world.path("gate"), "")?;
    let done = world.path("done");
    wait_for("the step to end without its agent", LIMIT, || (lines(&done) == 1).then_some(()))?;
    restart(&mut world)?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "succeeded", format!("{ended:#}"))?;
    ensure(lines(&world.path("began")) == 1, "it ran once")
}

fn once() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    let job = world.submit(&step(&world, ""))?;
    begun(&world, 1)?;
    kill_everything(&mut world)?;
    std::fs::write(world.path("gate"), "")?;
    restart(&mut world)?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "needs-decision" && only_step(&ended) == "needs-decision", format!("{ended:#}"))?;
    ensure(lines(&world.path("began")) == 1 && lines(&world.path("done")) == 0, "it was not run again")
}

fn idempotent() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    let job = world.submit(&step(&world, "effect = \"idempotent\""))?;
    begun(&world, 1)?;
    kill_everything(&mut world)?;
    std::fs::write(world.path("gate"), "")?;
    restart(&mut world)?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "succeeded", format!("{ended:#}"))?;
    ensure(ended["runs"][0]["steps"][0]["attempt"] == 2, format!("{ended:#}"))?;
    ensure(lines(&world.path("began")) == 2 && lines(&world.path("done")) == 1, "it ran again")
}

fn guarded() -> Result<(), Failed> {
    for (already_done, state, begins) in [(true, "already-done", 1), (false, "succeeded", 2)] {
        let mut world = World::start(&["a1"])?;
        let done = world.path("done");
        let check = format!("effect = \"guarded\"\ncheck = 'test -e {}'", done.display());
        let job = world.submit(&step(&world, &check))?;
        begun(&world, 1)?;
        kill_everything(&mut world)?;
        if already_done {
            std::fs::write(&done, "by hand\n")?;
        }
        std::fs::write(world.path("gate"), "")?;
        restart(&mut world)?;
        let ended = world.ended(&job)?;
        ensure(ended["state"] == "succeeded" && only_step(&ended) == state, format!("{ended:#}"))?;
        ensure(lines(&world.path("began")) == begins, format!("it began {} times", lines(&world.path("began"))))?;
    }
    Ok(())
}
