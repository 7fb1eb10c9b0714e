//! Giving an agent nothing more, and something again, at a real server that reaches no broker: what it sends waits in its journal,
//! where it is counted.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::run::{Home, Ran};

/// After this a test fails that would otherwise wait for ever. Nothing here takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of its own, with the agents a1 and a2, which nobody has seen.
struct World {
    home: Home,
    server: Child,
}

impl World {
    fn start() -> Self {
        let home = Home::new();
        let mut command = home.command(&["server", "run", "--listen", "127.0.0.1:0", "--agents", "a1,a2"]);
        command.env("LONGSHORE_BROKER_URL", "amqp://u:p@127.0.0.1:1");
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let world = Self { home, server };
        let began = Instant::now();
        while world.run(&["fleet", "list"]).code != 0 {
            assert!(began.elapsed() < PATIENCE, "the server does not answer");
        }
        world
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.home.run(arguments)
    }

    fn fleet(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(&[&["fleet"], arguments].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        ran
    }

    /// How many drains and ends of drains it has sent.
    fn sent(&self) -> usize {
        let ran = self.run(&["journal", "list", "--kind", "agent.drain", "-o", "json"]);
        let json: Value = serde_json::from_str(&ran.out).unwrap();
        json["entries"].as_array().unwrap().len()
    }

    fn note(&self) -> Value {
        let json: Value = serde_json::from_str(&self.run(&["fleet", "show", "a1", "-o", "json"]).out).unwrap();
        json["paused"].clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_raw(i32::try_from(self.server.id()).unwrap()).unwrap(), Signal::TERM);
        let _ = self.server.wait();
    }
}

#[test]
fn a_drain_that_is_asked_for_again_keeps_its_note_and_sends_nothing() {
    let world = World::start();
    world.fleet(&["drain", "a1", "--note", "new disk"]);
    assert_eq!((world.note(), world.sent()), ("new disk".into(), 1));
    let ran = world.fleet(&["drain", "a1"]);
    assert_eq!((world.note(), world.sent()), ("new disk".into(), 1), "{ran:?}");
    assert!(ran.err.contains("a1 is drained\n`longshore fleet undrain a1` lets it work again\n"), "{ran:?}");
    world.fleet(&["drain", "a1", "--note", "", "--deadline", "2s"]);
    assert_eq!((world.note(), world.sent()), ("new disk".into(), 1));
    world.fleet(&["drain", "a1", "--note", "new board", "--deadline", "2"]);
    assert_eq!((world.note(), world.sent()), ("new board".into(), 2));
    world.home.write("job.toml", crate::run::JOB);
    let id = world.run(&["job", "run", "job.toml", "-o", "name"]).out;
    let shown = world.run(&["job", "show", id.trim()]);
    assert!(shown.out.contains("agent a1 is drained: new board\n"), "{shown:?}");
    world.fleet(&["pause", "a2", "--note", "audit"]);
    let ran = world.fleet(&["pause", "a2"]);
    assert!(ran.out.contains("never-seen, paused") && ran.out.contains("audit"), "{ran:?}");
}

#[test]
fn what_is_not_held_is_not_let_go_and_it_is_said() {
    let world = World::start();
    let ran = world.fleet(&["undrain", "a1"]);
    assert_eq!((ran.err.as_str(), world.sent()), ("a1 was not drained; nothing was changed\n", 0));
    let ran = world.fleet(&["resume", "a1"]);
    assert_eq!(ran.err, "a1 was not paused; nothing was changed\n");
    world.fleet(&["pause", "a1", "--note", "audit"]);
    let ran = world.fleet(&["undrain", "a1"]);
    let still = "a1 is still paused: audit\n`longshore fleet resume a1` lets it work again\n";
    assert_eq!((ran.err.as_str(), world.sent()), (still, 0));
    world.fleet(&["drain", "a1"]);
    let ran = world.fleet(&["resume", "a1"]);
    assert_eq!(ran.err, "a1 is still drained\n`longshore fleet undrain a1` lets it work again\n");
    let ran = world.fleet(&["undrain", "a1"]);
    assert_eq!((ran.err.as_str(), world.sent()), ("a1 is given work again as soon as it can be reached\n", 2));
}

#[test]
fn an_agent_that_does_not_exist_is_named() {
    let world = World::start();
    for order in ["pause", "resume", "drain", "undrain", "show"] {
        let ran = world.run(&["fleet", order, "a9"]);
        let words = "error: there is no agent `a9`\nstate: nothing was changed\nnext:  `longshore fleet list` shows the agents\n";
        assert_eq!((ran.code, ran.err.as_str()), (2, words), "{order}");
    }
    let ran = world.run(&["fleet", "drain", "a1", "--deadline", "soon"]);
    assert!(ran.code == 2 && ran.err.contains("expected a time such as 90s or 10m"), "{ran:?}");
}

#[test]
fn only_a_list_that_was_cut_says_how_to_see_more() {
    let world = World::start();
    for note in ["one", "two", "three"] {
        world.fleet(&["drain", "a1", "--note", note]);
    }
    let ran = world.run(&["journal", "list"]);
    assert!(ran.err.starts_with("3 messages from ") && !ran.err.contains("-n N"), "{ran:?}");
    let ran = world.run(&["journal", "list", "-n", "2"]);
    assert!(ran.err.ends_with("the latest 2 of each stream; -n N for more\n"), "{ran:?}");
    let ran = world.run(&["journal", "list", "-n", "2", "--kind", "run.start"]);
    assert!(ran.err.starts_with("0 messages from ") && ran.err.contains("the latest 2 of each stream"), "{ran:?}");
    let ran = world.run(&["journal", "list", "-n", "1", "-o", "csv"]);
    assert!(ran.out.starts_with("seq,direction,peer,kind,state,bytes,at_ms,id\r\n"), "{ran:?}");
    assert!(world.run(&["journal", "stats"]).out.contains(", opened 1 time since "));
}

#[test]
fn whoever_reads_a_running_journal_offline_is_told_to_ask_its_owner() {
    let world = World::start();
    let ran = world.run(&["journal", "stats", "--offline", "server"]);
    assert!(ran.code == 69 && ran.err.contains("--endpoint NAME") && !ran.err.contains("not answer"), "{ran:?}");
}
