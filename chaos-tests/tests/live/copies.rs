//! A machine that was restored from an old copy, and one that was copied: what heals by itself, and what a person decides. The
//! steps may run again, so nothing here is about what a lost journal may have done.

use std::path::Path;
use std::process::Command;

use chaos_tests::live::{Process, longshore, wait_for};
use libtest_mimic::Failed;
use rustix::process::Signal;

use crate::Test;
use crate::support::{LIMIT, World, ensure, lines, text};

pub(crate) const TESTS: &[Test] = &[
    ("an_agent_restored_from_an_old_copy_goes_on_and_both_journals_are_whole", restored),
    ("an_agent_whose_folder_is_gone_is_taken_up_again", reinstalled),
    ("a_server_restored_from_an_old_copy_goes_on_and_both_journals_are_whole", server_restored),
    ("two_copies_of_an_agent_are_stopped_until_a_person_decides", copied),
    ("the_older_of_two_copies_goes_on_when_a_person_decided_so", copy_goes_on),
];

/// Submits a job whose only step leaves a line in a file of that name, and waits for its good end.
fn runs(world: &World, name: &str) -> Result<(), Failed> {
    let mark = world.path(name);
    let step =
        format!("[[step]]\nid = \"one\"\neffect = \"idempotent\"\nrun = '''\necho x >> '{}'\n'''\n", mark.display());
    let job = world.submit(&step)?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "succeeded" && lines(&mark) >= 1, format!("{name}: {ended:#}"))
}

fn agent(world: &mut World) -> &mut Process {
    world.fleet.agents.get_mut("a1").unwrap()
}

fn stop(process: &mut Process) -> Result<(), Failed> {
    // At once: a SIGTERM would let an agent finish first.
    process.signal(Signal::HUP)?;
    let code = process.wait()?;
    ensure(code == Some(0), format!("{code:?} {}", process.output()))
}

fn copy(from: &Path, to: &Path) -> Result<(), Failed> {
    std::fs::create_dir_all(to.parent().unwrap_or(to))?;
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).output()?;
    ensure(copied.status.success(), text(&copied))
}

/// Both journals are whole, and nothing is stopped at either end.
fn is_whole(world: &World) -> Result<(), Failed> {
    world.fleet.wait_reconciled()?;
    for endpoint in ["server", "a1"] {
        let verified = world.cli(&["journal", "verify", "--endpoint", endpoint])?;
        ensure(verified.status.success(), text(&verified))?;
        let shown = world.cli(&["reconcile", "show", "--endpoint", endpoint])?;
        ensure(shown.status.success() && text(&shown).contains("a1→server"), text(&shown))?;
    }
    Ok(())
}

fn restored() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    let (folder, old) = (world.fleet.endpoint_dir("a1"), world.path("old"));
    runs(&world, "before")?;
    stop(agent(&mut world))?;
    copy(&folder, &old)?;
    agent(&mut world).start()?;
    for name in ["lost-1", "lost-2", "lost-3"] {
        runs(&world, name)?;
    }
    stop(agent(&mut world))?;
    std::fs::remove_dir_all(&folder)?;
    std::fs::rename(&old, &folder)?;
    agent(&mut world).start()?;
    runs(&world, "after")?;
    ensure(lines(&world.path("after")) == 1, "it was not there when the copy was made, so it ran once")?;
    is_whole(&world)?;
    let said = agent(&mut world).output();
    ensure(said.contains("This endpoint goes on under another journal name"), said)?;
    let said = world.fleet.server.output();
    ensure(said.contains("The peer's journal was lost or restored") && !said.contains("are stopped"), said)?;
    // It holds beyond a restart of either end.
    world.fleet.server.kill()?;
    world.fleet.server.start()?;
    stop(agent(&mut world))?;
    agent(&mut world).start()?;
    world.fleet.wait_online()?;
    runs(&world, "later")?;
    is_whole(&world)
}

