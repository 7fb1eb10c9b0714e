//! A message can be walked: both journals show the same place of the same stream, in the same state, while both run.

use chaos_tests::live::wait_for;
use libtest_mimic::Failed;
use serde_json::Value;

use crate::Test;
use crate::support::{LIMIT, World, ensure, text};

pub(crate) const TESTS: &[Test] = &[
    ("a_message_can_be_walked_through_both_journals_while_both_run", walked),
    ("a_stopped_journal_gives_the_same_answers", stopped),
];

/// The state of each message, by place, as one end's journal has it.
fn states(world: &World, endpoint: &str, peer: &str, direction: &str) -> Option<Vec<(u64, String, String)>> {
    let arguments = ["journal", "list", "--endpoint", endpoint, "--peer", peer, "--direction", direction, "--json"];
    let output = world.cli(&arguments).ok()?;
    let value: Value = serde_json::from_slice(&output.stdout).ok()?;
    let entries = value["entries"].as_array()?.iter();
    let entry = |entry: &Value| {
        Some((entry["seq"].as_u64()?, entry["kind"].as_str()?.to_owned(), entry["state"].as_str()?.to_owned()))
    };
    entries.map(entry).collect()
}

fn walked() -> Result<(), Failed> {
    let world = World::start(&["a1"])?;
    let gate = world.path("gate");
    let run = format!("while [ ! -e '{}' ]; do sleep 0.05; done", gate.display());
    let job = world.submit(&format!("[[step]]\nid = \"one\"\nrun = '''\n{run}\n'''\n"))?;
    // While the step runs: received on both sides, settled on neither.
    wait_for("the run to be received", LIMIT, || {
        let sent = states(&world, "server", "a1", "out")?;
        let received = states(&world, "a1", "server", "in")?;
        let at_server = sent
            .first()
            .is_some_and(|(seq, kind, state)| (*seq, kind.as_str(), state.as_str()) == (1, "run.start", "received"));
        let at_agent = received
            .first()
            .is_some_and(|(seq, kind, state)| (*seq, kind.as_str(), state.as_str()) == (1, "run.start", "applied"));
        (at_server && at_agent).then_some(())
    })?;
    std::fs::write(&gate, "")?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "succeeded", format!("{ended:#}"))?;
    for (from, to) in [("server", "a1"), ("a1", "server")] {
        wait_for("every message to be settled on both sides", LIMIT, || {
            let (sent, received) = (states(&world, from, to, "out")?, states(&world, to, from, "in")?);
            let settled = sent.iter().all(|(_, _, state)| state == "settled");
            (!sent.is_empty() && settled && sent == received).then_some(())
        })?;
    }
    let shown = world.cli(&["journal", "show", "out:1", "--endpoint", "server", "--json"])?;
    let shown: Value = serde_json::from_slice(&shown.stdout)?;
    ensure(shown["kind"] == "run.start" && shown["state"] == "settled", format!("{shown:#}"))?;
    for endpoint in ["server", "a1"] {
        let verified = world.cli(&["journal", "verify", "--endpoint", endpoint])?;
        ensure(verified.status.success(), text(&verified))?;
    }
    Ok(())
}

fn stopped() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    let job = world.submit("[[step]]\nid = \"one\"\nrun = 'true'\n")?;
    world.ended(&job)?;
    world.fleet.wait_reconciled()?;
    wait_for("everything to be settled", LIMIT, || {
        let sent = states(&world, "a1", "server", "out")?;
        sent.iter().all(|(_, _, state)| state == "settled").then_some(())
    })?;
    let list = ["journal", "list", "--endpoint", "a1", "--json"];
    let running = world.cli(&list)?;
    world.fleet.agents.get_mut("a1").unwrap().kill()?;
    let stopped = world.cli(&list)?;
    ensure(running.stdout == stopped.stdout && !running.stdout.is_empty(), text(&stopped))?;
    let offline = world.fleet.endpoint_dir("a1");
    let verified = world.cli(&["journal", "verify", "--offline", &offline.display().to_string()])?;
    ensure(verified.status.success() && text(&verified).contains("(stopped)"), text(&verified))
}
