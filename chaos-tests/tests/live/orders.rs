//! What people order, carried out over a real broker: cancelling through an outage, deciding about a step that nobody knows about,
//! and draining an agent.

use std::path::Path;

use chaos_tests::live::wait_for;
use libtest_mimic::Failed;
use rustix::process::{Pid, test_kill_process};
use serde_json::Value;

use crate::Test;
use crate::effects::{begun, kill_everything, restart, step};
use crate::support::{LIMIT, World, ensure, lines, steps, text};

pub(crate) const TESTS: &[Test] = &[
    ("a_cancel_during_an_outage_ends_the_whole_tree_after_it", cancelled),
    ("a_person_decides_about_a_step_that_nobody_knows_about", decided),
    ("a_run_is_given_up_without_its_agent_and_its_later_word_is_kept", given_up),
    ("a_drained_agent_is_given_nothing_until_it_may_work_again", drained),
];

/// A step that writes down its own process and one that leaves its session, and waits for ever.
pub(crate) fn endless(pids: &Path) -> String {
    let pids = pids.display();
    format!(
        "[[step]]\nid = \"one\"\nrun = '''\nsetsid sh -c 'echo $$ >> \"$0\"; while :; do sleep 1; done' '{pids}' &\n\
         echo $$ >> '{pids}'\nwhile :; do sleep 1; done\n'''\n"
    )
}

pub(crate) fn alive(pid: i32) -> bool {
    let running = Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok());
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    running && !status.lines().any(|line| line.starts_with("State:") && line.contains('Z'))
}

fn cancelled() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    let pids = world.path("pids");
    let job = world.submit(&endless(&pids))?;
    wait_for("both processes to begin", LIMIT, || (lines(&pids) == 2).then_some(()))?;
    world.fleet.node.kill()?;
    let said = world.cli(&["job", "cancel", &job, "--reason", "wrong release"])?;
    ensure(said.status.success() && text(&said).contains("its agent was told to end it"), text(&said))?;
    let pids: Vec<i32> = std::fs::read_to_string(&pids)?.lines().filter_map(|line| line.parse().ok()).collect();
    ensure(pids.len() == 2 && pids.iter().all(|pid| alive(*pid)), "nothing was ended before the agent could know")?;
    world.fleet.node.start()?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "cancelled" && ended["runs"][0]["reason"] == "wrong release", format!("{ended:#}"))?;
    ensure(!pids.iter().any(|pid| alive(*pid)), "something of the step lives")?;
    let again = world.cli(&["job", "cancel", &job])?;
    ensure(!again.status.success() && text(&again).contains("the job is over"), text(&again))
}

/// A job whose only step needs a decision. Its gate is open.
fn undecided(world: &mut World) -> Result<String, Failed> {
    let job = world.submit(&step(world, ""))?;
    begun(world, 1)?;
    kill_everything(world)?;
    std::fs::write(world.path("gate"), "")?;
    restart(world)?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "needs-decision", format!("{ended:#}"))?;
    Ok(job)
}

pub(crate) fn settled(world: &World, job: &str) -> Result<Value, Failed> {
    let api = world.fleet.api();
    let ended = |state: &String| !matches!(state.as_str(), "waiting" | "running" | "needs-decision");
    wait_for("the decision to be carried out", LIMIT, || api.job_state(job).filter(ended))?;
    Ok(api.get(&format!("/v1/jobs/{job}"))?)
}

fn decided() -> Result<(), Failed> {
    for (word, state, step_state, begins) in
        [("done", "succeeded", "succeeded", 1), ("retry", "succeeded", "succeeded", 2), ("fail", "failed", "failed", 1)]
    {
        let mut world = World::start(&["a1"])?;
        let job = undecided(&mut world)?;
        let unexplained = world.cli(&["job", "resolve", &job, "--as", word, "--note", " "])?;
        ensure(!unexplained.status.success(), text(&unexplained))?;
        let said = world.cli(&["job", "resolve", &job, "--as", word, "--note", "looked at it"])?;
        ensure(said.status.success(), text(&said))?;
        let ended = settled(&world, &job)?;
        let found = steps(&ended).first().map(|(_, state)| state.clone()).unwrap_or_default();
        ensure(ended["state"] == state && found == step_state, format!("{word}: {ended:#}"))?;
        let began = lines(&world.path("began"));
        ensure(began == begins, format!("{word}: it began {began} times"))?;
    }
    Ok(())
}

fn given_up() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    let job = world.submit(&step(&world, ""))?;
    begun(&world, 1)?;
    world.fleet.agents.get_mut("a1").unwrap().kill()?;
    let resolve = ["job", "resolve", &job, "--as", "fail", "--note", "the machine is gone"];
    let early = world.cli(&resolve)?;
    ensure(!early.status.success() && text(&early).contains("waits for a decision"), text(&early))?;
    let said = world.cli(&[&resolve[..], &["--give-up"]].concat())?;
    ensure(said.status.success(), text(&said))?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "failed", format!("{ended:#}"))?;
    // The agent comes back after all, and is told to end what it does.
    restart(&mut world)?;
    let api = world.fleet.api();
    let late = wait_for("the agent's later word", LIMIT, || {
        let job = api.get(&format!("/v1/jobs/{job}")).ok()?;
        job["runs"][0]["reason"].as_str().filter(|reason| reason.contains("reported later")).map(str::to_owned)
    })?;
    ensure(late.contains("gave it up") && late.contains("cancelled"), late)
}

fn drained() -> Result<(), Failed> {
    let world = World::start(&["a1"])?;
    let said = world.cli(&["fleet", "drain", "a1", "--note", "disk swap"])?;
    ensure(said.status.success() && text(&said).contains("a1 is drained"), text(&said))?;
    let mark = world.path("mark");
    let job = world.submit(&format!("[[step]]\nid = \"one\"\nrun = 'echo x >> {}'\n", mark.display()))?;
    let shown = world.cli(&["job", "show", &job])?;
    ensure(text(&shown).contains("agent a1 is drained: disk swap"), text(&shown))?;
    ensure(world.fleet.api().job_state(&job).as_deref() == Some("waiting"), text(&shown))?;
    let said = world.cli(&["fleet", "undrain", "a1"])?;
    ensure(said.status.success(), text(&said))?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "succeeded" && lines(&mark) == 1, format!("{ended:#}"))
}