fn reinstalled() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    for name in ["before-1", "before-2"] {
        runs(&world, name)?;
    }
    // What is not settled is sent again; here the outcome of each run is known at both ends before the journal is lost.
    wait_for("everything to be settled", LIMIT, || {
        let (_, views) = world.fleet.link("server").ok()?;
        let outgoing = &views.first()?.streams.outgoing;
        (outgoing.settled == outgoing.last).then_some(())
    })?;
    stop(agent(&mut world))?;
    std::fs::remove_dir_all(world.fleet.endpoint_dir("a1"))?;
    agent(&mut world).start()?;
    runs(&world, "after")?;
    let ran = ["before-1", "before-2", "after"].map(|name| lines(&world.path(name)));
    ensure(ran == [1, 1, 1], format!("each ran once: {ran:?}"))?;
    is_whole(&world)?;
    let said = world.fleet.server.output();
    ensure(said.contains("The peer's journal was lost or restored") && !said.contains("are stopped"), said)
}

fn server_restored() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    let (folder, old) = (world.fleet.endpoint_dir("server"), world.path("old"));
    runs(&world, "before")?;
    stop(&mut world.fleet.server)?;
    copy(&folder, &old)?;
    world.fleet.server.start()?;
    world.fleet.wait_online()?;
    for name in ["lost-1", "lost-2"] {
        runs(&world, name)?;
    }
    stop(&mut world.fleet.server)?;
    std::fs::remove_dir_all(&folder)?;
    std::fs::rename(&old, &folder)?;
    world.fleet.server.start()?;
    world.fleet.wait_online()?;
    runs(&world, "after")?;
    let ran = ["lost-1", "lost-2", "after"].map(|name| lines(&world.path(name)));
    ensure(ran == [1, 1, 1], format!("each ran once: {ran:?}"))?;
    is_whole(&world)?;
    let said = world.fleet.server.output();
    ensure(said.contains("This endpoint goes on under another journal name") && !said.contains("are stopped"), said)?;
    let said = agent(&mut world).output();
    ensure(said.contains("The peer's journal was lost or restored"), said)
}

/// Two processes of one journal, as when a machine is cloned. Returns the second one, once the streams are stopped.
fn twins(world: &mut World) -> Result<Process, Failed> {
    runs(world, "before")?;
    stop(agent(world))?;
    let other = world.path("other");
    copy(&world.fleet.endpoint_dir("a1"), &other.join("agents/a1"))?;
    let (home, url) = (other.display().to_string(), world.fleet.node.url());
    let mut twin = Process::new("twin", &longshore()?, &world.path("twin.log"))
        .arguments(&["agent", "run", "--no-monitor", "--dir", &home, "--name", "a1"])
        .variable("LONGSHORE_BROKER_URL", &url)
        .variable("LONGSHORE_LOG", "info,lapin=off");
    agent(world).start()?;
    runs(world, "between")?;
    // Both are the same opening of the same journal now; the broker gives what is sent to them to the first one.
    twin.start()?;
    let show = ["reconcile", "show", "a1", "--endpoint", "server"];
    let shown = wait_for("the streams to be stopped", LIMIT, || {
        world.cli(&show).ok().filter(|shown| shown.status.code() == Some(1))
    })?;
    ensure(text(&shown).contains("Nothing is lost") && text(&shown).contains("reconcile resolve a1"), text(&shown))?;
    let said = world.fleet.server.output();
    ensure(said.contains("are stopped until a person decides"), said)?;
    Ok(twin)
}

fn resolve(world: &World) -> Result<(), Failed> {
    let resolved = world.cli(&["reconcile", "resolve", "a1", "--yes"])?;
    ensure(resolved.status.success() && text(&resolved).contains("next:"), text(&resolved))
}

fn copied() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    let mut twin = twins(&mut world)?;
    stop(&mut twin)?;
    resolve(&world)?;
    runs(&world, "after")?;
    ensure(lines(&world.path("after")) == 1, "one of them ran it")?;
    is_whole(&world)
}

fn copy_goes_on() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    let mut twin = twins(&mut world)?;
    stop(agent(&mut world))?;
    resolve(&world)?;
    runs(&world, "after")?;
    ensure(lines(&world.path("after")) == 1, "one of them ran it")?;
    ensure(twin.output().contains("This endpoint goes on under another journal name"), twin.output())?;
    stop(&mut twin)?;
    let folder = world.path("other/agents/a1").display().to_string();
    for journal in [["--offline", &folder], ["--endpoint", "server"]] {
        let verified = world.cli(&[&["journal", "verify"][..], &journal].concat())?;
        ensure(verified.status.success(), text(&verified))?;
    }
    Ok(())
}
